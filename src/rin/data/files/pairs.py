"""Pictures in pairs: one to learn, and one that it is drawn from."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from rin.core.errors import RinError
from rin.core.names import printable
from rin.data.config import DataConfig
from rin.data.decoding.deep_grey import ValueRange
from rin.data.decoding.pictures import BrokenMediaError, Footage, Picture, Shape, Source, decode
from rin.data.files.encoded import Encoded
from rin.data.files.identity import digest_of
from rin.data.files.tars import Member


@dataclass(frozen=True)
class Pair(Footage):
    """Two pictures, which are decoded to one of twice the channels: the one to learn, then the other."""

    target: Source
    condition: Source

    value_range: ValueRange | None = None
    """Of grey pictures of more than 8 bits; None for what each of them declares."""

    def decode(self, shape: Shape) -> Picture:
        """Both pictures (2c h w).

        Raises:
            BrokenMediaError: one cannot be read.
        """
        each = (shape[0] // 2, *shape[1:])
        target = decode(self.target, each, self.value_range)
        try:
            condition = decode(self.condition, each, self.value_range)
        except BrokenMediaError as error:
            raise BrokenMediaError(
                f"the picture that it is drawn from is broken: {error.reason}", error.name
            ) from error
        return torch.cat([target, condition])


def conditions_config(config: DataConfig) -> DataConfig:
    """Where the condition pictures of a set are: in a folder of their own, or another column of the same."""
    beside = replace(config, condition="", captions="", labels=False)
    folder = Path(config.condition).expanduser()
    return replace(beside, path=str(folder)) if folder.is_dir() else replace(beside, column=config.condition)


def paired(
    targets: Callable[[], Encoded], conditions: Callable[[], Encoded], config: DataConfig, other: DataConfig
) -> Encoded:
    """A split in pairs: files by their names without endings, pictures in tars by their samples, tables by rows.

    Args:
        targets: opens the pictures to learn.
        conditions: opens those that they are drawn from.
        config: of the ones.
        other: of the others.

    Raises:
        RinError: a picture has nothing to be drawn from, two have the same name, or they are rows of two tables.
    """
    ours, theirs = targets(), conditions()
    places, theirs_by_key = _by_key(ours, config), _by_key(theirs, other)
    if config.path != other.path and all(isinstance(key, int) for key in (*places, *theirs_by_key)):
        raise RinError(
            f"data.condition {printable(config.condition)}: rows of two tables have no names to be paired by: give a "
            "column of the same table"
        )
    for key, row in places.items():
        if key not in theirs_by_key:
            raise RinError(
                f"data.condition {printable(config.condition)}: there is no picture that {ours.name(row)} is drawn "
                "from: give one of the same name, or take that one out"
            )
    rows = {row: theirs_by_key[key] for key, row in places.items()}
    unused = len(theirs_by_key) - len(rows)
    note = f"data.condition {printable(config.condition)}: {unused} pictures that belong to none are not used"

    def read(row: int) -> Pair:
        target, condition = ours.read(row), theirs.read(rows[row])
        assert not isinstance(target, Footage)
        assert not isinstance(condition, Footage)
        return Pair(target, condition, ours.value_range)

    return replace(
        ours,
        read=read,
        listing=digest_of((ours.listing, theirs.listing)),
        notes=(*ours.notes, *((note,) if unused else ())),
    )


def _by_key(encoded: Encoded, config: DataConfig) -> dict[Hashable, int]:
    """The rows of a set by what a picture and the one that it is drawn from share.

    Raises:
        RinError: two share it, so that it could not be told which of them is meant.
    """
    rows, root = encoded.rows.tolist(), Path(config.path).expanduser()
    first = encoded.read(rows[0]) if rows else None
    if not (isinstance(first, Member) or (isinstance(first, Path) and first.is_relative_to(root))):
        return {row: row for row in rows}  # of a table, which is not read for it
    places: dict[Hashable, int] = {}
    for row in rows:
        source = encoded.read(row)
        if isinstance(source, Path):
            key: Hashable = source.relative_to(root).with_suffix("")
        else:
            assert isinstance(source, Member)  # as the first one is
            key = source.tar, source.sample
        if key in places:
            raise RinError(
                f"{encoded.name(places[key])} and {encoded.name(row)} have the same name but for their endings, by "
                "which pictures are paired (data.condition): take one of them out"
            )
        places[key] = row
    return places


def paired_splits(
    splits: dict[str, Callable[[], Encoded]],
    conditions: dict[str, Callable[[], Encoded]],
    config: DataConfig,
    other: DataConfig,
) -> dict[str, Callable[[], Encoded]]:
    """All splits in pairs.

    Raises:
        RinError: the condition pictures have other splits.
    """
    if missing := [split for split in splits if split not in conditions]:
        raise RinError(
            f"data.condition {printable(config.condition)} has no split {missing[0]!r}, as {printable(config.path)} "
            "has: give one of the same splits"
        )
    return {split: partial(paired, splits[split], conditions[split], config, other) for split in splits}
