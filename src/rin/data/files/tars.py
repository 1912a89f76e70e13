"""Pictures in tar files (WebDataset's shards among them), read where they lie: nothing is ever extracted."""

import os
import re
import tarfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from rin.core.errors import RinError, unknown
from rin.core.names import printable
from rin.core.shapes import Labels
from rin.core.strict_json import parse_json
from rin.data.decoding.pictures import BrokenMediaError, Piece
from rin.data.files.encoded import Encoded, captions_as_classes, numbered_classes, of_files
from rin.data.files.folders import PICTURE_SUFFIXES, check_not_splits, is_stray, named_classes, of_other_kinds
from rin.data.files.identity import digest_of

_SAMPLE = re.compile(r"(.[^.]*(?:\.\d[^.]*)*)\.(.+)", re.DOTALL)
"""A file's name as that of a sample and of its column, with dots within: 0000.mask.png is mask.png of 0000. What
begins with a digit is a part of the sample's name: cat.12.jpg is jpg of cat.12."""

_NUMBERED = re.compile(r"(?:^|\.)\d[^.]*(?=\.)")
"""A number within the name of a column, which tells pictures of one kind apart: my.cat.12.jpg is cat.jpg of my."""

_WAY_OUT = "leave the classes out with --data.no-labels (rin prepare: --no-labels)"


@dataclass(frozen=True, slots=True)
class Member(Piece):
    """Where a file lies in a tar."""

    tar: Path
    name: str  # a path would take several times the memory
    offset: int
    size: int

    @property
    def ending(self) -> str:
        """What kind of file it is, as in ".jpg"."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def sample(self) -> str:
        """The folder and the name of what it is a part of."""
        path = PurePosixPath(self.name)
        return str(path.with_name(_split_name(path.name)[0]))

    @property
    def column(self) -> str:
        """Which part of that it is, as in "jpg" or "mask.png", without numbers."""
        return _NUMBERED.sub("", _split_name(PurePosixPath(self.name).name)[1].lower())

    @property
    def key(self) -> str:
        """The name without its ending."""
        return str(PurePosixPath(self.name).with_suffix(""))

    def read(self) -> bytes:
        """What is in it."""
        try:
            with self.tar.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), self.size, self.offset)
        except OSError as error:
            raise BrokenMediaError(error.strerror or str(error), str(self)) from error

    def __str__(self) -> str:
        return printable(f"{self.name} in {self.tar}")


def _split_name(name: str) -> tuple[str, str]:
    """The name of a file's sample, and that of its column."""
    parts = _SAMPLE.fullmatch(name)
    return (parts[1], parts[2]) if parts else (name, "")


@dataclass(frozen=True)
class _Opened:
    """What tars hold."""

    pictures: list[Member] = field(default_factory=list[Member])
    """One a sample."""

    numbers: list[int | None] = field(default_factory=list[int | None])
    """The class that each picture is given, None for none."""

    texts: list[str | None] = field(default_factory=list[str | None])
    """The caption that each picture is given, None for none; empty if none are wanted."""

    others: list[PurePosixPath] = field(default_factory=list[PurePosixPath])
    """The names of what is neither a picture that is used nor the class of one."""


def open_tars(files: list[Path], labels: bool = True, column: str = "", captions: str = "") -> Encoded:
    """The pictures in tar files, by the ends of their names, in the order that they lie in.

    The class of KEY.jpg is the number in KEY.cls, or "label" or "cls" in KEY.json; in tars without such numbers it is
    the picture's first folder, if all have one (where all share it and have another below, as in a tar made of one
    folder, the first that they need not share). Links, hidden files and those of a system, as in @eaDir, are passed
    over.

    Args:
        files: plain tars, not compressed ones.
        labels: whether to look for classes.
        column: which picture of a sample is used, where KEY.jpg is not the only one: "jpg", "mask.png" or, of
            KEY.input.jpg, also "input.jpg".
        captions: the ending of the texts of samples, in place of classes: "txt" of KEY.txt beside KEY.jpg; empty for
            none.

    Raises:
        RinError: a file cannot be read, is truncated or compressed, there are no pictures, a sample has several, or
            what should be a class is none.
    """
    opened, captions = _Opened(), captions.removeprefix(".")
    for file in files:
        _open_tar(file, opened, labels and not captions, column, captions)
    pictures, numbers, origin = opened.pictures, opened.numbers, of_files(files)
    if not pictures:
        raise RinError(f"{origin} holds no pictures: give tars with .png, .jpg, .webp or the like in them")
    if captions:
        classes, class_names = captions_as_classes(opened.texts, f".{captions} files of {origin}")
    elif any(number is not None for number in numbers):
        classes = [-1 if number is None else max(number, -1) for number in numbers]
        class_names = numbered_classes(max(classes) + 1, origin)
    elif labels:
        classes, class_names = _by_folder(pictures, origin)
    else:
        classes, class_names = [-1] * len(pictures), ()

    return Encoded(
        read=pictures.__getitem__,
        name=lambda row: str(pictures[row]),
        rows=torch.arange(len(pictures)),
        labels=torch.as_tensor(classes, dtype=torch.int64),
        class_names=class_names,
        listing=digest_of(f"{picture.tar.name}/{picture.name} {picture.size}" for picture in pictures),
        notes=_notes(opened, origin, labels and not captions and not class_names),
    )


def _notes(opened: _Opened, origin: str, has_no_classes: bool) -> tuple[str, ...]:
    """What is not used, and why there are no classes although there are folders."""
    notes = [of_other_kinds(opened.others, f"which are not used, in {origin}")] if opened.others else []
    if has_no_classes and len({PurePosixPath(picture.name).parent for picture in opened.pictures}) > 1:
        beside = min(opened.pictures, key=lambda picture: picture.name.count("/"))
        notes.append(f"the folders in {origin} are no classes, because pictures lie beside them: {beside}")
    return tuple(notes)


def _open_tar(file: Path, opened: _Opened, labels: bool, column: str, captions: str) -> None:
    """Adds what a tar holds to what others do."""
    texts: dict[str, Member] = {}  # by key
    class_members: dict[str, Member] = {}  # by key
    pictures: list[Member] = []
    for member in _members(file, opened.others):
        if member.ending in PICTURE_SUFFIXES:
            pictures.append(member)
        elif captions and member.ending == f".{captions.lower()}":
            texts[member.key] = member
        elif labels and (member.ending == ".cls" or (member.ending == ".json" and member.key not in class_members)):
            class_members[member.key] = member
        else:
            opened.others.append(PurePosixPath(member.name))
    chosen = _of_column(pictures, column, file) if column else pictures
    _check_one_a_sample(chosen, class_members.keys(), file)
    if column:
        used = {member.offset for member in chosen}
        opened.others.extend(PurePosixPath(member.name) for member in pictures if member.offset not in used)
    opened.pictures.extend(chosen)
    if captions:
        taken = [_class_key(picture, texts) for picture in chosen]
        opened.texts.extend(_caption(texts[key]) if key in texts else None for key in taken)
        opened.others.extend(PurePosixPath(texts[key].name) for key in texts.keys() - set(taken))
    numbers = {name: _number(member) for name, member in class_members.items()}
    used = {_class_key(picture, numbers) for picture in chosen}
    opened.numbers.extend(numbers.get(_class_key(picture, numbers)) for picture in chosen)
    opened.others.extend(
        PurePosixPath(member.name) for key, member in class_members.items() if numbers[key] is None or key not in used
    )


def _of_column(pictures: Sequence[Member], column: str, file: Path) -> list[Member]:
    """The pictures of the column that a person has chosen; if there is none, of those whose names end like that.

    Raises:
        RinError: there are pictures, and none of that.
    """
    name = column.lstrip(".").lower()
    chosen = [member for member in pictures if member.column == name]
    chosen = chosen or [member for member in pictures if member.column.endswith(f".{name}")]
    if pictures and not chosen:
        raise unknown(f"column of {printable(file)}", column, {member.column for member in pictures})
    return chosen


def _check_one_a_sample(pictures: Sequence[Member], class_members: Container[str], file: Path) -> None:
    """Refuses an image with its mask, or an input with its target: most likely not all are to be trained on.

    A picture with a class of its own is a sample of its own; `class_members` has the keys of the classes.

    Raises:
        RinError: there is such a sample.
    """
    first: dict[str, Member] = {}
    for member in pictures:
        other = first.setdefault(member.key if member.key in class_members else member.sample, member)
        if other is not member and other.name == member.name:
            raise RinError(
                f"{printable(file)} holds {printable(member.name)} twice: unpack it, which keeps the last, and give "
                "the folder"
            )
        if other.column != member.column:
            columns = " or ".join(sorted({other.column, member.column}))
            raise RinError(
                f"{printable(file)} has several pictures to a sample ({printable(other.name)} and "
                f"{printable(member.name)}): choose with --data.column {columns} of rin train, or "
                "unpack it and give a folder of those that are meant"
            )


def _class_key(picture: Member, known: Container[str]) -> str:
    """The key of a picture: its name without the ending, or up to the first dot, as WebDataset has it."""
    if picture.key in known:
        return picture.key
    path = PurePosixPath(picture.name)
    return str(path.with_name(path.name.partition(".")[0]))


def _members(file: Path, others: list[PurePosixPath]) -> Iterator[Member]:
    """The files in a tar; those that are hidden, a system's or links are put among the others."""
    try:
        with tarfile.open(file, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] (it would keep all of them)
                if member.size < 0:
                    raise tarfile.ReadError("a file of negative size")
                name = PurePosixPath(member.name)
                if member.isreg() and not any(is_stray(part) for part in name.parts):
                    yield Member(file, str(name), member.offset_data, member.size)
                elif not member.isdir():
                    others.append(name)
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


def _caption(member: Member) -> str:
    try:
        return member.read().decode()
    except (BrokenMediaError, UnicodeError) as error:
        raise RinError(f"cannot read the caption {member}: {error}") from error


def _number(member: Member) -> int | None:
    """The class in a .cls or .json file; None if a .json file tells none."""
    try:
        label: Any = member.read().decode()
        if member.ending == ".json":
            content = parse_json(label)
            label = content.get("label", content.get("cls")) if isinstance(content, dict) else None
            if label is None:
                return None
        if isinstance(label, (int, str)) and not isinstance(label, bool):
            return int(label)
    except (BrokenMediaError, ValueError) as error:
        raise RinError(f"cannot read a class from {member}: {error}; mend it, or {_WAY_OUT}") from error
    raise RinError(f"{member} has {str(label)[:40]!r} for a class, which is no number: mend it, or {_WAY_OUT}")


def _by_folder(pictures: list[Member], origin: str) -> tuple[Labels, tuple[str, ...]]:
    """The class of each picture by its folder, and the names of the classes; -1 and no names without folders."""
    folders = [PurePosixPath(picture.name).parts[:-1] for picture in pictures]
    depth = 0
    while all(len(parts) > depth + 1 for parts in folders) and len({parts[depth] for parts in folders}) == 1:
        depth += 1
    if not all(len(parts) > depth for parts in folders):
        return torch.full((len(pictures),), -1), ()
    names = [parts[depth] for parts in folders]
    check_not_splits(names, origin, lambda _: "put each split into tars of its own, as in train-0000.tar")
    return named_classes(names)
