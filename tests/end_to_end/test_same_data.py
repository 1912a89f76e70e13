"""A run goes on only on the set that it began with, from wherever; otherwise its folder stays as it is."""

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest

from rin.cli.train import train as train_here
from rin.core.errors import RinError
from tests.end_to_end.commands import files
from tests.end_to_end.test_cases import TRAIN, picture, set_of_classes


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A set of two classes, and a run of one update on it."""
    folder = tmp_path_factory.mktemp("begun")
    train(set_of_classes(folder / "set"), folder / "run", 1)
    return folder


@pytest.fixture
def place(begun, tmp_path, monkeypatch):
    """The same elsewhere, and said so."""
    shutil.copytree(begun, tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    train("a/set", "a/run", 1, "--data-moved")
    return tmp_path


def train(data, out, num_steps=2, *options):
    words = [*TRAIN[1:], "--data.path", data, "--out", out, "--training.num-steps", num_steps, *options]
    train_here([str(word) for word in words])


def config(run):
    return json.loads((run / "config.json").read_text())


def test_the_same_set_by_other_ways(place, monkeypatch):
    (place / "link").symlink_to(place / "a" / "set")
    for path in ("a/set", "./a/../a/set", "link", place / "a" / "set"):
        train(path, "a/run")
    monkeypatch.chdir(place / "a")
    train("set", "run", 3)
    assert config(place / "a" / "run")["data"]["path"] == str(place / "a" / "set")


def other_names(place):
    set_of_classes(place / "other", ("aardvark", "cat"))
    return "other", ()


def other_names_said_to_be_it(place):
    return other_names(place)[0], ("--data-moved",)


def other_count(place):
    (place / "a" / "set" / "cat" / "100.png").write_bytes(picture())
    return "a/set", ()


def other_list_said_to_be_it(place):
    shutil.copytree(place / "a" / "set", place / "other")
    (place / "other" / "cat" / "0.png").rename(place / "other" / "cat" / "7.png")
    return "other", ("--data-moved",)


def moved_but_not_said(place):
    (place / "a" / "set").rename(place / "other")
    return "other", ()


def gone(place):
    (place / "a" / "set").rename(place / "other")
    return place / "a" / "set", ()


def another_option(_):
    return "a/set", ("--data.no-labels",)


def another_range(_):
    return "a/set", ("--data.value-range", "0", "4095")


def another_column(_):
    return "a/set", ("--data.column", "jpg")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_names, "classes were cat, dog and are aardvark, cat.*--data-moved"),
        (other_names_said_to_be_it, "no longer what the run .*classes were cat, dog and are aardvark, cat"),
        (other_count, "examples to train on were 11 and are 12"),
        (other_list_said_to_be_it, "names or sizes of its files, or their order"),
        (moved_but_not_said, r"data\.path was .* add --data-moved if its set has moved"),
        (gone, "no such folder"),
        (another_option, r"data\.labels was True and is False"),
        (another_range, r"data\.value_range was None and is \[0\.0, 4095\.0\]"),
        (another_column, r"data\.column is 'jpg'"),
    ],
)
def test_a_refused_run_is_left_as_it_is(place, change, words):
    data, options = change(place)
    before = files(place / "a" / "run")
    with pytest.raises(RinError, match=words):
        train(data, "a/run", 2, *options)
    assert files(place / "a" / "run") == before


def make_old(run, **data):
    """Makes a run as it was before its configuration said what it learns from."""
    old = config(run)
    del old["data_identity"]
    for name in ("column", "value_range"):
        del old["data"][name]
    old["data"] |= data
    (run / "config.json").write_text(json.dumps(old))


def test_a_run_from_before_goes_on_and_is_held_to_its_set_from_then_on(place, monkeypatch):
    monkeypatch.chdir(place / "a")
    make_old(place / "a" / "run", path="set")
    set_of_classes(place / "other" / "set", ("aardvark", "cat"))
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(place / "other")
        with pytest.raises(RinError, match="classes were cat, dog"):
            train("set", "../a/run")
    train("set", "run", 2, "--data.value-range", "0", "255")  # which its pictures may need to have now
    assert config(place / "a" / "run")["data"]["path"] == str(place / "a" / "set")
    (place / "a" / "set" / "cat" / "100.png").write_bytes(picture())
    with pytest.raises(RinError, match="examples to train on were 11"):
        train("set", "run", 3, "--data.value-range", "0", "255")


def test_a_run_from_before_goes_on_without_the_classes_that_it_did_not_see(tmp_path):
    """Of a column of texts, which was passed over then; as often as it is stopped."""
    rows = {"image": [picture(level=10 * row) for row in range(12)], "label": ["a", "b"] * 6}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "set.parquet")
    train(tmp_path / "set.parquet", tmp_path / "run", 1, "--data.no-labels")
    make_old(tmp_path / "run", labels=True)
    for num_steps in (2, 3, 4):
        train(tmp_path / "set.parquet", tmp_path / "run", num_steps)
    assert config(tmp_path / "run")["model"]["num_classes"] == 0
