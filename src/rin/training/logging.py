"""What a run writes down while it goes: `log.jsonl`, TensorBoard's events, and trackers where they are asked for.

The log is a function of the configuration alone, so a resumed run's is the uninterrupted one's to the last digit;
rates and times, which are not, go to TensorBoard and the trackers only.
"""

# pyright: reportAttributeAccessIssue=false
# Protocol buffers make their messages when they are imported.

import io
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from rin.core.errors import RinError
from rin.core.files import check_file, written_whole
from rin.core.progress import LOGGER
from rin.core.shapes import Pictures
from rin.sampling.pictures import to_image
from rin.training.trackers import Tracker

LOG = "log.jsonl"
"""The log, in a run's folder."""


class Log:
    """The log of a run, opened at a step: what was written after it is taken back.

    Every line is handed to the system at once, which keeps it if the process is killed.

    Args:
        folder: the run's.
        step: updates made.
        trackers: wandb, trackio: where to log beside log.jsonl and TensorBoard.
        config: the run's configuration, for the trackers to show.

    Raises:
        RinError: the folder cannot be written, or a tracker is not there.
    """

    def __init__(
        self, folder: Path, step: int, trackers: Sequence[str] = (), config: Mapping[str, Any] | None = None
    ) -> None:
        self.path = folder / LOG
        self._failed = False
        with ExitStack() as opened:
            with self._written():
                self._rewind(step)
                self._file = opened.enter_context(self.path.open("a", encoding="utf-8"))
                self._board = _Board(folder, step + 1)
                opened.callback(self._board.close)
            self._trackers = [Tracker(name, folder, config or {}) for name in trackers]
            self._opened = opened.pop_all()

    def _rewind(self, step: int) -> None:
        """Keeps the whole lines up to a step; a killed process may have left more, the last one torn."""
        kept = [line for line in read_log(self.path) if line["step"] <= step] if step else []
        with written_whole(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def record(self, record: Mapping[str, Any], rates: Mapping[str, float]) -> None:
        """Writes a line, of at least step, loss and lr; `rates` go to TensorBoard and the trackers alone.

        Raises:
            RinError: the disk is full or cannot be written.
        """
        step, numbers = int(record["step"]), _flat(record) | dict(rates)
        with self._written():
            self._file.write(json.dumps(dict(record)) + "\n")
            self._file.flush()
            self._board.numbers(step, numbers)
        for tracker in self._trackers:
            tracker.log(numbers, step)

    def pictures(self, step: int, sheet: Pictures, playing: bytes | None = None) -> None:
        """Shows a sheet of samples (1 c h w) in TensorBoard and the trackers, and clips playing (a GIF) in the former.

        Raises:
            RinError: the disk is full or cannot be written.
        """
        image, encoded = to_image(sheet), io.BytesIO()
        image.save(encoded, "png")
        with self._written():
            self._board.picture(step, "samples", encoded.getvalue())
            if playing is not None:
                self._board.picture(step, "clips", playing)
        for tracker in self._trackers:
            tracker.pictures(image, step)

    def close(self) -> None:
        """Writes out what is left. While another error is under way, a failure here is only warned of.

        Raises:
            RinError: the disk is full or cannot be written.
        """
        under_way, failed_before = sys.exception() is not None, self._failed
        for tracker in self._trackers:
            tracker.finish(failed=under_way)
        try:
            with self._written():
                self._opened.close()
        except RinError as error:
            if not under_way:
                raise
            if not failed_before:  # a full disk is told of once
                LOGGER.warning("%s", error)

    @contextmanager
    def _written(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            raise RinError(
                f"cannot write the log in {self.path.parent}: {error}; once there is room, the same command goes on "
                "from the newest checkpoint"
            ) from error


_BOARDS = itertools.count()


class _Board:
    """TensorBoard's events, each written where it is made.

    Its own writer leaves that to a thread: on a full disk the failure is noticed many events later, is printed as a
    traceback, and comes again at every attempt to close. The format is TensorBoard's, by its own code.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        began = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_BOARDS)}"
        self._file = (folder / f"events.out.tfevents.{began}").open("wb")
        self._records = RecordWriter(self._file)
        try:
            self._write(file_version="brain.Event:2")
            # what an earlier process wrote of these steps no longer counts
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            self.close()
            raise

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in numbers.items()]
        self._write(step=step, summary=Summary(value=values))

    def picture(self, step: int, tag: str, encoded: bytes) -> None:
        """Shows a PNG, or a GIF, which TensorBoard plays."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(io.BytesIO(encoded)) as image:
            (width, height), bands = image.size, len(image.getbands())
        shown = Summary.Image(width=width, height=height, colorspace=bands, encoded_image_string=encoded)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=shown)]))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that are whole; others, as a killed process or a broken disk leaves them, are passed over.

    Raises:
        RinError: the file cannot be read.
    """
    try:
        check_file(path)
        written = path.read_bytes().splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise RinError(f"cannot read the log {path}: {error}") from error
    lines: list[dict[str, Any]] = []
    for line in written:
        with suppress(ValueError, RecursionError):  # text that is no text is a ValueError too
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                lines.append(record)
    if len(lines) < len(written) - 1:  # the last one may be torn
        LOGGER.warning("%d lines of %s are damaged and passed over", len(written) - len(lines), path)
    return lines


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that there are, by name, those of a group under group/name."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{key}": number for key, number in value.items()}
        elif name != "step" and value is not None:
            flat[name] = value
    return flat
