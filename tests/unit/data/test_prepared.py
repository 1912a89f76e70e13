"""Prepared sets: what is written, what is read back, and files that somebody made to do harm."""

import errno
import io
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from rin.core import files as files_module
from rin.core.errors import RinError
from rin.data import DataConfig, MediaSet, batches, open_data, preparing
from rin.data.prepared.reading import PreparedMedia
from rin.data.prepared.shard_writing import Preparation
from rin.data.prepared.shards import Shards, npy_header
from rin.data.preparing import prepare_set
from tests.unit.data.test_folders import save
from tests.unit.data.test_tables import CATS_AND_DOGS, IMAGE, structs, write
from tests.unit.data.test_tars import write_tar

GREY = (1, 8, 8)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "MAX_PICTURES", 7)


def prepared(source, out, shape=GREY, **options):
    return prepare_set(Preparation(source=str(source), shape=shape, **options), out)


def opened(path, shape=GREY, **options):
    return open_data(DataConfig(path=str(path), **options), shape)


def everything(images):
    return images.get(torch.arange(len(images)))


def told(out):
    return json.loads((out / "set.json").read_text())


def files(out):
    """All but the lock."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def coloured(folder, count=25, size=(12, 9)):
    """A folder of noise in two classes, at odd sizes."""
    chance = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("cat" if number % 3 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def digits(tmp_path):
    """The first digits, as a folder in classes, and prepared."""
    for level in range(20):
        save(tmp_path / "source" / f"{level % 2}" / f"{level}.png", 12 * level)
    prepared(tmp_path / "source", tmp_path / "out")
    return tmp_path / "out"


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(everything(one), everything(other), strict=True))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10), (4, 5, 5)])
def test_what_is_read_is_what_the_source_gives(tmp_path, shape):
    source = coloured(tmp_path / "source")
    result = prepared(source, tmp_path / "out", shape)
    assert (result.num_pictures, result.num_broken, result.was_finished) == ({"train": 25}, 0, False)
    ours, theirs = opened(tmp_path / "out", shape, num_held_out=2), opened(source, shape, num_held_out=2)
    assert isinstance(ours.training, PreparedMedia)
    assert isinstance(ours.training, MediaSet)
    assert ours.training.shape == shape
    assert ours.training.group_sizes == ()
    assert (len(ours.training), len(ours.held_out)) == (23, 2)
    assert same(ours.training, theirs.training)
    assert same(ours.held_out, theirs.held_out)
    assert ours.training.class_names == ("cat", "dog")


def test_any_rows_in_any_order(digits):
    images = opened(digits, num_held_out=0).training
    pictures, labels = everything(images)
    index = torch.tensor([19, 0, 7, 6, 7, 13, 14])
    assert all(torch.equal(a, b[index]) for a, b in zip(images.get(index), (pictures, labels), strict=True))
    assert images.get(torch.empty(0, dtype=torch.int64))[0].shape == (0, *GREY)


def test_shards_are_plain_numpy_files(digits):
    shards = [np.load(digits / "train" / f"images-{number:05d}.npy", mmap_mode="r") for number in range(3)]
    assert [shard.shape for shard in shards] == [(7, 1, 8, 8), (7, 1, 8, 8), (6, 1, 8, 8)]
    assert all(shard.dtype == np.uint8 for shard in shards)
    labels = np.load(digits / "train" / "labels-00002.npy", allow_pickle=False)
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 1, 1, 1, 1, 1]
    assert sorted(path.name for path in digits.iterdir()) == [".lock", "set.json", "train"]
    assert len(list((digits / "train").iterdir())) == 6


def test_headers_are_those_that_numpy_writes():
    for array in (np.zeros((3, 4, 5, 6), np.uint8), np.zeros(7, np.int64)):
        file = io.BytesIO()
        np.save(file, array)
        assert npy_header(array.dtype.str, array.shape) == file.getvalue()[:128]


@pytest.mark.parametrize("skip", [False, True])
def test_statistics_are_numpys(tmp_path, skip):
    source = coloured(tmp_path / "source")
    if skip:
        (source / "cat" / "4.png").write_bytes(b"torn")
        (source / "dog" / "9.png").write_bytes(b"")
    prepared(source, tmp_path / "out", (3, 6, 10), skip_broken=skip)
    split = told(tmp_path / "out")["splits"]["train"]
    pictures, labels = everything(opened(tmp_path / "out", (3, 6, 10), num_held_out=0).training)
    pixels = pictures.numpy().astype(np.float64)
    assert split["num_pictures"] == len(pictures) == 25 - 2 * skip
    np.testing.assert_allclose(split["mean"], pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(split["deviation"], pixels.std(axis=(0, 2, 3)), rtol=1e-12)
    assert split["pictures_a_class"] == labels.bincount().tolist()
    assert split["num_broken"] == 2 * skip
    assert [name.rsplit("/", 1)[-1] for name in split["broken"]] == ["4.png", "9.png"][: 2 * skip]


def test_parquet_keeps_its_splits_names_and_classes(tmp_path):
    features = {"image": IMAGE, "kind": CATS_AND_DOGS}
    write(
        tmp_path / "in/train-00000-of-00001.parquet", {"image": structs(range(9)), "kind": [1, 0, None] * 3}, features
    )
    write(tmp_path / "in/test.parquet", {"image": structs([90, 91]), "kind": [0, 0]}, features)
    result = prepared(tmp_path / "in", tmp_path / "out")
    assert result.num_pictures == {"test": 2, "train": 9}
    ours, theirs = opened(tmp_path / "out"), opened(tmp_path / "in")
    assert same(ours.training, theirs.training)
    assert same(ours.held_out, theirs.held_out)
    assert ours.training.class_names == ("cat", "dog")
    assert len(opened(tmp_path / "out", split="test", num_held_out=0).training) == 2
    with pytest.raises(RinError, match="no split 'extra'"):
        opened(tmp_path / "out", split="extra")


def test_tars_digits_and_prepared_sets_are_sources_too(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "MAX_PICTURES", 1000)
    write_tar(tmp_path / "in" / "train-0.tar", {"a.png": 5, "a.cls": b"1", "b.png": 6, "b.cls": b"0"})
    write_tar(tmp_path / "in" / "test-0.tar", {"c.png": 7, "c.cls": b"2"})
    prepared(tmp_path / "in", tmp_path / "tars")
    ours, theirs = opened(tmp_path / "tars"), opened(tmp_path / "in")
    assert same(ours.training, theirs.training)
    assert same(ours.held_out, theirs.held_out)
    assert ours.training.class_names == theirs.training.class_names == ("0", "1", "2")
    for shape in (GREY, (4, 4, 4)):
        first, second = (tmp_path / f"{name}-{shape}" for name in ("first", "second"))
        prepared("digits", first, shape)
        prepared(first, second, shape)
        assert same(opened(second, shape).training, opened("digits", shape).training)


def test_classes_can_be_left_out_at_either_end(tmp_path, digits):
    assert opened(digits, labels=False).training.class_names == ()
    assert set(everything(opened(digits, labels=False).training)[1].tolist()) == {-1}
    prepared(tmp_path / "source", tmp_path / "plain", labels=False)
    assert opened(tmp_path / "plain").training.class_names == ()
    assert told(tmp_path / "plain")["splits"]["train"]["pictures_a_class"] == []


def test_the_stream_is_that_of_the_source(tmp_path, digits):
    ours, theirs = (opened(path, num_held_out=0).training for path in (digits, tmp_path / "source"))
    options = {"seed": 3, "batch_size": 6, "places": torch.arange(6), "first_step": 2, "flip": True}
    streams = [batches(images, **options) for images in (ours, theirs)]
    for _ in range(6):
        one, other = (next(stream) for stream in streams)
        assert torch.equal(one.media, other.media)
        assert torch.equal(one.labels, other.labels)
    for stream in streams:
        stream.close()


def test_a_broken_picture_ends_it_and_skipping_goes_on_from_there(tmp_path):
    source = coloured(tmp_path / "source")
    (source / "dog" / "0.png").write_bytes(b"torn")
    with pytest.raises(RinError, match=r"dog/0\.png: .*--skip-broken"):
        prepared(source, tmp_path / "out")
    written = (tmp_path / "out" / "train" / "images-00000.npy").stat().st_mtime_ns
    prepared(source, tmp_path / "out", skip_broken=True)
    assert (tmp_path / "out" / "train" / "images-00000.npy").stat().st_mtime_ns == written
    prepared(source, tmp_path / "at-once", skip_broken=True)
    assert files(tmp_path / "out") == files(tmp_path / "at-once")


def test_pictures_keep_their_classes_where_one_is_left_out(tmp_path):
    images = structs(range(10))
    images[3]["bytes"] = b"torn"
    write(tmp_path / "set.parquet", {"image": images, "label": [0, 1] * 5})
    prepared(tmp_path / "set.parquet", tmp_path / "out", skip_broken=True)
    pictures, labels = everything(opened(tmp_path / "out", num_held_out=0).training)
    assert pictures[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert labels.tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 1]
    assert told(tmp_path / "out")["splits"]["train"]["pictures_a_class"] == [5, 4]


def test_a_full_disk_is_one_line_and_keeps_what_is_whole(tmp_path, monkeypatch):
    source, honest = coloured(tmp_path / "source"), files_module.flush

    def full(path):
        if path.name.startswith("images-00002"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(path)

    with monkeypatch.context() as patched:
        patched.setattr(files_module, "flush", full)
        with pytest.raises(RinError, match=r"images-00002\.npy: No space left on device; .*the same command goes on"):
            prepared(source, tmp_path / "out")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").iterdir()}
    assert len(kept) == 6  # two shards of three files
    prepared(source, tmp_path / "out")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").glob("*.npy")}
    assert all(after[name] == time for name, time in kept.items() if name.endswith(".npy"))
    prepared(source, tmp_path / "at-once")
    assert files(tmp_path / "out") == files(tmp_path / "at-once")


def test_a_whole_shard_that_was_damaged_since_is_made_again(tmp_path, monkeypatch):
    source = coloured(tmp_path / "source")
    with monkeypatch.context() as patched:
        patched.setattr(preparing, "summary", lambda *_: pytest.fail("stop here"))
        with pytest.raises(pytest.fail.Exception):
            prepared(source, tmp_path / "out")
    os.truncate(tmp_path / "out" / "train" / "images-00001.npy", 100)
    (tmp_path / "out" / "train" / "shard-00002.json").write_text("{")
    prepared(source, tmp_path / "out")
    prepared(source, tmp_path / "at-once")
    assert files(tmp_path / "out") == files(tmp_path / "at-once")


def test_nothing_readable_is_an_error(tmp_path):
    for number in range(9):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / f"{number}.png").write_bytes(b"torn")
    with pytest.raises(RinError, match=r"none of 9 pictures can be read, .*0\.png"):
        prepared(tmp_path / "source", tmp_path / "out", skip_broken=True)


def test_a_shard_without_a_readable_picture(tmp_path):
    source = coloured(tmp_path / "source")
    for number in range(0, 25, 3):  # the dogs are 9: the last shards of the set
        (source / "dog" / f"{number}.png").write_bytes(b"torn")
    prepared(source, tmp_path / "out", skip_broken=True)
    assert told(tmp_path / "out")["splits"]["train"]["shards"] == [7, 7, 2, 0]
    assert len(everything(opened(tmp_path / "out", num_held_out=0).training)[0]) == 16


def test_a_finished_set_is_left_as_it_is(tmp_path, digits):
    before = {path: path.stat().st_mtime_ns for path in digits.rglob("*[!k]")}  # all but the lock
    assert prepared(tmp_path / "source", digits).was_finished
    assert {path: path.stat().st_mtime_ns for path in digits.rglob("*[!k]")} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (1, 8, 9)}, "size was '8' and is '8x9'"),
        ({"shape": (3, 8, 8)}, "channels was 1 and is 3"),
        ({"labels": False}, "labels was True and is False"),
        ({"skip_broken": True}, "skip_broken was False and is True"),
        ({"source": "digits"}, r"source was '.*source' and is 'digits'"),
    ],
)
def test_settings_are_not_mixed(tmp_path, digits, options, words):
    with pytest.raises(RinError, match=words):
        prepared(**{"source": tmp_path / "source", "out": digits, **options})


def test_pictures_once_left_out_stay_a_setting(tmp_path, monkeypatch):
    source = coloured(tmp_path / "source")
    (source / "cat" / "1.png").write_bytes(b"torn")
    monkeypatch.setattr(preparing, "summary", lambda *_: pytest.fail("stop here"))
    with pytest.raises(pytest.fail.Exception):
        prepared(source, tmp_path / "out", skip_broken=True)
    with pytest.raises(RinError, match="skip_broken was True and is False"):
        prepared(source, tmp_path / "out")


def test_a_source_that_has_changed_is_another(tmp_path, digits):
    save(tmp_path / "source" / "1" / "new.png")
    with pytest.raises(RinError, match="changed since"):
        prepared(tmp_path / "source", digits)


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    coloured(tmp_path / "source")
    with pytest.raises(RinError, match="not empty"):
        prepared(tmp_path / "source", tmp_path / "source")
    (tmp_path / "file").write_text("")
    with pytest.raises(RinError, match="give another folder"):
        prepared(tmp_path / "source", tmp_path / "file")


def test_an_unfinished_set_tells_the_command(digits):
    stored = told(digits)
    (digits / "set.json").unlink()
    stored["settings"] |= {"source": "my pictures", "channels": 1, "skip_broken": True, "labels": False}
    (digits / "preparing.json").write_text(json.dumps(stored))
    command = r"rin prepare 'my pictures' .*out --size 8 --channels 1 --skip-broken --no-labels$"
    with pytest.raises(RinError, match=f"not finished: go on with: {command}"):
        opened(digits)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 16, 16), "--size 16, or give --model.shape 1 8 8$"), ((3, 8, 6), "--size 8x6 --channels 3, or")],
)
def test_another_shape_names_both_ways_out(digits, shape, words):
    with pytest.raises(RinError, match=words):
        opened(digits, shape)


@pytest.mark.parametrize("cut", [1, 64, 500])
@pytest.mark.parametrize("name", ["images-00001.npy", "labels-00001.npy"])
def test_a_truncated_shard_is_named(digits, name, cut):
    content = (digits / "train" / name).read_bytes()
    (digits / "train" / name).write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(RinError, match=rf"{name} has \d+ bytes .*truncated"):
        opened(digits)
    (digits / "train" / name).unlink()
    with pytest.raises(RinError, match=rf"cannot read .*{name}"):
        opened(digits)


class Harm:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nothing_in_a_shard_is_run(tmp_path, digits):
    mark = tmp_path / "mark"
    target = digits / "train" / "labels-00000.npy"
    size = target.stat().st_size
    evil = io.BytesIO()
    np.save(evil, np.array([Harm(mark)], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, np.array([Harm(mark)], dtype=object))
    fortran = npy_header("<i8", (7,)).replace(b"False", b"True ") + bytes(56)
    for content in (evil.getvalue(), archive.getvalue(), pickle.dumps(Harm(mark)), fortran):
        for file in (content, content[:size].ljust(size, b"\0")):  # as it is, and at the size that is asked for
            target.write_bytes(file)
            with pytest.raises(RinError, match=r"labels-00000\.npy"):
                opened(digits)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["images-00000.npy", "labels-00000.npy"])
def test_a_file_that_never_ends_is_not_read(digits, name):
    (digits / "train" / name).unlink()
    os.mkfifo(digits / "train" / name)
    with pytest.raises(RinError, match=name):
        opened(digits)


def test_labels_beyond_the_classes_are_refused(digits):
    for label in (2, -2, 2**40):
        (digits / "train" / "labels-00000.npy").write_bytes(npy_header("<i8", (7,)) + struct.pack("<q", label) * 7)
        with pytest.raises(RinError, match="none of its classes"):
            opened(digits)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["splits"].update({"../../elsewhere": told["splits"]["train"]}),
        lambda told: told["splits"].update({"/tmp": told["splits"]["train"]}),
        lambda told: told["splits"].update({"..": told["splits"]["train"]}),
        lambda told: told["splits"].update({"": told["splits"]["train"]}),
        lambda told: told["splits"]["train"].update(shards=[7, 7, -1]),
        lambda told: told["splits"]["train"].update(shards="777"),
        lambda told: told["splits"]["train"].update(shards=[7.0, 7, 6]),
        lambda told: told["splits"]["train"].update(shards=[10**30]),
        lambda told: told["splits"]["train"].update(shards=[2**62, 2**62]),
        lambda told: told["splits"]["train"].update(class_names=[1, 2]),
        lambda told: told["splits"]["train"].update(class_names="01"),
        lambda told: told["splits"]["train"].pop("class_names"),
        lambda told: told.update(splits=["train"]),
        lambda told: told.update(shape=[1, 8]),
        lambda told: told.update(shape=[1, 8, 0]),
        lambda told: told.update(shape=[1, 8, "8"]),
        lambda told: told.pop("splits"),
        lambda told: told.update(settings=[]),
        lambda told: told.update(settings={}),
        lambda told: told.update(format_version="1"),
        lambda told: told.pop("format_version"),
    ],
)
def test_a_set_json_made_to_harm_is_refused(digits, change):
    content = told(digits)
    change(content)
    (digits / "set.json").write_text(json.dumps(content))
    with pytest.raises(RinError, match=r"set\.json is no prepared set's"):
        opened(digits)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_set_json_that_is_none(digits, content):
    (digits / "set.json").write_bytes(content)
    with pytest.raises(RinError, match=r"set\.json is no prepared set's") as refused:
        opened(digits)
    assert "\n" not in str(refused.value)


def test_a_newer_format_is_refused(digits):
    (digits / "set.json").write_text(json.dumps(told(digits) | {"format_version": 2}))
    with pytest.raises(RinError, match="newer rin"):
        opened(digits)


def test_more_shards_than_are_open_at_a_time(digits, monkeypatch):
    monkeypatch.setattr("rin.data.prepared.shards._MAX_OPEN", 1)
    monkeypatch.setattr("rin.data.prepared.shards._NEIGHBOURS", 3)
    shards = Shards(digits / "train", GREY, [7, 7, 6])
    expected = everything(opened(digits, num_held_out=0).training)[0]
    for _ in range(3):
        assert torch.equal(shards.gather(np.arange(20)[::-1].copy()), expected.flip(0))
