"""What a configuration means that an earlier rin has written: options that came later, and such as are no more."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """A stored group of options, so that today's rin computes by it what the one that wrote it did.

    Options that came later get the value from before, and options that are no more are left out.

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
    """The experiment that is asked for, to go on with a run: options that came later are the run's.

    Args:
        begun: the run's experiment.
        asked: the experiment; such an option that has another value than today's default keeps it, and is refused
            later if it is not the run's.
    """
    for option in CAME_LATER:
        ours, theirs = getattr(asked, option.group), getattr(begun, option.group)
        if getattr(ours, option.name) == getattr(type(ours), option.name):  # a dataclass has its defaults there
            ours = replace(ours, **{option.name: getattr(theirs, option.name)})
            asked = replace(asked, **{option.group: ours})  # pyright: ignore[reportArgumentType]
    return asked
