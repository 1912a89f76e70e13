"""Where a run stands, for whoever looks in from outside: `status.json`, and a lock held while it trains."""

import dataclasses
import fcntl
import json
import os
import socket
import types
import typing
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rin.core.files import LOCK, locked, written_whole
from rin.core.progress import LOGGER
from rin.core.strict_json import read_json

STATUS = "status.json"


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Where a run stood when it was written, by its first process."""

    state: Literal["running", "finished", "stopped", "failed"]
    """stopped: as a signal asked, with everything saved; failed: by an error or an interrupt."""

    step: int
    """Updates made."""

    num_steps: int
    """Updates in all."""

    loss: float | None = None
    """The mean loss of the newest line of the log; None before the first, or if no update counted."""

    learning_rate: float | None = None
    """That of the newest line."""

    examples_per_second: float | None = None
    """Of all processes together, since the line before."""

    num_processes: int
    """How many train together."""

    host: str
    """The first process's machine."""

    pid: int
    """The first process."""

    started: float
    """When this process started, in Unix seconds."""

    written: float
    """When this was written, in Unix seconds."""

    checkpoint: str | None = None
    """The name of the newest checkpoint."""

    skipped_updates: int = 0
    """Updates that were skipped because they were not finite."""

    broken_pictures: int = 0
    """Pictures passed over because they cannot be read."""

    message: str = ""
    """What a person should know: why it failed, perhaps."""


def write_status(folder: Path, status: RunStatus) -> None:
    """Writes `status.json`, whole or not at all.

    A run does not end because its status cannot be written: that is only warned of. A full disk ends it at the log or
    the checkpoint, without which it could not go on.
    """
    try:
        with written_whole(folder / STATUS) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(status), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        LOGGER.warning("cannot write %s: %s", folder / STATUS, error)


def read_status(folder: Path) -> RunStatus | None:
    """The status of a run; None if there is none, or none that can be made sense of.

    It is written anew all the time and nothing depends on it, so a damaged one is as good as none.
    """
    try:
        stored = read_json(folder / STATUS)
        hints = typing.get_type_hints(RunStatus)
        status = {name: stored[name] for name in hints}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return RunStatus(**status) if all(_is(status[name], hint) for name, hint in hints.items()) else None


def _is(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON is of a field's kind."""
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is types.UnionType:
        return any(_is(value, part) for part in typing.get_args(hint))
    return isinstance(value, hint) and not isinstance(value, bool)


@contextmanager
def only_process(folder: Path) -> Generator[None]:
    """Holds a run's lock: no other process trains it meanwhile.

    The system takes the lock from a process that ends, however it ends; the file stays. Where a file system has no
    locks, this does nothing.

    Raises:
        RinError: another process holds it, or the folder cannot be written.
    """
    with locked(folder, f"{folder} is being trained by", f"cannot write the run to {folder}"):
        yield


def running_here(folder: Path) -> bool:
    """Whether a process of this machine is training a run.

    Its lock tells; where the file system has no locks, its status does: whether the process named there is alive.
    """
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except (FileNotFoundError, BlockingIOError) as error:
        return isinstance(error, BlockingIOError)
    except OSError:
        status = read_status(folder)
        return status is not None and status.host == socket.gethostname() and _alive(status.pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another person's
        return True
    return True
