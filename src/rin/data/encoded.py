"""A set of pictures before any of them is decoded."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.seeds import permutation
from rin.core.shapes import Labels
from rin.data.decoding import BrokenPictureError, Picture, Shape, decode

_HELD_OUT_SEED = 0
"""Which pictures are held out is a property of the set, not of a run."""


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
        return replace(self, rows=self.rows[places], labels=self.labels[places])

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
    order; the rest keeps its order.
    """
    order = permutation(_HELD_OUT_SEED, 0, len(whole))
    count = min(num_held_out, len(whole) // 10)
    return whole.select(order[count:].sort().values), whole.select(order[:count])


def sample_held_out(split: Encoded, num_held_out: int) -> Encoded:
    """At most `num_held_out` pictures of a held-out split, mixed, for many splits are sorted by class."""
    return split.select(permutation(_HELD_OUT_SEED, 0, len(split))[:num_held_out])
