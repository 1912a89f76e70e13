"""Examples made ahead of their use: by processes, those of PyTorch's DataLoader, or by a thread of this one.

Processes are started by a fork server, since a fork of a process that has threads or uses CUDA is not safe. The server
takes seconds to import PyTorch; until then a thread makes the examples, so that small runs begin at once, and the
smallest end without a server. Whoever makes an example, it is the same to the last bit.
"""

import atexit
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rin.core.errors import RinError
from rin.core.shapes import Labels, Stored

HEAD_START = 3.0
"""Seconds that a thread is alone, before workers are thought of."""

IMPORT_TIME = 3.0
"""Seconds from the start of the fork server to that of workers: about what it takes to import PyTorch there."""

_AHEAD = 3
"""Batches that a thread makes before they are asked for."""

_MOST_WORKERS = 16
"""Workers where nobody says how many."""

_LEFT_TO_US = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
"""What launchers send to a whole group of processes, and the main one answers (`rin.core.signals`)."""

_started: dict[str, float] = {}
"""When the fork server was started, once it was."""


class Asked(NamedTuple):
    """What is wanted of a set."""

    examples: Int[Tensor, " b"]
    """The places of its examples."""

    groups: tuple[int, ...] = ()
    """The groups that are read from here on; empty if the set has none."""


Made = tuple[Asked, tuple[Stored, Labels]]
"""What was wanted, the examples and their classes."""

_open: weakref.WeakSet[Generator[Made]] = weakref.WeakSet()
"""The streams that have workers now."""


@runtime_checkable
class Gettable(Protocol):
    """A set as it is read by a thread."""

    def get(self, index: Int[Tensor, " b"]) -> tuple[Stored, Labels]:
        """The examples at some places, and their classes."""
        ...


@runtime_checkable
class Divided(Gettable, Protocol):
    """A set whose examples other processes can make, in three parts; `get` does all of them."""

    @property
    def worker(self) -> Callable[[Any], Any] | None:
        """What a worker does with a request: sent to it once, pickled. None if it cannot be."""
        ...

    def request(self, index: Int[Tensor, " b"]) -> Any:
        """All that a worker has to know of some examples: first, in this process."""
        ...

    def finish(self, index: Int[Tensor, " b"], made: Any) -> tuple[Stored, Labels]:
        """The examples and their classes out of what a worker answered: last, in this process."""
        ...


def made_ahead(images: Gettable, wanted: Iterable[Asked], num_workers: int | None) -> Generator[Made]:
    """The examples of a set that are wanted, in that order, made while earlier ones are used.

    Args:
        images: the set.
        wanted: which examples, batch by batch; perhaps without an end.
        num_workers: processes that make them; 0 is a thread of this process, None one a core.

    Raises:
        RinError: an example is broken, or a worker was killed.
    """
    wanted = iter(wanted)
    count = _usual_count() if num_workers is None else num_workers
    if multiprocessing.current_process().daemon or not (
        count and isinstance(images, Divided) and images.worker is not None
    ):
        yield from _by_thread(images, wanted)
        return
    with closing(_by_thread(images, _until_workers_can_start(wanted))) as first:
        yield from first
    following = next(wanted, None)
    if following is None:
        return
    others = _by_workers(images, itertools.chain([following], wanted), count)
    _open.add(others)
    with closing(others):
        yield from others


def _until_workers_can_start(wanted: Iterator[Asked]) -> Generator[Asked]:
    begun = time.monotonic()
    while not _started or time.monotonic() < max(begun + HEAD_START, _started["at"] + IMPORT_TIME):
        if time.monotonic() >= begun + HEAD_START:
            _start_server()
        asked = next(wanted, None)
        if asked is None:
            return
        yield asked


def _usual_count() -> int:
    """One worker a core that this process may use, shared with the others of a launcher on this machine."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _by_thread(images: Gettable, wanted: Iterator[Asked]) -> Generator[Made]:
    """The same by a thread, which decodes and does nothing else.

    At PyTorch's first parallel operation in it, it would get a team of threads of its own, beside which training's own
    team crawls.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rin-batches")
    waiting: deque[tuple[Asked, Future[tuple[Stored, Labels]]]] = deque()

    def get(asked: Asked) -> tuple[Stored, Labels]:
        _expect(images, asked)
        return images.get(asked.examples)

    try:
        for asked in wanted:
            waiting.append((asked, thread.submit(get, asked)))
            if len(waiting) > _AHEAD:
                first, got = waiting.popleft()
                yield first, got.result()
        for asked, got in waiting:
            yield asked, got.result()
    finally:
        thread.shutdown(cancel_futures=True)
        _expect(images, Asked(torch.empty(0, dtype=torch.int64)))


def _expect(images: Any, asked: Asked) -> None:
    if getattr(images, "group_sizes", ()):
        images.expect(asked.groups)


@dataclass(frozen=True)
class _Work(Dataset[Any]):
    """What the DataLoader sends to each worker. A mistake comes back as a value, and is told by the main process."""

    make: Callable[[Any], Any]

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.make(request)
        except RinError as error:
            return error


def _by_workers(images: Divided, wanted: Iterator[Asked], num_workers: int) -> Generator[Made]:
    waiting: deque[Asked] = deque()

    def requests() -> Generator[Any]:
        for asked in wanted:
            waiting.append(asked)
            _expect(images, asked)
            yield images.request(asked.examples)

    assert images.worker is not None
    loader: DataLoader[Any] = DataLoader(
        _Work(images.worker),
        sampler=requests(),  # pyright: ignore[reportArgumentType] (anything that can be iterated)
        batch_size=None,  # a request is a batch
        collate_fn=_as_it_is,
        num_workers=num_workers,
        multiprocessing_context="forkserver",
        worker_init_fn=_live_with_parent,
        generator=torch.Generator(),  # PyTorch's own would be moved by a draw
    )
    with _apart():
        answers = iter(loader)
    try:
        while True:
            try:
                made = next(answers)
            except StopIteration:
                return
            except Exception as error:  # of many kinds, by what the worker was killed at
                if "in DataLoader worker process" in str(error):  # raised there, by a data set of one's own
                    raise
                raise RinError(
                    "a worker that reads the data was killed: memory, or shared memory (/dev/shm), may be too small; "
                    "the same command goes on from the last checkpoint, with fewer workers by --data.num-workers (0 is "
                    "none)"
                ) from error
            if isinstance(made, RinError):
                raise made
            asked = waiting.popleft()
            yield asked, images.finish(asked.examples, made)
    finally:
        del answers, loader  # PyTorch ends the workers with the last name
        _expect(images, Asked(torch.empty(0, dtype=torch.int64)))


def _as_it_is(made: Any) -> Any:
    return made


def _start_server() -> None:
    """Starts the fork server, which imports PyTorch meanwhile, if it is not there."""
    if not _started:
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
        with _apart():
            forkserver.ensure_running()
        atexit.register(_close_all)
        _started["at"] = time.monotonic()


def _close_all() -> None:
    """Ends all workers: a script may end amid its batches, and would wait for them."""
    for stream in list(_open):
        stream.close()


@contextmanager
def _apart() -> Generator[None]:
    """Processes started within have nothing of the script that trains, and leave its signals to it.

    Python would import the script in each of them, which runs it again if it has no `if __name__ == "__main__"`.
    """
    resource_tracker.ensure_running()  # it would unblock the signals
    script, before = sys.modules["__main__"], signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_US)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live_with_parent(number: int) -> None:
    """Has a worker end with the main process, however that ends, and when that says so.

    The fork server, which is a worker's parent to the system, lives as long as any of its workers.
    """
    del number
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_it() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    def leave_if_told() -> None:
        if sys.platform == "darwin":  # nothing says there who sent a signal: the first thread alone ends a worker
            return
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass  # it came to the whole group
        os._exit(1)

    threading.Thread(target=leave_with_it, daemon=True).start()
    threading.Thread(target=leave_if_told, daemon=True).start()
