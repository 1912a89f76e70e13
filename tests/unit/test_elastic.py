"""An elastic network: its latents are as many as is asked for, at each step of training and of sampling."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

import rin
from rin import RIN, Condition, Diffusion, RinError, preset
from rin.core.seeds import Purpose, choice
from rin.costs.operations import cost, update_operations
from rin.data import Batch, OpenedData
from rin.data.feeding.media_sets import MediaInMemory
from rin.diffusion import DiffusionConfig
from rin.diffusion.latent_counts import latents_at, parse_num_latents
from rin.diffusion.samplers import noise_levels
from rin.diffusion.schedules import parse_schedule
from rin.nn import RINConfig
from rin.training.sharding import local_places
from rin.training.trainer import Trainer

SMALL = RINConfig(
    shape=(2, 8, 8), patch_size=2, num_classes=3, num_latents=10, num_latents_min=4, latent_dim=16, interface_dim=12,
    compute_depth=(1, 1), num_heads=2, num_read_write_heads=2,
)  # fmt: skip
DIFFUSION = DiffusionConfig(label_drop_rate=0.1, num_steps=4, sampler="ddim")


def network(config=SMALL, seed=0):
    """One whose every weight counts, those that start at zero too."""
    torch.manual_seed(seed)
    model = RIN(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def smaller(model, num_latents):
    """A network of so many latents by itself, of the same weights: the first ones of the learned latents."""
    config = replace(model.config, num_latents=num_latents, num_latents_min=0)
    weights = model.state_dict()
    weights["latents"] = weights["latents"][: config.num_learned_latents]
    alone = RIN(config).eval()
    alone.load_state_dict(weights)
    return alone


def inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 2, 8, 8, generator=generator)
    return x, torch.linspace(0.1, 0.8, batch), Condition(labels=torch.arange(batch) % 3)


class Recording:
    """A denoiser that keeps what it was called with."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def __call__(self, x, gamma, condition=None, latents_prev=None, latents_only=False, num_latents=None):
        answer = self.model(x, gamma, condition, latents_prev, latents_only, num_latents)
        self.calls.append((gamma, condition, latents_prev, num_latents, answer))
        return answer


@pytest.mark.parametrize("num_latents", [4, 7, 10])
def test_with_fewer_latents_it_is_the_network_of_the_first_ones(num_latents):
    model, (x, gamma, condition) = network(), inputs()
    latents = torch.randn(2, num_latents, 16, generator=torch.Generator().manual_seed(2))
    for latents_prev in (None, latents):
        found = model(x, gamma, condition, latents_prev, num_latents=num_latents)
        wanted = smaller(model, num_latents)(x, gamma, condition, latents_prev)
        assert found.latents.shape == (2, num_latents, 16)
        assert torch.equal(found.prediction, wanted.prediction)
        assert torch.equal(found.latents, wanted.latents)


def test_carried_latents_lose_the_last_learned_ones_and_gain_zeros_and_keep_the_conditions():
    model, (x, gamma, condition) = network(), inputs()
    few, many = torch.randn(2, 5, 16), torch.randn(2, 9, 16)  # two each are of noise level and class
    grown = torch.cat([few[:, :3], torch.zeros(2, 4, 16), few[:, 3:]], dim=1)
    cut = torch.cat([many[:, :3], many[:, 7:]], dim=1)
    for given, num_latents, fitted in ((few, 9, grown), (many, 5, cut)):
        found = model(x, gamma, condition, given, num_latents=num_latents)
        assert torch.equal(found.prediction, model(x, gamma, condition, fitted, num_latents=num_latents).prediction)


def test_all_are_taken_where_none_are_asked_for():
    model, (x, gamma, condition) = network(), inputs()
    assert torch.equal(
        model(x, gamma, condition).prediction, model(x, gamma, condition, num_latents=10).prediction
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "num_latents", "named"),
    [
        (SMALL, 3, "num_latents 3: this network works with 4 to 10"),
        (SMALL, 11, "works with 4 to 10"),
        (replace(SMALL, num_latents_min=0), 9, "all its 10 alone; train with --model.num-latents-min"),
    ],
)
def test_a_number_that_it_has_not_learned_is_refused(config, num_latents, named):
    x, gamma, condition = inputs()
    with pytest.raises(RinError, match=named):
        RIN(config)(x, gamma, condition, num_latents=num_latents)


@pytest.mark.parametrize("count", [3, 11])
def test_previous_latents_that_it_cannot_have_had_are_refused(count):
    x, gamma, condition = inputs()
    with pytest.raises(RinError, match="previous latents"):
        network()(x, gamma, condition, torch.zeros(2, count, 16))


@pytest.mark.parametrize(("least", "named"), [(2, "take 3"), (11, "to 10"), (-1, "0 or more")])
def test_a_least_number_out_of_range_is_refused(least, named):
    with pytest.raises(RinError, match=named):
        replace(SMALL, num_latents_min=least)


def test_numbers_to_train_with_are_even_in_their_logarithm_and_no_more_than_eight():
    wide = replace(SMALL, num_latents=130, num_latents_min=10)
    learned = [count - 2 for count in wide.latent_counts]
    assert (learned[0], learned[-1]) == (8, 128)
    assert len(learned) == 8
    ratios = [math.log2(after / before) for before, after in itertools.pairwise(learned)]
    assert max(ratios) - min(ratios) < 0.15
    assert replace(SMALL, num_latents_min=10).latent_counts == (10,)
    assert replace(SMALL, num_latents_min=0).latent_counts == (10,)
    assert replace(SMALL, num_latents_min=3).latent_counts[0] == 3


def test_each_number_is_drawn_as_often_and_by_seed_and_step_alone():
    drawn = torch.tensor([choice(3, step, 4, Purpose.NUM_LATENTS) for step in range(400)])
    counts = drawn.bincount(minlength=4)
    assert counts.min() > 70
    assert len(counts) == 4
    assert drawn.tolist() == [choice(3, step, 4, Purpose.NUM_LATENTS) for step in range(400)]
    assert drawn.tolist() != [choice(4, step, 4, Purpose.NUM_LATENTS) for step in range(400)]


@pytest.mark.parametrize("every", [0, 2, 3])
def test_every_process_and_part_of_an_update_works_with_as_many(tmp_path, monkeypatch, every):
    seen = []

    def losses(self, model, x_0, condition=None, **draws):
        seen.append(draws["num_latents"])
        return honest(self, model, x_0, condition, **draws)

    honest = Diffusion.losses
    monkeypatch.setattr(Diffusion, "losses", losses)
    config = replace(preset("digits").training, batch_size=12, accumulation_steps=3, all_latents_every=every)
    sets = (
        MediaInMemory(torch.zeros(num, 2, 8, 8, dtype=torch.uint8), torch.zeros(num, dtype=torch.int64), ())
        for num in (12, 0)
    )
    data = OpenedData(training=next(sets), held_out=next(sets))
    one = Trainer(config, SMALL.kind, RIN(SMALL), Diffusion(DIFFUSION), data, tmp_path, seed=7, flip=False)
    batch = Batch(*data.training.get(torch.arange(12)), torch.arange(12))
    for _ in range(6):
        one.update(batch)
    assert seen[0::3] == seen[1::3] == seen[2::3]
    assert len(set(seen)) > 1
    assert set(seen) <= set(SMALL.latent_counts)
    one.loss.parts = local_places(12, 3)[1:]  # those of a further process
    wanted = [SMALL.latent_counts[choice(7, step, len(SMALL.latent_counts), Purpose.NUM_LATENTS)] for step in range(6)]
    if every:
        wanted[::every] = [SMALL.num_latents] * len(wanted[::every])
    assert seen[0::3] == wanted
    assert one.loss.num_latents(0) == wanted[0]


def test_all_latents_in_every_update_would_make_no_elastic_network():
    with pytest.raises(RinError, match="all_latents_every 1: no update would learn to work with fewer"):
        replace(preset("digits").training, all_latents_every=1)


def test_a_run_from_before_goes_on_to_draw_every_number(tmp_path, caplog):
    training = replace(preset("digits").training, num_steps=2, batch_size=4, warmup_steps=1, checkpoint_every=1)
    before = replace(preset("digits"), training=training)
    before = replace(before, model=replace(before.model, num_latents_min=8))
    rin.train(replace(before, training=replace(training, num_steps=1, all_latents_every=0)), tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["training"].pop("all_latents_every") == 0  # as it was written before there was a choice
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
    assert rin.load(tmp_path / "run").config == before.model
    caplog.set_level("INFO", logger="rin")
    rin.train(before, tmp_path / "run")
    assert (
        "goes on as it began, where the defaults have changed: training.all_latents_every was 0 and is 2" in caplog.text
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["all_latents_every"] == 0
    with pytest.raises(RinError, match="all_latents_every was 0 and is 3"):
        rin.train(replace(before, training=replace(training, all_latents_every=3)), tmp_path / "run")


def test_both_passes_of_a_loss_work_with_as_many():
    model, (x, _, condition) = Recording(network()), inputs()
    Diffusion(DIFFUSION).loss(model, x.clamp(-1, 1), condition, num_latents=6)
    assert [call[3] for call in model.calls] == [6, 6]
    assert model.calls[1][2].shape == (2, 6, 16)


def test_a_step_of_sampling_has_the_latents_of_its_time_and_carries_them():
    model, (_, _, condition) = Recording(network()), inputs()
    schedule = [(0.5, 4), (1.0, 9)]
    Diffusion(DIFFUSION).sample(model, (2, 2, 8, 8), condition, num_latents=schedule, seeds=[0, 1])
    assert [call[3] for call in model.calls] == [9, 9, 4, 4]  # t = 1, 0.75, 0.5, 0.25
    for before, after in itertools.pairwise(model.calls):
        assert after[2] is before[4].latents
    model.calls.clear()
    Diffusion(DIFFUSION).sample(
        model, (2, 2, 8, 8), condition, num_latents=lambda t: 4 if t > 0.6 else 10, seeds=[0, 1]
    )
    assert [call[3] for call in model.calls] == [4, 4, 10, 10]


def test_fewer_latents_guide_under_the_same_condition_with_latents_of_their_own():
    model, (_, _, condition) = Recording(network()), inputs()
    config = replace(DIFFUSION, num_steps=2, label_drop_rate=0.0)  # guidance that needs no dropped labels
    found = Diffusion(config).sample(
        model, (2, 2, 8, 8), condition, guidance=1.5, num_guide_latents=4, seeds=[0, 1], num_latents=9
    )
    full, weak = model.calls[0::2], model.calls[1::2]
    assert [call[3] for call in full] == [9, 9]
    assert [call[3] for call in weak] == [4, 4]
    assert all(torch.equal(call[1].labels, condition.labels) for call in model.calls)
    assert full[1][2] is full[0][4].latents
    assert weak[1][2] is weak[0][4].latents

    gamma = noise_levels(parse_schedule("cosine"), 2, 0.0)[1, 0]  # the last step's
    eps = full[1][4].prediction + 1.5 * (full[1][4].prediction - weak[1][4].prediction)
    x_t = _last_input(config, condition)
    assert torch.allclose(found, ((x_t - (1 - gamma).sqrt() * eps) / gamma.sqrt()).clamp(-1, 1), atol=1e-5)


def _last_input(config, condition):
    options = {"guidance": 1.5, "num_guide_latents": 4, "seeds": [0, 1], "num_latents": 9}
    return next(iter(Diffusion(config).steps(network(), (2, 2, 8, 8), condition, **options))).x_t


@pytest.mark.parametrize(
    "choice",
    [
        0,
        -3,
        1.5,
        "16",
        [],
        [(0.5, 4)],
        [(1.0, 4), (0.5, 8)],
        [(0.5, 4), (0.5, 6), (1.0, 8)],
        [(0.5, 4.0), (1.0, 8)],
        [(float("nan"), 4), (1.0, 8)],
        [("half", 4), (1.0, 8)],
    ],
)
def test_what_says_no_number_for_every_time_is_refused(choice):
    with pytest.raises(RinError, match="num_latents"):
        Diffusion(DIFFUSION).steps(network(), (2, 2, 8, 8), num_latents=choice)


def test_a_function_that_gives_no_number_is_refused():
    with pytest.raises(RinError, match="of t = 1 is None"):
        Diffusion(DIFFUSION).steps(network(), (2, 2, 8, 8), num_latents=lambda _: None)


def test_fewer_latents_without_guidance_and_for_a_network_without_a_choice_are_refused():
    with pytest.raises(RinError, match="num_guide_latents does nothing without guidance"):
        Diffusion(DIFFUSION).steps(network(), (2, 2, 8, 8), num_guide_latents=4)
    with pytest.raises(RinError, match="no choice of latents"):
        Diffusion(DIFFUSION).steps(torch.nn.Identity(), (2, 2, 8, 8), num_latents=4)


@pytest.mark.parametrize(("t", "count"), [(1.0, 128), (0.51, 128), (0.5, 16), (0.0, 16)])
def test_numbers_by_time_as_they_are_written(t, count):
    assert latents_at(parse_num_latents("0.5:16,1:128"), t) == count
    assert parse_num_latents("32") == 32
    with pytest.raises(RinError, match="write a number, as in 32"):
        parse_num_latents("0.5:16:3")


def test_operations_are_those_of_the_network_of_so_many():
    found = [cost(SMALL, count).operations for count in (4, 10)]
    assert found == [cost(replace(SMALL, num_latents=count, num_latents_min=0)).operations for count in (4, 10)]
    of_each = [
        update_operations(replace(SMALL, num_latents=count, num_latents_min=0), DIFFUSION, 8)
        for count in SMALL.latent_counts
    ]
    assert update_operations(SMALL, DIFFUSION, 8) == sum(of_each) // len(of_each)
    assert update_operations(SMALL, DIFFUSION, 8, all_latents_every=1) == of_each[-1]
    every_third = (of_each[-1] + 2 * (sum(of_each) // len(of_each))) // 3
    assert update_operations(SMALL, DIFFUSION, 8, all_latents_every=3) == every_third
