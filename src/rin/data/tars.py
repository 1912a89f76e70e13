"""Pictures in tar files (WebDataset's shards among them), read where they lie: nothing is ever extracted."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from rin.core.errors import RinError
from rin.data.decoding import BrokenMediaError, printable
from rin.data.encoded import Encoded, numbered_classes
from rin.data.folders import PICTURE_SUFFIXES, SPLIT_NAMES, natural

_WAY_OUT = "leave the classes out with --data.no-labels (rin prepare: --no-labels)"


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a file lies in a tar."""

    tar: Path
    name: str  # a path would take several times the memory
    offset: int
    size: int

    @property
    def ending(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def key(self) -> str:
        """The name without its ending."""
        return str(PurePosixPath(self.name).with_suffix(""))

    def read(self) -> bytes:
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return printable(f"{self.name} in {self.tar}")


def open_tars(files: list[Path], labels: bool = True) -> Encoded:
    """The pictures in tar files, by the ends of their names, in the order that they lie in.

    The class of KEY.jpg is the number in KEY.cls, or "label" or "cls" in KEY.json; in tars without such numbers it is
    the picture's first folder, if all have one (where all share it and have another below, as in a tar made of one
    folder, the first that they need not share). Hidden files and links are passed over.

    Args:
        files: plain tars, not compressed ones.
        labels: whether to look for classes.

    Raises:
        RinError: a file cannot be read, is truncated or compressed, there are no pictures, or what should be a class
            is none.
    """
    pictures: list[_Member] = []
    numbers: list[int | None] = []
    for file in files:
        found, told = _open_tar(file, labels)
        pictures += found
        numbers += told
    if not pictures:
        raise RinError(f"{_origin(files)} holds no pictures: give tars with .png, .jpg, .webp or the like in them")
    if any(number is not None for number in numbers):
        classes = [-1 if number is None else max(number, -1) for number in numbers]
        class_names = numbered_classes(max(classes) + 1, _origin(files))
    elif labels:
        classes, class_names = _by_folder(pictures, _origin(files))
    else:
        classes, class_names = [-1] * len(pictures), ()

    def read(row: int) -> bytes:
        try:
            return pictures[row].read()
        except OSError as error:
            raise BrokenMediaError(error.strerror or str(error)) from error

    return Encoded(
        read=read,
        name=lambda row: str(pictures[row]),
        rows=torch.arange(len(pictures)),
        labels=torch.tensor(classes, dtype=torch.int64),
        class_names=class_names,
    )


def _open_tar(file: Path, labels: bool) -> tuple[list[_Member], list[int | None]]:
    """The pictures of a tar, and the number of the class that each is given, None for none."""
    pictures: list[_Member] = []
    told: dict[str, _Member] = {}  # by key
    for member in _members(file):
        if member.ending in PICTURE_SUFFIXES:
            pictures.append(member)
        elif labels and (member.ending == ".cls" or (member.ending == ".json" and member.key not in told)):
            told[member.key] = member
    numbers = {name: _number(member) for name, member in told.items()}
    return pictures, [numbers.get(_told_of(picture, numbers)) for picture in pictures]


def _told_of(picture: _Member, known: dict[str, int | None]) -> str:
    """The key of a picture: its name without the ending, or up to the first dot, as WebDataset has it."""
    if picture.key in known:
        return picture.key
    path = PurePosixPath(picture.name)
    return str(path.with_name(path.name.partition(".")[0]))


def _members(file: Path) -> Iterator[_Member]:
    """The files in a tar that are not hidden."""
    try:
        with tarfile.open(file, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] (it would keep all of them)
                if member.size < 0:
                    raise tarfile.ReadError("a file of negative size")
                name = PurePosixPath(member.name)
                if member.isreg() and not any(part.startswith(".") for part in name.parts):
                    yield _Member(file, str(name), member.offset_data, member.size)
            _check_end(file, tar.offset)
    except (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError) as error:  # damaged headers raise all
        hint = "unpack compressed tars or make plain ones of them, and copy broken ones again"
        raise RinError(f"cannot read {printable(file)} as a tar: {error}; {hint}") from error
    except OSError as error:
        raise RinError(f"cannot read {printable(file)}: {error.strerror or error}") from error


def _check_end(file: Path, offset: int) -> None:
    """Makes sure that a tar ends where its last member does, with the zeros that close every tar.

    Raises:
        tarfile.ReadError: it does not: it was cut off, or is damaged there, which tarfile takes for an end.
    """
    with file.open("rb") as opened:
        opened.seek(offset)
        if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it is truncated or damaged at byte {offset}")


def _number(member: _Member) -> int | None:
    """The class in a .cls or .json file; None if a .json file tells none."""
    try:
        told: Any = member.read().decode()
        if member.ending == ".json":
            content = json.loads(told)
            told = content.get("label", content.get("cls")) if isinstance(content, dict) else None
            if told is None:
                return None
        if isinstance(told, (int, str)) and not isinstance(told, bool):
            return int(told)
    except (OSError, ValueError, RecursionError) as error:
        raise RinError(f"cannot read a class from {member}: {error}; mend it, or {_WAY_OUT}") from error
    raise RinError(f"{member} has {str(told)[:40]!r} for a class, which is no number: mend it, or {_WAY_OUT}")


def _by_folder(pictures: list[_Member], origin: str) -> tuple[list[int], tuple[str, ...]]:
    """The class of each picture by its folder, and the names of the classes; -1 and no names without folders."""
    folders = [PurePosixPath(picture.name).parts[:-1] for picture in pictures]
    depth = 0
    while all(len(parts) > depth + 1 for parts in folders) and len({parts[depth] for parts in folders}) == 1:
        depth += 1
    if not all(len(parts) > depth for parts in folders):
        return [-1] * len(pictures), ()
    names = sorted({parts[depth] for parts in folders}, key=natural)
    if all(name.lower() in SPLIT_NAMES for name in names):
        way_out = "put each split into tars of its own, as in train-0000.tar"
        raise RinError(f"the folders in {origin} are splits ({' and '.join(names)}), not classes: {way_out}")
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[parts[depth]] for parts in folders], tuple(printable(name) for name in names)


def _origin(files: list[Path]) -> str:
    return printable(files[0]) if len(files) == 1 else f"{printable(files[0])} and {len(files) - 1} more"
