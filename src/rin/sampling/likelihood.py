"""Bits per dimension: how likely data are under a trained model, by its probability-flow ODE."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.compute import device_of
from rin.core.denoiser import Condition
from rin.core.errors import RinError
from rin.core.pixels import to_floats
from rin.core.progress import progress_bar
from rin.core.seeds import Chance, picture_seeds
from rin.core.shapes import Stored
from rin.diffusion.checks import check_data, whole_number
from rin.diffusion.likelihood import LEVELS_A_UNIT, Likelihood, dequantised, log_likelihood, probes_of
from rin.sampling.given import ConditionLike, conditions_of
from rin.sampling.pipeline import Pipeline, in_8_bits
from rin.sampling.requests import LabelsLike, check_conditioned, check_context, count_of

NUM_STEPS = 100
"""Of the ODE, unless told; see docs/evaluation.md."""

USUAL_BATCH = 16
"""Examples at a time: derivatives take more memory than sampling, about as much as training."""


def bits_per_dim(
    trained: Pipeline,
    x: Stored,
    labels: LabelsLike | None = None,
    *,
    condition: ConditionLike | None = None,
    context: Float[Tensor, "b c given h w"] | None = None,
    num_steps: int = NUM_STEPS,
    num_probes: int = 1,
    seed: int = 0,
    batch_size: int = USUAL_BATCH,
) -> Likelihood:
    """The negative log-likelihood of data, in bits per dimension, by the probability-flow ODE (arXiv 2011.13456).

    What is not said here, `rin.diffusion.likelihood` says: the ODE, its ends, and what it does without carried latents.

    Data of 8 bits are dequantised: each number is spread evenly over its level, and the bits are, in the mean, no fewer
    than those of the 8-bit data themselves; uniform noise has 8. Floats are taken as they are, and their bits, which
    may be below 0, are those of a density whose unit of length is that of [-1, 1]. So give 8-bit data as uint8.

    Args:
        trained: the model, as `rin.load` opens it.
        x: uint8, or floats in [-1, 1]: images (b c h w), clips without their context (b c f h w) or sets (b n c).
        labels: what they show, as of `Pipeline.sample`: the bits are those of data given their labels.
        condition: the condition pictures, of a model that draws from such: one for all, or one each.
        context: the frames that come before clips, in [-1, 1].
        num_steps: of Heun's method, 2 or more; the result tells how much half as many change.
        num_probes: draws of Hutchinson's estimate of the trace, 1 or more: it is unbiased with one.
        seed: of dequantisation and probes, from 0 to below 2**31: those of example p are functions of (seed, p).
        batch_size: examples at a time.

    Returns:
        Bits of each example, what the steps make uncertain, and how often the network was evaluated.

    Raises:
        RinError: data of another shape or outside [-1, 1], what `Pipeline.sample` refuses of labels, condition and
            context, no steps or probes, or a network without finite answers and derivatives.
    """
    kind = trained.kind
    if getattr(x, "dtype", None) != torch.uint8:
        check_data("x", x)
    if tuple(x.shape[1:]) != kind.shape or not len(x):
        raise RinError(f"x of shape {tuple(x.shape)}: this model draws {kind.noun} {kind.shape}; give a batch of them")
    asked_kind, classes = trained.asked(labels, len(x))
    check_conditioned(asked_kind, trained.diffusion.config, classes, 0.0)
    given = conditions_of(condition, kind)
    before = in_8_bits(context)
    check_context(kind, before)
    each = None if given is None or len(given) == 1 else given
    count_of(len(x), labels=classes, condition=each, context=before)
    if before is not None:
        given = to_floats(before[:, :, -kind.num_context_frames :])
    given = None if given is None else given.expand(len(x), *given.shape[1:])
    shown = asked_kind.condition(None if classes is None else torch.tensor(classes), given)
    seeds = picture_seeds(whole_number("seed", seed, least=0), 0, len(x))
    return bits_of(trained, x, shown, seeds, num_steps, num_probes, batch_size)


def bits_of(
    trained: Pipeline,
    x: Stored,
    condition: Condition,
    seeds: Int[Tensor, " b"],
    num_steps: int = NUM_STEPS,
    num_probes: int = 1,
    batch_size: int = USUAL_BATCH,
) -> Likelihood:
    """The same under a condition that is made already.

    Args:
        trained: the model.
        x: see `bits_per_dim`; checked.
        condition: of each example.
        seeds: of dequantisation and probes, one an example.
        num_steps: see `bits_per_dim`.
        num_probes: see there.
        batch_size: examples at a time.

    Raises:
        RinError: no steps or probes, or a network without finite answers and derivatives.
    """
    num_steps = whole_number("num_steps", num_steps, least=2)
    num_probes = whole_number("num_probes", num_probes, least=1)
    batch_size, where, parts = whole_number("batch_size", batch_size, least=1), device_of(trained.model), []
    with progress_bar("following the ODE", len(x)) as bar:
        for places in torch.arange(len(x)).split(batch_size):
            chance = Chance(seeds[places], 0, torch.zeros(len(places), dtype=torch.int64))
            x_0 = to_floats(x[places].cpu())
            x_0 = dequantised(x_0, chance) if x.dtype == torch.uint8 else x_0
            probes = probes_of(chance, x_0.shape, num_probes)
            shown = condition.rows(places).to(where)
            parts.append(log_likelihood(trained.diffusion, trained.model, x_0, shown, probes, num_steps))
            bar.advance(len(places))
    nats, errors = (torch.cat([part[index] for part in parts]) for index in (0, 1))
    dimensions, of_a_level = x[0].numel() * math.log(2), math.log2(LEVELS_A_UNIT) if x.dtype == torch.uint8 else 0.0
    return Likelihood(of_a_level - nats / dimensions, errors / dimensions, parts[0][2])
