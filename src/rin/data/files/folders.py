"""Folders of images or of videos, with or without a folder a class."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import torch

from rin.core.errors import RinError
from rin.core.names import printable
from rin.core.shapes import Labels
from rin.data.files.encoded import Encoded, FileKind, captions_as_classes, listed
from rin.data.files.identity import digest_of

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

_MOST_ENDINGS = 5
"""Ends of names that a note counts."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words that name a split, and the split."""


SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),  # of network drives
        *("$recycle.bin", "system volume information", "lost+found", "__macosx", "__pycache__"),
    )
)
"""Folders, in any case, that systems make beside what a person keeps: thumbnails, and what was deleted."""


@dataclass(frozen=True)
class Contents:
    """What is in a folder and its sub-folders."""

    files: list[Path] = field(default_factory=list[Path])
    """Every file that is not hidden, in natural order."""

    hidden: list[Path] = field(default_factory=list[Path])
    """Hidden files outside hidden folders."""

    strays: list[Path] = field(default_factory=list[Path])
    """Folders that are hidden or a system's, into which nobody looks."""

    folders: list[Path] = field(default_factory=list[Path])
    """The other folders."""


def open_folder(folder: Path, kind: FileKind = "picture", captions: str = "") -> Encoded:
    """The pictures, or the videos, in a folder and its sub-folders, in natural order (2 before 10).

    If all of them lie in sub-folders, the names of the first sub-folders are the classes, in natural order too. If some
    lie directly in the folder there are no classes. Hidden files and folders, and those of a system such as @eaDir, are
    passed over.

    Args:
        folder: which; or a single file, as a set of one.
        kind: of files.
        captions: the ending of texts that lie beside them, KEY.txt beside KEY.jpg, in place of classes; empty for none.

    Raises:
        RinError: there are none, the sub-folders are splits and not classes, or a text cannot be read.
    """
    contents = contents_of(folder) if folder.is_dir() else Contents(files=[folder])
    paths = _files_of(folder, contents, kind)
    first_parts = [path.relative_to(folder).parts or (path.name,) for path in paths]
    if captions:
        labels, names = _captions_beside(paths, captions.removeprefix("."), contents, printable(folder))
        notes = passed_over(contents, kind)
    else:
        labels, names = classes_by_first_folder(folder, first_parts)
        notes = [*passed_over(contents, kind), *not_used_of_folders(folder, contents, first_parts, kind)]
    return Encoded(
        read=paths.__getitem__,
        name=lambda row: printable(paths[row]),
        rows=torch.arange(len(paths)),
        labels=labels,
        class_names=names,
        kind=kind,
        listing=digest_of("/".join(parts) for parts in first_parts),
        notes=tuple(notes),
    )


def picture_files(place: Path) -> list[Path]:
    """A picture's file, or those of the pictures in a folder and its sub-folders, in natural order.

    Raises:
        RinError: the folder holds none.
    """
    return _files_of(place, contents_of(place), "picture") if place.is_dir() else [place]


def _files_of(folder: Path, contents: Contents, kind: FileKind) -> list[Path]:
    paths = [path for path in contents.files if path.suffix.lower() in SUFFIXES[kind]]
    if not paths:
        named = {"picture": ".png, .jpg, .webp", "video": ".mp4, .mkv, .webm"}[kind]
        others = "".join(f"; {note}" for note in passed_over(contents, kind))
        raise RinError(f"{printable(folder)} holds no {kind}s: give a folder with {named} or the like in it{others}")
    return paths


def classes_by_first_folder(folder: Path, places: Sequence[Sequence[str]]) -> tuple[Labels, tuple[str, ...]]:
    """The class of each file, -1 for none, and their names; `places` are the parts of the paths."""
    if not all(len(parts) > 1 for parts in places):
        return torch.full((len(places),), -1), ()
    firsts = [parts[0] for parts in places]
    check_not_splits(firsts, printable(folder), lambda split: f"give {printable(folder / split)}")
    return named_classes(firsts)


def named_classes(texts: Sequence[str | None]) -> tuple[Labels, tuple[str, ...]]:
    """The class of each text, -1 for none, and the names of the classes: the different texts, in natural order."""
    names = sorted({text for text in texts if text}, key=natural)
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers.get(text, -1) for text in texts], dtype=torch.int64), tuple(map(printable, names))


def _captions_beside(
    paths: Sequence[Path], ending: str, contents: Contents, where: str
) -> tuple[Labels, tuple[str, ...]]:
    """The same by the texts beside the files, which are then no longer passed over."""
    files = [path.parent / f"{path.stem}.{ending}" for path in paths]  # a.jpg and a.png may share one
    there = set(contents.files) & set(files)
    contents.files[:] = [path for path in contents.files if path not in there]
    texts = [_caption(file) if file in there else None for file in files]
    return captions_as_classes(texts, f".{ending} files of {where}")


def _caption(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RinError(f"cannot read the caption {printable(file)}: {error}") from error


def passed_over(contents: Contents, kind: FileKind) -> list[str]:
    """What is no picture, or no video, by its name or its place."""
    others = [path for path in contents.files if path.suffix.lower() not in SUFFIXES[kind]]
    hidden = [path for path in contents.hidden if path.suffix.lower() in SUFFIXES[kind]]
    notes = [of_other_kinds(others, f"no {kind}s by their names")] if others else []
    if hidden:
        notes.append(f"passed over {len(hidden)} hidden {kind}s: {_some(hidden)}")
    if contents.strays:
        notes.append(f"passed over {len(contents.strays)} folders, hidden or a system's: {_some(contents.strays)}")
    return notes


def not_used_of_folders(folder: Path, contents: Contents, places: Sequence[Sequence[str]], kind: str) -> list[str]:
    """Why sub-folders are no classes; `places` are the parts of the paths of what is used."""
    beside = [parts[0] for parts in places if len(parts) == 1]
    inside = {parts[0] for parts in places if len(parts) > 1}
    if beside and inside:
        return [
            f"the folders ({listed(sorted(map(printable, inside), key=natural))}) are no classes, because {kind}s lie "
            f"beside them: {_some([folder / name for name in beside])}"
        ]
    empty = [path for path in contents.folders if path.parent == folder and path.name not in inside]
    return [f"folders that give no {kind}, and so no class: {_some(empty)}"] if empty and inside else []


def of_other_kinds(files: Sequence[PurePath], why: str) -> str:
    """A note of files that are not used, counted by the ends of their names."""
    counts = Counter(path.suffix.lower() or "without an ending" for path in files)
    endings = ", ".join(f"{count} {ending}" for ending, count in counts.most_common(_MOST_ENDINGS))
    return f"passed over {len(files)} files, {why} ({endings}), {printable(str(files[0]))} to begin with"


def _some(paths: Iterable[Path]) -> str:
    return listed([printable(path) for path in paths])


def check_not_splits(names: Iterable[str], where: str, way_out: Callable[[str], str]) -> None:
    """Refuses folders for classes that are splits; the way out is told of the one to train on.

    Raises:
        RinError: they are.
    """
    classes = sorted({*names}, key=natural)
    if all(name.lower() in SPLIT_NAMES for name in classes):
        to_train_on = next((name for name in classes if SPLIT_NAMES[name.lower()] == "train"), classes[0])
        splits = " and ".join(classes)
        raise RinError(f"the folders in {where} are splits ({splits}), not classes: {way_out(to_train_on)}")


def contents_of(folder: Path) -> Contents:
    """What is in a folder and its sub-folders.

    Raises:
        RinError: the folder cannot be read.
    """
    contents = Contents()
    try:
        contents.files.extend(_walk(folder, contents))
    except OSError as error:
        raise RinError(f"cannot read {printable(error.filename)}: {error.strerror}") from error
    contents.files.sort(key=lambda path: natural(path.relative_to(folder).as_posix()))
    return contents


def _walk(folder: Path, contents: Contents) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up would never end
            folders.clear()
            continue
        seen.add(real)
        contents.strays.extend(Path(parent, name) for name in sorted(folders) if is_stray(name))
        contents.hidden.extend(Path(parent, name) for name in sorted(files) if is_stray(name))
        folders[:] = sorted(name for name in folders if not is_stray(name))
        contents.folders.extend(Path(parent, name) for name in folders)
        yield from (Path(parent, name) for name in files if not is_stray(name))


def _raise(error: OSError) -> None:
    raise error


def is_stray(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one that systems make."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people do, numbers by their value: image 2 before image 10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name
