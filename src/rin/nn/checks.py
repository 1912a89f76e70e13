"""What a network is given: shapes and kinds are always checked, numbers where they are at hand."""

import math

import torch
from torch import Tensor

from rin.core.compute import is_at_hand
from rin.core.denoiser import Condition
from rin.core.errors import RinError
from rin.core.shapes import Examples, Interface, Labels, LatentsBefore, PerExample
from rin.nn.config import RINConfig


def check_input(
    config: RINConfig,
    x: Examples,
    gamma: PerExample,
    condition: Condition,
    latents_prev: LatentsBefore | None,
    num_latents: int | None = None,
) -> None:
    """Refuses what the network was not made for (arguments as of `RIN.forward`).

    Raises:
        RinError: an argument is of another shape or kind; on a CPU, gamma or a label is out of range.
    """
    batch = x.shape[0]
    if not x.is_floating_point():
        raise RinError(f"examples of {_kind(x)}: give floats")
    if gamma.shape != (batch,) or not gamma.is_floating_point():
        raise RinError(f"gamma is {_kind(gamma)} {tuple(gamma.shape)}: give a float for each of {batch} examples")
    if is_at_hand(gamma) and not ((gamma >= 0) & (gamma <= 1)).all():
        raise RinError("gamma is the share of clean data in x, not t or a step: give numbers in [0, 1]")
    if num_latents is not None:
        check_num_latents(config, num_latents)
    latents = (batch, config.num_latents, config.latent_dim)
    if latents_prev is not None:
        is_fewer = latents_prev.ndim == 3 and 0 < config.num_latents_min <= latents_prev.shape[1] < config.num_latents
        if latents_prev.shape != ((batch, latents_prev.shape[1], config.latent_dim) if is_fewer else latents):
            raise RinError(f"previous latents of shape {tuple(latents_prev.shape)}: {latents} are needed")
    context = condition.context
    if context is not None and (context.shape[0] != batch or not context.is_floating_point()):
        raise RinError(f"context is {_kind(context)} {tuple(context.shape)}: give floats for each of {batch} examples")
    if condition.labels is not None:
        _check_labels(condition.labels, batch, config.num_classes)
    _check_embeddings(config, condition, batch)


def check_num_latents(config: RINConfig, num_latents: int) -> None:
    """Refuses a number of latents that a network has not learned to do with.

    Raises:
        RinError: it is out of range.
    """
    least = config.num_latents_min or config.num_latents
    if not least <= num_latents <= config.num_latents:
        if not config.num_latents_min:
            raise RinError(
                f"num_latents {num_latents}: this network has learned to work with all its {config.num_latents} alone; "
                "train with --model.num-latents-min for fewer"
            )
        raise RinError(f"num_latents {num_latents}: this network works with {least} to {config.num_latents}")


def check_interface(config: RINConfig, interface: Interface) -> None:
    """Refuses tokens of another width or number than the blocks are for, which a tokenizer of one's own may make.

    Raises:
        RinError: they are.
    """
    if interface.shape[2] != config.interface_dim:
        raise RinError(
            f"the tokenizer makes tokens of width {interface.shape[2]}: model.interface_dim is {config.interface_dim}"
        )
    needed = math.prod(config.grid) + config.num_condition_patches if config.mixing_size else interface.shape[1]
    if interface.shape[1] != needed:
        raise RinError(
            f"the tokenizer makes {interface.shape[1]} tokens, and model.mixing_size is for {config.grid[0]} rows of "
            f"{config.grid[1]} patches: take 0"
        )


def _check_labels(labels: Labels, batch: int, num_classes: int) -> None:
    if not num_classes:
        raise RinError("labels were given to a model without classes (num_classes is 0)")
    whole = (torch.int8, torch.int16, torch.int32, torch.int64)  # with a sign: -1 is a dropped label
    if labels.shape != (batch,) or labels.dtype not in whole:
        raise RinError(
            f"labels are {_kind(labels)} {tuple(labels.shape)}: give a class (int64) for each of {batch} examples"
        )
    if is_at_hand(labels) and not ((labels >= -1) & (labels < num_classes)).all():
        raise RinError(f"labels {labels.tolist()[:8]}: give classes 0 to {num_classes - 1}, or -1 for none")


def _check_embeddings(config: RINConfig, condition: Condition, batch: int) -> None:
    embeddings, mask = condition.embeddings, condition.embedding_mask
    if embeddings is None:
        if mask is not None:
            raise RinError("embedding_mask was given without embeddings: give both, or neither")
        return
    if not config.embedding_shape[0]:
        raise RinError("embeddings were given to a model without condition tokens (num_condition_tokens is 0)")
    needed = (batch, *config.embedding_shape)
    if embeddings.shape != needed or not embeddings.is_floating_point():
        raise RinError(
            f"embeddings are {_kind(embeddings)} {tuple(embeddings.shape)}: floats of shape {needed} are needed"
        )
    if mask is not None and (mask.shape != needed[:2] or mask.dtype != torch.bool):
        raise RinError(f"embedding_mask is {_kind(mask)} {tuple(mask.shape)}: truths of shape {needed[:2]} are needed")


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
