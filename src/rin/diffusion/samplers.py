"""Steps of the reverse process, as pure functions, and the noise they take.

Ho et al., 2020 (DDPM); Song et al., 2021 (DDIM); Lu et al., 2022 (DPM-Solver++, arXiv 2211.01095).
"""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples, Latents
from rin.diffusion.latent_counts import NumLatents, latents_at
from rin.diffusion.parametrisation import Estimate, eps_from_x
from rin.diffusion.schedules import Schedule, parse_schedule

SamplerName = Literal["ddpm", "ddpm-small", "ddim", "dpmpp-2m", "heun"]
"""ddpm has the large variance (beta_t), ddpm-small the posterior's; the others have none. ddim is of first order.
dpmpp-2m (DPM-Solver++ 2M) and heun are of second, but for the last step, which is DDIM's: on the schedules karras and
log-snr it is short enough not to count. heun evaluates the network twice a step."""

SAMPLERS: tuple[str, ...] = get_args(SamplerName)

EVERYWHERE = (0.0, math.inf)
"""The interval of all noise levels."""

Level = Float[Tensor, ""]
"""gamma of the whole batch at a step."""


class Carried(NamedTuple):
    """The latents that one look at x_t leaves to the next; None before the first, and of a network that has none."""

    latents: Latents | None = None
    """Of the network."""

    of_guide: Latents | None = None
    """Of the pass that guides it, if there is one that goes on from its own."""


Look = Callable[[Examples, Carried, Level], tuple[Estimate, Carried]]
"""Evaluates the network on x_t, given the latents before and gamma."""

Draw = Callable[[int | Int[Tensor, ""]], Examples]
"""Noise by the number of its draw: draw 0 is the starting point, draw k the noise of step k - 1."""


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


def noised_further(x_t: Examples, gamma: Level, gamma_next: Level, noise: Examples) -> Examples:
    """X at a level of more noise, from x_t at gamma: the forward process."""
    alpha = gamma_next / gamma
    return alpha.sqrt() * x_t + (1 - alpha).sqrt() * noise


def reverse_step(
    sampler: SamplerName,
    look: Look,
    draw: Draw,
    x_t: Examples,
    carried: Carried,
    x_0_before: Examples,
    levels: Float[Tensor, "3"],
    number: int | Int[Tensor, ""],
) -> tuple[Examples, Examples, Carried]:
    """One step of a sampler.

    DDIM's is exact where the estimate of x_0 does not change on the way. Those of second order are DDIM's with a better
    x_0: DPM-Solver++ 2M extrapolates it from the step before (arXiv 2211.01095, algorithm 2), and Heun's method takes
    the mean over both ends of the step.

    Each look starts from the latents of the look before, also the second one of heun, whose latents are carried: it
    was at the level where the next step begins.

    Args:
        sampler: which.
        look: evaluates the network.
        draw: noise by number.
        x_t: where the step begins.
        carried: latents of the look before.
        x_0_before: the estimate of the step before.
        levels: see `noise_levels`.
        number: of the step, from 0.

    Returns:
        The estimate of x_0, where the step ends, and the latents to carry.
    """
    gamma, gamma_next, share = levels
    estimated, carried = look(x_t, carried, gamma)
    x_0 = estimated.x_0
    if sampler in ("ddpm", "ddpm-small"):
        noise = draw(number + 1)
        return x_0, ddpm_step(x_t, estimated, gamma, gamma_next, noise, small=sampler == "ddpm-small"), carried
    if sampler == "ddim":
        return x_0, ddim_step(estimated, gamma_next), carried
    if sampler == "dpmpp-2m":
        better = x_0 + share * (x_0 - x_0_before)
    else:
        there, carried = look(ddim_step(estimated, gamma_next), carried, gamma_next)
        better = (x_0 + there.x_0) / 2
    eps = eps_from_x(x_t, better, gamma.expand(len(x_t)))
    return x_0, ddim_step(Estimate(better, eps), gamma_next), carried


def noising_step(
    sampler: SamplerName,
    look: Look,
    x_t: Examples,
    carried: Carried,
    levels: Float[Tensor, "3"],
) -> tuple[Examples, Examples, Carried]:
    """One step of a sampler without noise the other way, towards noise (DDIM inversion).

    DDIM's takes the noise that the network sees at the level where the step ends: at clean data there is none to be
    seen. Those of second order take the mean over both ends, as heun does.

    Args:
        sampler: which.
        look: evaluates the network.
        x_t: where the step begins, at the second of the levels.
        carried: latents of the look before.
        levels: of the step that is undone, see `noise_levels`.

    Returns:
        The estimate of x_0, where the step ends, and the latents to carry.
    """
    gamma_next, gamma, _ = levels

    def moved(eps: Examples) -> Examples:
        return ddim_step(Estimate((x_t - (1 - gamma).sqrt() * eps) / gamma.sqrt(), eps), gamma_next)

    here, carried = look(x_t, carried, gamma_next if sampler == "ddim" else gamma)
    if sampler == "ddim":
        return here.x_0, moved(here.eps), carried
    ahead, carried = look(moved(here.eps), carried, gamma_next)
    return ahead.x_0, moved((here.eps + ahead.eps) / 2), carried


def last_rule(sampler: SamplerName) -> SamplerName:
    """The sampler of the step that leads to clean data, or begins there: of first order, since log-SNR has no end."""
    return "ddim" if sampler in ("dpmpp-2m", "heun") else sampler


def noise_levels(gamma_of: Schedule, num_steps: int, td: float, t: float = 1.0) -> Float[Tensor, "num_steps 3"]:
    """Of each step: gamma where it begins, gamma where it ends, and the share that DPM-Solver++ 2M extrapolates by.

    On the CPU, where numbers can be looked at without waiting for a GPU. The steps lead from time `t` to 0.
    """
    times = [
        torch.tensor([t * end for end in step_times(step, num_steps, td)], dtype=torch.float32, device="cpu")
        for step in range(num_steps)
    ]
    levels = torch.stack([gamma_of(pair) for pair in times])
    shares, before = list[float](), None
    for gamma, gamma_next in levels.tolist():
        shares.append(0.0 if before is None else extrapolation(before, gamma, gamma_next))
        before = gamma
    return torch.cat([levels, torch.tensor(shares, dtype=torch.float32, device="cpu")[:, None]], dim=1)


def extrapolation(gamma_before: float, gamma: float, gamma_next: float) -> float:
    """1 / (2 r), r being the last step over this one in lambda, half the log-SNR; 0 where a step has no length."""
    if not gamma_before < gamma < gamma_next < 1:
        return 0.0
    before, now, then = (math.log(level / (1 - level)) for level in (gamma_before, gamma, gamma_next))
    return (then - now) / (now - before) / 2


def guidance_of_steps(
    levels: Float[Tensor, "num_steps 3"], guidance: float, interval: tuple[float, float] | None
) -> list[float]:
    """How strongly each step is guided: 0 where it begins outside an interval of sigma.

    The interval (Kynkäänniemi et al., 2024, arXiv 2404.07724) is open at its first end; None is all noise levels.
    """
    low, high = (-1.0, math.inf) if interval is None else interval
    return [guidance if low < sigma <= high else 0.0 for sigma in _sigmas(levels)]


def check_interval(name: str, interval: Any) -> None:
    """Refuses what is no interval of noise levels.

    Raises:
        RinError: it is not two numbers, 0 <= low < high, finite ones or 0 and infinity; `name` is how a person gave it.
    """
    is_pair = isinstance(interval, tuple | list) and [isinstance(end, numbers.Real) for end in interval] == [True] * 2
    if not is_pair or not (0 <= interval[0] < interval[1] < math.inf or is_everywhere(interval)):
        raise RinError(
            f"{name} {interval!r}: take two numbers, 0 <= low < high, the noise's sigma; 0 and inf are all levels"
        )


def is_everywhere(interval: Sequence[float]) -> bool:
    """Whether an interval has all noise levels."""
    return tuple(interval) == EVERYWHERE


def check_some_step_is_guided(
    levels: Float[Tensor, "num_steps 3"], interval: tuple[float, float] | None, name: str = "guidance_interval"
) -> None:
    """Refuses an interval of guidance that would guide nothing.

    Args:
        levels: of each step, see `noise_levels`.
        interval: noise levels sigma that guidance is for; None is all.
        name: what the refusal calls the interval.

    Raises:
        RinError: no step begins in it.
    """
    if interval is None or any(guidance_of_steps(levels, 1.0, interval)):
        return
    (low, high), sigmas = interval, _sigmas(levels)
    below, above = [sigma for sigma in sigmas if sigma <= low], [sigma for sigma in sigmas if sigma > high]
    nearest = [f"{sigma:.3g}" for sigma in (*below[:1], *above[-1:])]
    raise RinError(
        f"{name} {low:g} to {high:g} guides none of the {len(sigmas)} steps: the nearest "
        f"begin{'s' * (len(nearest) == 1)} at sigma {' and '.join(nearest)}"
    )


def _sigmas(levels: Float[Tensor, "num_steps 3"]) -> list[float]:
    """The noise's deviation over that of the data where each step begins."""
    return [math.sqrt((1 - gamma) / gamma) for gamma, *_ in levels.tolist()]


def evaluations(
    sampler: SamplerName,
    schedule: str,
    num_steps: int,
    guidance: float,
    interval: tuple[float, float] | None = None,
    num_latents: NumLatents | None = None,
    num_guide_latents: int | None = None,
) -> list[int | None]:
    """The latents of each evaluation of the network for a sample; None is the network's own number.

    There are two a step of heun but the last, and twice as many where guided.

    Raises:
        RinError: there is guidance, and no step begins in its interval.
    """
    found = list[int | None]()
    levels = noise_levels(parse_schedule(schedule), num_steps, 0.0)
    if guidance:
        check_some_step_is_guided(levels, interval)
    for step, guided in enumerate(guidance_of_steps(levels, guidance, interval)):
        looks = 2 if sampler == "heun" and step < num_steps - 1 else 1
        count = latents_at(num_latents, step_times(step, num_steps, 0.0)[0])
        guide = [num_guide_latents or count] if guided else []
        found += looks * [count, *guide]
    return found


def step_times(step: int, num_steps: int, td: float) -> tuple[float, float]:
    """The time of a step, and that of where it leads: `1 + td` steps on, at least 0.

    td shifts where a step leads (Chen et al., "Analog bits", arXiv 2208.04202: asymmetric time intervals).
    """
    return 1 - step / num_steps, max(1 - (step + 1 + td) / num_steps, 0.0)


def noise_source(
    shape: Sequence[int],
    seeds: Sequence[int] | Int[Tensor, " b"] | None,
    recorded: Sequence[Examples] | None,
    device: torch.device,
    block: int = 0,
    purpose: Purpose = Purpose.NOISE,
) -> Draw:
    """The noise of a sampling run.

    Args:
        shape: of the samples, batch first.
        seeds: one a sample.
        recorded: every draw, instead.
        device: where the noise is to be.
        block: of a longer clip, each of which has noise of its own.
        purpose: what the noise of seeds is for.

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
    return lambda draw: chance.at(draw).normal(purpose, shape[1:])


def _recorded_draw(recorded: Sequence[Examples], draw: int, shape: Sequence[int]) -> Examples:
    if draw >= len(recorded):
        raise RinError(f"{len(recorded)} draws of noise were given: draw {draw + 1} is missing")
    if tuple(recorded[draw].shape) != tuple(shape):
        raise RinError(f"noise of shape {tuple(recorded[draw].shape)} for samples of shape {tuple(shape)}")
    return recorded[draw]
