"""Models that come with rin: opened by name, wherever one is, unless a folder of that name is there."""

import importlib.util
import json
import re
import sys

import pytest
import torch

import rin
from rin import RinError
from rin.model_files import CONFIG, model_folder, models_that_come_along
from tests.end_to_end.commands import ROOT
from tests.end_to_end.commands import rin as command

NAMES = sorted(models_that_come_along())


def test_the_digits_come_along():
    assert "digits" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_opened_by_its_name_and_draws(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = rin.load(name)
    assert trained.kind == rin.preset(name).model.kind
    assert (models_that_come_along()[name] / "README.md").is_file()
    result = command("sample", name, "--num", "2", "--steps", "2", "--out", tmp_path / "samples.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "samples.png").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_was_trained_as(name):
    folder = models_that_come_along()[name]
    stored = json.loads((folder / CONFIG).read_text())
    runs = json.loads((folder / "training.json").read_text()) if (folder / "training.json").is_file() else []
    updates = runs[-1]["updates"] if runs else rin.preset(name).training.num_steps
    assert stored["training"]["num_steps"] == updates
    assert stored["data"]["path"] == rin.preset(name).data.path


@pytest.mark.parametrize("name", NAMES)
def test_none_is_too_large_for_a_repository(name):
    assert sum(file.stat().st_size for file in models_that_come_along()[name].iterdir()) < 25e6


def test_a_folder_of_the_same_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_folder("digits") == models_that_come_along()["digits"]
    (tmp_path / "digits").mkdir()
    assert not model_folder("digits").is_absolute()
    with pytest.raises(RinError, match="neither a run nor a saved model"):
        rin.load("digits")


def test_the_digits_are_digits():
    """What is drawn for a class is nearer to real digits of that class than to those of others, nearly always."""
    experiment = rin.preset("digits")
    pictures, labels = rin.open_data(experiment.data, experiment.model.shape).held_out.get(torch.arange(178))
    means = torch.stack([rin.to_floats(pictures[labels == label]).mean(0).flatten() for label in range(10)])
    drawn = rin.load("digits").sample(list(range(10)) * 5, seed=5, num_steps=20)
    nearest = torch.cdist(drawn.flatten(1), means).argmin(1)
    assert (nearest == torch.arange(10).repeat(5)).float().mean() >= 0.8


@pytest.mark.parametrize(("name", "words"), [("digit", "did you mean 'digits'"), ("zzz", "one that comes with rin: ")])
def test_a_name_that_there_is_not_is_one_line_with_those_that_there_are(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RinError, match=words):
        rin.load(name)


def test_they_have_one_average():
    with pytest.raises(RinError, match="digits is a saved model, which has one average"):
        rin.load("digits", average_decay=0.5)


@pytest.fixture(scope="module")
def make_weights():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        spec = importlib.util.spec_from_file_location("make_weights", ROOT / "examples/make_weights.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["make_weights"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "examples"))
    return module


@pytest.mark.parametrize("name", ["captions", "cifar10-small"])
def test_cards_that_come_along_are_as_they_are_made(make_weights, name):
    kept = (ROOT / "weights" / name / "README.md").read_text(encoding="utf-8")
    (drawing,) = re.findall(r"```sh\n(.*)\n```", kept)
    (shown,) = re.findall(r"\*\*Measured\*\*.*\n\n```\n(.*?)\n```", kept, flags=re.DOTALL)
    runs = json.loads((ROOT / "weights" / name / "training.json").read_text())
    assert make_weights.card(name, make_weights.MODELS[name], drawing, shown, runs) == kept
