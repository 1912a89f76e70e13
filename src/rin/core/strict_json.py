"""JSON files, which may come from anyone: read strictly, so that nothing in them is taken for something else."""

import json
import math
from pathlib import Path
from typing import Any

from rin.core.files import check_file

_MOST_BYTES = 2**26
"""Of a file: hundreds of times what a hundred thousand class names take."""

_DEEPEST = 32
"""Levels of lists and dictionaries; ours have four."""

_LARGEST = 2**63
"""Whole numbers stay below it, and above its negative."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON; or holds numbers that are none (NaN, Infinity) or larger than any (1e400), a key
            twice, or lists in lists without end.
    """
    check_file(path)
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes")
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: as for files.
    """
    try:
        value = json.loads(
            text, parse_constant=_no_number, parse_float=_float, parse_int=_int, object_pairs_hook=_each_once
        )
    except RecursionError:
        raise _too_deep() from None
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [part for whole in layer for part in _parts(whole)]
    if layer:
        raise _too_deep()
    return value


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    stored = dict(pairs)
    if len(stored) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in stored if names.count(name) > 1)
        raise ValueError(f"{_cut(twice)!r} is there twice")
    return stored


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _int(text: str) -> int:
    if len(text) > 20 or not -_LARGEST < int(text) < _LARGEST:
        return _no_number(text)
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{_cut(text)} is no number of ours")


def _too_deep() -> ValueError:
    return ValueError(f"it has more than {_DEEPEST} levels of lists and dictionaries")


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
