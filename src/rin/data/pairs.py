"""Pictures in pairs: one to learn, and one that it is drawn from."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from rin.core.errors import RinError
from rin.data.config import DataConfig
from rin.data.decoding import Footage, Picture, Shape, Source, decode, printable
from rin.data.encoded import Encoded
from rin.data.identity import digest_of
from rin.data.tars import Member


@dataclass(frozen=True)
class Pair(Footage):
    """Two pictures, which are decoded to one of twice the channels: the one to learn, then the other."""

    target: Source
    condition: Source

    def decode(self, shape: Shape) -> Picture:
        """Both pictures (2c h w).

        Raises:
            BrokenMediaError: one cannot be read.
        """
        each = (shape[0] // 2, *shape[1:])
        return torch.cat([decode(self.target, each), decode(self.condition, each)])


@dataclass(frozen=True)
class _PairAt:
    """Reads a pair by the row of its target."""

    targets: Encoded
    conditions: Encoded
    rows: dict[int, int]

    def __call__(self, row: int) -> Pair:
        target, condition = self.targets.read(row), self.conditions.read(self.rows[row])
        assert not isinstance(target, Footage)
        assert not isinstance(condition, Footage)
        return Pair(target, condition)


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
        RinError: a picture has nothing to be drawn from.
    """
    ours, theirs = targets(), conditions()
    places = [
        {_key(encoded, int(row), Path(of.path).expanduser()): int(row) for row in encoded.rows.tolist()}
        for encoded, of in ((ours, config), (theirs, other))
    ]
    for key, row in places[0].items():
        if key not in places[1]:
            raise RinError(
                f"data.condition {printable(config.condition)}: there is no picture that {ours.name(row)} is drawn "
                "from: give one of the same name, or take that one out"
            )
    rows = {row: places[1][key] for key, row in places[0].items()}
    unused = len(places[1]) - len(rows)
    note = f"data.condition {printable(config.condition)}: {unused} pictures that belong to none are not used"
    return replace(
        ours,
        read=_PairAt(ours, theirs, rows),
        listing=digest_of((ours.listing, theirs.listing)),
        notes=(*ours.notes, *((note,) if unused else ())),
    )


def _key(encoded: Encoded, row: int, root: Path) -> Hashable:
    """What a picture and the one that it is drawn from share."""
    source = encoded.read(row)
    if isinstance(source, Path) and source.is_relative_to(root):
        return source.relative_to(root).with_suffix("")
    if isinstance(source, Member):
        return source.tar, source.sample
    return row


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
