"""The loss of a batch, and the latents its examples start from."""

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.denoiser import Condition, Denoiser
from rin.core.shapes import Examples, Latents, Mask, PerExample
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.parametrisation import estimate, velocity

SelfConditioned = Mask | Int[Tensor, " k"]
"""The examples that start from estimated latents: a mask, whose estimate takes every example, or their numbers."""


def fixed_share(config: DiffusionConfig, places: range, device: torch.device) -> Int[Tensor, " k"] | None:
    """The examples that start from estimated latents by an exact share, if the configuration asks for one.

    Of the places 0 to b of a global batch int(b * rate) make up the share, as in the original, which takes the first.
    Here they are spread evenly, so that parts of a batch have as many at every step, and no shape ever changes; the
    data's order, a permutation, decides which examples they are.

    Args:
        config: the rate, and which way.
        places: the examples' places in the global batch.
        device: where the numbers are to be.
    """
    if config.self_cond_by == "mask":
        return None
    rate = config.self_cond_rate
    share = [number for number, place in enumerate(places) if int((place + 1) * rate) > int(place * rate)]
    return torch.tensor(share, dtype=torch.int64).to(device, non_blocking=True)


@torch.no_grad()
def estimate_latents(
    model: Denoiser, x: Examples, gamma: PerExample, condition: Condition | None, self_cond: SelfConditioned
) -> Latents | None:
    """Z' from a first pass on the same x_t, zero for the examples that do without (section 3.2).

    None if all do, or if the network has no latents.
    """
    if self_cond.dtype == torch.bool:
        latents = _first_pass(model, x, gamma, condition)
        return None if latents is None else latents * self_cond[:, None, None]
    if len(self_cond) == 0:
        return None
    of_some = None if condition is None else condition.rows(self_cond)
    latents = _first_pass(model, x[self_cond], gamma[self_cond], of_some)
    if latents is None:
        return None
    return latents.new_zeros(x.shape[0], *latents.shape[1:]).index_copy(0, self_cond, latents)


def _first_pass(model: Denoiser, x: Examples, gamma: PerExample, condition: Condition | None) -> Latents | None:
    latents = model(x, gamma, condition, latents_only=True).latents
    if not torch.compiler.is_compiling():
        # before PyTorch 2.13, autocast keeps the weights that were cast here without a graph for the pass to come,
        # which then leaves nearly all of them without a gradient (PyTorch's issue 158232)
        torch.clear_autocast_cache()
    return latents


def squared_error(
    config: DiffusionConfig, prediction: Examples, clean: Examples, noise: Examples, x_t: Examples, gamma: PerExample
) -> Examples:
    """The error in the space of the loss, number by number.

    As in the original, x_0 is clipped on the way to eps and to x, so an x loss has no gradient outside ±input_scale,
    and an x loss is divided by the input scale. A loss in v is taken on the unclipped output, and is ours.
    """
    if config.loss_space == "v":
        estimated = estimate(prediction, x_t, gamma, config.prediction, float("inf"), recompute_eps=False)
        return (velocity(clean, noise, gamma) - velocity(estimated.x_0, estimated.eps, gamma)).square()
    estimated = estimate(prediction, x_t, gamma, config.prediction, config.input_scale, recompute_eps=False)
    if config.loss_space == "x":
        return ((clean - estimated.x_0) / config.input_scale).square()
    return (noise - estimated.eps).square()
