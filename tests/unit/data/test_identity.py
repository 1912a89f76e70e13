"""What tells a set from others: the same wherever it lies, and another when names, order, classes or counts change."""

import shutil

import pytest

from rin.cli.prepare import prepare
from rin.data import DataConfig, open_data
from rin.data.files.identity import changes
from tests.unit.data.test_folders import save
from tests.unit.data.test_tables import png, structs, write
from tests.unit.data.test_tars import write_tar

GREY = (1, 8, 8)


def folder(path):
    for number in range(12):
        save(path / ("cat" if number % 2 else "dog") / f"{number}.png", number)


def renamed(path, old, new):
    (path / old).rename(path / new)


FOLDERS = {
    "class added": lambda path: save(path / "eel" / "0.png"),
    "class removed": lambda path: shutil.rmtree(path / "dog"),
    "class renamed": lambda path: renamed(path, "dog", "aardvark"),
    "class renamed in its place": lambda path: renamed(path, "dog", "dogs"),
    "picture added": lambda path: save(path / "cat" / "99.png"),
    "picture removed": lambda path: (path / "cat" / "3.png").unlink(),
    "picture renamed": lambda path: renamed(path, "cat/3.png", "cat/98.png"),
    "picture of another class": lambda path: renamed(path, "cat/3.png", "dog/3.png"),
    "picture beside the classes": lambda path: save(path / "0.png"),
    "picture not read any more": lambda path: renamed(path, "cat/3.png", "cat/3.heic"),
}


def identity(path, **options):
    return open_data(DataConfig(path=str(path), **options), GREY).identity


@pytest.mark.parametrize("change", FOLDERS)
def test_another_folder_is_another_set(tmp_path, change):
    folder(tmp_path / "a")
    before = identity(tmp_path / "a")
    FOLDERS[change](tmp_path / "a")
    assert changes(before, identity(tmp_path / "a"), with_classes=True)


@pytest.mark.parametrize("change", ["class renamed", "picture renamed"])
def test_so_is_one_prepared_of_it(tmp_path, change):
    folder(tmp_path / "a")
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--size", "8", "--channels", "1"]
    prepare(words)
    before = identity(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    FOLDERS[change](tmp_path / "a")
    prepare(words)
    assert changes(before, identity(tmp_path / "b"), with_classes=True)


LABELS, ROWS = [0, 1] * 6, list(range(12))
NAMED, NAMELESS = structs(ROWS), [png(0)[:-number] for number in range(1, 13)]  # the latter differ in size alone
TABLES = {
    "rows in another order": lambda images: (images[::-1], LABELS[::-1]),
    "images in another order": lambda images: (images[::-1], LABELS),
    "classes in another order": lambda images: (images, LABELS[::-1]),
    "one row fewer": lambda images: (images[1:], LABELS[1:]),
    "classes as texts": lambda images: (images, ["ab"[label] for label in LABELS]),
    "another class of one row": lambda images: (images, [*LABELS[:-1], 0]),
    "an image of another size": lambda images: ([*images[:-1], images[0]], LABELS),
}


@pytest.mark.parametrize("images", [NAMED, NAMELESS], ids=["named", "nameless"])
@pytest.mark.parametrize("change", TABLES)
def test_another_table_is_another_set(tmp_path, images, change):
    found = []
    for place, (of_images, labels) in enumerate([(images, LABELS), TABLES[change](images)]):
        write(tmp_path / f"{place}.parquet", {"image": of_images, "label": labels})
        found.append(identity(tmp_path / f"{place}.parquet", memory_gib=0.0))
    assert changes(*found, with_classes=True)


@pytest.mark.parametrize("change", ["one row fewer", "classes in another order", "an image of another size"])
def test_so_is_another_table_that_is_streamed(tmp_path, change):
    found = []
    for place, (images, labels) in enumerate([(NAMELESS, LABELS), TABLES[change](NAMELESS)]):
        write(tmp_path / str(place) / "set.parquet", {"image": images, "label": labels})
        found.append(identity(tmp_path / str(place) / "set.parquet", stream=True))
    assert changes(*found, with_classes=True)


TARS = {
    "in another order": {"b.png": 2, "a.png": 1, "a.cls": b"0", "b.cls": b"1"},
    "another name": {"a.png": 1, "c.png": 2, "a.cls": b"0", "c.cls": b"1"},
    "another class": {"a.png": 1, "b.png": 2, "a.cls": b"1", "b.cls": b"1"},
    "another size": {"a.png": 1, "b.png": png(2) + b"\0", "a.cls": b"0", "b.cls": b"1"},
}


@pytest.mark.parametrize("change", TARS)
def test_another_tar_is_another_set(tmp_path, change):
    before = write_tar(tmp_path / "0" / "a.tar", {"a.png": 1, "b.png": 2, "a.cls": b"0", "b.cls": b"1"})
    after = write_tar(tmp_path / "1" / "a.tar", TARS[change])
    assert changes(identity(before), identity(after), with_classes=True)


@pytest.mark.parametrize(
    "make",
    [
        folder,
        lambda path: write(path / "set.parquet", {"image": NAMED, "label": LABELS}),
        lambda path: write_tar(path / "a.tar", {"a.png": 1, "b.png": 2}),
    ],
    ids=["folder", "table", "tar"],
)
def test_a_set_is_the_same_wherever_it_lies(tmp_path, make):
    make(tmp_path / "a")
    before = identity(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert before == identity(tmp_path / "b") == identity(tmp_path / "link") == identity(tmp_path / "b" / ".." / "b")
