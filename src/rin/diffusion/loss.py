"""The loss of a batch, and the latents its examples start from."""

import torch

from rin.core.denoiser import Condition, Denoiser
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples, Latents, Mask, PerExample
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.predictions import estimate, velocity


def self_cond_mask(config: DiffusionConfig, chance: Chance, global_batch: int) -> Mask:
    """The examples that start from estimated latents: a random mask, or the first of the global batch."""
    if config.self_cond_by == "mask":
        return chance.true(Purpose.SELF_COND, config.self_cond_rate)
    return chance.places[:, 0] < int(global_batch * config.self_cond_rate)


@torch.no_grad()
def estimate_latents(
    model: Denoiser, x: Examples, gamma: PerExample, condition: Condition | None, self_cond: Mask
) -> Latents:
    """Z' from a first pass on the same x_t, zero for the examples that do without (section 3.2)."""
    latents = model(x, gamma, condition, latents_only=True).latents
    return latents * self_cond[:, None, None]


def squared_error(
    config: DiffusionConfig, prediction: Examples, clean: Examples, noise: Examples, x_t: Examples, gamma: PerExample
) -> Examples:
    """The error in the space of the loss, number by number.

    As in the original, x_0 is clipped on the way to eps and to x, so an x loss has no gradient outside ±input_scale,
    and an x loss is divided by the input scale. A loss in v is taken on the unclipped output, and is ours.
    """
    if config.loss_space == "v":
        found = estimate(prediction, x_t, gamma, config.prediction, float("inf"), recompute_eps=False)
        return (velocity(clean, noise, gamma) - velocity(found.x_0, found.eps, gamma)).square()
    found = estimate(prediction, x_t, gamma, config.prediction, config.input_scale, recompute_eps=False)
    if config.loss_space == "x":
        return ((clean - found.x_0) / config.input_scale).square()
    return (noise - found.eps).square()
