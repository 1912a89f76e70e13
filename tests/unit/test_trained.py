"""Saved models: read as they were written, and refused in one line where they are damaged."""

import json
import os

import pytest
import torch
from huggingface_hub import constants

from rin import Diffusion, DiffusionConfig, TrainedModel, load
from rin.core.errors import RinError
from tests.unit.models import moved, small


@pytest.fixture
def saved(tmp_path):
    """A saved model's folder."""
    names = ("ant", "bee", "cat", "dog", "elk")
    TrainedModel(moved(small()), Diffusion(DiffusionConfig(num_steps=3)), small(), names).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_read_as_it_was_written(saved):
    read = load(saved)
    assert read.class_names == ("ant", "bee", "cat", "dog", "elk")
    assert read.diffusion.config == DiffusionConfig(num_steps=3)
    assert read.model.config == small()
    for one, other in zip(read.model.parameters(), moved(small()).parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_saved_in_float16_take_half_the_room_and_come_back_as_float32(saved, tmp_path):
    load(saved).save(tmp_path / "half", dtype=torch.float16)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (saved, tmp_path / "half")]
    assert sizes[1] < 0.7 * sizes[0]  # what is no weight in the file stays as long
    for one, other in zip(load(tmp_path / "half").model.parameters(), load(saved).model.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other.half().float())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-20], "is no configuration of rin"),
        (lambda _: "[]", "is no configuration of rin"),
        (lambda text: json.dumps(json.loads(text) | {"format_version": 99}), "format 99, this rin knows up to 1"),
        (lambda text: json.dumps(json.loads(text) | {"format_version": "new"}), "is no configuration of rin"),
        (lambda text: json.dumps(json.loads(text) | {"model": 3}), "model is no dict"),
        (lambda text: json.dumps(json.loads(text) | {"class_names": 3}), "class_names is no list"),
        (lambda text: text.replace('"class_names"', '"names"'), "'class_names'"),
        (lambda text: text.replace('"latent_dim": 32', '"latent_dim": "wide"'), "latent_dim = 'wide'"),
        (lambda text: text.replace('"latent_dim": 32', '"latent_dim": 64'), "damaged or of another configuration"),
    ],
)
def test_a_damaged_configuration_is_one_line(saved, damage, said):
    path = saved / "config.json"
    changed = damage(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(RinError) as refused:
        load(saved)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_files_of_a_model_have_the_permissions_that_new_files_have(tmp_path, mask):
    before = os.umask(mask)
    try:
        TrainedModel(moved(small()), Diffusion(DiffusionConfig(num_steps=3)), small()).save(tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_damaged_weights_are_one_line(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RinError, match="damaged or of another configuration") as refused:
        load(saved)
    assert "\n" not in str(refused.value)


def test_a_tilde_is_the_home_folder(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(saved)
    load("~/model").save("~/other")
    assert load(tmp_path / "other").class_names == ("ant", "bee", "cat", "dog", "elk")
    assert not (saved / "~").exists()


def test_a_hub_without_an_answer_is_not_said_to_have_no_such_model(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(RinError, match=r"no folder someone/model, and the Hub could not be reached \(.*refused"):
        load("someone/model")
