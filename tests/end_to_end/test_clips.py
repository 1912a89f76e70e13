"""Clips on the command line: trained, killed, gone on with, drawn, measured."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from rin.cli import main
from rin.core.errors import RinError
from rin.core.pixels import to_pictures
from rin.data import DataConfig, open_data
from rin.data.decoding.videos import ClipsConfig
from rin.data.feeding.media_sets import MediaInMemory
from rin.evaluation.features import feature_network
from rin.evaluation.reference import measure_reference
from rin.evaluation.video_distance import clips_to_measure_against, frechet_video_distance
from rin.evaluation.videos import last_frames
from rin.sampling.pictures import save_video
from rin.trained_model import load
from tests.end_to_end.commands import TINY, files, rin

SHAPES = [
    *("train", "moving-shapes", *TINY, "--data.moving-shapes.num-clips", "60", "--data.num-held-out", "6"),
    *("--model.patch-size", "8", "--training.batch-size", "6"),
]


def run(*arguments):
    """The command in this process; its status."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


@pytest.fixture(scope="module")
def predicting(tmp_path_factory):
    """A run that goes on from four given frames."""
    folder = tmp_path_factory.mktemp("predicting") / "run"
    assert run(*SHAPES, "--training.num-steps", "2", "--training.sample-every", "2", "--out", folder) == 0
    return folder


@pytest.fixture(scope="module")
def generating(tmp_path_factory):
    """A run that draws clips of two classes from nothing."""
    folder = tmp_path_factory.mktemp("generating")
    for name, level in (("dark", 20), ("light", 200)):
        for number in range(4):
            frames = [torch.full((1, 3, 16, 16), level + 2 * frame, dtype=torch.uint8) for frame in range(9)]
            save_video(frames, folder / "videos" / name / f"{number}.mp4", 8.0)
    changes = ("--model.num-context-frames", "0", "--model.shape", "3", "3", "16", "16", "--model.num-classes", "2")
    options = (*SHAPES, "--data.path", folder / "videos", *changes, "--training.num-steps", "2")
    assert run(*options, "--out", folder / "run") == 0
    return folder / "run"


def test_a_run_leaves_clips_to_look_at(predicting):
    with Image.open(predicting / "samples" / "step-000000002.gif") as image:
        assert image.n_frames == 12
    assert (predicting / "samples" / "step-000000002.png").exists()


@pytest.mark.parametrize("name", ["clips.gif", "clips.mp4", "clips.png", "frames"])
def test_clips_are_drawn_in_every_form(predicting, tmp_path, name):
    assert run("sample", predicting, "--num", "2", "--frames", "9", "--out", tmp_path / name) == 0
    if name == "frames":
        assert len(list((tmp_path / name).rglob("*.png"))) == 2 * (4 + 9)
    assert (tmp_path / name).exists()


def test_several_futures_of_one_beginning(predicting, tmp_path):
    """They share the last frames of the video, and differ after them."""
    frames = [torch.full((1, 3, 48, 64), 12 * number, dtype=torch.uint8) for number in range(7)]
    save_video(frames, tmp_path / "mine.mp4", 8.0)
    options = ("--num", "3", "--frames", "10", "--out", tmp_path / "futures.npz")
    assert run("sample", predicting, "--context", tmp_path / "mine.mp4", *options) == 0
    with np.load(tmp_path / "futures.npz", allow_pickle=False) as arrays:
        images, given = arrays["images"], int(arrays["num_given"])
    assert images.shape == (3, 14, 32, 32, 3)
    assert given == 4
    levels = images[:, :given].mean(axis=(2, 3, 4))
    assert np.abs(levels - np.array([36, 48, 60, 72])).max() < 4
    assert not np.array_equal(images[0, given:], images[1, given:])


def test_clips_of_some_class_are_drawn_from_nothing(generating, tmp_path):
    out = tmp_path / "clips"
    assert run("sample", generating, "--classes", "light", "--num", "2", "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"light"}
    assert len(list(out.rglob("*.png"))) == 2 * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--context", "no-such.mp4"), "cannot go on from no-such.mp4"),
        (("--context", __file__), "cannot go on from"),
        (("--frames", "0"), "0 frames"),
        (("--fps", "0.001"), "--fps"),
        (("--num", "-1"), "--num -1"),
        (("--out", "x.avi"), "cannot write samples as .avi"),
    ],
)
def test_mistakes_of_sampling_are_one_line(predicting, tmp_path, capsys, arguments, words):
    given = arguments if "--out" in arguments else (*arguments, "--out", tmp_path / "x.gif")
    assert run("sample", predicting, *given) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert words in told[0]


def test_a_model_that_goes_on_from_nothing_says_so(generating, tmp_path, capsys):
    for arguments, words in (
        (("--context", tmp_path / "x.mp4"), "goes on from no frames"),
        (("--frames", "4"), "draws clips of 3 frames and goes on from none"),
    ):
        assert run("sample", generating, *arguments, "--out", tmp_path / "x.gif") == 2
        assert words in capsys.readouterr().err


def test_predicted_shapes_are_measured(predicting, tmp_path, capsys):
    out = tmp_path / "deep" / "measures.json"
    assert run("evaluate", predicting, "--num", "4", "--frames", "10", "--out", out) == 0
    assert "after it" in capsys.readouterr().out
    measured = json.loads(out.read_text())["moving_shapes"]
    assert len(measured["predicted"]["by_frame"]) == 10
    copied = [frame[0] if isinstance(frame, list) else frame["value"] for frame in measured["copied"]["by_frame"]]
    assert 0.5 < copied[0] < 4  # what a shape moves in a frame


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--frames", "0"), "--frames 0: take 1 or more"),
        (("--num", "0"), "--num 0: take 1 or more"),
        (("--out", "."), "it is a folder"),
        (("--out", "taken/measures.json"), "cannot write to taken"),
    ],
)
def test_mistakes_of_measuring_are_one_line(predicting, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert run("evaluate", predicting, *arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert words in told[0]


def test_frames_to_measure_are_for_shapes_alone(generating, capsys):
    assert run("evaluate", generating, "--frames", "6") == 2
    assert "--frames is for moving-shapes" in capsys.readouterr().err


def test_a_saved_model_keeps_how_its_clips_are_cut(predicting, tmp_path, capsys):
    trained = load(predicting)
    trained.clips = ClipsConfig(stride=2)
    trained.save(tmp_path / "saved")
    assert load(tmp_path / "saved").clips == ClipsConfig(stride=2)
    frames = [torch.full((1, 3, 32, 32), 12 * number, dtype=torch.uint8) for number in range(9)]
    save_video(frames, tmp_path / "mine.mp4", 8.0)
    levels = last_frames(tmp_path / "mine.mp4", load(tmp_path / "saved")).float().mean(dim=(0, 1, 3, 4))
    assert (levels - torch.tensor([24.0, 48, 72, 96])).abs().max() < 4
    for command, words in (("sample", "with --context"), ("evaluate", "holds a saved model, and no run")):
        assert run(command, tmp_path / "saved", "--out", tmp_path / "out" / "x.png") == 2
        assert words in capsys.readouterr().err


def test_real_clips_are_measured_by_a_network_of_the_users(generating, features, capsys):
    assert run("evaluate", generating, "--features", features, "--num", "2") == 0
    assert "Frechet video distance, 2 clips a side" in capsys.readouterr().out
    assert run("evaluate", generating, "--features", features, "--num", "3") == 2
    assert "holds 2 clips out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A feature network for clips of any shape."""

    class Features(torch.nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.float().mean(dim=(3, 4)).flatten(1)

    path = tmp_path_factory.mktemp("features") / "features.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Features()).save(str(path))
    return path


def as_seen(clips):
    """What that network makes of clips, one number a channel and frame."""
    return clips.double().mean(dim=(3, 4)).flatten(1).numpy()


def distance_by_scipy(one, other):
    first, second = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(first @ second)
    return np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * root.real)


def test_clips_are_measured_against_a_set_of_any_size(generating, features, tmp_path, capsys):
    """More are drawn than the run holds out, and all 24 clips of the set count."""
    reference, out = generating.parent / "videos", tmp_path / "measures.json"
    words = ("evaluate", generating, "--features", features, "--reference", reference, "--num", "30", "--out", out)
    assert run(*words, "--precision", "float32", "--keep-reference", tmp_path / "kept.npz") == 0
    assert f"Frechet video distance, 30 drawn clips beside 24 of {reference}: " in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["reference"]["count"], found["reference"]["shape"]) == (24, [3, 3, 16, 16])
    trained, clips = load(generating), open_data(DataConfig(path=str(reference), num_held_out=0), (3, 3, 16, 16))
    real, labels = clips.training.get(torch.arange(24))
    drawn = to_pictures(trained.sample(labels[torch.arange(30) % 24].tolist(), 30, precision="float32"))
    expected = distance_by_scipy(as_seen(drawn), as_seen(real))
    assert found["frechet_video_distance"] == pytest.approx(expected, rel=1e-3)
    assert run(*words[:5], tmp_path / "kept.npz", "--num", "30", "--out", out) == 0
    kept = json.loads(out.read_text())
    assert kept["reference"]["pixels_sha256"] == found["reference"]["pixels_sha256"]


def test_predictions_go_on_from_the_clips_of_the_reference(predicting, features, tmp_path, monkeypatch):
    for number in range(5):
        for frame in range(12):
            path = tmp_path / "sequences" / f"clip_{number}" / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (50 * number + frame, 0, 0)).save(path)
    trained, network = load(predicting), feature_network(str(features), torch.device("cpu"))
    given = []

    def sample(_, num, *, context, first):
        given.extend((first + place, int(clip[0, 0, 0, 0])) for place, clip in enumerate(to_pictures(context)))
        return torch.zeros(num, 3, 8, 32, 32)

    monkeypatch.setattr(trained, "sample", sample)
    monkeypatch.setattr("rin.evaluation.video_distance.PART", 2)
    for num, expected in ((7, [0, 50, 100, 150, 200, 0, 50]), (2, [0, 100])):
        given.clear()
        reference, conditions = clips_to_measure_against(
            trained, predicting, str(tmp_path / "sequences"), "train", network, num, 64
        )
        frechet_video_distance(trained, network, reference, conditions, num)
        assert given == list(enumerate(expected))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reference", "VIDEOS"), "clips are measured through a network, with --features FILE"),
        (("--features", "FEATURES", "--reference", "VIDEOS", "--num", "1"), "needs 2 clips or more"),
        (("--features", "FEATURES", "--reference", "OTHER"), "is of clips (3, 4, 16, 16), and this model's are (3, 3,"),
        (("--features", "FEATURES", "--reference", "nowhere"), "no such folder, file or known set"),
    ],
)  # fmt: skip
def test_a_reference_that_does_not_fit_is_one_line(generating, features, tmp_path, capsys, words, said):
    clips = MediaInMemory(torch.zeros(4, 3, 4, 16, 16, dtype=torch.uint8), torch.zeros(4).long(), ())
    network = feature_network(str(features), torch.device("cpu"))
    measure_reference(clips, network, 4, {"set": "zeros"}).save(tmp_path / "other.npz")
    places = {"VIDEOS": generating.parent / "videos", "FEATURES": features, "OTHER": tmp_path / "other.npz"}
    assert run("evaluate", generating, *(places.get(word, word) for word in words)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len([line for line in told.splitlines() if line.startswith("rin: ")]) == 1


def test_clips_of_other_classes_are_not_gone_on_from(predicting, features):
    trained = load(predicting)
    trained.kind = replace(trained.kind, num_classes=2)
    trained.class_names = ("cat", "dog")
    network = feature_network(str(features), torch.device("cpu"))
    clips = torch.zeros(4, 3, 12, 32, 32, dtype=torch.uint8)
    for names, said in (((), "have no classes"), (("cat", "cow"), "a class 'cow' that this model does not have")):
        conditions = MediaInMemory(clips, torch.zeros(4).long(), names)
        reference = measure_reference(conditions, network, 4, {})
        with pytest.raises(RinError, match=said):
            frechet_video_distance(trained, network, reference, conditions, 4)


def test_what_cannot_be_measured_is_one_line(generating, tmp_path, capsys):
    assert run("evaluate", generating) == 2
    assert "with --features FILE" in capsys.readouterr().err
    assert run("evaluate", tmp_path) == 2
    assert "neither a run nor a saved model" in capsys.readouterr().err


def test_a_killed_run_on_clips_and_pictures_ends_as_the_uninterrupted_one(tmp_path):
    (tmp_path / "pictures").mkdir()
    for level in range(5):
        Image.new("RGB", (32, 32), (level * 40, 0, 0)).save(tmp_path / "pictures" / f"{level}.png")
    command = [
        *SHAPES, "--data.pictures-path", tmp_path / "pictures", "--data.pictures-rate", "0.4", "--data.flip",
        "--training.num-steps", "6", "--training.checkpoint-every", "2", "--training.held-out-every", "3",
        "--training.sample-every", "3",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert rin(*command, "--out", whole).returncode == 0
    assert rin(*command, "--out", broken, kill_at=4).returncode == -9
    assert rin(*command, "--out", broken).returncode == 0
    assert files(whole) == files(broken)
    assert any(name.endswith(".gif") for name in files(whole))
