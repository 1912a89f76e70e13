"""Pictures measured on the command line: drawn ones and given ones, kept, gone on with, by one process or two."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from rin.cli import main
from rin.core.errors import RinError
from rin.evaluation import images as assessment
from rin.trained_model import TrainedModel, load
from tests.end_to_end.commands import TINY, assert_one_line, rin, together


class Network(torch.nn.Module):
    """Features and logits of pictures of 8x8 and 16x16 by fixed random projections."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(64, 12, generator=draw) / 800)
        self.second = torch.nn.Parameter(torch.randn(12, 10, generator=draw))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(x.float().mean(1, True), [8, 8])
        return torch.tanh(small.flatten(1) @ self.first)

    @torch.jit.export
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self(x) @ self.second


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "features.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Network()).save(str(path))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    averages = (
        "--training.average-decay",
        "0.9",
        "--training.further-decays",
        "0.0",
        "0.5",
        "--training.no-average-warmup",
    )
    result = rin("train", "digits", *TINY, *averages, "--training.num-steps", "2", "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


def evaluate(*arguments):
    """`rin evaluate` in this process: its status."""
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *map(str, arguments)])
    return left.value.code


def measured(path):
    results = json.loads(path.read_text())
    assert results.pop("command").startswith("rin evaluate ")  # in which --out is told, too
    return results


def random_pictures(num, seed, side=16):
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), np.uint8)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A folder of sixty random pictures."""
    folder = tmp_path_factory.mktemp("reference") / "pictures"
    folder.mkdir()
    for number, picture in enumerate(random_pictures(60, 0)):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    return folder


def test_a_run_is_measured_against_what_it_was_trained_on(run, network, tmp_path, capsys):
    options = (run, "--features", network, "--num", "30", "--steps", "2")
    out, kept = tmp_path / "a.json", tmp_path / "reference.npz"
    assert evaluate(*options, "--out", out, "--keep-reference", kept, "--neighbours", tmp_path / "nearest.png") == 0
    printed = capsys.readouterr().out
    assert "Frechet distance" in printed
    assert "held-out loss at t = 0.5" in printed
    found = measured(out)
    assert found["class_accuracy"] <= 1
    assert set(found) >= {"inception_score", "kernel_distance", "precision", "recall", "density", "coverage", "copies"}
    assert set(found["held_out_loss"]) == {str(tenth / 10) for tenth in range(1, 10)}
    told = found["protocol"]
    assert (told["samples"]["num"], told["samples"]["steps"], told["samples"]["sampler"]) == (30, 2, "ddim")
    assert told["reference"]["count"] == 1797 - 20
    with Image.open(tmp_path / "nearest.png") as sheet:
        assert sheet.size[1] > sheet.size[0]
    again, apart = tmp_path / "b.json", tmp_path / "c.json"
    assert evaluate(*options, "--out", again, "--reference", kept, "--batch-size", "7") == 0
    results = together(2, "evaluate", *options, "--out", apart, "--reference", kept)
    assert [result.returncode for result in results] == [0, 0]
    for other in (measured(again), measured(apart)):
        for name in ("frechet_distance", "class_accuracy", "precision", "coverage"):
            assert other[name] == pytest.approx(found[name], rel=1e-3)  # a grey level here and there
        assert other["protocol"]["reference"]["pixels_sha256"] == told["reference"]["pixels_sha256"]


def test_bits_per_dimension_are_the_same_by_one_process_and_by_two(run, tmp_path, capsys):
    options = (run, "--bits-per-dim", "--num", "5", "--num-steps", "4", "--seed", "2")
    assert evaluate(*options, "--out", tmp_path / "one.json", "--average-decays", "0.9") == 0
    said, found = capsys.readouterr().out, measured(tmp_path / "one.json")
    assert f"bits per dimension of 5 held-out examples (of 8 bits, dequantised): {found['bits_per_dim']:.4f}" in said
    results = together(2, "evaluate", *options, "--batch-size", "2", "--out", tmp_path / "two.json")
    assert [result.returncode for result in results] == [0, 0]
    both = measured(tmp_path / "two.json")
    assert found.pop("run") == both.pop("run") == str(run)
    assert found.pop("weights_sha256") == both.pop("weights_sha256")
    assert both == pytest.approx(found, rel=1e-4)


def test_an_interrupted_evaluation_goes_on(run, network, tmp_path, monkeypatch):
    monkeypatch.setattr(assessment, "PART", 8)
    options = (run, "--features", network, "--num", "20", "--steps", "2")
    assert evaluate(*options, "--out", tmp_path / "whole.json") == 0
    honest, drawn = TrainedModel.sample, []

    def sample(*arguments, first, **rest):
        drawn.append(first)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return honest(*arguments, first=first, **rest)

    monkeypatch.setattr(TrainedModel, "sample", sample)
    kept = tmp_path / "kept"
    assert evaluate(*options, "--keep", kept) == 130
    assert [path.name for path in sorted(kept.glob("*.npz"))] == ["images-00000000.npz"]
    assert evaluate(*options, "--keep", kept, "--out", tmp_path / "parts.json") == 0
    assert drawn == [0, 8, 8, 16]
    assert measured(tmp_path / "parts.json") == measured(tmp_path / "whole.json")
    assert evaluate(kept, "--features", network, "--reference", "digits", "--out", tmp_path / "given.json") == 0
    given = measured(tmp_path / "given.json")
    assert given["protocol"]["samples"]["num"] == 20
    assert given["class_accuracy"] == measured(tmp_path / "whole.json")["class_accuracy"]


def test_averages_of_several_decays_are_measured_side_by_side(run, network, tmp_path, capsys):
    options = (run, "--features", network, "--num", "30", "--steps", "2")
    out, alone = tmp_path / "a.json", tmp_path / "b.json"
    kept = ("--keep", tmp_path / "kept")
    assert evaluate(*options, "--average-decays", "0.9", "0.5", "0.0", "--out", out, *kept) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["decay", "0.9", "decay", "0.5", "decay", "0.0"]
    found = measured(out)
    assert len({column["protocol"]["samples"]["weights_sha256"] for column in found.values()}) == 3
    assert (tmp_path / "kept" / "decay-0.5" / "images-00000000.npz").is_file()
    assert evaluate(*options, "--average-decays", "0.5", "--out", alone) == 0
    assert measured(alone) == found["decay 0.5"]
    assert evaluate(*options, "--out", alone) == 0
    assert measured(alone)["frechet_distance"] == found["decay 0.9"]["frechet_distance"]
    load(run).save(tmp_path / "saved")
    with pytest.raises(RinError, match="is a saved model, which has one average"):
        load(tmp_path / "saved", 0.9)


def test_kept_samples_are_not_mixed_with_others(run, network, tmp_path, capsys):
    options = (run, "--features", network, "--num", "4", "--steps", "2", "--keep", tmp_path / "kept")
    assert evaluate(*options) == 0
    assert evaluate(*options, "--seed", "1") == 2
    assert "holds other samples (seed was 0 and is 1)" in capsys.readouterr().err
    trained = load(run)
    for weight in trained.model.parameters():
        weight += 0.1
    trained.save(tmp_path / "further")
    assert evaluate(tmp_path / "further", *options[1:], "--reference", "digits") == 2
    assert "holds other samples (weights_sha256 was" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    assert evaluate(*options[:-1], tmp_path / "mine") == 2
    assert "is not empty and holds no kept samples" in capsys.readouterr().err


def test_copies_are_caught(reference, network, tmp_path):
    noise = np.random.default_rng(1).integers(-1, 2, (40, 16, 16, 3))
    copies = (random_pictures(60, 0)[:40] + noise).clip(0, 255).astype(np.uint8)
    shares = {}
    for name, pictures in (("copies", copies), ("new", random_pictures(40, 2))):
        np.savez(tmp_path / f"{name}.npz", images=pictures)
        options = ("--features", network, "--reference", reference, "--out", tmp_path / f"{name}.json")
        assert evaluate(tmp_path / f"{name}.npz", *options) == 0
        shares[name] = measured(tmp_path / f"{name}.json")["copies"]["share"]
    assert shares["copies"] == 1
    assert shares["new"] <= 0.05


def test_a_folder_is_what_its_pictures_are(reference, network, tmp_path):
    np.savez(tmp_path / "same.npz", arr_0=random_pictures(60, 0))
    options = ("--features", network, "--reference", reference)
    assert evaluate(tmp_path / "same.npz", *options, "--out", tmp_path / "a.json") == 0
    assert evaluate(reference, *options, "--shape", "3", "16", "16", "--out", tmp_path / "b.json") == 0
    first, second = measured(tmp_path / "a.json"), measured(tmp_path / "b.json")
    assert first.pop("protocol")["samples"]["resizing"] == "none"
    assert second.pop("protocol")["samples"]["resizing"] != "none"
    assert first | {"source": ""} == second | {"source": ""}
    assert first["frechet_distance"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("classes", [10, 9])
def test_classes_count_if_the_network_has_as_many(reference, network, tmp_path, classes):
    np.savez(tmp_path / "labelled.npz", images=random_pictures(60, 0), labels=np.arange(60) % classes)
    out = tmp_path / "a.json"
    assert evaluate(tmp_path / "labelled.npz", "--features", network, "--reference", reference, "--out", out) == 0
    assert ("class_accuracy" in measured(out)) == (classes == 10)


def test_statistics_of_other_programs_are_a_reference(network, tmp_path, capsys):
    features = Network()(torch.from_numpy(random_pictures(60, 0)).movedim(-1, 1)).detach().double().numpy()
    np.savez(tmp_path / "stats.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    np.savez(tmp_path / "same.npz", images=random_pictures(60, 0))
    options = ("--features", network, "--reference", tmp_path / "stats.npz")
    assert evaluate(tmp_path / "same.npz", *options, "--out", tmp_path / "a.json") == 0
    found = measured(tmp_path / "a.json")
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert "precision" not in found
    assert evaluate(tmp_path / "same.npz", *options, "--neighbours", tmp_path / "x.png") == 2
    assert "give the set as --reference" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("digits-run",), "give one with --features"),
        (("pictures",), "pictures are measured through a feature network"),
        (("pictures", "--features", "f.pt"), "as in --shape 3 32 32"),
        (("pictures", "--features", "f.pt", "--shape", "3", "16", "16"), "give one with --reference"),
        (("same.npz", "--features", "f.pt", "--num", "99", "--reference", "pictures"), "holds 60 pictures"),
        (("same.npz", "--features", "f.pt", "--reference", "same.npz"), "holds no statistics of a reference set"),
        (("broken.npz", "--features", "f.pt", "--reference", "pictures"), "cannot read pictures from broken.npz"),
        (("digits-run", "--features", "f.pt", "--num", "1"), "measures need 2 pictures or more"),
        (("digits-run", "--features", "f.pt", "--frames", "3"), "--frames is for clips"),
        (("digits-run", "--features", "absent.pt"), "no feature network at absent.pt"),
        (("nowhere", "--features", "f.pt"), "there is no folder nowhere"),
        (("digits-run", "--features", "f.pt", "--shape", "1", "8", "8"), "--shape is for pictures that are given"),
        (("same.npz", "--features", "f.pt", "--steps", "5"), "--num-steps is for pictures that a model draws"),
        (("same.npz", "--features", "f.pt", "--shape", "3", "8", "8"), "which are measured as they are"),
        (("digits-run", "--features", "f.pt", "--out", "same.npz/x.json"), "cannot write to same.npz"),
        (
            ("digits-run", "--features", "f.pt", "--average-decays", "0.7"),
            "no average of decay 0.7, only 0.9, 0.0, 0.5",
        ),
        (("same.npz", "--features", "f.pt", "--average-decays", "0.5"), "--average-decays is for a run"),
        (("digits-run", "--bits-per-dim", "--features", "f.pt"), "--features is not for bits per dimension"),
        (("digits-run", "--bits-per-dim", "--guidance", "1"), "--guidance is for drawing"),
        (("digits-run", "--bits-per-dim", "--num", "21"), "holds out 20 examples: take 2 to as many"),
        (("digits-run", "--bits-per-dim", "--num-steps", "1"), "num_steps 1: take a whole number from 2 on"),
        (("digits-run", "--bits-per-dim", "--average-decays", "0.9", "0.5"), "of bits per dimension, give one"),
        (("digits", "--bits-per-dim"), "digits is no run, whose held-out examples"),
        (("pictures", "--bits-per-dim"), "pictures is no run, whose held-out examples"),
        (
            ("digits-run", "--features", "f.pt", "--average-decays", "0.9", "0.5", "--neighbours", "x.png"),
            "--neighbours shows the samples of one average",
        ),
    ],
)
def test_mistakes_of_measuring_pictures_are_one_line(
    run, reference, network, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    for name, path in (("digits-run", run), ("pictures", reference), ("f.pt", network)):
        (tmp_path / name).symlink_to(path)
    np.savez(tmp_path / "same.npz", images=random_pictures(60, 0))
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    assert evaluate(*arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert words in told[0]


def test_a_reference_of_another_network_is_refused(reference, network, tmp_path):
    np.savez(tmp_path / "same.npz", images=random_pictures(60, 0))
    kept, other = tmp_path / "kept.npz", tmp_path / "other.pt"
    options = (tmp_path / "same.npz", "--features")
    assert evaluate(*options, network, "--reference", reference, "--keep-reference", kept) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        changed = Network()
        changed.first.data *= 2
        torch.jit.script(changed).save(str(other))
    assert_one_line(rin("evaluate", *options, other, "--reference", kept), "made with another feature network")
