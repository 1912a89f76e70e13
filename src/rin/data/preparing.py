"""Any set turned into a prepared one: in parallel, in memory that does not grow, and resumed after a kill.

Every shard holds what can be read of a fixed stretch of its split, so the shards depend on nothing but the source and
the settings. A shard is whole when its `shard-00000.json`, the last of its files to be written, is there; `set.json`
is the last file of all.
"""

import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rin.core.errors import RinError
from rin.core.files import LOCK, UNFINISHED, flush_folder, locked
from rin.core.names import printable
from rin.core.progress import progress_bar
from rin.data.decoding.pictures import Shape, check_shape
from rin.data.prepared.embedding import embed
from rin.data.prepared.reading import BEGUN, FORMAT_VERSION, SET, is_prepared, read_json, read_set, size_text
from rin.data.prepared.shard_writing import (
    Preparation,
    Shard,
    ShardRecord,
    find_shard,
    summary,
    write_json,
    write_shard,
)
from rin.data.prepared.shards import check_shard
from rin.data.prepared_from import Source, open_source

MAX_PICTURES, MAX_BYTES = 4096, 256 * 2**20
"""Of a shard: its pictures are all in memory while it is made."""

_MAX_SIDE = 8192
"""Pixels; a picture of more would hardly fit into a shard."""

_OWN_FILE = re.compile(r"(images-\d{5,}\.npy|labels-\d{5,}\.npy|shard-\d{5,}\.json)(\.unfinished)?")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a prepared set holds."""

    num_pictures: dict[str, int]
    """Pictures by split."""

    num_broken: int
    """Pictures that were left out."""

    longest_caption: int
    """Bytes; 0 where there are no captions."""

    was_finished: bool
    """Whether there was nothing to do."""


def prepare_set(preparation: Preparation, folder: Path) -> Prepared:
    """Makes a prepared set of all splits of a source, or goes on with the one in the folder.

    Raises:
        RinError: the source cannot be read, the folder holds something else or cannot be written.
    """
    shape = preparation.shape
    _check_reasonable(shape)
    source = open_source(preparation)
    if source.folder is not None and source.folder in folder.resolve().parents:  # the set would change its own source
        raise RinError(f"{printable(folder)} lies in the source, {printable(source.folder)}: give a folder outside it")
    settings = source.settings | {"pictures_a_shard": max(1, min(MAX_PICTURES, MAX_BYTES // math.prod(shape)))}
    with _alone(folder):
        was_finished = _claim(folder, settings)
        splits = {name: _shards(source, name, folder / name, settings["pictures_a_shard"]) for name in source.splits}
        if was_finished:
            was_finished = not _repair(splits, folder, preparation)
        else:
            _write_set(source, splits, folder, preparation, settings)
        _remove_others(splits, folder)
        stored = read_set(folder)["splits"]
        captions = [text for split in stored.values() for text in split["class_names"] if preparation.captions]
        if preparation.text_encoder:
            was_finished &= not embed(folder, preparation.text_encoder, preparation.num_tokens)
    return Prepared(
        num_pictures={name: sum(split["shards"]) for name, split in stored.items()},
        num_broken=sum(split["num_broken"] for split in stored.values()),
        longest_caption=max((len(text.encode()) for text in captions), default=0),
        was_finished=was_finished,
    )


def _check_reasonable(shape: Shape) -> None:
    """Refuses shapes of which hardly one would fit into memory.

    Raises:
        RinError: it is one of these, or none that a picture or clip can have.
    """
    check_shape(shape)
    _, *frames, height, width = shape
    size = size_text(height, width)
    if max(height, width) > _MAX_SIDE:
        raise RinError(f"--size {size}: a set's pictures have at most {_MAX_SIDE} pixels a side")
    if frames and math.prod(shape) > MAX_BYTES:
        raise RinError(f"--size {size} --frames {frames[0]}: a set's clips take at most {MAX_BYTES >> 20} MiB each")


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Makes the folder, if it is not there, and keeps all other processes from preparing a set in it.

    Raises:
        RinError: another one does, the folder holds something else, or it cannot be written.
    """
    try:
        if not is_prepared(folder):
            ours = {LOCK, BEGUN + UNFINISHED}
            if folder.exists() and any(path.name not in ours for path in folder.iterdir()):
                raise RinError(f"{printable(folder)} is not empty and no prepared set: give a new folder")
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RinError(f"cannot make a set in {printable(folder)}: {error.strerror}; give another folder") from error
    name = printable(folder)
    with locked(folder, f"{name} is being prepared by", f"cannot make a set in {name}"):
        yield


def _claim(folder: Path, settings: dict[str, Any]) -> bool:
    """Makes the folder this set's own, or makes sure that it already is; whether the set is finished.

    To leave out broken pictures may be decided at the first of them: nothing has been left out until then. The files
    of an unfinished set may change, for each shard tells what it was made from. A set that was begun with smaller
    shards keeps their size, which is set in `settings`.
    """
    is_finished = (folder / SET).is_file()
    if is_prepared(folder):
        before = read_json(folder / (SET if is_finished else BEGUN))["settings"]
        size = before.get("pictures_a_shard")
        if type(size) is int and 1 <= size < settings["pictures_a_shard"]:
            settings["pictures_a_shard"] = size
        way_out = "give the same options to go on with it, or another folder"
        free = {"fingerprint"} | (set() if is_finished or before.get("skip_broken") else {"skip_broken"})
        changed = [
            f"{name} was {before.get(name)!r} and is {value!r}"
            for name, value in (dict.fromkeys(before) | settings).items()
            if before.get(name) != value and name not in free
        ]
        if is_finished and not changed and before.get("fingerprint") != settings["fingerprint"]:
            changed = ["the source's files or classes have changed since"]
            way_out = "give another folder, or remove this one to make it anew"
        if changed:
            raise RinError(f"{printable(folder)} holds another prepared set ({'; '.join(changed)}): {way_out}")
    if not is_finished:
        write_json(folder / BEGUN, {"format_version": FORMAT_VERSION, "settings": settings})
    return is_finished


def _shards(source: Source, name: str, folder: Path, size: int) -> list[Shard]:
    encoded = source.splits[name]
    stretches = [range(start, min(start + size, len(encoded))) for start in range(0, len(encoded), size)]
    return [
        Shard(encoded=encoded, folder=folder, number=number, places=places, made_from=source.digest(name, places))
        for number, places in enumerate(stretches)
    ]


def _write_set(
    source: Source,
    splits: Mapping[str, list[Shard]],
    folder: Path,
    preparation: Preparation,
    settings: Mapping[str, Any],
) -> None:
    """Writes what is not there yet of a set, its `set.json` last."""
    records = _write_shards(splits, preparation)
    stored = {"format_version": FORMAT_VERSION, "shape": list(preparation.shape), "settings": settings}
    summaries = {
        name: summary(splits[name], records[name], encoded, preparation.shape)
        for name, encoded in source.splits.items()
    }
    for name in splits:
        flush_folder(folder / name)
    write_json(folder / SET, stored | {"splits": summaries})
    flush_folder(folder)


def _repair(splits: Mapping[str, list[Shard]], folder: Path, preparation: Preparation) -> bool:
    """Writes those shards of a finished set again whose files are missing or not what they should be; whether any are.

    Raises:
        RinError: the set or the source is no longer what it was, or a file cannot be read or written.
    """
    stored = read_set(folder)
    counts = {name: split["shards"] for name, split in stored["splits"].items()}
    lengths = {name: len(of_split) for name, of_split in counts.items()}
    if lengths != {name: len(shards) for name, shards in splits.items()} or stored["shape"] != list(preparation.shape):
        raise _another(folder)
    damaged = [
        shard for name, shards in splits.items() for shard in shards if not _is_whole(shard, counts[name], preparation)
    ]
    with progress_bar("repairing", sum(len(shard.places) for shard in damaged)) as bar:
        for shard in damaged:
            record = write_shard(shard, preparation, bar)
            if record.num_pictures != counts[shard.folder.name][shard.number]:
                raise _another(folder)
    return bool(damaged)


def _is_whole(shard: Shard, counts: list[int], preparation: Preparation) -> bool:
    try:
        check_shard(shard.folder, shard.number, preparation.shape, counts[shard.number])
    except RinError:
        return False
    return True


def _another(folder: Path) -> RinError:
    path = printable(folder / SET)
    return RinError(
        f"{path} tells of other pictures or clips than the source has now: remove {printable(folder)} to make it anew"
    )


def _remove_others(splits: Mapping[str, list[Shard]], folder: Path) -> None:
    """Removes what a finished set does not need: how far it had come, and shards of a source that had more pictures."""
    kept = {file for shards in splits.values() for shard in shards for file in shard.files}
    for file in [*folder.glob("*/*"), *folder.glob(BEGUN)]:
        if file.name == BEGUN or (_OWN_FILE.fullmatch(file.name) and file not in kept):
            file.unlink()


def _write_shards(splits: Mapping[str, list[Shard]], preparation: Preparation) -> dict[str, list[ShardRecord]]:
    """Writes the shards that are not there yet; what is in all of them, by split."""
    found = {name: [find_shard(shard, preparation.shape) for shard in shards] for name, shards in splits.items()}
    every = [
        (shard, record) for name, shards in splits.items() for shard, record in zip(shards, found[name], strict=True)
    ]
    done = sum(len(shard.places) for shard, record in every if record is not None)
    with progress_bar("preparing", sum(len(shard.places) for shard, _ in every), done) as bar:
        for name, shards in splits.items():
            found[name] = [
                record or write_shard(shard, preparation, bar)
                for shard, record in zip(shards, found[name], strict=True)
            ]
    return {name: [record for record in records if record is not None] for name, records in found.items()}
