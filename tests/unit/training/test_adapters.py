"""Low-rank adapters: what is trained, what stays, and what is merged where."""

import copy
import dataclasses
import shutil

import pytest
import torch
from torch import nn

import rin
from rin import RinError
from rin.core.errors import StoppedError
from rin.training import checkpoint
from rin.training.adapters import add_adapters, merged_at_the_end
from rin.training.groups import freeze
from rin.training.trainer import Trainer
from tests.unit.models import inputs, moved, small
from tests.unit.training.test_training import MODEL, TRAINING, batch_of, trainer

OPTIMISERS = ["lamb", "adamw", "muon"]
RANK, ANEW = 4, ("latents", "tokenizer.read_out.weight")
DIGITS = rin.preset("digits")


def made(folder, optimiser="adamw", anew=ANEW, model=MODEL, **changes):
    changes = {"adapter_rank": RANK, "weight_decay": 0.1, "average_decay": 0.5} | changes
    return trainer(folder, dataclasses.replace(TRAINING, optimiser=optimiser, **changes), model=model, anew=anew)


def copied(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def matrices(model, name):
    """W, A and B of a layer's weight, by the layer's name; None for A and B of one that has no adapter."""
    weights = dict(model.named_parameters())
    parts = [f"{name}.parametrizations.weight.{part}" for part in ("original", "0.a", "0.b")]
    return (
        [weights[part].detach() for part in parts] if parts[0] in weights else [weights[f"{name}.weight"], None, None]
    )


def merged_by_hand(model, rank=RANK):
    """Every weight of a network as it is without adapters: W + 16 / rank B A, in float64."""
    found = {}
    for name, weight in model.named_parameters():
        layer, _, part = name.partition(".parametrizations.weight.")
        if part == "original":
            w, a, b = (matrix.double() for matrix in matrices(model, layer))
            found[f"{layer}.weight"] = w + 16 / rank * b @ a
        elif not part:
            found[name] = weight.detach().double()
    return found


def adapted(rank=RANK, config=None):
    """A network off its initial weights, with adapters that change it, and the network before."""
    before = moved(config or small())
    model = copy.deepcopy(before)
    parts = add_adapters(model, rank, ())
    with torch.no_grad():
        for name in parts:
            model.get_parameter(name).normal_(std=0.1)
    return model, before


def test_nothing_is_changed_before_the_first_update():
    before = moved(small())
    model = copy.deepcopy(before)
    add_adapters(model, RANK, ())
    x, gamma, condition = inputs(small())
    with torch.no_grad():
        assert torch.equal(model(x, gamma, condition).prediction, before(x, gamma, condition).prediction)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_the_merged_network_is_the_one_with_adapters(rank):
    model, before = adapted(rank)
    x, gamma, condition = inputs(small())
    by_hand = merged_by_hand(model, rank)
    with torch.no_grad():
        predicted = model(x, gamma, condition).prediction
        unchanged = before(x, gamma, condition).prediction
        with merged_at_the_end(model):
            pass
        merged = model(x, gamma, condition).prediction
    assert (predicted - unchanged).abs().max() > 0.1
    torch.testing.assert_close(merged, predicted, rtol=1e-5, atol=1e-5)
    assert model.state_dict().keys() == before.state_dict().keys()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.double(), by_hand[name], rtol=1e-5, atol=1e-6)


def test_merged_weights_are_float32_under_bfloat16():
    layer = nn.Linear(8, 8)
    add_adapters(nn.Sequential(layer), RANK, ())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer.parametrizations.weight[0].b.normal_()
        under = layer.weight
    assert under.dtype == torch.float32
    assert torch.equal(under, layer.weight)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_adapters_and_what_is_new_are_trained_and_all_else_stays(tmp_path, optimiser):
    one = made(tmp_path / "a", optimiser)
    one.model.self_conditioning.norm.weight.data.fill_(1)  # zeros at first, which let no gradient through
    before = copied(one.model)
    for _ in range(2):
        one.update(batch_of(one))
    seen = {"moved": 0, "stayed": 0}
    for name, weight in one.model.named_parameters():
        is_trained = name in ANEW or name.endswith((".0.a", ".0.b"))
        assert weight.requires_grad == is_trained
        assert torch.equal(weight, before[name]) != is_trained, name
        assert (weight in one.optimiser.state) == is_trained
        seen["moved" if is_trained else "stayed"] += 1
    assert seen["moved"] == 2 + len(one.adapters) > 40
    assert not any(name.startswith("tokenizer.read_out.param") for name in before)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_averages_are_ordinary_networks_of_averaged_merged_weights(tmp_path, optimiser):
    one = made(tmp_path / "a", optimiser, learning_rate=0.1)
    expected = merged_by_hand(one.model)
    for _ in range(3):
        one.update(batch_of(one))
        merged = merged_by_hand(one.model)
        expected = {name: 0.5 * weight + 0.5 * merged[name] for name, weight in expected.items()}
    average = dict(one.average.model.named_parameters())
    assert average.keys() == expected.keys()
    for name, weight in average.items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-4, atol=1e-5)
    norms = torch.stack([weight.norm() for weight in merged.values()])
    assert one.record(0.1)["weight_norm"] == pytest.approx(norms.norm().item(), rel=1e-5)


@pytest.mark.parametrize("optimiser", ["lamb", "muon"])
def test_adapters_move_by_adam_whatever_the_optimiser(tmp_path, optimiser):
    one, adam = made(tmp_path / "a", optimiser), made(tmp_path / "b", "adamw")
    for each in (one, adam):
        for _ in range(2):  # A has no gradient as long as B is all zeros
            for weight in each.weights.parts.values():
                weight.grad = torch.full_like(weight, 0.3)
            for group in each.optimiser.param_groups:
                group["lr"] = 0.01 * group["lr_factor"]
            each.optimiser.step()
    for name in one.adapters:
        torch.testing.assert_close(one.model.get_parameter(name), adam.model.get_parameter(name), rtol=1e-4, atol=1e-6)


def test_rates_of_a_layer_are_those_of_its_adapter_and_frozen_layers_have_none(tmp_path):
    one = made(tmp_path / "a", freeze=("blocks.1", "tokenizer.read_out"), rates=("blocks.0.*.weight=0.25",))
    names = {id(weight): name for name, weight in one.model.named_parameters()}
    rates = {names[id(w)]: group["lr_factor"] for group in one.optimiser.param_groups for w in group["params"]}
    assert {rate for name, rate in rates.items() if name.startswith("blocks.0.")} == {0.25}
    assert {rate for name, rate in rates.items() if not name.startswith("blocks.")} == {1.0}
    assert not [name for name in rates if name.startswith(("blocks.1.", "tokenizer.read_out"))]
    assert matrices(one.model, "blocks.1.read.attention.query")[1] is None


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_run_that_was_cut_off_ends_as_the_uninterrupted_one(tmp_path, optimiser):
    options = {"warmup_steps": 1, "further_decays": (0.9,)}
    whole = made(tmp_path / "whole", optimiser, **options)
    whole.run()
    first, last = sorted((tmp_path / "whole" / checkpoint.FOLDER).iterdir())
    shutil.copytree(first, tmp_path / "cut" / checkpoint.FOLDER / first.name)
    torch.manual_seed(1)
    made(tmp_path / "cut", optimiser, **options).run()
    written = [path.name for path in sorted(last.glob("*.safetensors"))]
    assert len(written) == 4
    for name in written:
        assert (last / name).read_bytes() == (tmp_path / "cut" / checkpoint.FOLDER / last.name / name).read_bytes()
    kept = {name.rpartition("/")[0] for name in checkpoint.read(last, checkpoint.OPTIMISER)}
    assert kept == {*ANEW, *whole.adapters}
    plain = trainer(tmp_path / "plain").model.state_dict()
    for name in ("average", "average-0.9"):
        assert checkpoint.read(last, name).keys() == plain.keys()


def fine_tuned(source, num_steps=3, **changes):
    training = dataclasses.replace(
        DIGITS.training, num_steps=num_steps, checkpoint_every=1, held_out_every=0, sample_every=0, warmup_steps=0,
        batch_size=16, average_decay=0.5, adapter_rank=RANK,
    )  # fmt: skip
    return dataclasses.replace(DIGITS, training=training, init_from=str(source), **changes)


def test_a_run_with_adapters_is_cut_off_goes_on_opens_and_is_begun_from(tmp_path, monkeypatch, caplog):
    model = dataclasses.replace(DIGITS.model, num_latents=20)  # more than it had: resized, and trained whole
    source = tmp_path / "source"
    rin.load("digits", device="cpu").save(source)
    caplog.set_level("INFO", logger="rin")
    whole = rin.train(fine_tuned(source, model=model), tmp_path / "whole")
    (line,) = [line for line in caplog.messages if line.startswith("adapters of rank 4")]
    made_of = sum(weight.numel() for weight in whole.model.parameters())
    assert line.endswith(f"numbers are trained for a network of {made_of:,}; trained whole: latents")
    update = Trainer.update

    def interrupted(self, batch):
        if self.step == 2:
            raise StoppedError("stopped by the test", 15)
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", interrupted)
    with pytest.raises(StoppedError):
        rin.train(fine_tuned(source, model=model), tmp_path / "cut")
    monkeypatch.setattr(Trainer, "update", update)
    before = rin.load(source, device="cpu").model.state_dict()
    shutil.rmtree(source)
    rin.train(fine_tuned(source, model=model), tmp_path / "cut")
    opened, weights = rin.load(tmp_path / "cut", device="cpu").model.state_dict(), whole.model.state_dict()
    assert opened.keys() == before.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(opened[name], weight.cpu()), name
        if name != "latents":
            is_adapted = name.endswith(".weight") and "norm" not in name and "mixing" not in name
            assert torch.equal(opened[name], before[name]) != is_adapted, name
    whole.save(tmp_path / "saved")
    assert rin.load(tmp_path / "saved").sample(1, num_steps=1).shape == (1, *DIGITS.model.shape)
    rin.train(fine_tuned(tmp_path / "cut", num_steps=1, model=model), tmp_path / "further")
    assert "trained whole" not in caplog.messages[-2]
    (tmp_path / "cut" / "init_from.json").write_text("[]")
    with pytest.raises(RinError, match="does not tell what was taken over"):
        rin.train(fine_tuned(source, num_steps=4, model=model), tmp_path / "cut")


class Own(nn.Module):
    """A network of one's own: the prediction is a linear function of the rows."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Linear(8, 8)

    def forward(self, x, gamma, condition=None, latents_prev=None, latents_only=False):  # noqa: ARG002
        return rin.Denoised(None if latents_only else self.rows(x), torch.zeros(len(x), 1, 1, device=x.device))


def test_a_network_of_ones_own_is_left_with_merged_weights(tmp_path):
    own = Own()
    before = copy.deepcopy(own).state_dict()
    trained = rin.train(fine_tuned(""), tmp_path / "run", model=own)
    for state in (own.state_dict(), trained.model.state_dict()):
        assert state.keys() == before.keys()
        assert torch.equal(state["rows.bias"].cpu(), before["rows.bias"])
        assert not torch.equal(state["rows.weight"].cpu(), before["rows.weight"])
    assert type(own.rows) is nn.Linear


def refused(act):
    with pytest.raises(RinError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_adapters_of_no_trained_model_are_refused(tmp_path):
    said = refused(lambda: rin.train(fine_tuned(""), tmp_path / "run"))
    assert said == "training.adapter_rank 4 adapts a trained model: say which by --init-from, or take 0"
    assert not (tmp_path / "run").exists()
    assert "training.adapter_rank -1" in refused(lambda: rin.TrainingConfig(adapter_rank=-1))


def shared():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("network", "rank", "frozen", "said"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3)), 2, (), "no linear layer is there to adapt, the network has none"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), 2, ("0",), "all are frozen or start anew"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5)), 6, (), "no layer has a rank above 5: take so many"),
        (shared, 2, (), "0 shares its weight with another layer: freeze it, by --training.freeze 0"),
    ],
)
def test_what_cannot_be_adapted_is_refused(network, rank, frozen, said):
    model = network()
    freeze(model, frozen)
    assert said in refused(lambda: add_adapters(model, rank, ()))
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_a_small_layer_has_an_adapter_of_its_own_rank():
    model = nn.Sequential(nn.Linear(2, 6), nn.Linear(6, 6))
    parts = add_adapters(model, 4, ())
    assert [tuple(model.get_parameter(name).shape) for name in parts] == [(2, 2), (6, 2), (4, 6), (6, 4)]
    assert set(parts.values()) == {"0.weight", "1.weight"}
