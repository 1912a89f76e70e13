"""The endless stream of batches that training sees: a function of (seed, step), with no state to save."""

import functools
import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.seeds import Chance, Purpose, permutation
from rin.core.shapes import Labels, Stored
from rin.data.degrading import parse_degrade
from rin.data.feeding.media_sets import MediaSet, in_turn
from rin.data.feeding.opened_data import OpenedData
from rin.data.feeding.workers import Asked

_GROUPS_AHEAD = 16
"""Groups that a set is told of before they are asked for."""


class Batch(NamedTuple):
    """The examples of one step that this process computes."""

    media: Stored
    """Pictures (b c h w), clips (b c f h w) or sets (b n c): 0 to 255, or floats in [-1, 1]."""

    labels: Labels
    """Their classes, -1 for none (b)."""

    examples: Int[Tensor, " b"]
    """Their numbers in the set (b), on the CPU."""

    degraded: Stored | None = None
    """The condition pictures of pictures (b c h w), for a model that draws from such."""


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

    def at(self, start: int, count: int) -> Int[Tensor, " count"]:
        """The examples at the positions `start` to `start + count` of the stream.

        Position p holds example `permutation(seed, p // n, n)[p % n]` of n.
        """
        pieces = [torch.empty(0, dtype=torch.int64)]
        end = start + count
        while start < end:
            pieces.append(self._following(*divmod(start, self.count))[: end - start])
            start += len(pieces[-1])
        return torch.cat(pieces)

    def _following(self, epoch: int, place: int) -> Int[Tensor, " following"]:
        """The examples of an epoch from a place on, one at least."""
        return self._epoch(epoch)[place:]


class GroupedOrder(Order):
    """The order of a set whose examples are cheap to read by groups of neighbours only.

    Each epoch permutes the groups, and the examples within each group, anew: every example is seen once an epoch, and
    those of one group follow one another. That mixes less than `Order` does: a set whose files are sorted by class
    gives batches of one class, and is better mixed before it is written.

    Args:
        group_sizes: examples of each group, in the order of the set.
        seed: the seed of the run.

    Raises:
        RinError: the set is empty.
    """

    def __init__(self, group_sizes: Sequence[int], seed: int) -> None:
        super().__init__(sum(group_sizes), seed)
        sizes = torch.tensor(group_sizes, dtype=torch.int64)
        self._starts = (sizes.cumsum(0) - sizes).tolist()
        self._groups = functools.lru_cache(maxsize=2)(lambda epoch: _mixed_groups(sizes, seed, epoch))
        self._rows = functools.lru_cache(maxsize=_GROUPS_AHEAD)(
            lambda epoch, group: permutation(seed, epoch, group_sizes[group], group + 1)
        )

    def _following(self, epoch: int, place: int) -> Int[Tensor, " following"]:
        order, ends = self._groups(epoch)
        number = _group_number(ends, place)
        group, begin = int(order[number]), int(ends[number - 1]) if number else 0
        return self._starts[group] + self._rows(epoch, group)[place - begin :]

    def groups_from(self, start: int, count: int) -> list[int]:
        """The groups of the position `start` and of those after it: `count` groups, in the order of the stream."""
        groups: list[int] = []
        while len(groups) < count:
            epoch, place = divmod(start, self.count)
            order, ends = self._groups(epoch)
            number = _group_number(ends, place)
            groups += order[number : number + count - len(groups)].tolist()
            start += self.count - place
        return groups


def _mixed_groups(
    sizes: Int[Tensor, " groups"], seed: int, epoch: int
) -> tuple[Int[Tensor, " groups"], Int[Tensor, " groups"]]:
    """The order of the groups in an epoch, and the places at which they end."""
    order = permutation(seed, epoch, len(sizes))
    return order, sizes[order].cumsum(0)


def _group_number(ends: Int[Tensor, " groups"], place: int) -> int:
    return int(torch.searchsorted(ends, place, right=True))


def batches(
    images: MediaSet,
    *,
    seed: int,
    batch_size: int,
    places: Int[Tensor, " share"],
    first_step: int,
    flip: bool,
    num_workers: int | None = None,
    degrade: str = "",
) -> Generator[Batch, None, None]:
    """One process's share of the batches of the steps from `first_step` on, without an end.

    Place p of step s holds the example at position s * batch_size + p of the set's `Order` (`GroupedOrder` if it has
    groups), so a stream that begins at step 7 begins with the eighth batch of one that begins at step 0, and the
    shares of many processes, put together, are the batch of one. Each process decodes the examples of its own places
    only; of a set that is streamed by row groups it still reads every row group, since each has some of its examples.
    Pictures that are not in memory are decoded a few steps ahead by workers (see `workers`), which end when the
    generator is closed and whose errors are raised by the batch that they belong to.

    Args:
        images: the set.
        seed: the seed of the run.
        batch_size: examples a batch, over all processes; may be larger than the set.
        places: the places of the batch that this process computes, in the order wanted.
        first_step: the step of the first batch.
        flip: whether each picture is mirrored, left to right, with probability 1/2.
        num_workers: processes that decode; 0 is a thread of this one, None one a core.
        degrade: how condition pictures are made of the pictures, mirrored as they are (`DataConfig.degrade`); a hole is
            a function of (seed, step, place).

    Raises:
        RinError: the set is empty, or the batch size is below 1; from a batch, if a picture cannot be read.
    """
    if batch_size < 1:
        raise RinError(f"batch_size is {batch_size}: give at least 1")
    degradation = parse_degrade(degrade)
    order = GroupedOrder(images.group_sizes, seed) if images.group_sizes else Order(len(images), seed)

    def asked(step: int) -> Asked:
        start = step * batch_size
        groups = order.groups_from(start, _GROUPS_AHEAD) if isinstance(order, GroupedOrder) else []
        return Asked(order.at(start, batch_size)[places], tuple(groups))

    def batch(step: int, examples: Int[Tensor, " b"], pictures: Stored, labels: Labels) -> Batch:
        if flip:
            pictures = _flipped(pictures, seed, step, places)
        degraded = None if degradation is None else degradation(pictures, Chance(seed, step, places))
        if torch.cuda.is_available() and not pictures.is_cuda:
            # from pinned memory a GPU takes a batch while it still computes the one before
            pictures, labels = pictures.pin_memory(), labels.pin_memory()
            degraded = None if degraded is None else degraded.pin_memory()
        return Batch(pictures, labels, examples, degraded)

    made = in_turn(images, map(asked, itertools.count(first_step)), num_workers)
    return (
        batch(step, each.examples, *got) for step, (each, got) in zip(itertools.count(first_step), made, strict=False)
    )


def joint_batches(
    data: OpenedData, *, seed: int, batch_size: int, places: Int[Tensor, " share"], first_step: int, flip: bool
) -> Generator[Batch, None, None]:
    """The same of a run's training set and, where it has pictures beside its clips, of these at a share of the steps.

    A batch is of one kind, so that all processes compute the same shapes; step s is one of pictures where
    int((s + 1) * rate) > int(s * rate), and goes on where the last one of pictures stopped.
    """
    stream = partial(
        batches, seed=seed, batch_size=batch_size, places=places, flip=flip, num_workers=data.num_workers,
        degrade=data.degrade,
    )  # fmt: skip
    if data.pictures is None:
        yield from stream(data.training, first_step=first_step)
        return
    of_pictures = int(first_step * data.pictures_rate)
    with (
        closing(stream(data.training, first_step=first_step - of_pictures)) as clips,
        closing(stream(data.pictures, first_step=of_pictures)) as pictures,
    ):
        for step in itertools.count(first_step):
            is_pictures = int((step + 1) * data.pictures_rate) > int(step * data.pictures_rate)
            yield next(pictures if is_pictures else clips)


def _flipped(pictures: Stored, seed: int, step: int, places: Int[Tensor, " b"]) -> Stored:
    """The pictures or clips at some places of a step, about half of them mirrored; a clip's frames alike."""
    mirrored = Chance(seed, step, places.to(pictures.device)).true(Purpose.FLIP, 0.5)
    if pictures.is_cuda:
        return torch.where(mirrored.view(-1, *[1] * (pictures.ndim - 1)), pictures.flip(-1), pictures)
    # by NumPy, whose one thread does not wait for others that are busy decoding
    flipped, rows = pictures.numpy().copy(), np.flatnonzero(mirrored.numpy())
    flipped[rows] = flipped[rows][..., ::-1]
    return torch.from_numpy(flipped)
