"""Checkpoints: written whole or not at all, the last few kept, never unpickled.

A checkpoint is a folder of safetensors files and one JSON file. It is written under a temporary name, flushed to the
disk, and renamed, so that a folder with a checkpoint's name is always whole.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rin.core.errors import RinError

FOLDER = "checkpoints"
"""Where the checkpoints of a run are, in its folder."""

_NAME = re.compile(r"step-(\d{9})")
_TEMPORARY = ".unfinished"

TensorFiles = Mapping[str, Mapping[str, Tensor]]
"""File name without its ending -> tensors by name."""


def save(folder: Path, step: int, tensors: TensorFiles, state: Mapping[str, Any], keep: int) -> Path:
    """Writes the checkpoint of a step and deletes all but the newest `keep`.

    Raises:
        RinError: the disk is full or cannot be written; what was there before is untouched.
    """
    target = folder / f"step-{step:09d}"
    temporary = folder / f"{target.name}{_TEMPORARY}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, file_tensors in tensors.items():
            save_file(
                {key: value.contiguous() for key, value in file_tensors.items()}, temporary / f"{name}.safetensors"
            )
        (temporary / "state.json").write_text(json.dumps(dict(state)), encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        temporary.rename(target)
        with contextlib.suppress(OSError):  # some file systems cannot flush a folder
            _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        newest = latest(folder)
        kept = f"the last good checkpoint is {newest}" if newest else "there is no earlier checkpoint"
        raise RinError(f"cannot write the checkpoint {target}: {error}; {kept}") from error
    for old in all_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def load(checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors and the state of a checkpoint.

    Raises:
        RinError: it is damaged.
    """
    try:
        tensors = {file.stem: load_file(file) for file in sorted(checkpoint.glob("*.safetensors"))}
        return tensors, json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise RinError(
            f"checkpoint {checkpoint} is damaged ({error}): delete it to go on from the one before"
        ) from error


def all_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    return (all_checkpoints(folder) or [None])[-1]


def discard_unfinished(folder: Path) -> None:
    """Deletes what a killed process left half written."""
    for path in folder.glob(f"*{_TEMPORARY}"):
        shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    """Makes sure that a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
