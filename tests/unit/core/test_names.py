"""Names of classes and files: what reaches a terminal, and what reaches a file system."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from rin import RinError, save
from rin.core.errors import StoppedError, unknown
from rin.core.names import file_names, printable
from rin.core.progress import LOGGER
from rin.data.files.folders import open_folder

HARMLESS = ["cat", "Abyssinian cat", "köttur", "猫", "tench, Tinca tinca", "n01440764", "a.b", "-1", "👩‍🔬"]

HOSTILE = {
    "up": "..", "here": ".", "further up": "../../out", "root": "/etc", "windows root": "C:\\out", "back": "a\\..\\b",
    "mark": "\ufeffcat",
    "nothing": "", "null": "a\0b", "escape": "\x1b[2J", "line": "a\nb", "c1": "\x9b2J", "turned": "a\u202egnp.exe",
    "hidden": ".hidden", "device": "NUL", "device with an ending": "com1.txt", "dropped": "cat. ", "blank": "   ",
    "long": "x" * 5000, "long in bytes": "猫" * 300, "no text": "a\udcffb", "stream": "a:b", "pattern": "*?<>|\"",
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names_are_their_own(name):
    assert file_names([name]) == (name,)
    assert printable(name) == name


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_every_name_is_that_of_one_file_in_the_folder(tmp_path, name):
    (made,) = file_names([name])
    assert made not in ("", ".", "..")
    assert not made.startswith(".")
    assert not set(made) & set('/\\:*?"<>|')
    assert printable(made) == made
    assert len(made.encode()) < 143
    (tmp_path / "folder" / made).mkdir(parents=True)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [made]


@pytest.mark.parametrize("names", [["a/b", "a_b"], ["cat", "Cat"], ["..", "__"], ["é", "e\u0301"], ["a", "a", "a_1"]])
def test_names_that_would_be_one_stay_apart(names):
    made = file_names(names)
    assert len({name.casefold() for name in made}) == len(names)
    assert made[0] == file_names(names[:1])[0]


@pytest.mark.parametrize("are_clips", [False, True])
@pytest.mark.parametrize("name", ["..", "../../out", "/etc", "a\\..\\b", "."])
def test_samples_are_written_into_the_folder_given_and_nowhere_else(tmp_path, are_clips, name):
    pictures, out = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), tmp_path / "deep" / "out"
    save(pictures[:, :, None] if are_clips else pictures, out, labels=[0, 1], class_names=[name, "cat"])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert all(path.is_relative_to(out) for path in written)
    assert len(open_folder(out).class_names) == 2


@pytest.mark.parametrize(
    "name",
    [
        "\x1b[2Jcat", "cat\x07", "c\nat", "cat\r", "\x9b31mcat", "c\u202eta", "c\x00at", "\u061ccat", "c\u200bat",
        "c\u2060at", "\ufeffcat", "c\ufff9at",
    ],
)  # fmt: skip
def test_control_characters_never_reach_a_terminal(name, caplog):
    for error in (RinError(f"no clips of class {name}"), unknown("class", "zzz", [name]), StoppedError(name, 15)):
        assert str(error).isprintable()
    with caplog.at_level(logging.INFO, "rin"):
        LOGGER.info("passed over %s", name)
        LOGGER.info(f"passed over {name}")
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert len(caplog.records) == 2


def test_folders_with_odd_names_have_names_that_can_be_printed(tmp_path):
    (tmp_path / "a\x1b[2J").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a\x1b[2J" / "0.png")
    assert open_folder(tmp_path).class_names == ("a\\x1b[2J",)
