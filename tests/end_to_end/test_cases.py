"""Sets and runs out of public bug reports, made anew: each is used as it is meant, or refused or named in one line."""

import io
import shutil
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image, TiffImagePlugin

import rin as library
from rin import DataConfig, RinError, open_data
from rin.data import decode
from rin.data.decoding.cutting import cut
from rin.data.decoding.videos import ClipsConfig, look_into
from tests.end_to_end.commands import TINY, assert_one_line, files, rin
from tests.end_to_end.test_evaluate import network

__all__ = ["network"]  # a fixture

TRAIN = [
    *("train", "small-32", *TINY, "--model.patch-size", "8", "--model.shape", "3", "16", "16"),
    *("--training.batch-size", "6", "--data.num-held-out", "5"),
]


def picture(form="png", level=0):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level, 40, 200)).save(file, form)
    return file.getvalue()


def set_of_classes(path, names=("cat", "dog"), count=6):
    for name in names:
        (path / name).mkdir(parents=True)
        for number in range(count):
            (path / name / f"{number}.png").write_bytes(picture(level=number))
    return path


def train(data, out, num_steps=2, *options):
    return rin(*TRAIN, "--data.path", data, "--out", out, "--training.num-steps", num_steps, *options)


def opened(path, **options):
    return open_data(DataConfig(path=str(path), num_held_out=0, **options), (3, 16, 16))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A set of two classes, and a run of 2 updates on it."""
    folder = tmp_path_factory.mktemp("begun")
    assert train(set_of_classes(folder / "set"), folder / "run").returncode == 0
    return folder


@pytest.fixture
def case(begun, tmp_path):
    """The same, to be changed: the set lies where the run has it."""
    shutil.copytree(begun / "set", tmp_path / "kept")
    yield begun
    shutil.rmtree(begun / "set")
    shutil.copytree(tmp_path / "kept", begun / "set")


def test_a_class_folder_renamed(case):
    (case / "set" / "dog").rename(case / "set" / "aardvark")
    refused = train(case / "set", case / "run", 4)
    assert_one_line(refused, "classes were cat, dog and are aardvark, cat", "another --out")
    assert library.load(case / "run").class_names == ("cat", "dog")


def test_a_refused_run_keeps_its_class_names_and_all_else(case, tmp_path):
    before = files(case / "run")
    (case / "set" / "dog").rename(case / "set" / "aardvark")
    (case / "set" / "cat" / "100.png").write_bytes(picture())
    assert train(case / "set", case / "run", 4).returncode == 2
    assert files(case / "run") == before
    drawn = rin("sample", case / "run", "--classes", "dog", "--num", "2", "--out", tmp_path / "d.png")
    assert drawn.returncode == 0, drawn.stderr


def tar_of(path, parts):
    with tarfile.open(path, "w") as tar:
        for number in range(10):
            for place, part in enumerate(parts):
                data = picture("png" if part.endswith("png") else "jpeg", level=100 * place)
                member = tarfile.TarInfo(f"{number:04}.{part}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("parts", [("jpg", "mask.png"), ("input.jpg", "target.jpg")])
def test_two_pictures_to_a_key_of_a_tar(tmp_path, parts):
    path = tar_of(tmp_path / "pairs.tar", parts)
    assert_one_line(train(path, tmp_path / "run"), "0000." + parts[0], f"--data.column {parts[0]} or {parts[1]}")
    for place, part in enumerate(parts):
        images = opened(path, column=part).training.pictures
        assert len(images) == 10
        assert (images[:, 0].float().mean() - 100 * place).abs() < 5


@pytest.mark.parametrize(
    ("column", "values", "names"), [("label", ("cat", "dog"), ("cat", "dog")), ("cls", (0, 1), ("0", "1"))]
)
def test_a_column_of_classes_in_a_table(tmp_path, column, values, names):
    rows = {"jpg": [picture(level=100 * (row % 2)) for row in range(20)], column: [*values] * 10}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "set.parquet")
    training = opened(tmp_path / "set.parquet").training
    assert training.class_names == names
    assert training.labels.tolist() == [0, 1] * 10


def test_a_relative_path_is_the_same_set_from_elsewhere(tmp_path, monkeypatch, caplog, network):
    from rin.cli.evaluate import evaluate
    from rin.cli.train import train as train_here

    for name, classes in (("a", ("cat", "dog")), ("b", ("aardvark", "cat"))):
        set_of_classes(tmp_path / name / "set", classes, 12)
    monkeypatch.chdir(tmp_path / "a")
    train_here([*TRAIN[1:], "--data.path", "set", "--out", "run", "--training.num-steps", "1"])
    monkeypatch.chdir(tmp_path / "b")
    words = ["../a/run", "--features", str(network), "--num", "20", "--steps", "2", "--out", str(tmp_path / "o.json")]
    evaluate(words)
    assert str(tmp_path / "a" / "set") in (tmp_path / "o.json").read_text()
    assert "held_out_loss" in (tmp_path / "o.json").read_text()
    shutil.rmtree(tmp_path / "a" / "set")
    with pytest.raises(RinError, match="no such folder"):
        evaluate(words)
    shutil.copytree("set", tmp_path / "a" / "set")
    with pytest.raises(RinError, match="no longer what the run in"):
        evaluate(words)
    (tmp_path / "b" / "set" / "a.heic").touch()
    with caplog.at_level("WARNING", "rin"):
        evaluate([*words, "--reference", "set"])
    assert "no held-out loss: " in caplog.text
    assert "1 .heic" in caplog.text
    assert "held_out_loss" not in (tmp_path / "o.json").read_text()


def grey(values):
    """A TIFF, which Pillow writes for unsigned numbers of 16 bits and floats, and not for signed numbers of 16 bits."""
    if values.dtype != np.int16:
        file = io.BytesIO()
        Image.fromarray(values).save(file, "tiff")
        return file.getvalue()
    file, tags = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 1
    Image.fromarray(values.view(np.uint16)).save(file, "tiff", tiffinfo=tags)
    entry = (339).to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00"  # the format of numbers, 2 of signed ones
    return file.getvalue().replace(entry + b"\x01", entry + b"\x02")


@pytest.mark.parametrize(("least", "largest", "kind"), [(-1024, 3071, np.int16), (0, 1.002, np.float32)])
def test_grey_pictures_of_more_than_8_bits(tmp_path, least, largest, kind):
    values = np.linspace(least, largest, 256).astype(kind).reshape(16, 16)
    data = grey(values)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "odd.tif").write_bytes(data)
    assert_one_line(train(tmp_path / "set", tmp_path / "run"), "odd.tif", f"{largest}", "--data.value-range")
    levels = decode(data, (1, 16, 16), (float(least), float(largest))).flatten()
    assert (levels.int() - torch.arange(256)).abs().max() <= 1


@pytest.mark.parametrize("count", [1, 12])
def test_a_gif_without_durations(tmp_path, count):
    frames = [Image.new("RGB", (8, 8), (20 * number,) * 3) for number in range(count)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    video = look_into(tmp_path / "a.gif")
    assert video.num_frames(ClipsConfig()) == count
    clip = cut(video, 0, count, ClipsConfig()).decode((3, count, 8, 8))
    assert (clip[0, :, 4, 4].float() / 20).round().tolist() == list(range(count))


def test_files_that_are_left_out_are_counted(tmp_path):
    path = set_of_classes(tmp_path / "set")
    for number in range(20):
        (path / "dog" / f"IMG_{number}.HEIC").write_bytes(b"ftypheic")
    done = train(path, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "passed over 20 files" in done.stderr
    assert "20 .heic" in done.stderr


def test_a_tilde_behind_an_equals_sign(begun, tmp_path, monkeypatch):
    from rin.cli.sample import sample

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    sample([str(begun / "run"), "--num", "2", "--out=~/x.png"])
    assert (tmp_path / "home" / "x.png").exists()
    assert not (tmp_path / "~").exists()
