"""A whole experiment as one frozen configuration, and its JSON."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rin.core.configs import changeable_fields, check_fields, expected, field_kinds, fits, from_json, group_of
from rin.core.errors import RinError, unknown
from rin.core.seeds import check_seed
from rin.data import DataConfig
from rin.diffusion import DiffusionConfig
from rin.nn import RINConfig
from rin.training.config import TrainingConfig

FORMAT_VERSION = 1
"""Of every configuration on disk; raised when old ones can no longer be read as they are."""

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides what a run computes."""

    model: RINConfig = field(default_factory=RINConfig)
    """The network."""

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """Its diffusion."""

    data: DataConfig = field(default_factory=DataConfig)
    """What it learns from."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it learns."""

    seed: int = 0
    """Of everything random: initial weights, order, noise, masks."""

    init_from: str = ""
    """A run, a saved model or the name of one, whose averaged weights training starts from; what fits is taken over,
    and widths, heads and the prediction have to be the same."""

    def __post_init__(self) -> None:
        """Refuses a seed that is none."""
        check_fields(self, "experiment")
        check_seed(self.seed)


def differences(before: ExperimentConfig, after: ExperimentConfig) -> list[str]:
    """The options, by their dotted names, in which two experiments differ beyond what a resumed run may change."""
    free = changeable_fields(ExperimentConfig)
    old, new = (_flat(to_dict(experiment)) for experiment in (before, after))
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in free
    ]


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON has it: dictionaries, lists, numbers, texts; without a group of options that it lacks."""
    return {
        entry.name: to_dict(value)
        if dataclasses.is_dataclass(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for entry in dataclasses.fields(config)
        for value in (getattr(config, entry.name),)
        if value is not None or not group_of(field_kinds(type(config))[entry.name])
    }


def from_dict(kind: type[Config], stored: Any, file: Path | None = None) -> Config:
    """A configuration from what JSON holds; options that it does not tell have their defaults.

    Args:
        kind: of configuration.
        stored: the JSON.
        file: where it is from, which messages then begin with.

    Raises:
        RinError: an option that there is not, or a value that it cannot have.
    """
    try:
        return _group(kind, stored)
    except RinError as error:
        if file is None:
            raise
        raise RinError(f"{file}: {error}") from error


def _group(kind: type[Config], stored: Any) -> Config:
    if not isinstance(stored, dict):
        raise RinError(f"{kind.__name__} = {_shown(stored)}: a group of options is needed")
    hints = field_kinds(kind)
    for name in stored:
        if name not in hints:
            raise unknown(f"option of {kind.__name__}", name, hints)
    values = {name: _value(hints[name], value, name) for name, value in stored.items()}
    return kind(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    """A value out of JSON as its field has it."""
    if (group := group_of(hint)) and not (value is None and fits(hint, None)):
        if not isinstance(value, dict):
            raise RinError(f"option {name} = {_shown(value)}: a group of options is needed")
        return _group(group, value)
    converted = from_json(hint, value)
    if not fits(hint, converted):
        raise RinError(f"option {name} = {_shown(value)}: give {expected(hint)}")
    return converted


def _shown(value: Any) -> str:
    """A value out of JSON in a message, which is one line, and not a long one."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
