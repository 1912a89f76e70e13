"""How likely data are under a trained denoiser: the density of what its probability-flow ODE draws.

Song et al., 2021 (arXiv 2011.13456, section 4.3); the trace by Hutchinson's estimate with one draw of probes for the
whole way, as FFJORD has it (Grathwohl et al., 2019, arXiv 1810.01367).

With sigma = sqrt((1 - gamma) / gamma) and y = x_t / sqrt(gamma), which is x_0 + sigma eps, the ODE is
dy / d sigma = eps(y, sigma), the noise that the network sees, and along it

    log p(y at the least sigma) = log p(y at the most) + integral of div(sigma eps) over d log sigma,

where the most noise is what sampling starts from: x_t is standard normal there. It is followed by Heun's method on a
grid that is even in log sigma, that is in log-SNR; the integral is a trapezoidal sum over the grid.

The velocity has to be a function of x_t alone. So the latents carried in sampling, which depend on the steps taken,
are left out: at each point a first pass on the same x_t estimates them, as in training and for held-out losses, and
the derivative goes through both passes. Nor is clean data clipped, which would give no density to numbers at ±1.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.compute import device_of
from rin.core.denoiser import Condition, Denoiser, EvaluationMode
from rin.core.errors import RinError
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples
from rin.diffusion.diffusion import Diffusion
from rin.diffusion.parametrisation import estimate, network_input

LEAST_SIGMA, MOST_SIGMA = 0.002, 80.0
"""Where the ODE begins, over the input scale, and ends: as the schedules `karras` and `log-snr` do."""

LEVELS_A_UNIT = 127.5
"""Levels of 8 bits in a length of 1."""

Density = Float[Tensor, " b"]


class Likelihood(NamedTuple):
    """How likely each of some examples is."""

    bits: Float[Tensor, " b"]
    """Bits per dimension (float64)."""

    step_error: Float[Tensor, " b"]
    """By how much half as many steps give something else; the method is of second order, so that about a third of it
    is what is wrong."""

    num_evaluations: int
    """Passes through the network for each example: the first passes, and those with half as many steps, among them."""


def dequantised(x_0: Examples, chance: Chance) -> Examples:
    """Data of 8 bits spread evenly over their levels: half a level up or down at most, also beyond ±1."""
    words = chance.words(Purpose.DEQUANTISATION, x_0[0].numel())[:, : x_0[0].numel()]
    shifts = ((words >> 8).double() + 0.5) * 2.0**-24 - 0.5
    return x_0.double() + shifts.reshape(x_0.shape) / LEVELS_A_UNIT


def probes_of(chance: Chance, shape: torch.Size, num_probes: int) -> Float[Tensor, "probes b ..."]:
    """Rademacher probes: each number 1 or -1."""
    count = math.prod(shape[1:])
    draws = [chance.at(probe).words(Purpose.PROBES, count)[:, :count] & 1 for probe in range(num_probes)]
    return torch.stack(draws).double().reshape(num_probes, *shape) * 2 - 1


def log_likelihood(
    diffusion: Diffusion,
    model: Denoiser,
    x_0: Examples,
    condition: Condition | None,
    probes: Float[Tensor, "probes b ..."],
    num_steps: int,
) -> tuple[Density, Density, int]:
    """Log-densities of data.

    Args:
        diffusion: of the model.
        model: the denoiser; it is asked in float32 and in evaluation mode, and differentiated once.
        x_0: data, whose unit is that of [-1, 1], on the CPU (b ...).
        condition: what the examples show, where the model computes.
        probes: of the trace, on the CPU.
        num_steps: of Heun's method, 2 or more.

    Returns:
        The log-density in nats (b), how much it differs from that with half as many steps (b), and how often the
        network was evaluated.

    Raises:
        RinError: the network's answers, or their derivatives, are not finite, or it has none.
    """
    scale = diffusion.config.input_scale
    flow = _Flow(diffusion, model, diffusion.scaled(condition), probes)
    y = x_0.double() * scale
    with EvaluationMode(model), torch.autocast(device_of(model).type, enabled=False):  # the backward pass, too
        fine, coarse = (_followed(flow, y, scale * LEAST_SIGMA, steps) for steps in (num_steps, num_steps // 2))
    if not (fine.isfinite() & coarse.isfinite()).all():
        raise RinError("these examples have no likelihood: the network's answers, or derivatives, are not finite")
    return fine + x_0[0].numel() * math.log(scale), (fine - coarse).abs(), flow.num_evaluations


class _Flow:
    """The noise that a network sees in y at sigma, and the divergence of sigma times it."""

    def __init__(
        self,
        diffusion: Diffusion,
        model: Denoiser,
        condition: Condition | None,
        probes: Float[Tensor, "probes b ..."],
    ) -> None:
        self._diffusion, self._model, self._condition, self._probes = diffusion, model, condition, probes
        self._device = device_of(model)
        self.num_evaluations = 0

    def eps(self, y: Examples, sigma: float) -> Examples:
        """The noise in y. The network is given float32; all else is float64 and on the CPU, since sigma is small."""
        gamma = torch.full((len(y),), 1 / (1 + sigma**2), dtype=torch.float64)
        x_t = y / math.sqrt(1 + sigma**2)
        config, level = self._diffusion.config, gamma.float().to(self._device)
        model_input = network_input(x_t.float().to(self._device), config.normalise_input)
        latents = None
        if config.self_cond_rate:
            latents = self._model(model_input, level, self._condition, latents_only=True).latents
        prediction = self._model(model_input, level, self._condition, latents).prediction
        self.num_evaluations += 1 if latents is None else 2
        assert prediction is not None
        if torch.is_grad_enabled() and not prediction.requires_grad:
            raise RinError("this network's answer has no derivative by its input, which a likelihood needs")
        return estimate(
            prediction.cpu().double(), x_t, gamma, config.prediction, clip=math.inf, recompute_eps=False
        ).eps

    @torch.no_grad()
    def look(self, y: Examples, sigma: float) -> Examples:
        """The noise alone."""
        return self.eps(y, sigma)

    @torch.enable_grad()
    def look_and_diverge(self, y: Examples, sigma: float) -> tuple[Examples, Density]:
        """The noise, and the divergence of sigma times the noise, the mean over the probes."""
        y = y.detach().requires_grad_()
        eps = self.eps(y, sigma)
        traces = torch.zeros(len(y), dtype=torch.float64)
        for number, probe in enumerate(self._probes):
            more = number + 1 < len(self._probes)
            (along,) = torch.autograd.grad(eps, y, probe, retain_graph=more)
            traces += (along * probe).flatten(1).sum(1)
        return eps.detach(), sigma * traces / len(self._probes)


def _followed(flow: _Flow, y: Examples, least_sigma: float, num_steps: int) -> Density:
    """The log-density of y at the least sigma, by so many steps to the most."""
    length = math.log(MOST_SIGMA / least_sigma) / num_steps
    sigmas = [least_sigma * math.exp(length * step) for step in range(num_steps + 1)]
    eps, divergence = flow.look_and_diverge(y, sigmas[0])
    integral = divergence / 2
    for sigma, following in pairwise(sigmas):
        ahead = flow.look(y + (following - sigma) * eps, following)
        y = y + (following - sigma) * (eps + ahead) / 2
        eps, divergence = flow.look_and_diverge(y, following)
        integral += divergence
    integral -= divergence / 2
    return _normal(y, math.sqrt(1 + sigmas[-1] ** 2)) + length * integral


def _normal(y: Examples, deviation: float) -> Density:
    """Log-densities of independent normal numbers around 0."""
    y = y.flatten(1) / deviation
    return -y.square().sum(1) / 2 - y.shape[1] * (math.log(2 * math.pi) / 2 + math.log(deviation))
