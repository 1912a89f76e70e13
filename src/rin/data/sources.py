"""What a set is prepared from: the pictures of all splits, and what tells them from any others."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rin.core.errors import RinError
from rin.data.config import DataConfig
from rin.data.decoding import printable
from rin.data.encoded import Encoded
from rin.data.folders import PICTURE_SUFFIXES, files_in
from rin.data.opening import open_splits
from rin.data.prepared import SPLIT_NAME, size_text
from rin.data.shard_writing import Preparation

_SUFFIXES = {*PICTURE_SUFFIXES, ".parquet", ".tar", ".npy"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The pictures that a set is made from."""

    splits: Mapping[str, Encoded]
    """All of them, by split."""

    settings: dict[str, Any]
    """All that decides what a set of them holds, as JSON has it, but for the size of its shards."""

    folder: Path | None
    """Where they are, without links; None if that is no folder."""

    pictures: Mapping[Path, str]
    """What tells each file from others, if each is a picture; empty otherwise."""

    def digest(self, name: str, places: range) -> str:
        """What a stretch of a split is made from, as a text.

        It has classes, and names and sizes of the pictures, or of all files if they hold many pictures each.
        """
        encoded = self.splits[name]
        stretch = slice(places.start, places.stop)
        digest = hashlib.sha256(encoded.labels[stretch].numpy().astype("<i8").tobytes())
        if not self.pictures:
            digest.update(self.settings["fingerprint"].encode())
        for row in encoded.rows[stretch].tolist() if self.pictures else ():
            file = encoded.read(row)
            digest.update(self.pictures.get(file, "").encode() if isinstance(file, Path) else file)
        return digest.hexdigest()


def open_source(preparation: Preparation) -> Source:
    """Opens all splits of a source.

    Raises:
        RinError: it cannot be read, or holds no pictures.
    """
    path = Path(preparation.source).expanduser()
    files = _files(preparation.source)
    splits = _open_splits(preparation, files)
    _, height, width = preparation.shape
    settings = {
        "source": printable(path.resolve()) if files else preparation.source,
        "size": size_text(height, width),
        "channels": preparation.shape[0],
        "labels": preparation.labels,
        "skip_broken": preparation.skip_broken,
        "fingerprint": _fingerprint(files, splits),
    }
    are_pictures = all(file.suffix.lower() in PICTURE_SUFFIXES for file in files)
    return Source(
        splits=splits,
        settings=settings,
        folder=path.resolve() if files and path.is_dir() else None,
        pictures=files if are_pictures else {},
    )


def _open_splits(preparation: Preparation, files: Mapping[Path, str]) -> dict[str, Encoded]:
    endings = {file.suffix.lower() for file in files}
    streams = ".parquet" in endings and ".tar" not in endings  # whole parquet files would be held in memory
    config = DataConfig(path=preparation.source, labels=preparation.labels, stream=streams)
    splits = {name: opened() for name, opened in open_splits(config).items()}
    for name in splits:
        if not SPLIT_NAME.fullmatch(name):
            raise RinError(f"{preparation.source} has a split {name!r}, which cannot be a folder's name: rename it")
    if not any(len(encoded) for encoded in splits.values()):
        raise RinError(f"{preparation.source} holds no pictures: give another source")
    return splits if preparation.labels else {name: encoded.without_classes() for name, encoded in splits.items()}


def _fingerprint(files: Mapping[Path, str], splits: Mapping[str, Encoded]) -> str:
    """A digest of the classes of all pictures and of the names and sizes of the source's files, if it has any."""
    digest = hashlib.sha256()
    for name, encoded in splits.items():
        digest.update(json.dumps([name, len(encoded), encoded.class_names]).encode())
        digest.update(encoded.labels.numpy().astype("<i8").tobytes())
    for name_and_size in files.values():
        digest.update(name_and_size.encode())
    return digest.hexdigest()


def _files(source: str) -> dict[Path, str]:
    """The files of a source that hold pictures, each with its name in there and its bytes, as JSON.

    There are none if the source is built in or elsewhere.
    """
    path = Path(source).expanduser()
    if source == "digits" or not path.exists():
        return {}
    files = [file for file in (files_in(path) if path.is_dir() else [path]) if file.suffix.lower() in _SUFFIXES]
    sizes = [file.stat().st_size if file.exists() else None for file in files]
    return {
        file: json.dumps([printable(file.relative_to(path)), size]) for file, size in zip(files, sizes, strict=True)
    }
