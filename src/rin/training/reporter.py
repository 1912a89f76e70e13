"""What a run tells while it goes: a bar, the log, TensorBoard and trackers, and where it stands."""

import dataclasses
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from rin.core.distributed import is_first, world_size
from rin.core.errors import StoppedError
from rin.core.progress import progress_bar
from rin.core.shapes import Pictures
from rin.costs.operations import peak_operations
from rin.data import Batch, MediaSet
from rin.training import checkpoint
from rin.training.config import TrainingConfig
from rin.training.logging import Log
from rin.training.status_file import RunStatus, write_status


class Reporter:
    """A run's reports, from a step on; only the first process makes any.

    Args:
        folder: the run's.
        config: of its training.
        step: updates made.
        operations: counts those of one update, if the device's peak is known; None of a network that is no RIN.
        training: the set, for what is broken in it.
        device: where the run computes.
        shown: the run's configuration, for trackers to show.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainingConfig,
        step: int,
        operations: Callable[[], int] | None,
        training: MediaSet,
        device: torch.device,
        shown: Mapping[str, Any],
    ) -> None:
        self._folder, self._config, self._training, self._device = folder, config, training, device
        peak = peak_operations(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        # seconds of an update at the peak of all devices
        self._seconds_at_peak = None if peak is None or operations is None else operations() / (peak * world_size())
        self._opened = ExitStack()
        self._waited = 0.0
        self._started, self._since = time.perf_counter(), step
        self._status = RunStatus(
            state="running", step=step, num_steps=config.num_steps, loss=None, learning_rate=None,
            examples_per_second=None, num_processes=world_size(), host=socket.gethostname(), pid=os.getpid(),
            started=time.time(), written=time.time(), checkpoint=self._newest(), skipped_updates=0,
            broken_pictures=training.num_broken, message="",
        )  # fmt: skip
        self._shown = shown

    def __enter__(self) -> "Reporter":
        config, step = self._config, self._status.step
        self._bar = self._opened.enter_context(progress_bar("training", config.num_steps, step))
        self._log = None
        if is_first():
            self._log = Log(self._folder, step, config.trackers, self._shown)
            self._opened.callback(self._log.close)
        self._tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes what is open, and tells how the run ended."""
        try:
            self._opened.__exit__(kind, error, trace)
        except BaseException as closing:
            error = closing
            raise
        finally:
            if error is None:
                self._tell(state="finished")
            else:
                requested = isinstance(error, StoppedError | KeyboardInterrupt)
                message = str(error) or ("interrupted" if requested else type(error).__name__)
                self._tell(state="stopped" if requested else "failed", message=message)

    def waits_for(self, stream: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is there counts as waiting for data."""
        began = time.perf_counter()
        batch = next(stream)
        self._waited += time.perf_counter() - began
        return batch

    def record(self, record: Mapping[str, Any]) -> None:
        """Reports a line of the log, with the rates since the line before."""
        step, loss = int(record["step"]), record["loss"]
        rates = self._rates(step)
        if self._log is not None:
            self._log.record(record, rates)
        shown = "not finite" if loss is None else f"{loss:.4f}"
        self._bar.say(f"step {step}: loss {shown}, {rates['examples_per_second']:.4g} examples/s")
        self._tell(
            step=step,
            loss=loss,
            learning_rate=record["lr"],
            examples_per_second=rates["examples_per_second"],
            skipped_updates=record["skipped"],
            broken_pictures=self._training.num_broken,
        )
        self._started, self._since, self._waited = time.perf_counter(), step, 0.0

    def _rates(self, step: int) -> dict[str, float]:
        """What depends on time and machine since the line before."""
        seconds, updates = time.perf_counter() - self._started, step - self._since
        rates = {
            "examples_per_second": updates * self._config.batch_size / seconds,
            "data_wait": self._waited / seconds,
            "memory_gib": _memory(self._device) / 2**30,
            "broken": float(self._training.num_broken),
        }
        if self._seconds_at_peak is not None:
            rates["share_of_peak"] = updates * self._seconds_at_peak / seconds
        return rates

    def pictures(self, step: int, sheet: Pictures, playing: bytes | None) -> None:
        """Shows a sheet of samples (1 c h w), and clips playing (a GIF)."""
        if self._log is not None:
            self._log.pictures(step, sheet, playing)

    def saved(self, step: int) -> None:
        """Tells of a checkpoint."""
        self._tell(step=step, checkpoint=self._newest())

    def advance(self) -> None:
        """One update more is done."""
        self._bar.advance()

    def _newest(self) -> str | None:
        newest = checkpoint.latest(self._folder / checkpoint.FOLDER)
        return None if newest is None else newest.name

    def _tell(self, **news: Any) -> None:
        self._status = dataclasses.replace(self._status, written=time.time(), **news)
        if is_first():
            write_status(self._folder, self._status)


def _memory(device: torch.device) -> int:
    """The most bytes taken at a time: of the GPU's memory, or of the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
