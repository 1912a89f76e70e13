"""Training that starts from another model's weights."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import rin
from rin import RinError
from rin.core.errors import StoppedError
from rin.init_from import _as_many, start_from
from rin.training import trainer

DIGITS = rin.preset("digits")
CLASSES, POSITIONS = "condition.label.weight", "tokenizer.positions"


def short(init_from="", num_steps=2, **changes):
    """A run of few updates."""
    training = replace(DIGITS.training, num_steps=num_steps, checkpoint_every=1, held_out_every=0, sample_every=0)
    return replace(DIGITS, training=training, init_from=str(init_from), **changes)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run to start from."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    rin.train(short(), folder)
    return folder


def test_training_starts_from_the_averaged_weights_and_so_does_its_average(begun, tmp_path, monkeypatch):
    before = rin.load(begun, device="cpu").model.state_dict()
    seen = []

    def run(self):
        seen.extend((self.model.state_dict(), self.average.model.state_dict()))
        raise StoppedError("seen", 15)

    monkeypatch.setattr(trainer.Trainer, "run", run)
    with pytest.raises(StoppedError):
        rin.train(short(begun, seed=5), tmp_path / "run")
    weights, average = seen
    for name, value in before.items():
        assert torch.equal(weights[name].cpu(), value)
        assert torch.equal(average[name].cpu(), value)


def test_a_run_that_goes_on_needs_the_model_no_more_and_ends_as_the_uninterrupted_one(begun, tmp_path, monkeypatch):
    source = shutil.copytree(begun, tmp_path / "source")
    whole = rin.train(short(source, num_steps=3), tmp_path / "whole")
    update = trainer.Trainer.update

    def interrupted(self, batch):
        if self.step == 2:
            raise StoppedError("stopped by the test", 15)
        return update(self, batch)

    with monkeypatch.context() as cut:
        cut.setattr(trainer.Trainer, "update", interrupted)
        with pytest.raises(StoppedError):
            rin.train(short(source, num_steps=3), tmp_path / "cut")
    for weights in source.rglob("*.safetensors"):
        weights.write_bytes(b"damaged since")
    gone_on = rin.train(short(source, num_steps=3), tmp_path / "cut")
    for one, other in zip(whole.model.parameters(), gone_on.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": replace(DIGITS.model, latent_dim=128)}, "model.latent_dim was 64 and is 128"),
        ({"model": replace(DIGITS.model, num_heads=8)}, "model.num_heads was 4 and is 8"),
        ({"diffusion": replace(DIGITS.diffusion, prediction="x")}, "diffusion.prediction was v and is x"),
    ],
)
def test_another_network_is_refused_before_anything_is_written(begun, tmp_path, changes, said):
    with pytest.raises(RinError, match=said):
        rin.train(short(begun, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def taken_over(source, model, class_names=tuple("0123456789"), **changes):
    """A new network that has taken over what it can, what it was before, and the account of it."""
    torch.manual_seed(1)
    network = rin.RIN(model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = start_from(str(source), network, replace(DIGITS, model=model, **changes), class_names)
    return network.state_dict(), before, found


def test_nothing_is_new_in_the_same_network(begun):
    old = rin.load(begun, device="cpu").model.state_dict()
    weights, _, found = taken_over(begun, DIGITS.model)
    assert all(torch.equal(weights[name], value) for name, value in old.items())
    assert (found.taken, found.resized, found.new, found.unused) == (len(old), [], [], [])


def test_classes_keep_their_embeddings_by_their_names(begun):
    old = rin.load(begun, device="cpu").model.state_dict()[CLASSES]
    weights, before, found = taken_over(begun, replace(DIGITS.model, num_classes=3), ("7", "cat", "0"))
    assert torch.equal(weights[CLASSES][:, [0, 2]], old[:, [7, 0]])
    assert torch.equal(weights[CLASSES][:, 1], before[CLASSES][:, 1])
    assert found.resized == [CLASSES]
    strangers, before, found = taken_over(begun, replace(DIGITS.model, num_classes=2), ("cat", "dog"))
    assert torch.equal(strangers[CLASSES], before[CLASSES])
    assert found.new == found.unused == [CLASSES]


def test_classes_without_names_are_the_same_by_their_numbers(begun, tmp_path):
    model = rin.load(begun)
    rin.TrainedModel(model.model, model.diffusion, model.config).save(tmp_path / "nameless")
    assert taken_over(tmp_path / "nameless", DIGITS.model)[2].resized == []


def test_a_model_without_classes_gives_all_else(begun):
    weights, _, found = taken_over(begun, replace(DIGITS.model, num_classes=0), ())
    old = rin.load(begun, device="cpu").model.state_dict()
    assert found.unused == [CLASSES, "condition.label.bias"]
    assert found.resized == ["latents"], "the token of the class is a latent"
    assert torch.equal(weights["latents"][: len(old["latents"])], old["latents"])


def test_a_model_of_classes_becomes_one_of_captions(begun, tmp_path):
    more = replace(DIGITS.model, num_classes=0, caption_length=5, num_latents=DIGITS.model.num_latents + 4)
    weights, before, found = taken_over(begun, more, ())
    assert found.new == ["condition.token.weight", "condition.token.bias"]
    assert found.unused == [CLASSES, "condition.label.bias"]
    assert found.resized == []
    assert torch.equal(weights["condition.token.weight"], before["condition.token.weight"])
    captions = rin.RIN(more)
    rin.TrainedModel(captions, rin.Diffusion(DIGITS.diffusion), more).save(tmp_path / "captions")
    with pytest.raises(RinError, match=r"model\.caption_length was 5 and is 6"):
        taken_over(tmp_path / "captions", replace(more, caption_length=6), ())
    assert not taken_over(tmp_path / "captions", DIGITS.model)[2].resized


def test_more_latents_and_blocks_begin_with_those_there_were(begun):
    old = rin.load(begun, device="cpu").model.state_dict()
    larger = replace(DIGITS.model, num_latents=32, compute_depth=(2, 1, 1, 1))
    weights, _, found = taken_over(begun, larger)
    assert torch.equal(weights["latents"][:14], old["latents"])
    apart = weights["latents"][14:] - old["latents"][[*range(14), 0, 1]]
    assert 0.05 < apart.std() / old["latents"].std() < 0.2, "near copies of the first ones, which can part"
    assert found.resized == ["latents"]
    assert found.unused == []
    assert all(name.startswith(("blocks.3.", "blocks.0.compute.1.")) for name in found.new)
    smaller = replace(DIGITS.model, num_latents=8, compute_depth=(1,))
    weights, _, found = taken_over(begun, smaller)
    assert torch.equal(weights["latents"], old["latents"][:6])
    assert all(name.startswith(("blocks.1.", "blocks.2.")) for name in found.unused)


def test_a_network_of_twice_the_latents_says_nearly_what_it_said_before():
    torch.manual_seed(0)
    config = replace(DIGITS.model, num_latents=18, position_deviation=1.0)
    small, asked = rin.RIN(config).eval(), (torch.randn(4, 1, 8, 8), torch.full((4,), 0.5))
    larger = rin.RIN(replace(config, num_latents=34)).eval()
    others = {name: weight for name, weight in small.state_dict().items() if name != "latents"}

    def changed(latents):
        larger.load_state_dict({**others, "latents": latents})
        return (larger(*asked).prediction - small(*asked).prediction).square().mean()

    new = larger.state_dict()["latents"].clone()
    copied, drawn = changed(_as_many(small.latents, new)), changed(torch.cat([small.latents, new[16:]]))
    assert copied < drawn / 5


def test_positions_are_interpolated_over_another_grid(begun):
    old = rin.load(begun, device="cpu").model.state_dict()[POSITIONS]
    doubled, _, found = taken_over(begun, replace(DIGITS.model, shape=(1, 16, 16)))
    assert found.resized == [POSITIONS]
    expected = torch.nn.functional.interpolate(old.T.view(1, 32, 8, 8), (16, 16), mode="bicubic")
    torch.testing.assert_close(doubled[POSITIONS], expected.flatten(2)[0].T)
    halved, _, _ = taken_over(begun, replace(DIGITS.model, shape=(1, 4, 8)))
    assert halved[POSITIONS].shape == (32, 32)
    torch.testing.assert_close(halved[POSITIONS].mean(0), old.mean(0), rtol=0, atol=0.01)


def test_positions_of_a_grid_that_is_not_square_keep_their_places(tmp_path):
    flat = replace(DIGITS.model, shape=(1, 4, 8))
    network = rin.RIN(flat)
    with torch.no_grad():
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing="ij")
        network.tokenizer.positions[:, 0], network.tokenizer.positions[:, 1] = rows.flatten(), columns.flatten()
    names = tuple("0123456789")
    rin.TrainedModel(network, rin.Diffusion(DIGITS.diffusion), flat, names).save(tmp_path / "flat")
    weights, _, _ = taken_over(tmp_path / "flat", replace(DIGITS.model, shape=(1, 8, 16)))
    grid = weights[POSITIONS].view(8, 16, -1)
    inner = grid[2:-2, 3:-3]  # away from the edges, where the interpolation bends
    torch.testing.assert_close(inner[:, :, 0], inner[:, :1, 0].expand(-1, 10), rtol=0, atol=1e-5)
    assert (grid[1:, 8, 0] - grid[:-1, 8, 0]).min() > 0
    assert (grid[4, 1:, 1] - grid[4, :-1, 1]).min() > 0
    assert 2.5 < grid[:, :, 0].max() < 3.6
    assert 6.5 < grid[:, :, 1].max() < 7.6


def test_every_frame_of_a_clip_begins_as_the_picture_did(begun):
    old = rin.load(begun, device="cpu").model.state_dict()
    weights, _, found = taken_over(begun, replace(DIGITS.model, shape=(1, 3, 8, 8)))
    assert torch.equal(weights[POSITIONS], old[POSITIONS].repeat(3, 1))
    assert found.new == []
    assert torch.equal(weights["tokenizer.patch.weight"], old["tokenizer.patch.weight"])


def test_frames_to_predict_do_not_take_the_places_of_given_ones(tmp_path):
    """As many frames in all, and other ones of them given: their positions start anew."""
    clips = replace(DIGITS.model, shape=(1, 3, 8, 8), num_context_frames=1)
    rin.TrainedModel(rin.RIN(clips), rin.Diffusion(DIGITS.diffusion), clips, tuple("0123456789")).save(tmp_path / "a")
    weights, before, found = taken_over(tmp_path / "a", replace(clips, shape=(1, 2, 8, 8), num_context_frames=2))
    assert POSITIONS in found.new
    assert torch.equal(weights[POSITIONS], before[POSITIONS])


def test_other_patches_and_channels_start_anew_alone(begun):
    for changes in ({"patch_size": 2}, {"shape": (3, 8, 8)}):
        _, _, found = taken_over(begun, replace(DIGITS.model, **changes))
        assert set(found.new) <= {"tokenizer.patch.weight", "tokenizer.read_out.weight", "tokenizer.read_out.bias"}
        assert found.taken > 100


def test_the_run_tells_what_was_taken_over(begun, tmp_path, caplog):
    caplog.set_level("INFO", logger="rin")
    model = replace(DIGITS.model, num_latents=20)
    rin.train(short(begun, model=model, num_steps=1), tmp_path / "run")
    (line,) = [line for line in caplog.messages if "tensors taken over" in line]
    assert line.endswith("; resized: latents")
    told = json.loads((tmp_path / "run" / "init_from.json").read_text())
    assert told["resized"] == ["latents"]
    rin.train(short(begun, model=model, num_steps=1), tmp_path / "run")  # nothing to do: it stays as it was
    assert json.loads((tmp_path / "run" / "init_from.json").read_text()) == told


def test_a_network_of_ones_own_gets_its_weights_by_oneself(begun, tmp_path):
    with pytest.raises(RinError, match="weights yourself"):
        rin.train(short(begun), tmp_path / "run", model=nn.Linear(2, 2))


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RinError, match="no folder"):
        rin.train(short("nowhere"), tmp_path / "run")


def test_the_folder_is_stored_from_the_root_on_and_a_name_as_it_is(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(begun.parent)
    rin.train(short("run", num_steps=1), tmp_path / "a")
    rin.train(short("digits", num_steps=1), tmp_path / "b")
    stored = [rin.model_files.read_experiment(tmp_path / name).init_from for name in "ab"]
    assert stored == [str(begun.resolve()), "digits"]
