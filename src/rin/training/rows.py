"""The rows of tensors that processes share: which are whose, and how they are put together from the files of all."""

from typing import Any

import torch
from torch import Tensor

from rin.core.distributed import rank, world_size


def rows_of(count: int) -> range:
    """The rows of a tensor of `count` that FSDP gives this process: torch.chunk's, which may be none."""
    size = -(-count // world_size())
    return range(min(rank() * size, count), min((rank() + 1) * size, count))


def joined(slices: list[Any], sharded: bool) -> Tensor:
    """A tensor whose rows lie in several files, one file after the other.

    Args:
        slices: of safetensors, one a file, in the order of the files.
        sharded: join this process's rows alone.
    """
    if not slices[0].get_shape():
        return slices[0][...]  # a number, the same in every file
    counts = [part.get_shape()[0] for part in slices]
    wanted = rows_of(sum(counts)) if sharded else range(sum(counts))
    found: list[Tensor] = []
    start = 0
    for part, count in zip(slices, counts, strict=True):
        first, last = max(wanted.start - start, 0), min(wanted.stop - start, count)
        if first < last:
            found.append(part[first:last])
        start += count
    return torch.cat(found) if found else slices[0][0:0]
