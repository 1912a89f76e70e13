"""The classes in a table: which column has them, and what they are."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from rin.core.errors import RinError
from rin.core.names import printable
from rin.core.shapes import Labels
from rin.data.files.encoded import captions_as_classes, listed, numbered_classes
from rin.data.files.folders import named_classes

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target", "category")

_SIMPLE = r"u?int\d+|float\d+|bool|(large_)?string"
"""The types of what may be classes."""

_MANY = 10
"""Rows above which texts that are all different are no names of classes."""

Table = Any
"""A `pyarrow.Table`, which has no types."""

Features = Mapping[str, Any]
"""A `datasets.Features`: what each column holds."""


class Classes(NamedTuple):
    """The classes of a table."""

    labels: Labels
    """The class of each row, -1 for none."""

    names: tuple[str, ...]
    """The name of each class; empty if there are none."""

    column: str | None
    """The column that they are in."""

    notes: tuple[str, ...]
    """What other columns look like classes, and why they are none: a line each."""


def label_columns(features: Features) -> list[str]:
    """The columns that may hold classes, the likeliest first.

    They are those of the type ClassLabel, then whole numbers under a usual name, then what else is under one, but for
    pictures, lists and the like, which would only be read in vain.
    """
    import datasets

    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    integers = [name for name, kind in features.items() if re.fullmatch(r"u?int\d+", getattr(kind, "dtype", ""))]
    usual = [name for name in _LABEL_NAMES if re.fullmatch(_SIMPLE, getattr(features.get(name), "dtype", None) or "")]
    whole = [name for name in usual if name in integers]
    named = sorted(labels, key=lambda name: _LABEL_NAMES.index(name) if name in _LABEL_NAMES else len(_LABEL_NAMES))
    return list(dict.fromkeys([*named, *whole, *usual]))


def classes_of(table: Table, features: Features, origin: str, captions: str = "") -> Classes:
    """The classes of a table: those of the first of its `label_columns` that holds such.

    Whole numbers are classes; of texts and truth values the different ones are, in natural order. A row without one
    has none.

    Args:
        table: with these columns, if there are any.
        features: what its columns hold.
        origin: names it in messages.
        captions: a column of texts that takes their place; empty for none.

    Raises:
        RinError: the column holds far more than classes, or more of them than have names; it is to hold captions, and
            there is none such, or none of text.
    """
    if captions:
        return _captions_of(table, captions, origin)
    notes: list[str] = []
    for column in label_columns(features):
        values = table.column(column).to_pylist()
        reason = _no_classes(values)
        if reason:
            notes.append(f"the column {column!r} is not used for classes: {reason}")
            continue
        return Classes(*_classes_in(values, features[column], column, origin), column, tuple(notes))
    return Classes(torch.full((table.num_rows,), -1), (), None, tuple(notes))


def _captions_of(table: Table, column: str, origin: str) -> Classes:
    texts = table.column(column).to_pylist() if column in table.column_names else []
    if any(not isinstance(text, str) for text in texts if text is not None) or column not in table.column_names:
        raise RinError(f"data.captions: {origin} has no column {column!r} of texts: give the one that has them")
    return Classes(*captions_as_classes(texts, f"the column {column!r} of {origin}"), column, ())


def _no_classes(values: Sequence[Any]) -> str:
    """Why the values of a column are no classes; empty if they are."""
    labelled = [value for value in values if value is not None]
    if any(isinstance(value, float) and not (math.isnan(value) or value.is_integer()) for value in labelled):
        return "its numbers are not whole"
    if (
        len(labelled) > _MANY
        and all(isinstance(value, str) for value in labelled)
        and len(set(labelled)) == len(labelled)
    ):
        return "all of its texts are different"
    return ""


def _classes_in(values: Sequence[Any], kind: Any, column: str, origin: str) -> tuple[Labels, tuple[str, ...]]:
    import datasets

    if any(isinstance(value, (str, bool)) for value in values):
        texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
        labels, names = named_classes(texts)
        numbered_classes(len(names), f"{origin} ({column!r})")  # no more than may be
        return labels, names
    whole = [-1 if value is None or value != value else max(-1, int(value)) for value in values]
    num_classes = max(whole, default=-1) + 1
    if isinstance(kind, datasets.ClassLabel) and kind.names:
        if num_classes > len(kind.names):
            raise RinError(f"{origin} has class {num_classes - 1} in {column!r} but names {len(kind.names)} classes")
        names = tuple(kind.names)
    else:
        names = numbered_classes(num_classes, f"{origin} ({column!r})")
    return torch.tensor(whole, dtype=torch.int64), names


def column_notes(features: Features, media: str, classes: Classes) -> tuple[str, ...]:
    """What is said of the columns of a table that are not used."""
    taken = classes.column
    others = [printable(name) for name in features if name not in (media, taken)]
    of_label = () if taken in (None, "label") else (f"classes are taken from the column {taken!r}",)
    return (*of_label, *classes.notes, *((f"columns that are not used: {listed(others)}",) if others else ()))
