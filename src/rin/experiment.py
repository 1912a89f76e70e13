"""A whole experiment as one frozen configuration, and its JSON."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

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

    def __post_init__(self) -> None:
        """Refuses a seed that is none."""
        check_seed(self.seed)


FREE_TO_CHANGE = {
    "training.num_steps", "training.log_every", "training.held_out_every", "training.sample_every",
    "training.checkpoint_every", "training.keep_checkpoints", "training.keep_checkpoint_every", "training.trackers",
    "training.parallel", "training.accumulation_steps", "training.compile", "training.recompute_blocks",
    "data.memory_gib", "data.skip_broken",
    "diffusion.sampler", "diffusion.num_steps", "diffusion.sampling_schedule",
}  # fmt: skip
"""What a resumed run may change: more steps, what is only looked at or kept, and how it is computed."""


def differences(before: ExperimentConfig, after: ExperimentConfig) -> list[str]:
    """The options, by their dotted names, in which two experiments differ beyond what a resumed run may change."""
    old, new = (_flat(to_dict(experiment)) for experiment in (before, after))
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in FREE_TO_CHANGE
    ]


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON has it: dictionaries, lists, numbers, texts."""
    return {
        entry.name: to_dict(value)
        if dataclasses.is_dataclass(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for entry in dataclasses.fields(config)
        for value in (getattr(config, entry.name),)
    }


def from_dict(kind: type[Config], stored: dict[str, Any]) -> Config:
    """A configuration from JSON; options that it does not tell have their defaults.

    Raises:
        RinError: an option that there is not, or a value that it cannot have.
    """
    hints = typing.get_type_hints(kind)
    for name in stored:
        if name not in hints:
            raise unknown(f"option of {kind.__name__}", name, hints)
    values = {name: _value(hints[name], value, name) for name, value in stored.items()}
    return kind(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    """A value out of JSON as its field has it."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise RinError(f"option {name} = {value!r}: a group of options is needed")
        return from_dict(hint, value)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list):
        kinds = typing.get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
        if len(kinds) == len(value):
            return tuple(_value(kind, part, name) for kind, part in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is typing.Literal and value in typing.get_args(hint):
        return value
    if origin in (typing.Union, types.UnionType):
        if any(isinstance(value, kind) for kind in typing.get_args(hint) if isinstance(kind, type)):
            return value
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise RinError(f"option {name} = {value!r}: it is not of the kind that {name} has")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
