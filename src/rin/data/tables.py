"""Pictures or videos in parquet files and on the Hub: a table with a column of them and perhaps one of classes."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

from rin.core.errors import RinError
from rin.core.shapes import Labels
from rin.data.decoding import BrokenMediaError, printable
from rin.data.encoded import Encoded, FileKind, numbered_classes
from rin.data.folders import SPLIT_NAMES

_NAMES: dict[FileKind, tuple[str, ...]] = {
    "picture": ("image", "img"),
    "video": ("video", "clip", "mp4", "mkv", "webm", "avi", "mov"),
}
"""Usual names of columns."""

_WORDS: dict[FileKind, str] = {"picture": "images", "video": "videos"}
_LABEL_NAMES = ("label", "labels", "fine_label", "class")

Table = Any
"""A `pyarrow.Table`, which has no types."""

Features = Mapping[str, Any]
"""A `datasets.Features`: what each column holds."""


def parquet_splits(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """The parquet files of each split, told by their names as on the Hub.

    So do train-00000-of-00002.parquet and data/test.parquet; a file whose name tells nothing belongs to "train".
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file.relative_to(folder)), []).append(file)
    return splits


def split_of(file: PurePath) -> str:
    """The split that the name of a parquet file tells, "train" if it tells nothing; the path is that in the set."""
    numbered = re.fullmatch(r"(\w+)-\d+-of-\d+(-\w+)?", file.stem)
    if numbered:
        return numbered[1]
    words = re.split(r"[^a-z]+", file.with_suffix("").as_posix().lower())
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), "train")


def open_parquet(files: list[Path], memory_gib: float, kind: FileKind = "picture") -> Encoded:
    """The pictures, or the videos, of parquet files, one row each.

    Files larger than `memory_gib` together are first unpacked into the cache of the library datasets, once, and mapped
    from there, since parquet itself cannot be read a row at a time.

    Raises:
        RinError: a file cannot be read, or holds none.
    """
    import datasets
    import pyarrow
    from datasets.exceptions import DatasetsError

    origin = printable(files[0]) if len(files) == 1 else f"{printable(files[0])} and {len(files) - 1} more"
    try:
        if sum(file.stat().st_size for file in files) > memory_gib * 2**30:
            unpacked = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
            return open_dataset(unpacked, origin, kind)
        tables = [_read_parquet(file, kind) for file in files]
        table = pyarrow.concat_tables(tables)
    except (OSError, pyarrow.ArrowException, DatasetsError) as error:
        raise RinError(f"cannot read {origin}: {first_line(error)}") from error
    return _open_table(table, datasets.Features.from_arrow_schema(table.schema), origin, kind)


def _read_parquet(file: Path, kind: FileKind) -> Table:
    """The columns of a parquet file that matter."""
    import datasets
    import pyarrow.parquet

    features = datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file))
    label = label_column(features)
    columns = [media_column(features, printable(file), kind), *([] if label is None else [label])]
    with pyarrow.parquet.ParquetFile(file) as opened:
        return opened.read(columns)


def open_hub(name: str) -> Mapping[str, Any]:
    """The splits of a set on the Hub, each a `datasets.Dataset` for `open_dataset`.

    Raises:
        RinError: there is no such set, or it cannot be fetched.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        splits: Any = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, DatasetsError) as error:
        reason = first_line(error)
        raise RinError(f"there is no folder or file {name}, and fetching it from the Hub failed: {reason}") from error
    return {str(split): splits[split] for split in splits}


def open_dataset(dataset: Any, origin: str, kind: FileKind = "picture") -> Encoded:
    """The pictures, or the videos, of a `datasets.Dataset`, which `origin` names in messages.

    Raises:
        RinError: it holds none.
    """
    return _open_table(dataset.with_format("arrow")[:], dataset.features, origin, kind)


def _open_table(table: Table, features: Features, origin: str, kind: FileKind) -> Encoded:
    media = table.column(media_column(features, origin, kind))
    labels, class_names = labels_of(table, features, origin)

    def read(row: int) -> bytes | Path:
        return file_of(media[row].as_py())

    def name(row: int) -> str:
        return name_of(row, origin, media[row].as_py())

    return Encoded(
        read=read, name=name, rows=torch.arange(table.num_rows), labels=labels, class_names=class_names, kind=kind
    )


def file_of(cell: Any) -> bytes | Path:
    """The file in a cell of a column of images or videos, or where it is.

    Raises:
        BrokenMediaError: the cell holds neither.
    """
    content, path = _content(cell)
    if content is not None:
        return content
    if path is not None:
        return Path(path)
    raise BrokenMediaError("the row is empty")


def name_of(row: int, origin: str, cell: Any) -> str:
    """What a person calls a row of `origin`, given its cell of the column of images or videos."""
    path = _content(cell)[1]
    return f"{row} of {origin}" + (f" ({printable(path)})" if path else "")


def _content(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path in a cell of such a column, either of which may be missing."""
    if isinstance(cell, Mapping):
        return cell.get("bytes"), cell.get("path")
    return cell, None


def labels_of(table: Table, features: Features, origin: str) -> tuple[Labels, tuple[str, ...]]:
    """One class a row of a table, -1 for none, and the names of the classes.

    Args:
        table: with the column of classes, if there is one.
        features: what its columns hold.
        origin: names it in messages.

    Raises:
        RinError: the column holds more than classes, or more of them than have names.
    """
    import datasets

    column = label_column(features)
    if column is None:
        return torch.full((table.num_rows,), -1), ()
    values = table.column(column).to_pylist()
    labels = torch.tensor([-1 if value is None else value for value in values], dtype=torch.int64).clamp(min=-1)
    num_classes = int(labels.max()) + 1 if len(labels) else 0
    kind = features[column]
    if isinstance(kind, datasets.ClassLabel) and kind.names:
        if num_classes > len(kind.names):
            raise RinError(f"{origin} has class {num_classes - 1} in {column!r} but names {len(kind.names)} classes")
        return labels, tuple(kind.names)
    return labels, numbered_classes(num_classes, f"{origin} ({column!r})")


def media_column(features: Features, origin: str, kind: FileKind) -> str:
    """The column of images or videos: of the type Image or Video, else structs with bytes, else the only one of bytes.

    A column under a usual name of the other kind is none.

    Raises:
        RinError: there is no such column.
    """
    kinds = dict(features)
    others = {name for other, names in _NAMES.items() if other != kind for name in names}
    typed = [name for name, of in kinds.items() if isinstance(of, _type_of(kind))]
    structs = [name for name, of in kinds.items() if isinstance(of, dict) and "bytes" in of and name not in others]
    binary = [name for name, of in kinds.items() if getattr(of, "dtype", None) in ("binary", "large_binary")]
    binary = [name for name in binary if name not in others]
    found = typed or structs or (binary if len(binary) == 1 else [name for name in binary if name in _NAMES[kind]])
    if not found:
        raise RinError(f"{origin} has no column of {_WORDS[kind]}: its columns are {', '.join(kinds)}")
    return _preferred(found, _NAMES[kind])


def _type_of(kind: FileKind) -> type:
    import datasets

    return datasets.Image if kind == "picture" else datasets.Video


def label_column(features: Features) -> str | None:
    """The column of classes: of the type ClassLabel, else integers under a usual name; None if there is none."""
    import datasets

    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    integers = [name for name, kind in features.items() if re.fullmatch(r"u?int\d+", getattr(kind, "dtype", ""))]
    found = labels or [name for name in integers if name in _LABEL_NAMES]
    return _preferred(found, _LABEL_NAMES) if found else None


def _preferred(found: list[str], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in found), found[0])


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
