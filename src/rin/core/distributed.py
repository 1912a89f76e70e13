"""Many processes: which one this is, what they tell each other, and what happens when one of them dies.

`torchrun` starts them, or anything else that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. One
process needs no launcher: every function here then answers for one.
"""

# pyright: reportPrivateImportUsage=false
# PyTorch does not list its stores among its public names.

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from rin.core.errors import RinError, StoppedError

_BEAT_SECONDS = 1.0
_DEAD_AFTER_SECONDS = 30.0
"""A process whose beat is not heard for so long is dead."""

_STILL_SECONDS = 4.0
"""The same once talking to the others has failed: then one of them is dead, and the question is which."""


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _many() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _many() else 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def _many() -> bool:
    return dist.is_available() and dist.is_initialized()


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, in place; the values themselves for one."""
    if _many():
        dist.all_reduce(values)
    return values


def gather(values: Tensor) -> Tensor:
    """The values of all processes, which have the same shape, one process after the other (processes ...)."""
    if not _many():
        return values[None]
    everyone = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(everyone, values.contiguous())
    return torch.stack(everyone)


def wait_for_all() -> None:
    """Goes on when every process has come here."""
    sum_over_processes(torch.zeros(()))


def first_says(number: int) -> int:
    """The number that the first process gave, in all of them."""
    told = torch.tensor(number)
    if _many():
        dist.broadcast(told, src=0)
    return int(told)


def share_of(count: int) -> range:
    """The part of `count` things that is this process's: an even share, in a row."""
    size, number = world_size(), rank()
    return range(count * number // size, count * (number + 1) // size)


class LargestOfAll:
    """The largest number that any process gave one call before, the same in all of them at the same call.

    One call late, since nobody waits: the numbers travel while the processes compute.
    """

    def __init__(self) -> None:
        self._given: tuple[Tensor, dist.Work | None] | None = None

    def before(self, number: int) -> int:
        """Gives a number; returns the largest of those given at the call before, 0 at the first."""
        found = self.last()
        mine = torch.tensor(number)
        self._given = mine, dist.all_reduce(mine, dist.ReduceOp.MAX, async_op=True) if _many() else None
        return found

    def last(self) -> int:
        """The largest of the numbers given last."""
        if self._given is None:
            return 0
        number, work = self._given
        self._given = None
        if work is not None:
            work.wait()
        return int(number)


@contextmanager
def processes() -> Generator[None]:
    """Joins the other processes of the launcher, if there is one, and leaves them in the end.

    A process that dies, or leaves by an error, takes the others with it: each of them says in one line which it was.

    Raises:
        RinError: the launcher's variables make no sense, or another process died or left by an error.
    """
    if _many() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    global _watch
    _watch = watch = _join()
    try:
        with naming_the_dead():
            yield
            watch.leave()
            wait_for_all()
    except StoppedError:  # which all of them do together
        watch.leave()
        raise
    except BaseException as error:
        watch.tell(error)
        raise
    finally:
        _watch = None
        dist.destroy_process_group()


@contextmanager
def naming_the_dead() -> Generator[None]:
    """Where talking to the other processes fails because one of them died, says which.

    Raises:
        RinError: one died, or left by an error.
    """
    try:
        yield
    except RuntimeError as error:  # what PyTorch raises then, and for much else
        news = None if _watch is None else _watch.blame()
        if news is None:
            raise
        raise RinError(news) from error


def _join() -> "_Watch":
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise RinError(f"WORLD_SIZE is set and {', '.join(missing)} is not: start with torchrun, or set all of {names}")
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    try:
        # a process that dies is noticed by the watch, so this needs not be short
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
        if not is_first():
            logging.getLogger("rin").setLevel(logging.WARNING)  # the first one tells how it goes
        return _Watch()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RinError(f"process {os.environ['RANK']} cannot join the others: {reason}") from error


_watch: "_Watch | None" = None
"""Over the processes that this one works with."""


class _Watch(threading.Thread):
    """Tells the other processes that this one lives, and ends it when one of them does not."""

    def __init__(self) -> None:
        super().__init__(name="rin-watch", daemon=True)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # a connection of its own: the process group's may be busy waiting
        server = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=20))
        self._store = dist.PrefixStore(f"rin/{attempt}", server)
        self._rank, self._size = rank(), world_size()
        self._over = threading.Event()
        self._store.set(f"where/{self._rank}", f"{socket.gethostname()}, pid {os.getpid()}")
        self._beat(0)
        wait_for_all()  # so that every beat is there to be read
        self._server_gone = self._died(0)
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            self._server_gone = f"torchrun on {address}, where the processes meet, is gone"
        self.start()

    def run(self) -> None:
        """Beats, and listens for the next process and for bad news."""
        beats, heard, neighbour = 0, time.monotonic(), (self._rank + 1) % self._size
        last = b""
        while not self._over.wait(_BEAT_SECONDS):
            beats += 1
            try:
                self._beat(beats)
                now = self._store.get(f"beat/{neighbour}")
                if now != last:
                    last, heard = now, time.monotonic()
                elif now != b"left" and time.monotonic() - heard > _DEAD_AFTER_SECONDS:
                    self._announce(self._died(neighbour))
                news = self._news()
            except RuntimeError:
                news = self._server_gone
            if news:
                self._end(news)

    def blame(self) -> str | None:
        """Once talking to the others has failed: which of them is to blame; None if they all live."""
        others = [number for number in range(self._size) if number != self._rank]
        try:
            before = [self._store.get(f"beat/{number}") for number in others]
            until = time.monotonic() + _STILL_SECONDS
            while time.monotonic() < until:
                if news := self._news():
                    return news
                time.sleep(0.1)
            for number, then in zip(others, before, strict=True):
                if then != b"left" and self._store.get(f"beat/{number}") == then:
                    self._announce(self._died(number))
                    break
            return self._news()
        except RuntimeError:
            return self._server_gone

    def tell(self, error: BaseException) -> None:
        """Tells the others that this process leaves by an error, unless they know of one already."""
        self._over.set()
        reason = str(error).strip() or type(error).__name__
        try:
            self._announce(f"{self._named(self._rank)} left: {reason.splitlines()[0]}")
        except RuntimeError:
            return  # nobody is left to hear it

    def leave(self) -> None:
        """Ends the watch, well."""
        if not self._over.is_set():
            self._over.set()
            self.join()
            self._store.set(f"beat/{self._rank}", "left")

    def _beat(self, number: int) -> None:
        self._store.set(f"beat/{self._rank}", str(number))

    def _announce(self, news: str) -> None:
        self._store.compare_set("news", "", news)

    def _news(self) -> str | None:
        return self._store.get("news").decode() if self._store.check(["news"]) else None

    def _named(self, number: int) -> str:
        return f"process {number} of {self._size} ({self._store.get(f'where/{number}').decode()})"

    def _died(self, number: int) -> str:
        return f"{self._named(number)} died; the same command goes on from the last checkpoint"

    def _end(self, news: str) -> None:
        """Leaves at once, unless the main thread has noticed by itself."""
        if not self._over.wait(_STILL_SECONDS + 4):
            print(f"rin: {news}", flush=True, file=sys.stderr)
            os._exit(2)  # the main thread may wait for the dead one for ever
