"""Initial weights, drawn from the original's distributions.

| weights | distribution |
|---|---|
| query, key, value, seen as kernels (width, heads, head width) | Glorot uniform over fans of a 3-D kernel |
| attention's output, seen as (heads, head width, width) | the same |
| patch layer | Glorot uniform over a convolution's fans |
| every other linear layer | Glorot uniform |
| positions, learned latents | normal, deviation 0.02 (`RINConfig.position_deviation`), cut at two deviations |
| marker of a condition picture | the same |
| bytes of a caption and their places, ours | normal, deviation 1 |
| biases | 0 |
| mixing of neighbours, ours | normal, deviation 0.02 |
| LayerNorm | scale 1, shift 0; both 0 after the previous latents |

For a 3-D kernel (a, b, c) the fans are a * b and a * c: all but the last two axes multiply both. That makes the
kernels of attention up to six times smaller than a plain Xavier matrix; ports that miss it start elsewhere.
"""

import math

from torch import Tensor, nn

from rin.nn.attention import Attention
from rin.nn.blocks import LocalMixing
from rin.nn.embeddings import LatentSelfConditioning
from rin.nn.tokenizers import ConditionInPlace, ConditionPatches, PatchTokenizer, Tokenizer, patch_fans


def glorot_limit(fan_in: int, fan_out: int) -> float:
    """The bound of Glorot's uniform distribution; its deviation is the bound over sqrt(3)."""
    return math.sqrt(6 / (fan_in + fan_out))


def glorot_(layer: nn.Linear, fan_in: int, fan_out: int) -> None:
    """Draws a linear layer's kernel; its bias is zero."""
    limit = glorot_limit(fan_in, fan_out)
    nn.init.uniform_(layer.weight, -limit, limit)
    nn.init.zeros_(layer.bias)


def positions_(positions: Tensor, deviation: float) -> None:
    """Draws positions or learned latents."""
    bound = 2 * deviation
    nn.init.trunc_normal_(positions, std=deviation, a=-bound, b=bound)


def caption_(bytes_and_places: nn.Linear) -> None:
    """Draws the embeddings of a caption's bytes and of their places, as large as learned latents of deviation 1.

    Glorot's, of deviation 0.07, are small beside what the first block adds, and word order is not learned within
    thousands of updates (docs/experiments.md).
    """
    nn.init.normal_(bytes_and_places.weight)


def attention_(attention: Attention) -> None:
    """Draws the kernels of attention as the three-dimensional tensors that the original keeps."""
    heads = attention.num_heads
    head_dim = attention.query.out_features // heads
    for layer in (attention.query, attention.key, attention.value):
        glorot_(layer, layer.in_features * heads, layer.in_features * head_dim)
    width = attention.out.out_features
    glorot_(attention.out, heads * head_dim, heads * width)


def initialise_(model: nn.Module, position_deviation: float) -> None:
    """Draws every weight of a network but the learned latents anew, from PyTorch's own generator.

    A tokenizer that is no `PatchTokenizer` keeps its own.
    """
    kept = {
        part
        for module in model.modules()
        if isinstance(module, Tokenizer) and not isinstance(module, PatchTokenizer)
        for part in module.modules()
    }
    modules = [module for module in model.modules() if module not in kept]
    for module in modules:
        if isinstance(module, nn.Linear):
            glorot_(module, module.in_features, module.out_features)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, LocalMixing):
            nn.init.normal_(module.convolution.weight, std=0.02)
    for module in modules:  # those whose fans or starts are their own
        if isinstance(module, Attention):
            attention_(module)
        elif isinstance(module, PatchTokenizer):
            glorot_(module.patch, *patch_fans(module.patch, module.channels))
            if module.positions is not None:
                positions_(module.positions, position_deviation)
        elif isinstance(module, ConditionInPlace | ConditionPatches):
            glorot_(module.patch, *patch_fans(module.patch, module.shape[0]))
        elif isinstance(module, LatentSelfConditioning):
            nn.init.zeros_(module.norm.weight)
        if isinstance(module, ConditionPatches):
            positions_(module.positions, position_deviation)
            positions_(module.marker, position_deviation)
