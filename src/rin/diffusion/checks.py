"""What losses and sampling are given, checked once a call.

Shapes and kinds are always checked; numbers where they are at hand (`rin.core.compute.is_at_hand`).
"""

import inspect
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rin.core.compute import is_at_hand
from rin.core.denoiser import Condition
from rin.core.errors import RinError, unknown
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.given import Given
from rin.diffusion.guidance import guidance_of
from rin.diffusion.latent_counts import check_num_latents
from rin.diffusion.options import Draws, SamplingOptions
from rin.diffusion.samplers import SAMPLERS, check_interval

_ROUNDING = 1e-3
"""How far outside [-1, 1] a number may be that was computed."""


def check_data(name: str, x: object, num_axes: int | None = None) -> None:
    """Refuses what is no data in [-1, 1].

    Args:
        name: of it, for messages.
        x: a tensor, batch first.
        num_axes: how many axes it has; None for any number from 2 on.

    Raises:
        RinError: it is no floating-point tensor of so many axes, holds NaN, or numbers outside [-1, 1].
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or not (num_axes or x.ndim) == x.ndim >= 2:
        axes = {None: "(b ...)", 4: "(b c h w)", 5: "(b c f h w)"}[num_axes]
        what = f"{_kind(x)} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise RinError(f"{name} of {what}: give a float tensor {axes} in [-1, 1]; rin.to_floats makes it of 8 bits")
    bounds = _bounds(x)
    if bounds and not (bounds[0] >= -1 - _ROUNDING and bounds[1] <= 1 + _ROUNDING):
        raise RinError(f"{name} from {bounds[0]:.4g} to {bounds[1]:.4g}: give numbers in [-1, 1]")


def check_draws(x_0: Tensor, draws: Mapping[str, Any]) -> None:
    """Refuses draws of a loss that do not fit its data.

    Args:
        x_0: the data.
        draws: see `Draws`.

    Raises:
        RinError: a name that there is not, a shape that is not the data's, times outside [0, 1].
    """
    _check_names("draw of a loss", draws, Draws.__annotations__)
    batch = x_0.shape[0]
    noise, t, self_cond = draws.get("noise"), draws.get("t"), draws.get("self_cond")
    if noise is not None and (noise.shape != x_0.shape or not noise.is_floating_point()):
        raise RinError(f"noise is {_kind(noise)} {tuple(noise.shape)}: give floats of x_0's shape {tuple(x_0.shape)}")
    if t is not None:
        if t.shape != (batch,) or not t.is_floating_point():
            raise RinError(f"t is {_kind(t)} {tuple(t.shape)}: give a float in [0, 1] for each of {batch} examples")
        bounds = _bounds(t)
        if bounds and not (bounds[0] >= 0 and bounds[1] <= 1):
            raise RinError(f"t from {bounds[0]:.4g} to {bounds[1]:.4g}: give numbers in [0, 1]")
    for name in ("keep", "keep_in_estimate"):
        mask = draws.get(name)
        if mask is not None and (mask.shape != (batch,) or mask.dtype != torch.bool):
            raise RinError(f"{name} is {_kind(mask)} {tuple(mask.shape)}: give a truth for each of {batch} examples")
    if self_cond is not None and (
        self_cond.shape != (batch,) if self_cond.dtype == torch.bool else self_cond.dtype != torch.int64
    ):
        raise RinError(
            f"self_cond is {_kind(self_cond)} {tuple(self_cond.shape)}: give a truth for each of {batch} examples, or "
            "the numbers of some (int64)"
        )


def check_condition(condition: Condition | None, num_axes: int) -> None:
    """Refuses a condition whose context is no data in [-1, 1].

    Args:
        condition: of the samples.
        num_axes: of the samples; images (4) may have a condition picture.

    Raises:
        RinError: it is none.
    """
    if condition is not None and condition.context is not None:
        is_picture = num_axes == 4 == getattr(condition.context, "ndim", 0)
        check_data("context", condition.context, num_axes=4 if is_picture else 5)


def check_given(given: Given | None, shape: Sequence[int]) -> None:
    """Refuses given data that samples of a shape cannot be made of.

    Raises:
        RinError: it is no data or noise of the shape, or its time is none.
    """
    if given is None:
        return
    check_time(given.t)
    whole_number("num_rounds", given.num_rounds, least=1)
    if given.x_0 is not None:
        check_data("x_0", given.x_0)
    elif given.noise is None or given.redrawn is not None or given.to_noise or given.t < 1:
        raise RinError("nothing is given to start from, to keep or to take to noise: give x_0")
    for name, part in (("x_0", given.x_0), ("noise", given.noise)):
        if part is not None and tuple(part.shape) != tuple(shape):
            raise RinError(f"{name} of shape {tuple(part.shape)} is given for samples of shape {tuple(shape)}")
    if (mask := given.redrawn) is not None and (mask.dtype != torch.bool or tuple(mask.shape) != tuple(shape)):
        raise RinError(f"redrawn is {_kind(mask)} {tuple(mask.shape)}: give truths of the data's shape {tuple(shape)}")


def check_time(t: object) -> None:
    """Refuses what is no time to noise given data to.

    Raises:
        RinError: it is not above 0 and up to 1.
    """
    if not isinstance(t, int | float) or not 0 < t <= 1:
        raise RinError(f"t {t!r}: take a number above 0, which leaves all as it is, up to 1, which draws all anew")


def check_without_chance(sampler: str, td: float) -> None:
    """Refuses samplers whose way from noise to data cannot be gone back.

    Raises:
        RinError: it draws fresh noise, or shifts where steps lead.
    """
    if sampler in ("ddpm", "ddpm-small"):
        raise RinError(f"sampler {sampler} draws fresh noise at each step: take ddim, heun or dpmpp-2m to go to noise")
    if td:
        raise RinError(f"td {td} shifts where steps lead, which cannot be gone back: leave it out to go to noise")


def check_options(options: Mapping[str, Any], names: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuses keywords that are no option of sampling, and options that are not what they can be.

    Args:
        options: by keyword.
        names: those that there are.
        others: keywords that the caller takes beside them, for the nearest one.

    Raises:
        RinError: there is such a one.
    """
    _check_names("option of sampling", options, names, others)
    for name in ("guidance", "td"):
        value = options.get(name, 0.0)
        if name == "guidance" and value is None:  # the model's own
            continue
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise RinError(f"{name} {value!r}: take a finite number, or 0 to leave it off")
    check_num_latents(options.get("num_latents"))
    if (weak := options.get("num_guide_latents")) is not None:
        whole_number("num_guide_latents", weak, least=1)
    if options.get("guidance_interval") is not None:
        check_interval("guidance_interval", options["guidance_interval"])
    for name, least in (("num_steps", 1), ("block", 0)):
        if (value := options.get(name)) is not None:
            whole_number(name, value, least)


def check_sampling(
    config: DiffusionConfig, model: object, condition: Condition | None, options: SamplingOptions
) -> None:
    """Refuses options of sampling that a diffusion or its denoiser cannot follow.

    Raises:
        RinError: an unknown sampler, a number of latents for a network that has no choice, guidance of a model trained
            without label dropping, details of guidance without any, a sampler of chance on the way to noise.
    """
    sampler = options.get("sampler") or config.sampler
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if options.get("num_latents") is not None or options.get("num_guide_latents") is not None:
        check_has_choice(model)
    guidance, _ = guidance_of(config, options, condition is not None and condition.is_labelled)
    for name in ("guidance_interval", "num_guide_latents"):
        if options.get(name) is not None and not guidance:
            raise RinError(f"{name} does nothing without guidance: give guidance too, or leave {name} out")
    if guidance and options.get("num_guide_latents") is None and not config.label_drop_rate:
        raise RinError(
            "guidance needs a model trained with label dropping: train with --diffusion.label-drop-rate 0.1, "
            "or leave guidance at 0"
        )
    given = options.get("given")
    if given is not None and given.to_noise:
        check_without_chance(sampler, options.get("td", 0.0))


def check_has_choice(model: object) -> None:
    """Refuses a number of latents for a denoiser that is given none: one that is no RIN, perhaps.

    Raises:
        RinError: it takes no `num_latents`.
    """
    takes = inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters  # pyright: ignore[reportArgumentType]
    if "num_latents" not in takes and all(each.kind != each.VAR_KEYWORD for each in takes.values()):
        raise RinError("this network has no choice of latents: leave num_latents and num_guide_latents out")


def check_shape(shape: Sequence[int]) -> None:
    """Refuses a shape of samples that none can have.

    Raises:
        RinError: a size is no whole number from 1 on, or there are fewer than two.
    """
    if len(shape) < 2 or any(type(size) is not int or size < 1 for size in shape):
        raise RinError(f"samples of shape {tuple(shape)}: give whole numbers from 1 on, how many first")


def whole_number(name: str, value: object, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        RinError: it is none; `name` is how a person gave it.
    """
    if type(value) is bool or not isinstance(value, numbers.Integral) or value < least:
        raise RinError(f"{name} {value!r}: take a whole number from {least} on")
    return int(value)


def _check_names(what: str, given: Mapping[str, Any], names: Iterable[str], others: Iterable[str] = ()) -> None:
    names = set(names)
    for name in given.keys() - names:
        raise unknown(what, name, names | set(others))


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _bounds(x: Tensor) -> tuple[float, float] | None:
    """The least and the largest number; None where they cannot be had for nothing."""
    if not is_at_hand(x) or not x.numel():
        return None
    least, most = torch.aminmax(x.detach())
    return least.item(), most.item()
