"""What can be said of a run from its folder alone: its status, its log, its checkpoints, and whether it is alive."""

import contextlib
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rin.core.errors import RinError
from rin.core.strict_json import read_json
from rin.training import checkpoint
from rin.training.logging import LOG, read_log
from rin.training.status_file import RunStatus, read_status, running_here

State = Literal["running", "finished", "stopped", "failed", "killed", "silent"]

SILENT_AFTER = 600.0
"""Seconds after which a run of another machine that has written nothing is called silent."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of a run."""

    count: int
    newest: str | None
    bytes: int
    kept_for_good: int


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands now; what is not known is None."""

    folder: str
    state: State
    """That of its status; killed: it says running, but no process of this machine is training it; silent: it says
    running on another machine, and is old."""

    step: int
    num_steps: int
    loss: float | None
    held_out_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    """Loss, held-out loss, rate and norm: the last ones in the log."""

    examples_per_second: float | None
    seconds_left: float | None
    """At that rate; of a running run only."""

    silent_seconds: float | None
    """Since the status was written."""

    num_processes: int | None
    host: str | None
    pid: int | None
    checkpoints: Checkpoints
    skipped_updates: int
    broken_pictures: int
    message: str


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    try:
        _training(folder)
    except RinError:
        return False
    return True


def run_state(folder: Path) -> RunState:
    """Where a run stands.

    Raises:
        RinError: the folder is no run.
    """
    training, status, log = _training(folder), read_status(folder), read_log(folder / LOG)
    checkpoints = checkpoint.all_checkpoints(folder / checkpoint.FOLDER)
    saved = checkpoint.step_of(checkpoints[-1]) if checkpoints else 0
    step = status.step if status else max(saved, log[-1]["step"] if log else 0)
    num_steps = training["num_steps"]
    state = _state(folder, status, done=saved >= num_steps)
    rate = status.examples_per_second if status else None
    left = (num_steps - step) * training["batch_size"] / rate if rate and state == "running" else None
    return RunState(
        folder=str(folder),
        state=state,
        step=step,
        num_steps=num_steps,
        loss=_last(log, "loss"),
        held_out_loss=_last(log, "held_out_loss"),
        learning_rate=_last(log, "lr"),
        gradient_norm=_last(log, "grad_norm"),
        examples_per_second=rate,
        seconds_left=left,
        silent_seconds=max(time.time() - status.written, 0.0) if status else None,
        num_processes=status.num_processes if status else None,
        host=status.host if status else None,
        pid=status.pid if status else None,
        checkpoints=Checkpoints(
            count=len(checkpoints),
            newest=checkpoints[-1].name if checkpoints else None,
            bytes=sum(map(_size, checkpoints)),
            kept_for_good=_kept_for_good(checkpoints, training.get("keep_checkpoint_every", 0)),
        ),
        skipped_updates=status.skipped_updates if status else 0,
        broken_pictures=status.broken_pictures if status else 0,
        message=status.message if status else "",
    )


def _training(folder: Path) -> dict[str, Any]:
    """The training options of a run, as its configuration has them."""
    path = folder / "config.json"
    try:
        training = read_json(path)["training"]
        every = training.get("keep_checkpoint_every", 0)
        for name, count, least in (
            ("num_steps", training["num_steps"], 1),
            ("batch_size", training["batch_size"], 1),
            ("keep_checkpoint_every", every, 0),
        ):
            if type(count) is not int or count < least:
                raise TypeError(f"training.{name} is no whole number from {least} on")
    except FileNotFoundError:
        raise RinError(f"{folder} is no run: it has no {path.name}") from None
    except OSError as error:
        raise RinError(f"cannot read {path}: {error}") from error
    except KeyError:
        raise RinError(f"{folder} is no run: its {path.name} has nothing of training") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise RinError(f"{path} is damaged: {error}") from error
    return training


def _state(folder: Path, status: RunStatus | None, done: bool) -> State:
    if running_here(folder):
        return "running"
    if status is None:
        return "finished" if done else "stopped"
    if status.state != "running":
        return status.state
    if status.host == socket.gethostname():
        return "killed"
    return "silent" if time.time() - status.written > SILENT_AFTER else "running"


def _last(log: list[dict[str, Any]], name: str) -> float | None:
    """The last number of that name in a log."""
    return next((line[name] for line in reversed(log) if type(line.get(name)) is float), None)


def _size(folder: Path) -> int:
    """Bytes of a folder's files; a running run may delete them at any time."""
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            total += file.stat().st_size
    return total


def _kept_for_good(checkpoints: list[Path], every: int) -> int:
    return sum(checkpoint.step_of(path) % every == 0 for path in checkpoints) if every else 0
