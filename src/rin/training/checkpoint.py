"""Checkpoints: written whole or not at all, with checksums, never unpickled.

A checkpoint is a folder of safetensors files and one JSON file. It is written under a temporary name, flushed to the
disk, and renamed, so that a folder with a checkpoint's name was whole once; its checksums tell whether it still is.
Where weights are sharded, every process writes a file of its own rows, and any number of processes can read them.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rin.core.distributed import first_says, gather, is_first, rank, sum_over_processes, wait_for_all, world_size
from rin.core.errors import RinError
from rin.core.files import UNFINISHED, check_file, discard, flush, flush_folder, save_tensors
from rin.core.progress import LOGGER
from rin.core.strict_json import read_json
from rin.training.rows import joined

FOLDER = "checkpoints"
"""Where the checkpoints of a run are, in its folder."""

STATE = "state.json"

MODEL, AVERAGE, OPTIMISER = "model", "average", "optimiser"
"""The files of a run's checkpoint; one more for each further average."""

DAMAGED = ".damaged"
"""How the name of a checkpoint that was set aside ends; the next one that is written takes its place."""

_NAME = re.compile(r"step-([0-9]{9})")

Result = TypeVar("Result")

TensorFiles = Mapping[str, Mapping[str, Tensor]]
"""File name without its ending -> tensors by name, or this process's rows of them."""


def save(
    folder: Path, step: int, tensors: TensorFiles, state: Mapping[str, Any], keep: int, *,
    keep_every: int = 0, sharded: bool = False,
) -> Path:  # fmt: skip
    """Writes the checkpoint of a step and deletes the old ones. All processes call it together.

    Args:
        folder: of the checkpoints, which all processes see.
        step: updates made.
        tensors: what to write; the first process's are written, or every one's rows if `sharded`.
        state: numbers by name.
        keep: how many of the newest to keep.
        keep_every: steps that are multiples of it are kept for good; 0 for none.
        sharded: the tensors are this process's rows: those of all of them, one after the other, make the whole.

    Raises:
        RinError: the disk is full or cannot be written; what was there before is untouched.
    """
    target = path_of(folder, step)
    temporary = target.with_name(target.name + UNFINISHED)
    shards = world_size() if sharded else 1
    try:
        _together(lambda: _begin(temporary) if is_first() else None, target)
        digests = _together(lambda: _write_tensors(temporary, tensors, shards), target)
        files = {name: bytes(digest).hex() for name, digest in _of_all_shards(tensors, digests, shards)}
        content = {"files": files, "shards": shards, "state": dict(state)}
        _together(lambda: _finish(temporary, target, content) if is_first() else None, target)
    except RinError:
        if is_first():
            discard(temporary)
        raise
    if is_first():
        _tidy(folder, keep, keep_every)
    return target


def _together(part: Callable[[], Result], target: Path) -> Result:
    """What this process's part of the work gives, once every process has done its own.

    Raises:
        RinError: one of them could not.
    """
    result, failure = None, None
    try:
        result = part()
    except (OSError, SafetensorError) as error:
        failure = error
    if int(sum_over_processes(torch.tensor(int(failure is not None)))):
        newest = latest(target.parent)
        kept = f"the last good checkpoint is {newest}" if newest else "there is no earlier checkpoint"
        reason = failure or "another process failed"
        raise RinError(f"cannot write the checkpoint {target}: {reason}; {kept}") from failure
    return cast(Result, result)


def _begin(temporary: Path) -> None:
    discard(temporary)
    temporary.mkdir(parents=True)


def _write_tensors(temporary: Path, tensors: TensorFiles, shards: int) -> UInt8[Tensor, "files 32"]:
    """Writes this process's tensors, if it has any to write, and returns their checksums."""
    digests = torch.zeros(len(tensors), hashlib.sha256().digest_size, dtype=torch.uint8)
    if rank() < shards:
        for number, (name, file_tensors) in enumerate(tensors.items()):
            path = temporary / _file_name(name, rank(), shards)
            save_tensors(file_tensors, path)
            flush(path)
            digests[number] = torch.tensor(list(_digest(path)), dtype=torch.uint8)
    return digests


def _of_all_shards(
    names: Iterable[str], digests: UInt8[Tensor, "files 32"], shards: int
) -> Iterator[tuple[str, list[int]]]:
    """Every file of a checkpoint with its checksum."""
    everyones = gather(digests)
    for number, name in enumerate(names):
        for shard in range(shards):
            yield _file_name(name, shard, shards), everyones[shard, number].tolist()


def _finish(temporary: Path, target: Path, content: Mapping[str, Any]) -> None:
    (temporary / STATE).write_text(json.dumps(sealed(content), indent=1), encoding="utf-8")
    flush(temporary / STATE)
    flush_folder(temporary)
    discard(target)
    temporary.rename(target)
    flush_folder(target.parent)


def _tidy(folder: Path, keep: int, keep_every: int) -> None:
    """Deletes old checkpoints, what a killed process left half written, and what was set aside."""
    old = [path for path in all_checkpoints(folder)[:-keep] if not (keep_every and step_of(path) % keep_every == 0)]
    for left in (*old, *folder.glob(f"*{UNFINISHED}"), *folder.glob(f"*{DAMAGED}")):
        try:
            discard(left)
        except OSError as error:  # the new checkpoint is good: that is no reason to end the run
            LOGGER.warning("cannot delete %s: %s", left, error)


def _file_name(name: str, shard: int, shards: int) -> str:
    return f"{name}.safetensors" if shards == 1 else f"{name}-{shard + 1:05d}-of-{shards:05d}.safetensors"


def _digest(path: Path) -> bytes:
    check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def average_of(decay: float) -> str:
    """The file of a further average."""
    return f"{AVERAGE}-{decay}"


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return (all_checkpoints(folder) or [None])[-1]


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:09d}"


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("step-"))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; damaged ones are named and set aside, half written ones deleted.

    All processes call it together. None if there never was a checkpoint.

    Raises:
        RinError: there are checkpoints, and all are damaged.
    """
    damaged: list[Path] = []
    if is_first():
        for left in folder.glob(f"*{UNFINISHED}"):
            discard(left)
    while True:
        newest = latest(folder) if is_first() else None
        step = first_says(-1 if newest is None else step_of(newest))
        if step < 0:
            break
        newest = path_of(folder, step)
        reason = damage(newest, share=True)
        if not int(sum_over_processes(torch.tensor(int(reason is not None)))):
            return newest
        damaged.append(newest)
        if is_first():
            LOGGER.warning("checkpoint %s is damaged (%s): taking the one before", newest, reason or "a shard of it")
            _set_aside(newest)
        wait_for_all()
    if damaged:
        raise RinError(
            f"every checkpoint in {folder} is damaged ({len(damaged)}, set aside as *{DAMAGED}): "
            "take another --out to begin anew"
        )
    return None


def _set_aside(checkpoint: Path) -> None:
    aside = checkpoint.with_name(checkpoint.name + DAMAGED)
    try:
        discard(aside)
        checkpoint.rename(aside)
    except OSError as error:
        raise RinError(f"cannot set aside the damaged checkpoint {checkpoint}: {error}") from error


def damage(checkpoint: Path, only: str = "", share: bool = False, most: int = sys.maxsize) -> str | None:
    """What is wrong with a checkpoint; None if its files are those that were written.

    Args:
        checkpoint: its folder.
        only: look at the file of this name alone, in all its shards.
        share: look at this process's share of the files, while the other processes look at theirs.
        most: bytes that a file can have; larger ones are not read.
    """
    try:
        written = _read_state(checkpoint)
        files: dict[str, str] = written["files"]
        shards = written["shards"]
        names = [_file_name(only, shard, shards) for shard in range(shards)] if only else sorted(files)
        for name in names[rank() :: world_size()] if share else names:
            if Path(name).name != name:
                return f"{name!r} is no file of a checkpoint"
            if (size := (checkpoint / name).stat().st_size) > most:
                return f"{name} has {size} bytes"
            if _digest(checkpoint / name).hex() != files[name]:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{error!r}" if isinstance(error, KeyError) else str(error)
    return None


def state(checkpoint: Path) -> dict[str, Any]:
    """The numbers of a checkpoint, by name.

    Raises:
        RinError: it is damaged.
    """
    try:
        return dict(_read_state(checkpoint)["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(checkpoint, error) from error


def read(checkpoint: Path, name: str, sharded: bool = False) -> dict[str, Tensor]:
    """The tensors of one of a checkpoint's files, however many shards it was written in.

    Args:
        checkpoint: its folder.
        name: of the file, as it was saved.
        sharded: read this process's rows alone, as FSDP cuts them.

    Raises:
        RinError: it is damaged.
    """
    try:
        shards = _read_state(checkpoint)["shards"]
        with ExitStack() as opened:
            files = [
                opened.enter_context(safe_open(checkpoint / _file_name(name, shard, shards), framework="pt"))
                for shard in range(shards)
            ]
            return {key: joined([file.get_slice(key) for file in files], sharded) for key in files[0].keys()}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _damaged(checkpoint, error) from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """What `state.json` holds, with a checksum of its own."""
    text = json.dumps(content, sort_keys=True)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _read_state(checkpoint: Path) -> dict[str, Any]:
    content = read_json(checkpoint / STATE)
    if sealed({name: content[name] for name in ("files", "shards", "state")}) != content:
        raise ValueError(f"{STATE} is not what was written")
    shards, files = content["shards"], content["files"]
    if type(shards) is not int or not 1 <= shards <= len(files):
        raise ValueError(f"{STATE} tells of {shards} shards in {len(files)} files")
    return content


def _damaged(checkpoint: Path, error: Exception) -> RinError:
    return RinError(f"checkpoint {checkpoint} is damaged ({error})")
