"""How large a network is, by its configuration alone: nothing is built, so that it may be of any size."""

import math

from rin.core.errors import RinError
from rin.core.kind import is_image, is_set
from rin.core.memory import memory_here
from rin.nn.rin import RINConfig

_MOST_LAYERS = 500
"""Blocks and compute layers, all together; the paper's largest has 54, and to count thousands takes minutes."""

_MOST_NUMBERS = 2**40
"""Parameters, numbers of one example's tokens and latents, or pairs that attend; the paper's largest has 2**29."""

_BYTES = 4
"""Of a number in float32."""


def num_parameters(config: RINConfig) -> int:
    """The weights of a network, counted by the paper's formulas."""
    d, e, ratio = config.interface_dim, config.latent_dim, config.latent_mlp_ratio
    values = _patch_values(config)
    positions = num_tokens(config) * d if config.set_positions else 0
    condition = 0
    if config.condition_shape:
        marker = 0 if config.condition_in_place else d
        condition = _linear(_condition_values(config), d) + 2 * d + marker
    tokenizer = condition + _linear(values, d) + 2 * d + positions + 2 * d + _linear(d, values)
    noise_level = _linear(e // 4, e) + _linear(e, e)
    label = _linear(config.num_classes, e) if config.num_classes else 0
    embedded, width = config.embedding_shape
    token = _linear(width, e) if embedded else 0
    self_conditioning = _mlp(e, ratio) + 2 * e
    read, write = _cross(e, d, ratio), _cross(d, e, config.interface_mlp_ratio)
    compute = 2 * e + _attention(e, e) + _mlp(e, ratio)
    blocks = len(config.compute_depth) * read + sum(config.compute_depth) * compute
    mixing = (2 * d + d * config.mixing_size**2) if config.mixing_size else 0
    blocks += sum(depth > 0 for depth in config.compute_depth) * (write + mixing)
    return tokenizer + config.num_learned_latents * e + noise_level + label + token + self_conditioning + blocks


def num_values(config: RINConfig) -> int:
    """Numbers that a forward pass of one example holds at once, at the least: data, tokens, latents, condition."""
    tokens = num_tokens(config)
    data = (tokens - config.num_condition_patches) * _patch_values(config)
    if config.condition_shape:
        patches = math.prod(config.grid) if config.condition_in_place else config.num_condition_patches
        data += _condition_values(config) * patches
    interface = tokens * config.interface_dim * (1 + max(1, config.interface_mlp_ratio))
    latents = config.num_latents * config.latent_dim * (1 + config.latent_mlp_ratio)
    return 2 * data + interface + latents + config.num_classes + math.prod(config.embedding_shape)


def num_pairs(config: RINConfig) -> int:
    """Pairs of one layer's latents, or of latents and tokens, that attend to one another in a head each."""
    widest = max(config.num_heads * config.num_latents, config.num_read_write_heads * num_tokens(config))
    return config.num_latents * widest


def check_size(config: RINConfig) -> None:
    """Refuses networks of sizes that no network has.

    Raises:
        RinError: there are too many layers, parameters, tokens or latents.
    """
    layers = len(config.compute_depth) + sum(config.compute_depth)
    if layers > _MOST_LAYERS:
        raise RinError(f"model.compute_depth asks for {layers} layers: {_MOST_LAYERS} are the most")
    for count, what in (
        (num_parameters(config), "parameters"),
        (num_values(config), "numbers an example"),
        (num_pairs(config), "pairs that attend"),
    ):
        if count > _MOST_NUMBERS:
            raise RinError(
                f"a network of {count:.3g} {what}, and {_MOST_NUMBERS:.3g} are the most: take smaller sizes than "
                f"model.shape {config.shape}, num_latents {config.num_latents}, latent_dim {config.latent_dim}, "
                f"interface_dim {config.interface_dim}"
            )


def check_fits(config: RINConfig) -> None:
    """Refuses networks that this machine has not the memory to build and to run for one example.

    Raises:
        RinError: it has not, or no machine has.
    """
    check_size(config)
    memory = memory_here()
    needed = _BYTES * (num_parameters(config) + num_values(config))
    if needed > memory:
        raise RinError(
            f"a network of {num_parameters(config):.3g} parameters and {num_values(config):.3g} numbers an example "
            f"needs {needed / 2**30:.3g} GiB, and this machine has {memory / 2**30:.3g}: take a smaller one, or a "
            "larger machine"
        )


def num_tokens(config: RINConfig) -> int:
    """Places of interface tokens, those of context frames or a condition picture among them."""
    if is_set(config.shape):
        return config.shape[0]
    patches = math.prod(config.grid)
    if is_image(config.shape):
        return patches + config.num_condition_patches
    frames, each = (config.shape[1], config.num_context_frames), config.temporal_patch_size
    return patches * sum(-(-count // each) for count in frames)


def _patch_values(config: RINConfig) -> int:
    if is_set(config.shape):
        return config.shape[1]
    return config.shape[0] * config.temporal_patch_size * config.patch_height * config.patch_size


def _condition_values(config: RINConfig) -> int:
    return config.condition_shape[0] * math.prod(config.condition_patch)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _mlp(dim: int, ratio: int) -> int:
    return 2 * dim + _linear(dim, dim * ratio) + _linear(dim * ratio, dim)


def _attention(dim: int, memory_dim: int) -> int:
    width = min(dim, memory_dim)
    return _linear(dim, width) + 2 * _linear(memory_dim, width) + _linear(width, dim)


def _cross(dim: int, memory_dim: int, mlp_ratio: int) -> int:
    return 2 * dim + _attention(dim, memory_dim) + (_mlp(dim, mlp_ratio) if mlp_ratio else 0)
