"""Parquet files that are read one row group after the other while training, here, on the Hub or on other servers."""

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from rin.core.errors import RinError
from rin.core.names import printable
from rin.data.files.encoded import Encoded, FileKind, of_files
from rin.data.files.folders import contents_of, natural
from rin.data.files.identity import digest_of
from rin.data.files.label_columns import Classes, Features, Table, classes_of, column_notes, label_columns
from rin.data.files.row_groups import NUM_READERS, RowGroup, RowGroups
from rin.data.files.tables import features_of, file_of, first_line, media_column, split_of

_CONVERTED = "refs%2Fconvert%2Fparquet"
"""Where the Hub keeps the parquet files that it makes of sets in other forms."""

FileSystem = Any
"""An `fsspec.AbstractFileSystem`, which has no types."""


def streamed_splits(
    path: str, split: str, kind: FileKind = "picture", column: str = ""
) -> dict[str, Callable[[], Encoded]]:
    """The splits of a set in parquet files, each to be opened by a call, and read while training.

    Opening reads the end of every file and the column of classes, no picture.

    Args:
        path: a parquet file, a folder of them, a Hub name "owner/name", or a URL that fsspec knows.
        split: what a single file is called.
        kind: what its rows hold.
        column: the one of pictures or videos; the usual one if empty.

    Raises:
        RinError: there are no such files, or they cannot be listed.
    """
    local = Path(os.path.expanduser(path))
    try:
        if local.is_file() or local.is_dir():
            system, root, files = _local(local)
        elif "://" in path:
            system, root, files = _at_url(path)
        else:
            system, root, files = _on_hub(path)
    except RinError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise RinError(
            f"there is no folder or file {path}, and listing its files elsewhere failed: {first_line(error)}"
        ) from error
    if not files:
        raise RinError(f"{path} holds no parquet files, and nothing else is streamed: leave out --data.stream")
    splits: dict[str, list[str]] = {}
    for file in sorted(files, key=natural):
        name = split if file == root else split_of(PurePosixPath(file[file.index(root) + len(root) :].lstrip("/")))
        splits.setdefault(name, []).append(file)
    return {name: partial(open_stream, system, files, kind, column) for name, files in splits.items()}


def _local(path: Path) -> tuple[FileSystem, str, list[str]]:
    from fsspec.implementations.local import LocalFileSystem

    files = contents_of(path).files if path.is_dir() else [path]
    return LocalFileSystem(), str(path), [str(file) for file in files if file.suffix.lower() == ".parquet"]


def _at_url(url: str) -> tuple[FileSystem, str, list[str]]:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(url)
    return system, root, [root] if system.isfile(root) else system.glob(f"{root}/**/*.parquet")


def _on_hub(name: str) -> tuple[FileSystem, str, list[str]]:
    from huggingface_hub import HfFileSystem

    system: FileSystem = HfFileSystem()
    root = f"datasets/{name}"
    system.ls(root)  # says why, where the Hub or the set is not to be had, while `glob` finds nothing
    files = system.glob(f"{root}/**/*.parquet")
    if files:
        return system, root, files
    root = f"datasets/{name}@{_CONVERTED}"
    return system, root, system.glob(f"{root}/**/*.parquet")


def open_stream(system: FileSystem, files: Sequence[str], kind: FileKind = "picture", column: str = "") -> Encoded:
    """The pictures, or the videos, of some parquet files of a file system, one row each, read by row groups.

    Raises:
        RinError: a file cannot be read, holds none, or has other columns than the first.
    """
    import datasets
    import pyarrow

    origin = of_files(files)
    with ThreadPoolExecutor(NUM_READERS, thread_name_prefix="rin-read") as readers:
        opened = list(readers.map(lambda file: _open_file(system, file, kind, column), files))
    try:
        table = pyarrow.concat_tables([table for _, table, _ in opened])
    except pyarrow.ArrowException as error:
        raise RinError(f"cannot read {origin}: {first_line(error)}") from error
    groups = [group for groups, _, _ in opened for group in groups]
    sizes = torch.tensor([group.num_rows for group in groups], dtype=torch.int64)
    classes = Classes(torch.full((int(sizes.sum()),), -1), (), None, ())
    if table.num_columns:
        classes = classes_of(table, datasets.Features.from_arrow_schema(table.schema), origin)
    source = RowGroups(groups)
    return Encoded(
        read=lambda row: file_of(source.cell(row)),
        name=source.name,
        rows=torch.arange(len(classes.labels)),
        labels=classes.labels,
        class_names=classes.names,
        groups=torch.arange(len(groups)).repeat_interleave(sizes),
        expect=source.expect,
        kind=kind,
        listing=digest_of(
            f"{PurePosixPath(group.file).name} {group.number} {group.num_rows} {group.num_bytes}" for group in groups
        ),
        notes=column_notes(opened[0][2], groups[0].column, classes) if groups else (),
    )


def _open_file(
    system: FileSystem, path: str, kind: FileKind = "picture", column: str = ""
) -> tuple[list[RowGroup], Table, Features]:
    """The row groups of a file, the table of what may be its classes (no column if nothing), and all its columns."""
    try:
        with _parquet_file(system, path) as file:
            features = features_of(file.schema_arrow, printable(path))
            media = media_column(features, printable(path), kind, column)
            table = file.read(label_columns(features), use_threads=False)
            return _row_groups(system, path, file.metadata, media), table, features
    except RinError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise RinError(f"cannot read {printable(path)}: {first_line(error)}") from error


def _row_groups(system: FileSystem, path: str, metadata: Any, media: str) -> list[RowGroup]:
    """The row groups of a file by its footer, which is kept to be read once only."""
    groups: list[RowGroup] = []
    row_in_file = 0
    for number in range(metadata.num_row_groups):
        part = metadata.row_group(number)
        columns = [part.column(column) for column in range(part.num_columns)]
        group = RowGroup(
            open=partial(_parquet_file, system, path, metadata),
            file=printable(path),
            number=number,
            column=media,
            row_in_file=row_in_file,
            num_rows=part.num_rows,
            num_bytes=sum(
                column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == media
            ),
        )
        groups.append(group)
        row_in_file += part.num_rows
    return groups


@contextmanager
def _parquet_file(system: FileSystem, path: str, metadata: Any = None) -> Generator[Any]:
    """A file opened as a `pyarrow.parquet.ParquetFile`, with its footer if that is known.

    It is to be read without threads of its own: those of Arrow still hold the file when they have given their answer,
    and where Python has come to its end by then, they take the process down with them.
    """
    import pyarrow.parquet

    # Parquet asks for what it needs: what a file system reads beyond that would be thrown away.
    with (
        system.open(path, "rb", cache_type="none") as file,
        pyarrow.parquet.ParquetFile(file, metadata=metadata, pre_buffer=False) as parquet,
    ):
        yield parquet
