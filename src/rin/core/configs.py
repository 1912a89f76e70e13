"""Fields of configurations: each value of its field's kind, whoever made it, and which of them a run may change."""

import dataclasses
import functools
import sys
import types
import typing
from typing import Any, TypeVar

from rin.core.errors import RinError

Value = TypeVar("Value")

_CHANGEABLE = "changeable"

_WANTED = {int: "a whole number below 2**63", float: "a finite number", bool: "True or False", str: "a text"}
"""What a field of each kind takes, in words."""


def changeable(default: Value) -> Value:
    """A field that a resumed run may change: more steps, what is only looked at or kept, and how it is computed."""
    return dataclasses.field(default=default, metadata={_CHANGEABLE: True})


def changeable_fields(kind: type, prefix: str = "") -> set[str]:
    """The fields of a configuration that a resumed run may change, by their dotted names.

    Args:
        kind: a dataclass, whose fields may be such too.
        prefix: what the names begin with.
    """
    names: set[str] = set()
    for entry in dataclasses.fields(kind):
        names |= {prefix + entry.name} if _CHANGEABLE in entry.metadata else set()
        if group := group_of(field_kinds(kind)[entry.name]):
            names |= changeable_fields(group, f"{prefix}{entry.name}.")
    return names


def check_fields(config: Any, group: str) -> None:
    """Refuses a configuration with a value that is not of its field's kind.

    A choice (`Literal`) is one of those that there are, a number is finite, a whole number is no truth.

    Args:
        config: a dataclass.
        group: how messages call it, as in "diffusion".

    Raises:
        RinError: a field has such a value; its name, the value and what it takes are in the message.
    """
    for name, hint in field_kinds(type(config)).items():
        value = getattr(config, name)
        if not fits(hint, value):
            raise RinError(f"{group}.{name} {value!r}: give {expected(hint)}")


@functools.cache
def field_kinds(kind: type) -> dict[str, Any]:
    """The kind of each field of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(kind)}


def group_of(hint: Any) -> type | None:
    """The dataclass that a field holds, or can hold; None for a field with a plain value."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a field's kind."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(kind, value) for kind in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        hints = _parts(arguments, len(value))
        return len(hints) == len(value) and all(map(fits, hints, value))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint)


def from_json(hint: Any, value: Any) -> Any:
    """A value out of JSON with tuples and floats where its field has these and JSON lists and whole numbers.

    What is not of the field's kind comes back as it is.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        converted = [from_json(kind, value) for kind in arguments]
        return next((one for kind, one in zip(arguments, converted, strict=True) if fits(kind, one)), value)
    if origin is tuple and isinstance(value, list):
        hints = _parts(arguments, len(value))
        return tuple(map(from_json, hints, value)) if len(hints) == len(value) else value
    return float(value) if hint is float and fits(float, value) else value


def _parts(arguments: tuple[Any, ...], length: int) -> tuple[Any, ...]:
    """The kinds of the parts of a tuple of some length, or of its own if it has one."""
    return arguments[:1] * length if arguments[-1] is ... else arguments


def expected(hint: Any) -> str:
    """What a field takes, in words."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return ", or ".join(map(expected, arguments))
    if hint is type(None):
        return "None"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if typing.get_origin(hint) is tuple:
        if arguments[-1] is ...:
            return f"a tuple, each part of it {expected(arguments[0])}"
        return f"a tuple of {len(arguments)}, each {expected(arguments[0])}"
    return _WANTED.get(hint) or f"a {hint.__name__}"
