"""A set of pictures before any of them is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.seeds import permutation
from rin.core.shapes import Labels
from rin.data.decoding import BrokenPictureError, Picture, Shape, decode

_MAX_NUMBERED = 100_000

_HELD_OUT_SEED = 0
"""Which pictures are held out is a property of the set, not of a run."""


def _no_groups() -> Int[Tensor, "0"]:
    return torch.empty(0, dtype=torch.int64)


def _nothing(groups: Sequence[int]) -> None:
    del groups


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Pictures as their source holds them, in a fixed order."""

    read: Callable[[int], bytes | Path]
    """The file, or its bytes, of a row of the source."""

    name: Callable[[int], str]
    """What a person calls that row."""

    rows: Int[Tensor, "b"]
    """The rows of the source that belong to this set, in its order."""

    labels: Labels
    """The class of each picture of this set, -1 for none."""

    class_names: tuple[str, ...]
    """The name of each class; empty if there are none."""

    groups: Int[Tensor, "grouped"] = field(default_factory=_no_groups)
    """The group of each picture of this set, where neighbours are cheap to read together: the pictures of one group
    follow one another. Empty if any order is as cheap."""

    expect: Callable[[Sequence[int]], None] = _nothing
    """Told the groups that are asked for soon, a source may begin to read them."""

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, place: int, shape: Shape) -> Picture:
        """The picture at a place of this set.

        Raises:
            BrokenPictureError: it cannot be read.
        """
        return decode(self.read(int(self.rows[place])), shape)

    def name_at(self, place: int) -> str:
        """What a person calls the picture at a place of this set."""
        return self.name(int(self.rows[place]))

    def select(self, places: Int[Tensor, "places"]) -> "Encoded":
        """The set of some of the pictures, in the order given."""
        groups = self.groups[places] if len(self.groups) else self.groups
        return replace(self, rows=self.rows[places], labels=self.labels[places], groups=groups)

    def ungrouped(self) -> "Encoded":
        """The same pictures, to be read in the order that they have."""
        return replace(self, groups=_no_groups())

    def without_classes(self) -> "Encoded":
        """The same pictures, of no class."""
        return replace(self, labels=torch.full_like(self.labels, -1), class_names=())

    def refusal(self, place: int, error: BrokenPictureError) -> RinError:
        """What to tell a person about the broken picture at a place of this set."""
        way_out = "replace or remove it, or skip all such pictures with --data.skip-broken"
        return RinError(f"cannot read the picture {self.name_at(place)}: {error.reason}; {way_out}")


def cut_held_out(whole: Encoded, num_held_out: int) -> tuple[Encoded, Encoded]:
    """A set without a held-out part as (training, held out).

    The held-out part has `num_held_out` pictures, a tenth of the set at most, always the same ones and in a mixed
    order; the rest keeps its order. Of a set in groups it is whole groups, as few as give so many, and a part of one
    more: mixed as groups are, and no more, so that little is read for it.
    """
    order = _mixed(whole)
    count = min(num_held_out, len(whole) // 10)
    return whole.select(order[count:].sort().values), whole.select(order[:count]).ungrouped()


def sample_held_out(split: Encoded, num_held_out: int) -> Encoded:
    """At most `num_held_out` pictures of a held-out split, mixed, for many splits are sorted by class.

    Of a split in groups they fill as few groups as they can, as in `cut_held_out`.
    """
    return split.select(_mixed(split)[:num_held_out]).ungrouped()


def _mixed(whole: Encoded) -> Int[Tensor, "b"]:
    """The places of a set in an order that is always the same; the places of a group stay together."""
    order = permutation(_HELD_OUT_SEED, 0, len(whole))
    if not len(whole.groups):
        return order
    rank_of_group = permutation(_HELD_OUT_SEED, 0, int(whole.groups.max()) + 1).argsort()
    return order[rank_of_group[whole.groups[order]].argsort(stable=True)]


def numbered_classes(count: int, origin: str) -> tuple[str, ...]:
    """The names of `count` classes that a source has as numbers.

    Raises:
        RinError: there are too many to be classes.
    """
    if count > _MAX_NUMBERED:
        way_out = "leave the classes out with --data.no-labels (rin prepare: --no-labels)"
        raise RinError(f"{origin} has numbers to {count - 1} for classes, hardly classes: {way_out}")
    return tuple(str(number) for number in range(count))
