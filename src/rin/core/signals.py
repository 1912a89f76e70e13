"""Signals that ask a run to save and leave."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from rin.core.progress import LOGGER

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What launchers send, to end a job and (Slurm's --signal) some time before they take the machine away; Ctrl-C."""


class ReceivedSignal:
    """The first of these signals that this process received."""

    def __init__(self) -> None:
        self.signal = 0
        """The signal's number; 0 for none."""


@contextmanager
def listening() -> Generator[ReceivedSignal]:
    """Notes the first SIGTERM, SIGUSR1 or Ctrl-C instead of dying of it; a second one acts as it would without."""
    received = ReceivedSignal()
    if threading.current_thread() is not threading.main_thread():  # only the main thread can listen
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.signal = number
        LOGGER.info("%s: saving and leaving after this update; once more leaves at once", signal.Signals(number).name)
        restore()

    before = {number: signal.signal(number, note) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield received
    finally:
        restore()
