"""eps, x_0 and v, and the ways between them. x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps."""

from typing import Literal, NamedTuple

from torch import Tensor

from rin.core.shapes import Examples, PerExample

Parametrisation = Literal["eps", "x", "v"]
"""What a network predicts, or where a loss is taken."""


class Estimate(NamedTuple):
    """What a prediction says of the clean data and of the noise in x_t."""

    x_0: Examples
    eps: Examples


def as_factor(per_example: PerExample, like: Examples) -> Tensor:
    """One number an example, shaped so that it multiplies `like`."""
    return per_example.reshape(-1, *[1] * (like.ndim - 1))


def corrupt(x_0: Examples, eps: Examples, gamma: PerExample) -> Examples:
    """x_t, the forward process in one step (equation 1)."""
    gamma = as_factor(gamma, x_0)
    return gamma.sqrt() * x_0 + (1 - gamma).sqrt() * eps


def velocity(x_0: Examples, eps: Examples, gamma: PerExample) -> Examples:
    """V = sqrt(gamma) eps - sqrt(1 - gamma) x_0 (Salimans and Ho, 2022)."""
    gamma = as_factor(gamma, x_0)
    return gamma.sqrt() * eps - (1 - gamma).sqrt() * x_0


def eps_from_x(x_t: Examples, x_0: Examples, gamma: PerExample) -> Examples:
    """The noise that leads from x_0 to x_t; zero where gamma is 1, and there is none."""
    gamma = as_factor(gamma, x_t)
    deviation = (1 - gamma).sqrt()
    return (x_t - gamma.sqrt() * x_0) / deviation.where(deviation > 0, float("inf"))


def x_from_eps(x_t: Examples, eps: Examples, gamma: PerExample) -> Examples:
    """The clean data from which eps leads to x_t."""
    gamma = as_factor(gamma, x_t)
    return (x_t - (1 - gamma).sqrt() * eps) / gamma.sqrt()


def network_input(x_t: Examples, normalise: bool) -> Examples:
    """x_t as the network is given it: divided by its deviation if asked (arXiv 2301.10972)."""
    return x_t / as_factor(x_t.flatten(1).std(dim=1, correction=0), x_t) if normalise else x_t


def in_float32(prediction: Tensor | None) -> Examples:
    """What the network said, in float32 whatever it computes in."""
    assert prediction is not None  # it was asked for more than latents
    return prediction.float()


def estimate(
    prediction: Examples, x_t: Examples, gamma: PerExample, space: Parametrisation, clip: float, recompute_eps: bool
) -> Estimate:
    """Clean data and noise from what the network said.

    Args:
        prediction: the network's output, in `space`.
        x_t: the noisy data, before any normalisation.
        gamma: the noise level (b).
        space: eps, x or v.
        clip: x_0 is clipped to ±clip.
        recompute_eps: make eps agree with the clipped x_0, as samplers do (always so for x).
    """
    factor = as_factor(gamma, x_t)
    if space == "eps":
        x_0, eps = x_from_eps(x_t, prediction, gamma), prediction
    elif space == "v":
        x_0 = factor.sqrt() * x_t - (1 - factor).sqrt() * prediction
        eps = (1 - factor).sqrt() * x_t + factor.sqrt() * prediction
    else:
        x_0, eps, recompute_eps = prediction, prediction, True
    x_0 = x_0.clamp(-clip, clip)
    return Estimate(x_0, eps_from_x(x_t, x_0, gamma) if recompute_eps else eps)
