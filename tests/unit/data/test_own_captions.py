"""Captions beside one's own pictures: files of text in folders and tars, columns of tables."""

import tarfile
from dataclasses import replace
from io import BytesIO

import datasets
import pytest
import torch
from PIL import Image

from rin import DataConfig, RinError, open_data, preset, train

SHAPE = (3, 4, 4)
TEXTS = ["a cat", "two dogs", " a cat\n", "Übermut"]
"""Of each picture; white space around a text does not count."""


def encoded(number):
    file = BytesIO()
    Image.new("RGB", (4, 4), (10 * number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def in_a_folder(folder, texts, ending="txt"):
    for number, text in enumerate(texts):
        place = folder / "sub" / f"{number}.png"  # a folder that is no class
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(number))
        if text is not None:
            place.with_suffix(f".{ending}").write_text(text, encoding="utf-8")
    return folder


def in_a_tar(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "train.tar", "w") as tar:
        for number, text in enumerate(texts):
            parts = [("png", encoded(number))] + ([] if text is None else [("txt", text.encode())])
            for ending, content in parts:
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    return folder


def in_a_table(folder, texts, split="train"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"image": [{"bytes": encoded(number), "path": None} for number in range(len(texts))], "txt": texts,
            "label": [0] * len(texts)}  # fmt: skip
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.to_parquet(folder / f"{split}-0.parquet")
    return folder


def captions_of(media):
    """The text of each picture, by its colour; None for none."""
    pictures, labels = media.get(torch.arange(len(media)))
    numbers = (pictures[:, 0, 0, 0] // 10).tolist()
    texts = [None if label < 0 else media.class_names[label] for label in labels.tolist()]
    return dict(zip(numbers, texts, strict=True))


def opened(folder, **changes):
    return open_data(DataConfig(path=str(folder), **{"captions": "txt", "num_held_out": 0} | changes), SHAPE)


@pytest.mark.parametrize("kept", [in_a_folder, in_a_tar, in_a_table])
def test_captions_go_with_their_pictures_and_take_the_place_of_classes(tmp_path, kept):
    found = opened(kept(tmp_path / "set", TEXTS)).training
    assert captions_of(found) == {0: "a cat", 1: "two dogs", 2: "a cat", 3: "Übermut"}
    assert found.class_names == ("a cat", "two dogs", "Übermut")


@pytest.mark.parametrize("kept", [in_a_folder, in_a_tar, in_a_table])
def test_a_picture_without_one_has_none_and_that_is_told(tmp_path, kept):
    found = opened(kept(tmp_path / "set", ["a cat", None, "", "a dog"]))
    assert captions_of(found.training) == {0: "a cat", 1: None, 2: None, 3: "a dog"}
    assert "2 of 4 examples have no caption" in found.notes
    assert not any(".txt" in note for note in found.notes), "they are not passed over"


def test_pictures_of_one_name_share_its_caption_and_the_others_keep_theirs(tmp_path):
    folder = in_a_folder(tmp_path, TEXTS)
    (folder / "sub" / "0.bmp").write_bytes((folder / "sub" / "0.png").read_bytes())
    found = opened(folder).training
    assert len(found) == 5
    assert captions_of(found) == {0: "a cat", 1: "two dogs", 2: "a cat", 3: "Übermut"}


@pytest.mark.parametrize("ending", ["txt", ".txt"])
def test_an_ending_may_have_its_dot(tmp_path, ending):
    for kept in (in_a_folder, in_a_tar):
        assert len(opened(kept(tmp_path / kept.__name__, TEXTS), captions=ending).training.class_names) == 3


def test_a_model_without_captions_is_not_trained_on_a_class_a_text(tmp_path):
    digits = preset("digits")
    experiment = replace(digits, data=DataConfig(path=str(in_a_folder(tmp_path / "set", TEXTS)), captions="txt"))
    with pytest.raises(RinError, match="draws by no captions"):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_held_out_pictures_may_have_captions_of_their_own(tmp_path):
    in_a_table(tmp_path, ["a cat", "a dog"])
    in_a_table(tmp_path, ["a dog", "a bird"], "test")
    found = opened(tmp_path, num_held_out=2)
    assert captions_of(found.training) == {0: "a cat", 1: "a dog"}
    assert captions_of(found.held_out) == {0: "a dog", 1: "a bird"}
    assert found.training.class_names == found.held_out.class_names


@pytest.mark.parametrize(
    ("kept", "captions", "named"),
    [
        (in_a_folder, "caption", "no captions in .caption files of"),
        (in_a_tar, "caption", "no captions in .caption files of"),
        (in_a_table, "caption", "no column 'caption' of texts"),
        (in_a_table, "label", "no column 'label' of texts"),
    ],
)
def test_captions_that_are_not_there_are_one_line(tmp_path, kept, captions, named):
    with pytest.raises(RinError, match=named):
        opened(kept(tmp_path / "set", TEXTS), captions=captions)


def test_a_text_that_is_none_is_one_line(tmp_path):
    folder = in_a_folder(tmp_path, TEXTS)
    (folder / "sub" / "1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RinError, match="cannot read the caption"):
        opened(folder)


@pytest.mark.parametrize("changes", [{"path": "digits"}, {"stream": True}])
def test_sets_with_captions_of_their_own_and_streams_take_none(tmp_path, changes):
    in_a_table(tmp_path, TEXTS)
    with pytest.raises(RinError, match=r"data\.captions is 'txt'"):
        open_data(DataConfig(**{"path": str(tmp_path), "captions": "txt"} | changes), (1, 8, 8))
