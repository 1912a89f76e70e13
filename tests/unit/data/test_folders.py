"""Folders of images and the built-in digits."""

import os
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from rin.cli.prepare import prepare
from rin.core.errors import RinError
from rin.data import DataConfig, MediaSet, open_data
from rin.data.files.folders import PICTURE_SUFFIXES

GREY = (1, 8, 8)


def save(path, level=0, size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path, **options)


def opened(path, **options):
    return open_data(DataConfig(path=str(path), **{"num_held_out": 0, **options}), GREY)


def everything(images):
    return images.get(torch.arange(len(images)))


def levels(images):
    return everything(images)[0][:, 0, 0, 0].tolist()


def test_folders_of_classes_are_classes_in_natural_order(tmp_path):
    for level, name in enumerate(["10/deep/a.png", "2/b.png", "2/a.png", "cat/x.png"]):
        save(tmp_path / name, level)
    (tmp_path / "empty").mkdir()
    training = opened(tmp_path).training
    assert isinstance(training, MediaSet)
    assert training.class_names == ("2", "10", "cat")
    assert levels(training) == [2, 1, 0, 3]
    assert everything(training)[1].tolist() == [0, 0, 1, 2]


def test_classes_can_be_left_out(tmp_path):
    save(tmp_path / "cat/a.png")
    training = opened(tmp_path, labels=False).training
    assert training.class_names == ()
    assert everything(training)[1].tolist() == [-1]


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["a.png", "cat/b.png"]])
def test_pictures_directly_in_the_folder_mean_no_classes(tmp_path, names):
    for name in names:
        save(tmp_path / name)
    training = opened(tmp_path).training
    assert training.class_names == ()
    assert everything(training)[1].tolist() == [-1, -1]


def test_order_is_natural_and_endings_may_be_of_any_case(tmp_path):
    for level, name in enumerate(["im10.PNG", "im9.Jpg", "im2.png", "im1.bmp"]):
        save(tmp_path / name, 40 * level)
    assert levels(opened(tmp_path).training) == [120, 80, 40, 0]


def test_odd_names_and_links_are_read(tmp_path):
    save(tmp_path / "a file (1).png", 1)
    save(tmp_path / "été — 猫.png", 2)
    (tmp_path / "link.png").symlink_to(tmp_path / "a file (1).png")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert sorted(levels(opened(tmp_path).training)) == [1, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are no text")
def test_names_that_are_no_text_can_be_printed(tmp_path):
    save(tmp_path / "a.png")
    broken = os.fsencode(tmp_path) + b"/b\xff.png"
    with open(broken, "wb") as file:
        file.write(b"nothing")
    with pytest.raises(RinError) as caught:
        opened(tmp_path)
    assert "b\\udcff.png" in str(caught.value).encode("utf-8").decode()


def test_stray_files_are_passed_over(tmp_path):
    save(tmp_path / "a.png", 3)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "meta.json", "._a.png", "__MACOSX/a.png", ".cache/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"stray")
    assert levels(opened(tmp_path).training) == [3]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RinError, match=r"no such folder, file or known set '.*gone'"):
        opened(tmp_path / "gone")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "a/b/c", "https://a.b/c.parquet", "~nobody-of-that-name/x"])
def test_a_path_that_cannot_be_is_one_line(path):
    with pytest.raises(RinError, match="no such folder, file or known set"):
        opened(path)


def test_an_unknown_name_is_refused():
    with pytest.raises(RinError, match="no such folder, file or known set 'digit'"):
        opened("digit")


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(RinError, match="holds no pictures"):
        opened(tmp_path)


def test_a_single_picture_is_no_set(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(RinError, match="single file"):
        opened(tmp_path / "a.png")


def test_folders_of_splits_are_not_taken_for_classes(tmp_path):
    save(tmp_path / "train/cat/a.png")
    save(tmp_path / "val/cat/b.png")
    with pytest.raises(RinError, match=r"are splits \(train and val\).*give .*train$"):
        opened(tmp_path)
    assert opened(tmp_path / "train").training.class_names == ("cat",)


def test_on_demand_equals_in_memory(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 24, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        (tmp_path / f"{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"{number % 3}/{number}.{'jpg' if number % 2 else 'png'}")
    in_memory = opened(tmp_path, num_held_out=2)
    on_demand = opened(tmp_path, num_held_out=2, memory_gib=0.0)
    assert type(in_memory.training) is not type(on_demand.training)
    index = torch.tensor([5, 0, 5, 26])
    for one, other in [(in_memory.training, on_demand.training), (in_memory.held_out, on_demand.held_out)]:
        index = index[index < len(one)]
        assert len(one) == len(other)
        assert one.shape == other.shape == GREY
        assert one.class_names == other.class_names
        for a, b in zip(one.get(index), other.get(index), strict=True):
            assert a.dtype == b.dtype
            assert (a == b).all()


@pytest.mark.parametrize(("num_held_out", "count"), [(0, 0), (3, 3), (512, 4)])
def test_held_out_pictures_are_cut_off_and_never_trained_on(tmp_path, num_held_out, count):
    for level in range(40):
        save(tmp_path / f"{level}.png", level)
    data = opened(tmp_path, num_held_out=num_held_out)
    training, held_out = levels(data.training), levels(data.held_out) if count else []
    assert len(data.held_out) == len(held_out) == count
    assert sorted(training + held_out) == list(range(40))
    assert training == sorted(training)
    again = opened(tmp_path, num_held_out=num_held_out, memory_gib=0.0)
    assert levels(again.training) == training


def test_digits_are_the_real_scans():
    from sklearn.datasets import load_digits

    data = open_data(DataConfig(num_held_out=100), GREY)
    assert data.training.class_names == tuple("0123456789")
    assert (len(data.training), len(data.held_out)) == (1697, 100)
    real = load_digits()
    mine = torch.cat([everything(data.training)[0], everything(data.held_out)[0]])[:, 0]
    labels = torch.cat([everything(data.training)[1], everything(data.held_out)[1]])
    expected = sorted(zip(np.rint(real.images * 255 / 16).reshape(-1, 64).tolist(), real.target.tolist(), strict=True))
    assert sorted(zip(mine.reshape(-1, 64).tolist(), labels.tolist(), strict=True)) == expected
    assert data.held_out.get(torch.arange(100))[1].unique().tolist() == list(range(10))


def test_digits_at_another_shape():
    training = open_data(DataConfig(), (3, 16, 16)).training
    pictures, _ = training.get(torch.tensor([0, 1]))
    assert training.shape == (3, 16, 16)
    assert (pictures[:, 0] == pictures[:, 2]).all()


def test_missing_scikit_learn_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RinError, match=r'pip install "rin-diffusion\[demo\]"'):
        open_data(DataConfig(), GREY)


@pytest.mark.parametrize(
    ("field", "value"),
    [("path", ""), ("split", ""), ("held_out_split", ""), ("num_held_out", -1), ("memory_gib", float("nan"))],
)
def test_values_that_mean_nothing_are_refused_by_name(field, value):
    with pytest.raises(RinError, match=rf"^(data\.)?{field} (is|nan)"):
        DataConfig(**{field: value})


def test_impossible_shapes_are_refused_before_anything_is_read():
    with pytest.raises(RinError, match="0 channels"):
        open_data(DataConfig(path="nowhere"), (0, 8, 8))
    with pytest.raises(RinError, match="clips of 2 channels"):
        open_data(DataConfig(path="nowhere"), (2, 3, 8, 8))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


BESIDE = {
    ".heic": (lambda top: touch(top / "cat" / "IMG_1.HEIC"), r"passed over 1 files, .*\(1 \.heic\), .*IMG_1\.HEIC"),
    ".jxl": (lambda top: touch(top / "a.jxl"), r"\(1 \.jxl\)"),
    ".psd": (lambda top: touch(top / "cat" / "a.psd"), r"\(1 \.psd\)"),
    "a raw picture": (lambda top: touch(top / "cat" / "a.CR2"), r"\(1 \.cr2\)"),
    "a film": (lambda top: touch(top / "a.mp4"), r"\(1 \.mp4\)"),
    "a table": (lambda top: touch(top / "labels.csv"), r"\(1 \.csv\)"),
    "an archive": (lambda top: touch(top / "all.tar.gz"), r"\(1 \.gz\)"),
    "no ending": (lambda top: touch(top / "cat" / "readme"), r"\(1 without an ending\)"),
    "an unfinished download": (lambda top: touch(top / "cat" / "a.jpg.part"), r"\(1 \.part\)"),
    "a system's files": (lambda top: touch(top / "Thumbs.db"), r"\(1 \.db\)"),
    "a hidden picture": (lambda top: save(top / "cat" / "._a.png"), r"passed over 1 hidden pictures: .*\._a\.png"),
    "a hidden folder": (lambda top: save(top / ".thumbs" / "a.png"), r"passed over 1 folders, .*: .*\.thumbs"),
    "a system's folder": (lambda top: save(top / "cat" / "@eaDir" / "a.png"), "passed over 1 folders, .*@eaDir"),
    "an empty class": (lambda top: (top / "eel").mkdir(), "give no picture, and so no class: .*eel"),
    "a class seen already": (lambda top: (top / "fox").symlink_to(top / "dog"), "give no picture, .*: .*fox"),
    "a picture beside": (
        lambda top: save(top / "a.png"),
        r"\(cat, dog\) are no classes, because pictures lie .*a\.png",
    ),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_a_folder_holds_and_is_not_used_is_said(tmp_path, kind):
    for name in ("cat", "dog"):
        save(tmp_path / name / "0.png")
    put, note = BESIDE[kind]
    put(tmp_path)
    found = opened(tmp_path)
    assert len(found.training) == (3 if kind == "a picture beside" else 2)
    assert found.training.class_names == (() if kind == "a picture beside" else ("cat", "dog"))
    (said,) = found.notes
    assert re.search(note, said)


def test_so_it_is_when_the_folder_is_prepared(tmp_path, caplog):
    save(tmp_path / "set" / "cat" / "0.png")
    touch(tmp_path / "set" / "cat" / "1.heic")
    with caplog.at_level("WARNING", "rin"):
        prepare([str(tmp_path / "set"), str(tmp_path / "out"), "--size", "8"])
    assert "passed over 1 files" in caplog.text


def test_nothing_is_said_where_all_is_used(tmp_path):
    save(tmp_path / "cat" / "more" / "0.png")
    save(tmp_path / "dog" / "0.JPG")
    assert opened(tmp_path).notes == ()


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES))
def test_an_empty_file_of_any_kind_is_called_empty(tmp_path, suffix):
    touch(tmp_path / f"a{suffix}")
    with pytest.raises(RinError, match=rf"a\{suffix}: it is empty, 0 bytes"):
        opened(tmp_path)
