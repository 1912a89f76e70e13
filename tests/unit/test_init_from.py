"""Training that starts from another model's weights."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import rin
from rin import RinError
from rin.core.errors import StoppedError
from rin.training import trainer

DIGITS = rin.preset("digits")


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
        ({"model": replace(DIGITS.model, num_latents=8)}, "model.num_latents was 16 and is 8"),
        ({"diffusion": replace(DIGITS.diffusion, prediction="x")}, "diffusion.prediction was"),
        ({"data": replace(DIGITS.data, labels=False), "model": replace(DIGITS.model, num_classes=0)}, "num_classes"),
    ],
)
def test_another_network_is_refused_before_anything_is_written(begun, tmp_path, changes, said):
    with pytest.raises(RinError, match=said):
        rin.train(short(begun, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_other_classes_are_refused(begun, tmp_path):
    model = rin.load(begun)
    rin.TrainedModel(model.model, model.diffusion, model.config, tuple("9876543210")).save(tmp_path / "turned")
    with pytest.raises(RinError, match="its classes are 9, 8, 7"):
        rin.train(short(tmp_path / "turned"), tmp_path / "run")


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
