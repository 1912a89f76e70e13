"""Pictures in tar files."""

import io
import json
import re
import tarfile

import pytest
import torch

from rin.core.errors import RinError
from rin.data import DataConfig, open_data
from tests.unit.data.test_folders import save
from tests.unit.data.test_tables import png, write
from tests.unit.data.test_tables import structs as rows

GREY = (1, 8, 8)


def write_tar(path, members, **options):
    """A tar of pictures of one grey (a number) and of other files (bytes, or what becomes JSON)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, **{"mode": "w", **options}) as tar:
        for name, content in members.items():
            content = png(content) if isinstance(content, int) else content
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def opened(path, **options):
    return open_data(DataConfig(path=str(path), **{"num_held_out": 0, **options}), GREY)


def levels(images):
    return images.get(torch.arange(len(images)))[0][:, 0, 0, 0].tolist()


def labels(images):
    return images.get(torch.arange(len(images)))[1].tolist()


def test_classes_are_in_files_beside_the_pictures(tmp_path):
    members = {"a.cls": b"2\n", "a.png": 1, "a.txt": b"a cat", "b.png": 2, "b.json": {"label": 0}}
    members |= {"c.json": {"cls": "1"}, "c.png": 3, "d.png": 4, "e.json": {"text": "no class"}, "e.png": 5}
    members |= {"f.png": 6, "f.json": {"label": 0}, "f.cls": b"1", "g.cls": b"-1", "g.png": 7}
    training = opened(write_tar(tmp_path / "set.tar", members)).training
    assert levels(training) == [1, 2, 3, 4, 5, 6, 7]
    assert labels(training) == [2, 0, 1, -1, -1, 1, -1]
    assert training.class_names == ("0", "1", "2")


def test_keys_end_at_the_last_dot_or_the_first(tmp_path):
    members = {
        "1/x.v1.png": 1,
        "1/x.v1.cls": b"0",
        "1/x.v2.png": 2,
        "1/x.v2.cls": b"1",
        "2/x.cls": b"2",
        "2/x.l.png": 3,
    }
    assert labels(opened(write_tar(tmp_path / "set.tar", members)).training) == [0, 1, 2]


def test_keys_belong_to_their_tar(tmp_path):
    write_tar(tmp_path / "0.tar", {"a.png": 1, "a.cls": b"0"})
    write_tar(tmp_path / "1.tar", {"a.png": 2, "a.cls": b"1"})
    assert labels(opened(tmp_path).training) == [0, 1]


@pytest.mark.parametrize("top", ["", "./", "pets/", "./a/b/"])
def test_folders_are_classes(tmp_path, top):
    members = {f"{top}10/deep/x.png": 1, f"{top}cat/x.png": 2, f"{top}2/x.png": 3}
    training = opened(write_tar(tmp_path / "set.tar", members)).training
    assert training.class_names == ("2", "10", "cat")
    assert labels(training) == [1, 2, 0]


def test_one_folder_is_one_class_and_none_is_none(tmp_path):
    assert opened(write_tar(tmp_path / "one.tar", {"cat/x.png": 1, "cat/y.png": 2})).training.class_names == ("cat",)
    training = opened(write_tar(tmp_path / "two.tar", {"cat/x.png": 1, "y.png": 2})).training
    assert (training.class_names, labels(training)) == ((), [-1, -1])


def test_classes_can_be_left_out(tmp_path):
    members = {"cat/x.png": 1, "cat/x.cls": b"no number"}
    training = opened(write_tar(tmp_path / "set.tar", members), labels=False).training
    assert (training.class_names, labels(training)) == ((), [-1])


def test_tars_of_a_folder_are_splits_by_their_names_in_natural_order(tmp_path):
    write_tar(tmp_path / "pets-train-10.tar", {"a.png": 3})
    write_tar(tmp_path / "pets-train-9.tar", {"a.png": 2, "b.png": 1})
    write_tar(tmp_path / "val" / "0.TAR", {"a.png": 9})
    write_tar(tmp_path / "test-00000-of-00001.tar", {"a.png": 7})
    data = opened(tmp_path, num_held_out=5)
    assert levels(data.training) == [2, 1, 3]
    assert levels(data.held_out) == [7]
    assert levels(opened(tmp_path, num_held_out=5, held_out_split="validation").held_out) == [9]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_and_odd_members(tmp_path, form):
    long = "/".join(["very long name"] * 6)
    path = write_tar(tmp_path / "set.tar", {f"{long}/été.png": 1, "a/._x.png": b"", ".hidden/x.png": 9}, format=form)
    with tarfile.open(path, "a", format=form) as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"link-{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert levels(opened(path).training) == [1]


def test_pictures_can_be_decoded_on_demand(tmp_path):
    path = write_tar(tmp_path / "set.tar", {f"{level}.png": level for level in range(30)})
    assert levels(opened(path, memory_gib=0.0).training) == list(range(30))


def test_a_broken_picture_is_named_with_its_tar(tmp_path):
    path = write_tar(tmp_path / "set.tar", {"a.png": 1, "b/torn.png": b"torn", "c.png": 2})
    with pytest.raises(RinError, match=r"b/torn\.png in .*set\.tar"):
        opened(path)
    assert opened(path, skip_broken=True).training.num_broken == 1


def test_tars_that_are_cut_off_are_named(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {f"{level}.png": level for level in range(4)}).read_bytes()
    last = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # the end of the last member, where the closing zeros begin
    cut = tmp_path / "cut.tar"
    for size in (0, 100, 512, 700, 1024, 1500, last - 512, last - 1, last, last + 100):
        cut.write_bytes(whole[:size])
        with pytest.raises(RinError, match=r"cut\.tar"):
            opened(cut)
    cut.write_bytes(whole[: last + 512])
    assert len(opened(cut).training) == 4


def test_a_header_damaged_in_the_middle_is_no_end(tmp_path):
    path = write_tar(tmp_path / "set.tar", {"a.png": 1, "b.png": 2, "c.png": 3})
    content = bytearray(path.read_bytes())
    content[1024 + 10] ^= 255  # in the header of b.png: a picture takes a block
    path.write_bytes(content)
    with pytest.raises(RinError, match=r"set\.tar as a tar: it is truncated or damaged at byte 1024"):
        opened(path)


def test_a_file_of_negative_size_is_no_endless_loop(tmp_path):
    path = write_tar(tmp_path / "set.tar", {"a.png": 1, "b.png": 2})
    content = bytearray(path.read_bytes())
    content[1024 + 124 : 1024 + 136] = b"\xff" * 10 + (-1024 + 2**16).to_bytes(2, "big")
    content[1024 + 148 : 1024 + 156] = b" " * 8
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(content[1024:1536])
    path.write_bytes(content)
    with pytest.raises(RinError, match=r"set\.tar as a tar: .*negative"):
        opened(path)


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "TAR.XZ"])
def test_compressed_tars_are_refused(tmp_path, ending):
    mode = "w:xz" if ending == "TAR.XZ" else "w:gz"
    path = write_tar(tmp_path / "in" / f"set.{ending}", {"a.png": 1}, mode=mode)
    for source in (path.parent, path):
        with pytest.raises(RinError, match=r"plain \.tar"):
            opened(source)
    path.rename(tmp_path / "in" / "set.tar")
    with pytest.raises(RinError, match="unpack compressed tars"):
        opened(tmp_path / "in")


def test_kinds_are_not_mixed(tmp_path):
    write_tar(tmp_path / "a" / "x.tar", {"a.png": 1})
    write(tmp_path / "a" / "x.parquet", {"image": rows([1])})
    with pytest.raises(RinError, match=r"both \.tar files and parquet"):
        opened(tmp_path / "a")
    write_tar(tmp_path / "b" / "x.tar", {"a.png": 1})
    save(tmp_path / "b" / "x.png")
    with pytest.raises(RinError, match=r"both \.tar files and pictures"):
        opened(tmp_path / "b")
    save(tmp_path / "c" / "x.png", 8)
    write_tar(tmp_path / "c" / "x.tar.gz", {"a.png": 1}, mode="w:gz")
    assert levels(opened(tmp_path / "c").training) == [8]  # the archive that the folder was unpacked from


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"readme.txt": b"none"}, "holds no pictures"),
        ({"a.png": 1, "a.cls": b"cat"}, r"a\.cls in .*set\.tar.*--data\.no-labels"),
        ({"a.png": 1, "a.cls": b"\xff"}, r"a\.cls in .*set\.tar"),
        ({"a.png": 1, "a.json": b"{"}, r"a\.json in .*set\.tar"),
        ({"a.png": 1, "a.json": {"label": [1]}}, r"a\.json in .*no number"),
        ({"a.png": 1, "a.json": {"label": True}}, r"a\.json in .*no number"),
        ({"a.png": 1, "a.cls": b"9" * 30}, "hardly classes"),
        ({"train/a.png": 1, "val/a.png": 2}, "splits"),
    ],
)
def test_mistakes_are_one_line(tmp_path, members, words):
    with pytest.raises(RinError, match=words) as refused:
        opened(write_tar(tmp_path / "set.tar", members))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "names",
    [
        ["my.cat.{}.jpg"], ["img.v1.{}.jpg"], ["{}.1.5.jpg"], ["{}.jpg", "{}.JPG"], ["{}_input.png", "{}_target.png"],
        ["a/{}.png", "b/{}.png"],
    ],
)  # fmt: skip
def test_numbers_and_folders_tell_pictures_of_one_kind_apart(tmp_path, names):
    members = {name.format(number): 10 * number for number in range(4) for name in names}
    assert len(opened(write_tar(tmp_path / "set.tar", members)).training) == 4 * len(names)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["{}.jpg", "{}.png"], "jpg or png"),
        (["{}.input.png", "{}.target.png"], "input.png or target.png"),
        (["{}.jpg", "{}.mask.0.png", "{}.mask.1.png"], "jpg or mask.png"),
        (["{}.rgb.jpg", "{}.depth.tiff"], "depth.tiff or rgb.jpg"),
        (["x/{}.seg.png", "x/{}.jpg"], "jpg or seg.png"),
        (["{}.json", "{}.jpg", "{}.webp"], "jpg or webp"),
    ],
)
def test_several_pictures_to_a_sample_are_refused_or_chosen(tmp_path, names, columns):
    members = {name.format(f"{number:03}"): {} if "json" in name else 5 for number in range(4) for name in names}
    write_tar(tmp_path / "b.tar", members)
    write_tar(tmp_path / "a.tar", {"0.jpg": 1, "1.jpg": 1})
    with pytest.raises(RinError, match=rf"b\.tar has several .*--data\.column {columns} of rin train"):
        opened(tmp_path)
    for column in columns.split(" or "):
        of_column = opened(tmp_path / "b.tar", column=column).training
        assert len(of_column) == 4 * sum(name.replace(".0", "").replace(".1", "").endswith(column) for name in names)


def test_a_name_that_a_tar_has_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for level in (1, 2):
            member = tarfile.TarInfo("a.png")
            member.size = len(png(level))
            tar.addfile(member, io.BytesIO(png(level)))
    with pytest.raises(RinError, match=r"holds a\.png twice: unpack it"):
        opened(tmp_path / "set.tar")


@pytest.mark.parametrize(
    ("members", "note"),
    [
        ({"a.json": {"class": 1}, "b.json": {"category": 2}}, r"passed over 2 files, .*\(2 \.json\)"),
        ({"z.cls": b"1"}, r"passed over 1 files, .*\(1 \.cls\)"),
        ({"a.txt": b"a cat", "b.heic": b""}, r"passed over 2 files, .*\(1 \.txt, 1 \.heic\)"),
        ({"@eaDir/c.png": b"", "__MACOSX/d.png": b"", "._a.png": b""}, r"passed over 3 files, .*\(3 \.png\)"),
        ({"dog/c.png": 3, "dog/d.png": 3}, r"the folders in .* are no classes, .* beside them: a\.png"),
        ({"a.cls": b"1"}, "1 of 2 examples have no class"),
        ({"a.cls": b"1", "b.cls": b"-1"}, "1 of 2 examples have no class"),
    ],
)  # fmt: skip
def test_what_a_tar_holds_and_is_not_used_is_said(tmp_path, members, note):
    found = opened(write_tar(tmp_path / "set.tar", {"a.png": 1, "b.png": 2, **members}))
    assert len(found.training) == 2 + (note.count("folders") * 2)
    (said,) = found.notes
    assert re.search(note, said)
