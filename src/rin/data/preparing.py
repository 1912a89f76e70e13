"""Any set turned into a prepared one: in parallel, in memory that does not grow, and resumed after a kill.

Every shard holds what can be read of a fixed stretch of its split, so the shards depend on nothing but the source and
the settings. A shard is whole when its `shard-00000.json`, the last of its files to be written, is there; `set.json`
is the last file of all.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rin.core.errors import RinError
from rin.core.files import UNFINISHED
from rin.core.progress import progress_bar
from rin.data.config import DataConfig
from rin.data.decoding import Shape, check_shape, printable
from rin.data.encoded import Encoded
from rin.data.folders import PICTURE_SUFFIXES, files_in
from rin.data.image_sets import num_threads
from rin.data.opening import open_splits
from rin.data.prepared import BEGUN, FORMAT_VERSION, SET, SPLIT_NAME, is_prepared, labels_file, read_json, size_text
from rin.data.shard_writing import Preparation, Shard, ShardRecord, find_shard, write_json, write_shard

MAX_PICTURES, MAX_BYTES = 4096, 64 * 2**20
"""Of a shard: its pictures are all in memory while it is made."""

_NUM_NAMED = 100
"""Broken pictures of a split that `set.json` names."""

_SUFFIXES = {*PICTURE_SUFFIXES, ".parquet", ".tar", ".npy"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a prepared set holds."""

    num_pictures: dict[str, int]
    """Pictures by split."""

    num_broken: int
    """Pictures that were left out."""

    was_finished: bool
    """Whether there was nothing to do."""


def prepare_set(preparation: Preparation, folder: Path) -> Prepared:
    """Makes a prepared set of all splits of a source, or goes on with the one in the folder.

    Raises:
        RinError: the source cannot be read, the folder holds something else or cannot be written.
    """
    check_shape(preparation.shape)
    files = _files(preparation.source)
    splits = _open_source(preparation, files)
    settings = _settings(preparation, files, splits)
    was_finished = _claim(folder, settings)
    if not was_finished:
        shards = {name: _shards(encoded, folder / name, settings) for name, encoded in splits.items()}
        records = _write_shards(shards, preparation)
        stored = {"format_version": FORMAT_VERSION, "shape": list(preparation.shape), "settings": settings}
        summaries = {
            name: _summary(shards[name], records[name], encoded.class_names, preparation.shape)
            for name, encoded in splits.items()
        }
        write_json(folder / SET, stored | {"splits": summaries})
    for left in (*folder.glob("*/shard-*.json"), *folder.glob(BEGUN)):
        left.unlink()
    stored = read_json(folder / SET)["splits"]
    return Prepared(
        num_pictures={name: split["num_pictures"] for name, split in stored.items()},
        num_broken=sum(split["num_broken"] for split in stored.values()),
        was_finished=was_finished,
    )


def _open_source(preparation: Preparation, files: list[Path]) -> dict[str, Encoded]:
    """The splits of the source by name."""
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


def _settings(preparation: Preparation, files: list[Path], splits: Mapping[str, Encoded]) -> dict[str, Any]:
    """All that decides what the shards hold, as JSON has it."""
    channels, height, width = preparation.shape
    path = Path(preparation.source).expanduser()
    return {
        "source": printable(path.resolve()) if files else preparation.source,
        "size": size_text(height, width),
        "channels": channels,
        "labels": preparation.labels,
        "skip_broken": preparation.skip_broken,
        "pictures_a_shard": max(1, min(MAX_PICTURES, MAX_BYTES // math.prod(preparation.shape))),
        "fingerprint": _fingerprint(path, files, splits),
    }


def _fingerprint(path: Path, files: list[Path], splits: Mapping[str, Encoded]) -> str:
    """A digest of the classes of all pictures and of the names and sizes of the source's files, if it has any."""
    digest = hashlib.sha256()
    for name, encoded in splits.items():
        digest.update(json.dumps([name, len(encoded), encoded.class_names]).encode())
        digest.update(encoded.labels.numpy().astype("<i8").tobytes())
    for file in files:
        size = file.stat().st_size if file.exists() else None
        digest.update(json.dumps([printable(file.relative_to(path)), size]).encode())
    return digest.hexdigest()


def _files(source: str) -> list[Path]:
    """The files of a source that hold pictures; none if it is built in or elsewhere."""
    path = Path(source).expanduser()
    if source == "digits" or not path.exists():
        return []
    return [file for file in (files_in(path) if path.is_dir() else [path]) if file.suffix.lower() in _SUFFIXES]


def _claim(folder: Path, settings: dict[str, Any]) -> bool:
    """Makes the folder this set's own, or makes sure that it already is; whether the set is finished.

    To leave out broken pictures may be decided at the first of them: nothing has been left out until then.
    """
    try:
        if not is_prepared(folder):
            if folder.exists() and any(path.name != BEGUN + UNFINISHED for path in folder.iterdir()):
                raise RinError(f"{printable(folder)} is not empty and no prepared set: give a new folder")
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RinError(f"cannot make a set in {printable(folder)}: {error.strerror}; give another folder") from error
    is_finished = (folder / SET).is_file()
    if is_prepared(folder):
        before = read_json(folder / (SET if is_finished else BEGUN))["settings"]
        free = {"fingerprint"} | (set() if is_finished or before.get("skip_broken") else {"skip_broken"})
        changed = [
            f"{name} was {before.get(name)!r} and is {value!r}"
            for name, value in settings.items()
            if before.get(name) != value and name not in free
        ]
        if not changed and before.get("fingerprint") != settings["fingerprint"]:
            changed = ["the source's files or classes have changed since"]
        if changed:
            way_out = "give the same options to go on with it, or another folder"
            raise RinError(f"{printable(folder)} holds another prepared set ({'; '.join(changed)}): {way_out}")
    if not is_finished:
        write_json(folder / BEGUN, {"format_version": FORMAT_VERSION, "settings": settings})
    return is_finished


def _shards(encoded: Encoded, folder: Path, settings: Mapping[str, Any]) -> list[Shard]:
    size = settings["pictures_a_shard"]
    stretches = (range(start, min(start + size, len(encoded))) for start in range(0, len(encoded), size))
    return [
        Shard(encoded=encoded, folder=folder, number=number, places=places) for number, places in enumerate(stretches)
    ]


def _write_shards(splits: Mapping[str, list[Shard]], preparation: Preparation) -> dict[str, list[ShardRecord]]:
    """Writes the shards that are not there yet; what is in all of them, by split."""
    found = {name: [find_shard(shard, preparation.shape) for shard in shards] for name, shards in splits.items()}
    every = [
        (shard, record) for name, shards in splits.items() for shard, record in zip(shards, found[name], strict=True)
    ]
    done = sum(len(shard.places) for shard, record in every if record is not None)
    with progress_bar("preparing", sum(len(shard.places) for shard, _ in every), done) as bar:
        for name, shards in splits.items():
            with ThreadPoolExecutor(num_threads(shards[0].encoded) if shards else 1, "rin-prepare") as threads:
                found[name] = [
                    record or write_shard(shard, preparation, threads, bar)
                    for shard, record in zip(shards, found[name], strict=True)
                ]
    return {name: [record for record in records if record is not None] for name, records in found.items()}


def _summary(
    shards: list[Shard], records: list[ShardRecord], class_names: tuple[str, ...], shape: Shape
) -> dict[str, Any]:
    """What `set.json` says of a split."""
    channels, height, width = shape
    num_pictures = sum(record.num_pictures for record in records)
    broken = [name for record in records for name in record.broken]
    if broken and not num_pictures:
        raise RinError(f"none of {len(broken)} pictures can be read, {broken[0]} to begin with")
    pictures_a_class = np.zeros(len(class_names), np.int64)
    for shard in shards:
        labels = np.load(labels_file(shard.folder, shard.number), allow_pickle=False)
        pictures_a_class += np.bincount(labels[labels >= 0], minlength=len(class_names))
    moments = [
        _moments(sum(r.sums[c] for r in records), sum(r.squares[c] for r in records), num_pictures * height * width)
        for c in range(channels)
    ]
    return {
        "num_pictures": num_pictures,
        "num_broken": len(broken),
        "broken": broken[:_NUM_NAMED],
        "mean": [mean for mean, _ in moments],
        "deviation": [deviation for _, deviation in moments],
        "class_names": list(class_names),
        "pictures_a_class": pictures_a_class.tolist(),
        "shards": [record.num_pictures for record in records],
    }


def _moments(total: int, squares: int, count: int) -> tuple[float, float]:
    """Mean and population deviation of `count` whole numbers from their sum and that of their squares."""
    if not count:
        return 0.0, 0.0
    return total / count, math.sqrt((count * squares - total**2) / count**2)
