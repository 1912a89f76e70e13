"""How processes come together, and what happens when one of them dies.

`torchrun` starts them, or anything else that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from rin.core.distributed import is_first, wait_for_all, world_size
from rin.core.errors import RinError, StoppedError
from rin.core.progress import LOGGER

_BEAT_SECONDS = 1.0
_DEAD_AFTER_BEATS = 30
"""A process of which nothing is heard while another beats so often is dead."""

_STILL_SECONDS = 4.0
"""The same once talking to the others has failed: then one of them is dead, and the question is which."""

_COME_WITHIN = timedelta(minutes=5)
"""How long the processes wait for one another at the start."""


@contextmanager
def processes() -> Generator[None]:
    """Joins the other processes of the launcher, if there is one, and leaves them in the end.

    A process that dies, or leaves by an error, takes the others with it: each of them says in one line which it was.

    Raises:
        RinError: the launcher's variables make no sense, or another process died or left by an error.
    """
    launch = _launch() if world_size() == 1 else None
    if launch is None:
        yield
        return
    global _watch
    _watch = watch = _join(launch)
    stopped: StoppedError | None = None
    try:
        with naming_the_dead():
            try:
                yield
            except StoppedError as error:  # which all of them are together
                stopped = error
            watch.leave()
            wait_for_all()
    except BaseException as error:
        watch.tell(error)
        raise  # without waiting for the others, as taking the group apart could
    finally:
        _watch = None
    dist.destroy_process_group()
    if stopped is not None:
        raise stopped


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


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """What the launcher tells a process."""

    rank: int
    size: int
    local_rank: int
    address: str
    port: int

    at_agent: bool
    """Whether the processes meet at torchrun's agent, and not at the first of them."""

    attempt: str
    """torchrun's count of restarts."""

    def server(self, is_master: bool) -> dist.TCPStore:
        """A connection to where the processes meet."""
        return dist.TCPStore(self.address, self.port, is_master=is_master, timeout=_COME_WITHIN, wait_for_workers=False)


def _launch() -> _Launch | None:
    """What the launcher tells; None if there is none, or one process only.

    Raises:
        RinError: it makes no sense.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
    missing = [name for name in (*names, "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise RinError(f"WORLD_SIZE is set, but not {', '.join(missing)}: start with torchrun, or set all of them")
    try:
        size, number, local_rank, port = (int(os.environ[name]) for name in names)
        if not (0 <= number < size and local_rank >= 0 and 0 < port < 2**16):
            raise ValueError
    except ValueError:
        values = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise RinError(f"the launcher's variables make no sense ({values}): start with torchrun") from None
    return _Launch(
        rank=number, size=size, local_rank=local_rank, address=os.environ["MASTER_ADDR"], port=port,
        at_agent=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )  # fmt: skip


def _join(launch: _Launch) -> "_Watch":
    backend = "gloo"
    if torch.cuda.is_available():
        if launch.local_rank >= torch.cuda.device_count():
            raise RinError(f"LOCAL_RANK {launch.local_rank}: this machine has {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(launch.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    try:
        server = launch.server(is_master=launch.rank == 0 and not launch.at_agent)
        _meet(dist.PrefixStore(f"rin/{launch.attempt}/here", server), launch)
        # a process that dies is noticed by the watch, so the group's patience needs not be short
        group = dist.PrefixStore(f"rin/{launch.attempt}/group", server)
        patience = timedelta(minutes=30)
        dist.init_process_group(backend, store=group, rank=launch.rank, world_size=launch.size, timeout=patience)
        if not is_first():
            LOGGER.setLevel(logging.WARNING)  # the first one tells how it goes
        return _Watch(launch)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, RinError):
            raise
        where, reason = f"{launch.address}:{launch.port}", str(error).strip().splitlines()[0]
        raise RinError(f"process {launch.rank} cannot join the others at {where}: {reason}") from error


def _meet(store: dist.Store, launch: _Launch) -> None:
    """Goes on when every process is there.

    Raises:
        RinError: some do not come.
    """
    store.set(str(launch.rank), "")
    everyone = [str(number) for number in range(launch.size)]
    for patience in (min(timedelta(seconds=10), _COME_WITHIN), _COME_WITHIN):
        try:
            return store.wait(everyone, patience)
        except RuntimeError:
            late = [number for number in everyone if not store.check([number])]
            LOGGER.info("waiting at %s:%d for process %s", launch.address, launch.port, ", ".join(late))
    raise RinError(
        f"process {', '.join(late)} of {launch.size} did not come to {launch.address}:{launch.port} within "
        f"{_COME_WITHIN.seconds // 60} minutes: are all of them started, and is the address right?"
    )


_watch: "_Watch | None" = None
"""Over the processes that this one works with."""


class _Watch(threading.Thread):
    """Tells the other processes that this one lives, and ends it when one of them does not."""

    def __init__(self, launch: _Launch) -> None:
        super().__init__(name="rin-watch", daemon=True)
        # a connection of its own: the process group's may be busy waiting
        self._store = dist.PrefixStore(f"rin/{launch.attempt}", launch.server(is_master=False))
        self._rank, self._size = launch.rank, launch.size
        self._over = threading.Event()
        self._store.set(f"where/{self._rank}", f"{socket.gethostname()}, pid {os.getpid()}")
        self._beat(0)
        wait_for_all()  # so that every beat is there to be read
        self._is_server = launch.rank == 0 and not launch.at_agent
        self._server_gone = self._died(0)
        if launch.at_agent:
            self._server_gone = f"torchrun on {launch.address}, where the processes meet, is gone"
        self.start()

    def run(self) -> None:
        """Beats, and listens for the next process and for bad news.

        Silence is counted in this process's own beats: when all of them were paused together, nobody has died.
        """
        beats, silent, neighbour = 0, 0, (self._rank + 1) % self._size
        last = b""
        while not self._over.wait(_BEAT_SECONDS):
            beats += 1
            try:
                self._beat(beats)
                now = self._store.get(f"beat/{neighbour}")
                silent = silent + 1 if now == last and now != b"left" else 0
                last = now
                if silent > _DEAD_AFTER_BEATS:
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        with suppress(RuntimeError):  # nobody may be left to hear it
            self._announce(f"{self._named(self._rank)} left: {reason}")
            self._store.set(f"beat/{self._rank}", "left")
            until = time.monotonic() + (_STILL_SECONDS if self._is_server else 0)
            while time.monotonic() < until and not self._all_left():
                time.sleep(0.1)  # the others still hear of it here

    def leave(self) -> None:
        """Ends the watch, well."""
        if not self._over.is_set():
            self._over.set()
            self.join()
            with suppress(RuntimeError):  # nobody may be left to hear it
                self._store.set(f"beat/{self._rank}", "left")

    def _all_left(self) -> bool:
        return all(self._store.get(f"beat/{number}") == b"left" for number in range(self._size))

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
