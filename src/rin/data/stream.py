"""The endless stream of batches that training sees: a function of (seed, step), with no state to save."""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.seeds import Chance, Purpose, permutation
from rin.core.shapes import Labels, Pictures
from rin.data.image_sets import ImageSet, ImagesInMemory

_STEPS_AHEAD = 3
"""Batches that are decoded before they are asked for."""


class Batch(NamedTuple):
    """The examples of one step."""

    images: Pictures
    """Pictures, 0 to 255 (b c h w)."""

    labels: Labels
    """Their classes, -1 for none (b)."""


class Order:
    """The order in which a set is seen: one permutation of it after the other, without an end.

    Args:
        count: how many examples the set has.
        seed: the seed of the run.

    Raises:
        RinError: the set is empty.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise RinError(f"a set of {count} examples has no order: give a set with examples in it")
        self.count = count
        self._epoch = functools.lru_cache(maxsize=2)(lambda epoch: permutation(seed, epoch, count))

    def at(self, start: int, count: int) -> Int[Tensor, "count"]:
        """The examples at the positions `start` to `start + count` of the stream.

        Position p holds example `permutation(seed, p // n, n)[p % n]` of n.
        """
        pieces = [torch.empty(0, dtype=torch.int64)]
        end = start + count
        while start < end:
            epoch, place = divmod(start, self.count)
            pieces.append(self._epoch(epoch)[place : place + end - start])
            start += len(pieces[-1])
        return torch.cat(pieces)


def batches(
    images: ImageSet, *, seed: int, batch_size: int, first_step: int, flip: bool
) -> Generator[Batch, None, None]:
    """The batches of the steps from `first_step` on, without an end.

    Batch s depends on (seed, s) and the set alone, so a stream that begins at step 7 begins with the eighth batch of
    one that begins at step 0. Pictures that are not in memory are decoded a few steps ahead by a thread, which ends
    when the generator is closed and whose errors are raised by the batch that they belong to.

    Args:
        images: the set.
        seed: the seed of the run.
        batch_size: examples a batch; may be larger than the set.
        first_step: the step of the first batch.
        flip: whether each picture is mirrored, left to right, with probability 1/2.

    Raises:
        RinError: the set is empty, or the batch size is below 1; from a batch, if a picture cannot be read.
    """
    if batch_size < 1:
        raise RinError(f"batch_size is {batch_size}: give at least 1")
    order = Order(len(images), seed)

    def places(step: int) -> Int[Tensor, "batch"]:
        return order.at(step * batch_size, batch_size)

    def batch(step: int, pictures: Pictures, labels: Labels) -> Batch:
        made = Batch(_flipped(pictures, seed, step) if flip else pictures, labels)
        # from pinned memory a GPU takes a batch while it still computes the one before
        pins = torch.cuda.is_available() and not pictures.is_cuda
        return Batch(*(part.pin_memory() for part in made)) if pins else made

    if isinstance(images, ImagesInMemory):
        return (batch(step, *images.get(places(step))) for step in itertools.count(first_step))
    return (batch(step, *got) for step, got in _ahead(images, places, first_step))


def _flipped(pictures: Pictures, seed: int, step: int) -> Pictures:
    """The pictures of a step, about half of them mirrored."""
    places = torch.arange(len(pictures), device=pictures.device)
    mirrored = Chance(seed, step, places).true(Purpose.FLIP, 0.5)
    return torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)


def _ahead(
    images: ImageSet, places: Callable[[int], Int[Tensor, "batch"]], first_step: int
) -> Generator[tuple[int, tuple[Pictures, Labels]], None, None]:
    """The pictures of the steps from one on, decoded by a thread that runs a few steps ahead.

    The thread decodes and does nothing else: at PyTorch's first parallel operation in it, it would get a team of
    threads of its own, beside which training's own team crawls.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rin-batches")
    try:
        ahead = range(first_step, first_step + _STEPS_AHEAD)
        waiting = deque(thread.submit(images.get, places(step)) for step in ahead)
        for step in itertools.count(first_step):
            ready = waiting.popleft().result()
            waiting.append(thread.submit(images.get, places(step + _STEPS_AHEAD)))
            yield step, ready
    finally:
        thread.shutdown(cancel_futures=True)
