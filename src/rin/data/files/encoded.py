"""A set of pictures or clips before any of them is decoded."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.names import printable
from rin.core.seeds import permutation
from rin.core.shapes import Labels
from rin.data.decoding.deep_grey import ValueRange
from rin.data.decoding.deep_pictures import decode_at_16_bits
from rin.data.decoding.many_channels import OF_PILLOW, decode_many_channels
from rin.data.decoding.pictures import BrokenMediaError, DeepPicture, Footage, Medium, Shape, Source, decode

FileKind = Literal["picture", "video"]
"""What the files of a source hold: models of pictures take the one, models of clips the other."""

_MAX_NUMBERED = 100_000

_MOST_NAMES = 10
"""Class names that a message has at most."""


HELD_OUT_SEED = 0
"""Which pictures are held out is a property of the set, not of a run."""


def _none() -> Int[Tensor, "0"]:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Pictures, or clips, as their source holds them, in a fixed order."""

    read: Callable[[int], Source | Footage]
    """The picture file of a row of the source; or what its clip is made from. Workers are sent what it returns."""

    name: Callable[[int], str]
    """What a person calls that row."""

    rows: Int[Tensor, " b"]
    """The rows of the source that belong to this set, in its order."""

    labels: Labels
    """The class of each picture of this set, -1 for none."""

    class_names: tuple[str, ...]
    """The name of each class; empty if there are none."""

    groups: Int[Tensor, " grouped"] = field(default_factory=_none)
    """The group of each picture of this set, where neighbours are cheap to read together: the pictures of one group
    follow one another. Empty if any order is as cheap."""

    expect: Callable[[Sequence[int]], None] = lambda _: None
    """Told the groups that are asked for soon, a source may begin to read them."""

    kind: Literal["picture", "clip", "video"] = "picture"
    """What it is a set of."""

    families: Int[Tensor, " related"] = field(default_factory=_none)
    """The video that each clip of this set was cut out of: clips of one are too much alike for some of them to be
    trained on and others held out. Empty if no example is related to others."""

    overlap: int = 0
    """How many of the clips that follow a clip of a family share a part of it."""

    passed_over: tuple[str, ...] = ()
    """The names of what could not be opened, and of which there is nothing in this set."""

    value_range: ValueRange | None = None
    """Of grey pictures of more than 8 bits; None for what each of them declares."""

    bits: int = 8
    """That pictures are decoded to: 8, or 16, which come as floats."""

    listing: str = ""
    """A digest of the names, and in tables and tars the sizes, of all that the source holds, in its order; it is the
    same wherever the source lies."""

    notes: tuple[str, ...] = ()
    """What the source holds and is not used, and why: a line each."""

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, place: int, shape: Shape) -> Medium | DeepPicture:
        """The picture or clip at a place of this set, 0 to 255, or of 16 bits in [-1, 1].

        Raises:
            BrokenMediaError: it cannot be read.
        """
        return decoded(self.read(int(self.rows[place])), shape, self.value_range, self.bits)

    def name_at(self, place: int) -> str:
        """What a person calls the picture at a place of this set."""
        return self.name(int(self.rows[place]))

    def select(self, places: Int[Tensor, " places"]) -> "Encoded":
        """The set of some of the pictures, in the order given."""
        groups, families = (every[places] if len(every) else every for every in (self.groups, self.families))
        return replace(self, rows=self.rows[places], labels=self.labels[places], groups=groups, families=families)

    def ungrouped(self) -> "Encoded":
        """The same pictures, to be read in the order that they have."""
        return replace(self, groups=_none())

    def without_classes(self) -> "Encoded":
        """The same pictures, of no class."""
        return replace(self, labels=torch.full_like(self.labels, -1), class_names=())

    def refusal(self, place: int, error: BrokenMediaError, way_out: str) -> RinError:
        """What to tell a person about what is broken at a place of this set."""
        return RinError(f"cannot read the {self.kind} {self.name_at(place)}: {error.reason}; {way_out}")


class NothingBroken:
    """What a `MediaSet` says in which all can be read, at once and in any order."""

    broken: tuple[str, ...] = ()
    num_broken: int = 0
    group_sizes: tuple[int, ...] = ()


def decoded(source: Source | Footage, shape: Shape, value_range: ValueRange | None, bits: int) -> Medium | DeepPicture:
    """The picture or clip of a row, from what `Encoded.read` gives of it.

    Raises:
        BrokenMediaError: it cannot be read.
    """
    if isinstance(source, Footage):
        return source.decode(shape)
    if shape[0] not in OF_PILLOW:
        return decode_many_channels(source, shape, value_range, bits)
    return (decode if bits == 8 else decode_at_16_bits)(source, shape, value_range)


def cut_held_out(whole: Encoded, num_held_out: int) -> tuple[Encoded, Encoded]:
    """A set without a held-out part as (training, held out).

    The held-out part has `num_held_out` pictures, a tenth of the set at most, always the same ones and in a mixed
    order; the rest keeps its order. Of a set in groups it is whole groups, as few as give so many, and a part of one
    more: mixed as groups are, and no more, so that little is read for it. Of clips it is those of whole videos, as
    many as fit, and the beginning of one if none fits; the clips that share a part of that are in neither.
    """
    # family by family, these in an order that is always the same
    order = _rank(whole.families).argsort(stable=True) if len(whole.families) else _mixed(whole)
    count, left_out = min(num_held_out, len(whole) // 10), 0
    if count and len(whole.families):
        begins_another = whole.families[order[1 : count + 1]] != whole.families[order[:count]]
        if begins_another.any():
            count = int(begins_another.nonzero().max()) + 1
        else:
            left_out = whole.overlap
    held_out = replace(whole.select(order[:count]).ungrouped(), passed_over=())
    return whole.select(order[count + left_out :].sort().values), held_out


def sample_held_out(split: Encoded, num_held_out: int) -> Encoded:
    """At most `num_held_out` pictures of a held-out split, mixed, for many splits are sorted by class.

    Of a split in groups they fill as few groups as they can, as in `cut_held_out`.
    """
    return split.select(_mixed(split)[:num_held_out]).ungrouped()


def _mixed(whole: Encoded) -> Int[Tensor, " b"]:
    """The places of a set in an order that is always the same; the places of a group stay together."""
    order = permutation(HELD_OUT_SEED, 0, len(whole))
    return order[_rank(whole.groups)[order].argsort(stable=True)] if len(whole.groups) else order


def _rank(together: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The place of each group or family in an order of them."""
    return permutation(HELD_OUT_SEED, 0, int(together.max()) + 1).argsort()[together]


def of_the_same_classes(training: Encoded, held_out: Encoded) -> tuple[Encoded, Encoded]:
    """Both sets with the same classes, by their names, where one of them has no picture of some.

    Raises:
        RinError: the held-out one has them in another order, or some that are not trained on, other than further ones.
    """
    names, others = training.class_names, held_out.class_names
    if names == others[: len(names)]:
        names = others
    elif [name for name in names if name in set(others)] != list(others):
        raise RinError(
            f"the held-out split has other classes ({listed(others)}) than the training split ({listed(names)}): "
            "--data.num-held-out 0 or another"
        )
    places = torch.tensor([*(names.index(name) for name in others), -1])  # -1, no class, is the last place
    return replace(training, class_names=names), replace(held_out, class_names=names, labels=places[held_out.labels])


def captions_as_classes(texts: Sequence[str | None], where: str) -> tuple[Labels, tuple[str, ...]]:
    """The class of each example, -1 for none, and the classes: each different text is one.

    Args:
        texts: one an example, or None; white space around it does not count.
        where: they are, for messages.

    Raises:
        RinError: no example has one.
    """
    stripped = ["" if text is None else text.strip() for text in texts]
    numbers = numbered_texts(text for text in stripped if text)
    if stripped and not numbers:
        raise RinError(f"data.captions: there are no captions in {where}: give the ending or the column of the texts")
    return torch.tensor([numbers.get(text, -1) for text in stripped], dtype=torch.int64), tuple(numbers)


def numbered_texts(texts: Iterable[str]) -> dict[str, int]:
    """The different texts in their order, each with its number as a class."""
    return {text: number for number, text in enumerate(sorted(set(texts)))}


def of_all_captions(training: Encoded, held_out: Encoded) -> tuple[Encoded, Encoded]:
    """Both sets with the captions of both, where what is held out may have captions of its own."""
    names = tuple(dict.fromkeys((*training.class_names, *held_out.class_names)))
    numbers = {name: number for number, name in enumerate(names)}
    first, second = (
        replace(each, class_names=names, labels=torch.tensor([*map(numbers.get, each.class_names), -1])[each.labels])
        for each in (training, held_out)
    )
    return first, second


def notes_of(sets: Sequence[Encoded], labels_are: str = "class") -> tuple[str, ...]:
    """What some sets hold and is not used, each line once, and how many of their examples have no class."""
    notes = [note for encoded in sets for note in encoded.notes]
    labels = torch.cat([_none(), *(encoded.labels for encoded in sets if encoded.class_names)])
    if without := int((labels < 0).sum()):
        notes.append(f"{without} of {len(labels)} examples have no {labels_are}")
    return tuple(dict.fromkeys(notes))


def numbered_classes(count: int, origin: str) -> tuple[str, ...]:
    """The names of `count` classes that a source has as numbers.

    Raises:
        RinError: there are too many to be classes.
    """
    if count > _MAX_NUMBERED:
        way_out = "leave the classes out with --data.no-labels (rin prepare: --no-labels)"
        raise RinError(f"{origin} has numbers beyond {_MAX_NUMBERED} for classes, hardly classes: {way_out}")
    return tuple(str(number) for number in range(count))


def of_files(files: Sequence[str | Path]) -> str:
    """What a person calls some files together."""
    return printable(files[0]) if len(files) == 1 else f"{printable(files[0])} and {len(files) - 1} more"


def listed(names: Sequence[str]) -> str:
    """Names, the first of many, as in "cat, dog and 8 more"."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}" if names else "none"
