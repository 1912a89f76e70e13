"""Folders of images or of videos, with or without a folder a class."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from rin.core.errors import RinError
from rin.data.decoding import printable
from rin.data.encoded import Encoded, FileKind

PICTURE_SUFFIXES = frozenset(
    (
        *(".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"),
        *(".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
    )
)
"""How the names of pictures end, in any case; every other file is passed over."""

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts"),
        *(".webm", ".wmv", ".y4m"),
    )
)
"""How the names of videos end; of a .gif, a model of pictures takes the first frame and a model of clips all."""

SUFFIXES: dict[FileKind, frozenset[str]] = {"picture": PICTURE_SUFFIXES, "video": VIDEO_SUFFIXES}
"""Of either."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words that name a split, and the split."""


def open_folder(folder: Path, kind: FileKind = "picture") -> Encoded:
    """The pictures, or the videos, in a folder and its sub-folders, in natural order (2 before 10).

    If all of them lie in sub-folders, the names of the first sub-folders are the classes, in natural order too. If some
    lie directly in the folder there are no classes. Hidden files and folders are passed over.

    Raises:
        RinError: there are none, or the sub-folders are splits and not classes.
    """
    paths = [path for path in files_in(folder) if path.suffix.lower() in SUFFIXES[kind]]
    if not paths:
        named = {"picture": ".png, .jpg, .webp", "video": ".mp4, .mkv, .webm"}[kind]
        raise RinError(f"{printable(folder)} holds no {kind}s: give a folder with {named} or the like in it")
    first_parts = [path.relative_to(folder).parts for path in paths]
    classes: list[str] = []
    if all(len(parts) > 1 for parts in first_parts):
        classes = sorted({parts[0] for parts in first_parts}, key=natural)
        _check_not_splits(folder, classes)
    numbers = {name: number for number, name in enumerate(classes)}
    return Encoded(
        read=paths.__getitem__,
        name=lambda row: printable(paths[row]),
        rows=torch.arange(len(paths)),
        labels=torch.tensor([numbers.get(parts[0], -1) for parts in first_parts]),
        class_names=tuple(printable(name) for name in classes),
        kind=kind,
    )


def _check_not_splits(folder: Path, classes: list[str]) -> None:
    if any(name.lower() not in SPLIT_NAMES for name in classes):
        return
    to_train_on = next((name for name in classes if SPLIT_NAMES[name.lower()] == "train"), classes[0])
    names, way_out = " and ".join(classes), printable(folder / to_train_on)
    raise RinError(f"the folders in {printable(folder)} are splits ({names}), not classes: give {way_out}")


def files_in(folder: Path) -> list[Path]:
    """Every file in a folder and its sub-folders that is not hidden, in natural order.

    Raises:
        RinError: the folder cannot be read.
    """
    try:
        return sorted(_walk(folder), key=lambda path: natural(path.relative_to(folder).as_posix()))
    except OSError as error:
        raise RinError(f"cannot read {printable(error.filename)}: {error.strerror}") from error


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_stray(name))
        yield from (Path(parent, name) for name in files if not _is_stray(name))


def _raise(error: OSError) -> None:
    raise error


def _is_stray(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people do, numbers by their value: image 2 before image 10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name
