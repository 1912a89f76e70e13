"""What a configuration means that an earlier rin has written: options that came later, and such as are no more."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

Config = TypeVar("Config")
Stored = Mapping[str, Any]
"""A configuration or a group of its options, out of JSON."""


@dataclass(frozen=True, kw_only=True)
class CameLater:
    """An option that came later, and by default computes otherwise than was computed before there was one."""

    group: str
    name: str
    before: Any
    """Its value in a file that does not tell it."""

    only_with: str = ""
    """An option of the network without which it changes nothing, and then has its default."""


CAME_LATER = (
    CameLater(group="model", name="condition_in_place", before=False, only_with="condition_shape"),
    CameLater(group="training", name="noise_version", before=1),
    CameLater(group="training", name="all_latents_every", before=0, only_with="num_latents_min"),
)

NO_MORE = {"diffusion": ("self_cond_lag",)}
"""By group, options of training alone that are no more. What was trained with them is drawn from as ever."""


def as_of_today(group: str, stored: Stored, model: Stored) -> dict[str, Any]:
    """A stored group of options, with the values that later ones had when it was written, without those of old.

    Args:
        group: "model", "diffusion" or "training".
        stored: the group.
        model: the network's group beside it.
    """
    later = [
        option
        for option in CAME_LATER
        if option.group == group and (not option.only_with or model.get(option.only_with))
    ]
    kept = {name: value for name, value in stored.items() if name not in NO_MORE.get(group, ())}
    return {option.name: option.before for option in later} | kept


def no_more_and_on(stored: Stored) -> list[str]:
    """The dotted names of options that are no more, and that a stored configuration has on."""
    return [f"{group}.{name}" for group, names in NO_MORE.items() for name in names if stored[group].get(name)]


def with_defaults_of(begun: Config, asked: Config) -> Config:
    """An experiment that goes on with a run, where what came later and is as today's default has it is the run's.

    Args:
        begun: the experiment of the run.
        asked: the experiment; what it has beside the default stays, to be told that it is another than the run's.
    """
    for option in CAME_LATER:
        ours, theirs = getattr(asked, option.group), getattr(begun, option.group)
        default = next(field.default for field in fields(ours) if field.name == option.name)
        if getattr(ours, option.name) == default:
            ours = replace(ours, **{option.name: getattr(theirs, option.name)})
            asked = replace(asked, **{option.group: ours})  # pyright: ignore[reportArgumentType]
    return asked
