"""Steps of the reverse process, as pure functions, and the noise they take (Ho et al., 2020; Song et al., 2021)."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples
from rin.diffusion.parametrisation import Estimate

SamplerName = Literal["ddpm", "ddpm-small", "ddim"]
"""ddpm has the large variance (beta_t), ddpm-small the posterior's; ddim has none."""

SAMPLERS: tuple[str, ...] = get_args(SamplerName)

Level = Float[Tensor, ""]
"""gamma of the whole batch at a step."""


def ddim_step(estimated: Estimate, gamma_next: Level) -> Examples:
    """X at the next level: the same clean data and the same noise, mixed anew."""
    return gamma_next.sqrt() * estimated.x_0 + (1 - gamma_next).sqrt() * estimated.eps


def ddpm_step(
    x_t: Examples, estimated: Estimate, gamma: Level, gamma_next: Level, noise: Examples, small: bool
) -> Examples:
    """X at the next level, ancestral: the posterior's mean and fresh noise, of `small` or large variance."""
    alpha = (gamma.log() - gamma_next.log()).exp().clamp(0, 1)
    mean = alpha.rsqrt() * (x_t - (1 - gamma).rsqrt() * (1 - alpha) * estimated.eps)
    variance = 1 - alpha
    if small:
        variance = variance * (torch.log1p(-gamma_next) - torch.log1p(-gamma)).exp()
    return mean + variance.sqrt() * noise


def step_times(step: int, num_steps: int, td: float) -> tuple[float, float]:
    """The time of a step, and that of where it leads: `1 + td` steps on, at least 0.

    td shifts where a step leads (Chen et al., "Analog bits", arXiv 2208.04202: asymmetric time intervals).
    """
    return 1 - step / num_steps, max(1 - (step + 1 + td) / num_steps, 0.0)


def noise_source(
    shape: Sequence[int],
    seeds: Sequence[int] | Int[Tensor, "b"] | None,
    recorded: Sequence[Examples] | None,
    device: torch.device,
    block: int = 0,
) -> Callable[[int | Int[Tensor, ""]], Examples]:
    """Noise by the number of its draw: draw 0 is the starting point, draw k the noise of step k - 1.

    Args:
        shape: of the samples, batch first.
        seeds: one a sample.
        recorded: every draw, instead.
        device: where the noise is to be.
        block: of a longer clip, each of which has noise of its own.

    Raises:
        RinError: there are not as many seeds as samples, or recorded noise is of another shape.
    """
    if recorded is not None:
        return lambda draw: _recorded_draw(recorded, int(draw), shape).to(device, torch.float32)
    if seeds is None:
        chance = Chance.fresh(shape[0], device)
    elif len(seeds) != shape[0]:
        raise RinError(f"{len(seeds)} seeds for {shape[0]} samples: give one a sample")
    elif torch.as_tensor(seeds).dtype != torch.int64:
        raise RinError(f"seeds {list(seeds)[:8]}: give whole numbers (int64)")
    else:
        places = torch.full((shape[0],), block, dtype=torch.int64, device=device)
        chance = Chance(torch.as_tensor(seeds, device=device), 0, places)
    return lambda draw: chance.at(draw).normal(Purpose.NOISE, shape[1:])


def _recorded_draw(recorded: Sequence[Examples], draw: int, shape: Sequence[int]) -> Examples:
    if draw >= len(recorded):
        raise RinError(f"{len(recorded)} draws of noise were given: draw {draw + 1} is missing")
    if tuple(recorded[draw].shape) != tuple(shape):
        raise RinError(f"noise of shape {tuple(recorded[draw].shape)} for samples of shape {tuple(shape)}")
    return recorded[draw]
