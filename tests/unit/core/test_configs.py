"""Configurations refuse a value that is not of its field's kind, whoever makes them."""

import dataclasses
import math
import types
import typing

import pytest

from rin import DiffusionConfig, ExperimentConfig, RinError, preset
from rin.core.configs import group_of
from rin.presets import preset_names

pytestmark = pytest.mark.usefixtures("unhooked")

WRONG = {
    int: (2.5, True, "3", None, [1], math.nan),
    float: (math.nan, math.inf, -math.inf, 10**400, True, "0.1", None),
    bool: (1, "yes", None),
    str: (3, None, b"digits"),
}


def configurations(kind=ExperimentConfig):
    """Every dataclass of an experiment, itself among them."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        if group := group_of(hint):
            yield from configurations(group)


def wrong_values(hint):
    """Values that are of no such kind, for a field's type."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return ("", f"{arguments[0]}0", 0, True, None, list(arguments))
    if typing.get_origin(hint) is types.UnionType:  # a value or None
        return tuple(wrong for wrong in wrong_values(arguments[0]) if wrong is not None)
    if typing.get_origin(hint) is tuple:
        length = 2 if arguments[-1] is ... else len(arguments)
        return (None, [], 3, *((wrong,) * length for wrong in wrong_values(arguments[0])))
    return (None, {}, 3) if dataclasses.is_dataclass(hint) else WRONG[hint]


FIELDS = [
    pytest.param(kind, entry.name, id=f"{kind.__name__}.{entry.name}")
    for kind in configurations()
    for entry in dataclasses.fields(kind)
]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_value_of_another_kind_is_one_line_with_its_field(kind, name):
    for wrong in wrong_values(typing.get_type_hints(kind)[name]):
        with pytest.raises(RinError, match=rf"^[a-z_]+\.{name} .*: give ") as refused:
            kind(**{name: wrong})
        assert "\n" not in str(refused.value)


def test_choices_are_named():
    with pytest.raises(RinError, match=r"^diffusion.prediction 'x0': give one of 'eps', 'x', 'v'$"):
        DiffusionConfig(prediction="x0")
    with pytest.raises(RinError, match=r"^training.trackers \('wand',\): give a tuple, each part of it one of 'wandb'"):
        dataclasses.replace(preset("digits").training, trackers=("wand",))


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_experiments(name):
    assert dataclasses.replace(preset(name)) == preset(name)


def test_whole_numbers_are_numbers():
    assert DiffusionConfig(input_scale=1, self_cond_rate=0).input_scale == 1
