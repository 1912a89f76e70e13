"""What tells the sets of a run from any others, wherever they lie."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rin.data.files.encoded import Encoded, listed


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """What a run was trained on, as its `config.json` has it: its place and the bytes of the pictures are no part."""

    num_training: int
    """Pictures or clips to train on."""

    num_held_out: int
    """Those to measure on."""

    num_pictures: int
    """Pictures that are learned from beside clips."""

    listing: str
    """A digest of the names of the files, in their order, and of their sizes where tables and tars have these."""

    classes: str
    """A digest of the names of the classes and the class of each picture."""


def identity_of(training: Encoded, held_out: Encoded, pictures: Encoded | None) -> DataIdentity:
    """The identity of the sets of a run."""
    sets = [training, held_out, *([] if pictures is None else [pictures])]
    classes = hashlib.sha256()
    for encoded in sets:
        classes.update(json.dumps(encoded.class_names).encode())
        classes.update(encoded.labels.numpy().astype("<i8").tobytes())
    return DataIdentity(
        num_training=len(training),
        num_held_out=len(held_out),
        num_pictures=0 if pictures is None else len(pictures),
        listing=digest_of(encoded.listing for encoded in sets),
        classes=classes.hexdigest(),
    )


def changes(before: DataIdentity, after: DataIdentity, with_classes: bool) -> list[str]:
    """What has changed from one identity to another, in words; the classes only where they are learned."""
    counts = [
        f"{what} were {old} and are {new}"
        for what, old, new in (
            ("examples to train on", before.num_training, after.num_training),
            ("held-out examples", before.num_held_out, after.num_held_out),
            ("pictures beside the clips", before.num_pictures, after.num_pictures),
        )
        if old != new
    ]
    if counts:
        return counts
    if before.listing != after.listing:
        return ["the names or sizes of its files, or their order, have changed"]
    return ["the classes of some examples have changed"] if with_classes and before.classes != after.classes else []


def changed_names(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """How the names of classes have changed, in words."""
    return [] if list(before) == list(after) else [f"classes were {listed(before)} and are {listed(after)}"]


def digest_of(names: Iterable[str]) -> str:
    """A digest of some names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
