"""Progress of long work: a bar with rate and time left, on a terminal only."""

import functools
import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from rin.core.distributed import is_first
from rin.core.names import printable


class _Printable(logging.Filter):
    """Escapes control characters, which names of files and classes may have."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True


LOGGER = logging.getLogger("rin")
"""What a run says while it goes, a line at a time; the command line shows it on standard error."""

LOGGER.addFilter(_Printable())


@functools.cache
def warn_once(line: str) -> None:
    """A warning that is not said again in this process, as of each of many batches."""
    LOGGER.warning("%s", line)


Unit = TypeVar("Unit")

_shown = False
"""Whether there is a bar already."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "")


class Bar:
    """Where long work stands."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress, self._task = progress, progress.tasks[task].id

    def advance(self, count: int = 1) -> None:
        """So many units more are done."""
        self._progress.advance(self._task, count)

    def counted(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """The units, each of which is done when the next is asked for."""
        for unit in units:
            yield unit
            self.advance()

    def say(self, note: str) -> None:
        """A note at the end of the bar; a line of its own where there is no bar."""
        if self._progress.disable:
            LOGGER.info(note)
        else:
            self._progress.update(self._task, note=note)


@contextmanager
def progress_bar(what: str, total: int, done: int = 0) -> Generator[Bar]:
    """A bar for `total` units of `what`, `done` of them already.

    Invisible where standard error is no terminal, in all processes but the first, and within another bar.
    """
    global _shown
    console = Console(stderr=True)
    hidden = _shown or not is_first() or not console.is_terminal
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        progress.add_task(what, total=total, completed=done, note="")
        outer, _shown = _shown, True
        try:
            yield Bar(progress, 0)
        finally:
            _shown = outer
