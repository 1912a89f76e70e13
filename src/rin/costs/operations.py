"""What a network costs: parameters and operations, counted on the meta device, where nothing is computed.

Operations are those of matrix products and attention, two a multiply-add; what attention computes anew within its own
backward pass is not counted.
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rin.core.denoiser import Condition
from rin.diffusion import DiffusionConfig
from rin.diffusion.loss import fixed_share
from rin.nn import RIN, RINConfig
from rin.nn.size import num_tokens


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The size and the price of a network."""

    parameters: int
    """Trained numbers."""

    operations: int
    """Operations of one forward pass over one example."""

    tokens: int
    """Interface tokens, those of context frames or a condition picture among them."""

    latents: int
    """Latents, those of noise level and condition among them."""


def counting() -> FlopCounterMode:
    """Counts the operations of what runs within it.

    PyTorch counts the gradient of a depthwise convolution's kernel as if every channel met every other.
    """
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward})


def _convolution_backward(
    gradient: Sequence[int], _: Sequence[int], weight: Sequence[int], *others: Any, **__: Any
) -> int:
    """Each gradient that is wanted costs what the forward pass did: a multiply-add a number of the kernel's row."""
    return sum(others[7][:2]) * 2 * math.prod(gradient) * math.prod(weight[1:])


@functools.cache
def cost(config: RINConfig, num_latents: int | None = None) -> Cost:
    """Counts a network without making it, at work with some of its latents if it is elastic; with all if None."""
    with torch.device("meta"):
        model = RIN(config).eval()
        x, gamma, condition = example_inputs(config, 1)
        with counting() as counter, torch.no_grad():
            model(x, gamma, condition, num_latents=num_latents)
    return Cost(
        parameters=sum(weight.numel() for weight in model.parameters()),
        operations=counter.get_total_flops(),
        tokens=num_tokens(config),
        latents=config.num_latents if num_latents is None else num_latents,
    )


def update_operations(
    config: RINConfig,
    diffusion: DiffusionConfig,
    batch_size: int,
    recompute_blocks: bool = False,
    all_latents_every: int = 0,
) -> int:
    """Operations of one update: the loss of a batch and its gradient; of an elastic network in the mean.

    That is about three forward passes an example, a fourth for those whose latents are estimated, and nearly a fifth
    if blocks are computed anew in the backward pass. The optimiser's, the average's and the losses on held-out
    examples are not in it.

    Args:
        config: the network.
        diffusion: says how many examples of a batch start from estimated latents. A mask's estimate takes them all.
        batch_size: examples, over all processes and accumulation steps.
        recompute_blocks: blocks are computed anew in the backward pass.
        all_latents_every: how often an update of an elastic network works with all its latents; 0 for never.
    """
    with torch.device("meta"):
        model = RIN(config).train()
        model.recompute_blocks = recompute_blocks
        counted = [_passes(model, num_latents) for num_latents in config.latent_counts]
    of_each = [batch_size * main + num_estimated(diffusion, batch_size) * estimate for main, estimate in counted]
    drawn = sum(of_each) // len(of_each)
    if not all_latents_every:
        return drawn
    return (max(of_each) + (all_latents_every - 1) * drawn) // all_latents_every


def _passes(model: RIN, num_latents: int) -> tuple[int, int]:
    """Operations of the pass that is learned from, its gradient counted, and of the first, which estimates latents."""
    x, gamma, condition = example_inputs(model.config, 1)
    latents = torch.empty(1, num_latents, model.config.latent_dim)
    with counting() as main:
        prediction = model(x, gamma, condition, latents, num_latents=num_latents).prediction
        assert prediction is not None
        prediction.sum().backward()
    with counting() as estimate, torch.no_grad():
        model(x, gamma, condition, latents_only=True, num_latents=num_latents)
    return main.get_total_flops(), estimate.get_total_flops()


def num_estimated(diffusion: DiffusionConfig, batch_size: int) -> int:
    """How many examples of a batch the first pass, which estimates their latents, computes."""
    if not diffusion.self_cond_rate:
        return 0
    share = fixed_share(diffusion, range(batch_size), torch.device("cpu"))
    return batch_size if share is None else len(share)


def example_inputs(config: RINConfig, batch: int) -> tuple[Tensor, Tensor, Condition]:
    """Noisy data, gamma and a full condition for a network, of no matter what numbers, on the default device."""
    condition = Condition(
        labels=torch.zeros(batch, dtype=torch.int64) if config.num_classes else None,
        embeddings=torch.zeros(batch, *config.embedding_shape) if config.embedding_shape[0] else None,
        context=torch.zeros(batch, *config.kind.context_shape) if config.kind.context_shape else None,
    )
    return torch.zeros(batch, *config.shape), torch.zeros(batch), condition


_PEAKS = {
    ("V100", "PCIE"): 112e12, ("V100",): 125e12, ("T4",): 65e12,
    ("A100",): 312e12, ("A10",): 125e12, ("RTX", "A6000"): 154.8e12, ("RTX", "3090"): 71e12,
    ("RTX", "6000", "ADA"): 364.2e12, ("RTX", "4090"): 165.2e12, ("L4",): 121e12, ("L40S",): 362e12,
    ("H100", "PCIE"): 756e12, ("H100", "NVL"): 835.5e12, ("H100",): 989.4e12,
    ("H200", "NVL"): 835.5e12, ("H200",): 989.4e12,
    ("B200",): 2250e12, ("GB200",): 2500e12, ("RTX", "5090"): 209.5e12,
}  # fmt: skip
"""Words of a device's name -> operations a second, the first that fits.

NVIDIA's data sheets and architecture papers: matrix products of bfloat16 summed in float32, without sparsity (some
sheets give twice that, with); of float16 for V100 and T4, which have no bfloat16.
"""

ASSUMED_SHARE_OF_PEAK = 0.3
"""What training is assumed to make of a GPU's peak where nothing has been measured; a run's TensorBoard has its own."""

_OTHERS = {"MIG", "TI", "SUPER", "D", "LAPTOP", "MAXQ"}
"""Words that make another device of the same name: slower, faster, or a part of it."""


def peak_operations(device_name: str) -> float | None:
    """The dense bfloat16 peak of a GPU in operations a second; None for one that is not known.

    Args:
        device_name: as `torch.cuda.get_device_name` tells it.
    """
    words = set(re.split(r"[^A-Z0-9]+", device_name.upper().replace("MAX-Q", "MAXQ")))
    if words & _OTHERS:
        return None
    return next((peak for name, peak in _PEAKS.items() if words.issuperset(name)), None)


def gpu_hours(operations: int, device_name: str = "NVIDIA H100 80GB HBM3") -> float:
    """Hours that a GPU takes for so many operations at `ASSUMED_SHARE_OF_PEAK` of its peak, which must be known."""
    peak = peak_operations(device_name)
    assert peak is not None, device_name
    return operations / (peak * ASSUMED_SHARE_OF_PEAK) / 3600
