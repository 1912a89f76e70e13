"""Pictures or videos in parquet files and on the Hub: a table with a column of them and perhaps one of classes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path, PurePath
from typing import Any

import torch

from rin.core.errors import RinError, unknown
from rin.core.names import printable
from rin.data.decoding.pictures import BrokenMediaError, Piece, Source
from rin.data.files.encoded import Encoded, FileKind, of_files
from rin.data.files.folders import SPLIT_NAMES
from rin.data.files.identity import digest_of
from rin.data.files.label_columns import Features, Table, classes_of, column_notes, label_columns

_NAMES: dict[FileKind, tuple[str, ...]] = {
    "picture": ("image", "img"),
    "video": ("video", "clip", "mp4", "mkv", "webm", "avi", "mov"),
}
"""Usual names of columns."""

_WORDS: dict[FileKind, str] = {"picture": "images", "video": "videos"}


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


def open_parquet(
    files: list[Path], memory_gib: float, kind: FileKind = "picture", column: str = "", captions: str = ""
) -> Encoded:
    """The pictures, or the videos, of parquet files, one row each.

    Files larger than `memory_gib` together are first unpacked into the cache of the library datasets, once, and mapped
    from there, since parquet itself cannot be read a row at a time.

    Args:
        files: in their order.
        memory_gib: as above.
        kind: what is wanted of them.
        column: the one of pictures or videos; the usual one if empty.
        captions: the one of their captions, in place of classes; empty for none.

    Raises:
        RinError: a file cannot be read, or holds none, or has no such column.
    """
    import datasets
    import pyarrow
    from datasets.exceptions import DatasetsError

    origin = of_files(files)
    try:
        if sum(file.stat().st_size for file in files) > memory_gib * 2**30:
            unpacked = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
            return open_dataset(unpacked, origin, kind, column, captions)
        tables = [_read_parquet(file, kind, column, captions) for file in files]
        table = pyarrow.concat_tables([table for table, _ in tables])
    except (OSError, pyarrow.ArrowException, DatasetsError) as error:
        raise RinError(f"cannot read {origin}: {first_line(error)}") from error
    except UnicodeError:
        raise RinError(f"cannot read {origin}: its name is not UTF-8; rename it") from None
    return _open_table(table, tables[0][1], origin, kind, column, captions)


def _read_parquet(file: Path, kind: FileKind, column: str, captions: str) -> tuple[Table, Features]:
    """The columns of a parquet file that matter, and what all of its columns hold."""
    import pyarrow.parquet

    features = features_of(pyarrow.parquet.read_schema(file), printable(file))
    of_captions = [captions] if captions in features else []
    columns = [media_column(features, printable(file), kind, column), *label_columns(features), *of_captions]
    with pyarrow.parquet.ParquetFile(file) as opened:
        return opened.read(list(dict.fromkeys(columns))), features


def features_of(schema: Any, origin: str) -> Features:
    """What the columns of a `pyarrow.Schema` hold.

    Raises:
        RinError: two have the same name.
    """
    import datasets

    if doubled := [name for name in schema.names if schema.names.count(name) > 1]:
        raise RinError(f"{origin} has several columns {doubled[0]!r}: write it anew, with a name for each")
    return datasets.Features.from_arrow_schema(schema)


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


def open_dataset(
    dataset: Any, origin: str, kind: FileKind = "picture", column: str = "", captions: str = ""
) -> Encoded:
    """The pictures, or the videos, of a `datasets.Dataset`, which `origin` names in messages.

    Raises:
        RinError: it holds none, or has no such column.
    """
    files = tuple(file["filename"] for file in dataset.cache_files)
    return _open_table(dataset.with_format("arrow")[:], dataset.features, origin, kind, column, captions, files)


@dataclass(frozen=True, slots=True)
class _Row(Piece):
    """A row of Arrow files, which each process that reads it maps once."""

    files: tuple[str, ...]
    column: str
    row: int

    def read(self) -> bytes | Path:
        return file_of(_mapped_column(self.files, self.column)[self.row].as_py())


@lru_cache(maxsize=8)
def _mapped_column(files: tuple[str, ...], column: str) -> Any:
    import pyarrow

    tables = [pyarrow.ipc.open_stream(pyarrow.memory_map(file)).read_all() for file in files]
    return pyarrow.concat_tables(tables).column(column)


def _open_table(
    table: Table,
    features: Features,
    origin: str,
    kind: FileKind,
    column: str,
    captions: str,
    files: tuple[str, ...] = (),
) -> Encoded:
    """A table as it is in memory, or in the Arrow files that it is mapped from, if there are any."""
    chosen = media_column(features, origin, kind, column)
    media, classes = table.column(chosen), classes_of(table, features, origin, captions)

    def read(row: int) -> Source:
        return _Row(files, chosen, row) if files else file_of(media[row].as_py())

    def name(row: int) -> str:
        return name_of(row, origin, media[row].as_py())

    return Encoded(
        read=read,
        name=name,
        rows=torch.arange(table.num_rows),
        labels=classes.labels,
        class_names=classes.names,
        kind=kind,
        listing=_listing_of(media),
        notes=column_notes(features, chosen, classes),
    )


def _listing_of(media: Any) -> str:
    """A digest of the names and sizes of the files in a column of images or videos, as far as they have any."""
    import pyarrow.compute

    is_struct = pyarrow.types.is_struct(media.type)
    columns = dict(zip([field.name for field in media.type], media.flatten(), strict=True)) if is_struct else {}
    content, paths = columns.get("bytes", media), columns["path"].to_pylist() if "path" in columns else repeat(None)
    sizes = repeat(None, len(media))
    if not pyarrow.types.is_null(content.type):
        sizes = pyarrow.compute.call_function("binary_length", [content]).to_pylist()
    names = ("" if path is None else PurePath(path).name for path in paths)  # a cache may lie anywhere
    return digest_of(f"{name} {size}" for size, name in zip(sizes, names, strict=False))


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


def media_column(features: Features, origin: str, kind: FileKind, column: str = "") -> str:
    """The column of images or videos: of the type Image or Video, else structs with bytes, else the only one of bytes.

    A column under a usual name of the other kind is none. If several are left, it is the one under a usual name, or the
    first; or `column`, if that is not empty.

    Raises:
        RinError: there is no such column.
    """
    import datasets

    kinds = dict(features)
    others = {name for other, names in _NAMES.items() if other != kind for name in names}
    type_of_kind = datasets.Image if kind == "picture" else datasets.Video
    typed = [name for name, of in kinds.items() if isinstance(of, type_of_kind)]
    structs = [name for name, of in kinds.items() if isinstance(of, dict) and "bytes" in of and name not in others]
    binary = [name for name, of in kinds.items() if getattr(of, "dtype", None) in ("binary", "large_binary")]
    binary = [name for name in binary if name not in others]
    if column:
        if column not in {*typed, *structs, *binary}:
            raise unknown(f"column of {_WORDS[kind]} in {origin}", column, [*typed, *structs, *binary])
        return column
    found = typed or structs or (binary if len(binary) == 1 else [name for name in binary if name in _NAMES[kind]])
    if not found and len(binary) > 1:
        raise RinError(
            f"{origin} has no column of {_WORDS[kind]} by its name: choose with --data.column {' or '.join(binary)} of "
            "rin train"
        )
    if not found:
        raise RinError(f"{origin} has no column of {_WORDS[kind]}: its columns are {', '.join(kinds)}")
    return next((name for name in _NAMES[kind] if name in found), found[0])


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
