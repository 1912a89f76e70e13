"""Noise of training, of held-out losses and of sampling: apart from one another, but for runs from before."""

import dataclasses
import json
from functools import partial

import pytest
import torch

import rin
from rin.core.seeds import Chance, Purpose
from rin.data import Batch, OpenedData
from rin.data.feeding.media_sets import MediaInMemory
from rin.diffusion import Diffusion, DiffusionConfig
from rin.experiment import ExperimentConfig
from rin.training import checkpoint
from rin.training.config import TrainingConfig
from rin.training.logging import read_log
from rin.training.trainer import Trainer
from tests.unit.models import moved, new, small

NUM = 6
TRAINING = TrainingConfig(
    num_steps=2, batch_size=NUM, warmup_steps=0, learning_rate=1e-3, lr_schedule="constant", log_every=1,
    held_out_every=1, sample_every=0, checkpoint_every=2,
)  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """The noise of every example that is drawn, as bytes."""
    rows, normal = set(), Chance.normal

    def noted(self, purpose, shape):
        noise = normal(self, purpose, shape)
        rows.update(row.numpy().tobytes() for row in noise)
        return noise

    monkeypatch.setattr(Chance, "normal", noted)
    return rows


def noise_of(drawn, act):
    drawn.clear()
    act()
    return set(drawn)


@pytest.mark.parametrize(("version", "apart"), [(2, True), (1, False)])
def test_noise_of_training_of_held_out_losses_and_of_sampling(tmp_path, drawn, version, apart):
    media = torch.randint(0, 256, (NUM, 3, 8, 8), dtype=torch.uint8)
    pictures = MediaInMemory(media, torch.zeros(NUM, dtype=torch.int64), ("a",))
    data = OpenedData(training=pictures, held_out=pictures)
    training = dataclasses.replace(TRAINING, noise_version=version)
    diffusion = Diffusion(DiffusionConfig(num_steps=3))
    made = Trainer(training, small().kind, new(small()), diffusion, data, tmp_path, seed=0, flip=False)
    batch = Batch(media, torch.zeros(NUM, dtype=torch.int64), torch.arange(NUM))

    updates = noise_of(drawn, lambda: [made.update(batch) for _ in range(3)])
    measured = noise_of(drawn, lambda: made.record(0.0))
    sampled = noise_of(
        drawn, lambda: rin.TrainedModel(made.average.model, diffusion, small()).sample([0] * NUM, seed=0)
    )
    assert [len(updates), len(measured), len(sampled)] == [3 * NUM, 9 * NUM, 4 * NUM]
    for one, other in ((updates, measured), (updates, sampled), (measured, sampled)):
        assert one.isdisjoint(other) == apart


def draws_of(**given):
    """What a loss and a sample of a loop of one's own draw, both from the beginning of the same chance."""
    model, diffusion = moved(small()), Diffusion(DiffusionConfig(num_steps=2))
    labels, shape = torch.zeros(NUM, dtype=torch.int64), (NUM, 3, 8, 8)
    yield lambda: diffusion.loss(model, torch.zeros(shape), rin.Condition(labels=labels), **given)
    seeds = None if not given else [0] * NUM
    yield lambda: diffusion.sample(model, shape, rin.Condition(labels=labels), seeds=seeds)


@pytest.mark.parametrize("given", [{}, {"chance": Chance(0, 0, torch.arange(NUM))}], ids=["fresh", "given"])
def test_losses_in_a_loop_of_ones_own_have_noise_apart_from_that_of_samples(drawn, given):
    def seeded(act):
        torch.manual_seed(0)  # as before a loop, and again before sampling
        act()

    trained, sampled = (noise_of(drawn, partial(seeded, act)) for act in draws_of(**given))
    assert len(trained) == NUM
    assert sampled
    assert trained.isdisjoint(sampled)


def test_samples_have_the_noise_that_they_always_had():
    noise = Chance(3 << 32, 0, torch.tensor([0])).normal(Purpose.NOISE, (3, 8, 8))
    model, diffusion = moved(small()), Diffusion(DiffusionConfig(num_steps=1, sampler="ddim"))
    given = diffusion.sample(model, (1, 3, 8, 8), rin.Condition(labels=torch.tensor([2])), noise=[noise])
    assert torch.equal(rin.TrainedModel(model, diffusion, model.config).sample([2], seed=3), given)


DIGITS = ExperimentConfig(
    model=small(shape=(1, 8, 8), num_classes=10),
    data=dataclasses.replace(rin.preset("digits").data, num_held_out=4),
    training=dataclasses.replace(TRAINING, checkpoint_every=1),
)


def with_training(**changes):
    return dataclasses.replace(DIGITS, training=dataclasses.replace(DIGITS.training, **changes))


def test_a_run_from_before_goes_on_with_the_noise_that_it_began_with(tmp_path):
    whole, resumed, today = (tmp_path / name for name in ("whole", "resumed", "today"))
    rin.train(with_training(noise_version=1), whole)
    rin.train(with_training(noise_version=1, num_steps=1), resumed)
    config = json.loads((resumed / "config.json").read_text())
    del config["training"]["noise_version"]  # as it was written before there was another
    (resumed / "config.json").write_text(json.dumps(config))
    rin.train(DIGITS, resumed)
    rin.train(DIGITS, today)

    def ends_with(run):
        newest = checkpoint.newest_whole(run / checkpoint.FOLDER)
        return checkpoint.read(newest, checkpoint.MODEL), read_log(run / "log.jsonl")[-1]["held_out_loss_by_t"]

    (weights, losses), (again, losses_again), (others, _) = map(ends_with, (whole, resumed, today))
    assert losses == losses_again
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not all(torch.equal(weights[name], others[name]) for name in weights)
    assert json.loads((resumed / "config.json").read_text())["training"]["noise_version"] == 1
    assert json.loads((today / "config.json").read_text())["training"]["noise_version"] == 2
