"""`rin prepare`: killed and gone on with, trained on, and a person's mistakes."""

import shlex
import subprocess

import numpy as np
import pytest
from PIL import Image

from rin.cli import main
from tests.end_to_end.commands import TINY, assert_one_line, ended, rin, start
from tests.unit.data.videos import sound_only, video

POINTS = [
    *("preparing.json", "decode 3", "images-00000", "decode 15", "labels-00001", "shard-00001", "images-00002"),
    *("decode 37", "set.json", "unlink shard-00001.json", "unlink preparing.json"),
]


def prepare_with_kills(source, out, points, options=""):
    done = ended(start(source, out, options, *points, module="tests.end_to_end.kills"), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def files(folder):
    """All but the lock, which tells the process."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def pictures(tmp_path):
    """A folder of 42 pictures in two classes, two of them broken."""
    chance = np.random.default_rng(0)
    for number in range(42):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (8, 11, 3), dtype=np.uint8)).save(path)
    for name in ("a/4.png", "b/35.png"):
        (tmp_path / "pictures" / name).write_bytes(b"torn")
    return tmp_path / "pictures"


def test_a_set_killed_anywhere_ends_with_the_bytes_of_one_that_never_was(tmp_path, pictures):
    prepare_with_kills(pictures, tmp_path / "whole", [])
    prepare_with_kills(pictures, tmp_path / "killed", POINTS)
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "killed") == whole
    assert len(whole) == 1 + 2 * 5
    assert b"4.png" in whole["set.json"]


def test_a_set_of_clips_killed_anywhere_ends_with_the_same_bytes(tmp_path):
    for number in range(12):
        video(tmp_path / "videos" / f"{number}.mp4", range(20 * number, 20 * number + 10))
    sound_only(tmp_path / "videos" / "sound.mp4")
    options = "--frames 3 --clips.every 4 --clips.rate 25"
    prepare_with_kills(tmp_path / "videos", tmp_path / "whole", [], options)
    points = ["decode 3", "images-00000", "decode 15", "shard-00001", "set.json", "unlink preparing.json"]
    prepare_with_kills(tmp_path / "videos", tmp_path / "killed", points, options)
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "killed") == whole
    assert len(whole) == 1 + 2 * 3
    assert b"sound.mp4" in whole["set.json"]


def here(capsys, *arguments):
    """`rin` in this process, which is quicker."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, left.value.code, *capsys.readouterr())


def test_training_on_a_prepared_set_is_training_on_its_source(tmp_path, capsys):
    prepare = ["prepare", "digits", tmp_path / "set", "--size", "8", "--channels", "1"]
    done = here(capsys, *prepare)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1797 pictures (train 1797) are in ")
    assert f"rin train PRESET --data.path {tmp_path / 'set'} --model.shape 1 8 8" in done.stdout
    options = ["--training.num-steps", "5", "--training.held-out-every", "5", "--training.checkpoint-every", "5"]
    for name, source in (("source", "digits"), ("set", tmp_path / "set")):
        run = rin("train", "digits", *TINY, *options, "--data.path", source, "--out", tmp_path / f"run-{name}")
        assert run.returncode == 0, run.stderr
    one, other = (files(tmp_path / f"run-{name}") for name in ("source", "set"))
    assert len(one["log.jsonl"].splitlines()) >= 5
    weights = [name for name in one if name.endswith(".safetensors")]
    assert weights
    for name in ("log.jsonl", *weights):
        assert one[name] == other[name]
    assert "1797 pictures (train 1797) are already in" in here(capsys, *prepare).stdout


def test_mistakes_are_one_line(tmp_path, pictures, capsys):
    out = tmp_path / "out"
    assert_one_line(rin("prepare", pictures, out, "--size", "8"), "4.png", "--skip-broken")
    assert_one_line(rin("prepare", "digits", tmp_path / "full", "--size", "8", largest_file=20_000), "File too large")

    unfinished = here(capsys, "train", "small-32", "--data.path", out, "--out", tmp_path / "run")
    assert_one_line(unfinished, "not finished", f"rin prepare {pictures}", "--size 8")
    assert_one_line(here(capsys, "prepare", pictures, out, "--size", "9"), "size was '8' and is '9'")
    assert_one_line(here(capsys, "prepare", pictures, tmp_path / "new", "--size", "8x"), "--size 8x", "48x64")
    assert_one_line(here(capsys, "prepare", pictures, tmp_path / "new", "--size", "99999x99999"), "at most 8192")
    assert_one_line(here(capsys, "prepare", pictures, "", "--size", "8"), "OUT is empty")
    assert_one_line(here(capsys, "prepare", "", tmp_path / "new", "--size", "8"), "SOURCE is empty")
    assert not (tmp_path / "new").exists()


def test_broken_pictures_are_counted_in_words(tmp_path, pictures, capsys):
    prepare = ["--size", "8", "--skip-broken"]
    assert "; 2 broken ones left out" in here(capsys, "prepare", pictures, tmp_path / "two", *prepare).stdout
    (pictures / "a" / "4.png").unlink()
    assert "; 1 broken one left out" in here(capsys, "prepare", pictures, tmp_path / "one", *prepare).stdout


def test_clips_are_prepared_and_told_of(tmp_path, capsys):
    video(tmp_path / "videos" / "a.mp4", 10)
    prepare = ["prepare", tmp_path / "videos", tmp_path / "set", "--size", "16x24", "--channels", "1", "--frames", "3"]
    done = here(capsys, *prepare)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 clips (train 3) are in ")
    assert f"rin train PRESET --data.path {tmp_path / 'set'} --model.shape 1 3 16 24 " in done.stdout
    assert "3 clips (train 3) are already in" in here(capsys, *prepare).stdout
    assert_one_line(here(capsys, *prepare, "--clips.start", "1"), "clips.start was 0 and is 1")
    assert_one_line(here(capsys, *prepare[:-2]), "holds videos, and pictures are wanted")
    assert_one_line(here(capsys, *prepare[:-1], "-1"), "--frames is -1")
    assert_one_line(here(capsys, *prepare[:-1], "11"), "no video is as long as a clip, 11 frames", "a.mp4")
    shapes = here(capsys, "prepare", "moving-shapes", tmp_path / "shapes", "--size", "16", "--frames", "0")
    assert_one_line(shapes, "moving-shapes are clips in colour")


@pytest.mark.parametrize(
    ("preset", "frames"), [("small-32", 0), ("small-32", 3), ("moving-shapes", 3), ("kinetics-600", 16)]
)
def test_the_command_that_is_given_at_the_end_trains_on_the_set(tmp_path, pictures, capsys, preset, frames):
    if frames:
        video(tmp_path / "videos" / "a.mp4", 40)
    source = tmp_path / "videos" if frames else pictures
    cut = ["--frames", frames] if frames else ["--skip-broken"]
    done = here(capsys, "prepare", source, tmp_path / "a set", "--size", "16x24", *cut)
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout.rpartition("train on them with: ")[2])
    assert words[:3] == ["rin", "train", "PRESET"]
    toys = [*TINY, "--training.num-steps", "1", "--out", tmp_path / "run"]
    run = rin("train", preset, *words[3:], *toys)
    assert run.returncode == 0, run.stderr


def test_help_lists_all(capsys):
    shown = here(capsys, "prepare", "--help")
    assert shown.returncode == 0
    for word in (
        "SOURCE",
        "OUT",
        "--size",
        "HEIGHTxWIDTH",
        "--channels",
        "--skip-broken",
        "--no-labels",
        "--frames",
        "--clips.every",
    ):
        assert word in shown.stdout
