"""What a network costs: parameters and operations, counted on the meta device, where nothing is computed."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from rin.core.denoiser import Condition
from rin.nn import RIN, RINConfig


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The size and the price of a network."""

    parameters: int
    """Trained numbers."""

    operations: int
    """Operations of one forward pass over one example, two a multiply-add, matrix products and attention alone."""

    tokens: int
    """Interface tokens, those of context frames among them."""

    latents: int
    """Latents, those of noise level and condition among them."""


def cost(config: RINConfig) -> Cost:
    """Counts a network without making it."""
    with torch.device("meta"):
        model = RIN(config).eval()
        condition = Condition(
            labels=torch.zeros(1, dtype=torch.int64) if config.num_classes else None,
            embeddings=torch.empty(1, config.num_condition_tokens, config.condition_dim)
            if config.num_condition_tokens
            else None,
            context=torch.empty(1, config.shape[0], config.num_context_frames, *config.shape[2:])
            if config.num_context_frames
            else None,
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, *config.shape), torch.empty(1), condition)
    return Cost(
        parameters=sum(weight.numel() for weight in model.parameters()),
        operations=counter.get_total_flops(),
        tokens=model.tokenizer.positions.shape[0],
        latents=config.num_latents,
    )
