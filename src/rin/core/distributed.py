"""Many processes: which one this is, and what they tell each other. One process needs no launcher: it answers for all.

`rin.core.launch` has how they come together, and what happens when one of them dies.
"""

import torch
import torch.distributed as dist
from torch import Tensor


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
    shared = torch.tensor(number)
    if _many():
        dist.broadcast(shared, src=0)
    return int(shared)


def share_of(count: int) -> range:
    """The part of `count` things that is this process's: an even share, in a row."""
    size, number = world_size(), rank()
    return range(count * number // size, count * (number + 1) // size)


class LargestOfAll:
    """The largest number that any process gave one call before, the same in all of them at the same call.

    One call late, since nobody waits: the numbers travel while the processes compute.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, dist.Work | None] | None = None

    def before(self, number: int) -> int:
        """Gives a number; returns the largest of those given at the call before, 0 at the first."""
        largest = self.last()
        mine = torch.tensor(number)
        self._pending = mine, dist.all_reduce(mine, dist.ReduceOp.MAX, async_op=True) if _many() else None
        return largest

    def last(self) -> int:
        """The largest of the numbers given last."""
        if self._pending is None:
            return 0
        number, work = self._pending
        self._pending = None
        if work is not None:
            work.wait()
        return int(number)
