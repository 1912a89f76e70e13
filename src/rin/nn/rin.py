"""The Recurrent Interface Network (Jabri, Fleet and Chen, 2023, section 3)."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from rin.core.denoiser import Condition, Denoised
from rin.core.kind import is_image, is_set
from rin.core.shapes import Examples, Latents, LatentsBefore, PerExample
from rin.nn.blocks import MLP, NORM_EPS, Block, ComputeLayer, CrossLayer, LocalMixing
from rin.nn.checks import check_input, check_interface
from rin.nn.config import RINConfig
from rin.nn.embeddings import ConditionEmbedding, LatentSelfConditioning, NoiseLevelEmbedding
from rin.nn.initialisation import caption_, initialise_, positions_
from rin.nn.tokenizers import (
    ConditionInPlace,
    ConditionPatches,
    ImageTokenizer,
    SetTokenizer,
    Tokenizer,
    VideoTokenizer,
)


def make_tokenizer(config: RINConfig) -> Tokenizer:
    """The tokenizer for the kind of data that `config.shape` tells."""
    if is_set(config.shape):
        return SetTokenizer(config.shape, config.interface_dim, config.set_positions)
    if is_image(config.shape):
        condition, d = None, config.interface_dim
        if config.condition_shape and config.condition_in_place:
            condition = ConditionInPlace(config.condition_shape, config.grid, config.condition_patch, d)
        elif config.condition_shape:
            condition = ConditionPatches(config.condition_shape, config.condition_patch, d)
        return ImageTokenizer(config.shape, (config.patch_height, config.patch_size), d, condition)
    return VideoTokenizer(
        config.shape, config.patch_size, config.temporal_patch_size, config.num_context_frames, config.interface_dim
    )


def make_block(config: RINConfig, depth: int) -> Block:
    """One block, with `depth` compute layers."""
    d, e, heads = config.interface_dim, config.latent_dim, config.num_read_write_heads
    compute = [
        ComputeLayer(e, config.num_heads, config.latent_mlp_ratio, config.dropout_rate, config.depth_drop_rate)
        for _ in range(depth)
    ]
    write = CrossLayer(d, e, heads, config.interface_mlp_ratio) if depth else None
    mixing = LocalMixing(d, config.grid, config.mixing_size) if depth and config.mixing_size else None
    return Block(CrossLayer(e, d, heads, config.latent_mlp_ratio), compute, write, mixing)


class RIN(nn.Module):
    """Recurrent Interface Network: interface tokens X, latents Z, and blocks between them that share no weights.

    Args:
        config: sizes.
        tokenizer: takes the place of the one for `config.shape`, for data of another kind.

    With `recompute_blocks` set, the backward pass computes each block's inner results anew instead of keeping them
    (activation checkpointing): less memory for more computation, with the same results.
    """

    def __init__(self, config: RINConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.recompute_blocks = False
        e = config.latent_dim
        self.tokenizer = make_tokenizer(config) if tokenizer is None else tokenizer
        self.latents = nn.Parameter(torch.empty(config.num_learned_latents, e))
        self.noise_level = NoiseLevelEmbedding(e, config.gamma_scale)
        self.condition = ConditionEmbedding(e, config.num_classes, *config.embedding_shape)
        self.self_conditioning = LatentSelfConditioning(MLP(e, config.latent_mlp_ratio), e, NORM_EPS)
        self.blocks = nn.ModuleList([make_block(config, depth) for depth in config.compute_depth])
        self.initialise()

    def initialise(self) -> None:
        """Draws every weight anew from PyTorch's own generator (see `rin.nn.initialisation`).

        Those of a tokenizer that is no `PatchTokenizer` stay as they are.
        """
        initialise_(self, self.config.position_deviation)
        positions_(self.latents, self.config.position_deviation)
        if self.config.caption_length and self.condition.token is not None:
            caption_(self.condition.token)

    def forward(
        self,
        x: Examples,
        gamma: PerExample,
        condition: Condition | None = None,
        latents_prev: LatentsBefore | None = None,
        latents_only: bool = False,
        num_latents: int | None = None,
    ) -> Denoised:
        """Denoises x_t.

        Args:
            x: noisy data (b c h w), (b c f h w) or (b n c); for a network of clips also images (b c 1 h w), which have
                no context.
            gamma: share of clean data's variance in x, in [0, 1] (b); not t.
            condition: labels, embeddings, context frames or a condition picture; None says nothing.
            latents_prev: Z of the previous step (b m e), of an elastic network of any m that it works with; None means
                zeros.
            latents_only: leave out what the latents do not need: the last write and the read-out.
            num_latents: m, of an elastic network (`RINConfig.num_latents_min`): the first learned latents, and those of
                noise level and condition; None means all.

        Raises:
            RinError: an argument is not of the shape or kind that the network was made for, or, on a CPU, gamma or a
                label is out of range; elsewhere the prediction of such a label is NaN.
        """
        condition = condition or Condition()
        check_input(self.config, x, gamma, condition, latents_prev, num_latents)
        dtype = self.latents.dtype
        context = None if condition.context is None else condition.context.to(dtype)
        interface = self.tokenizer.tokenize(x.to(dtype), context)
        check_interface(self.config, interface)
        latents = self.initial_latents(gamma, condition, latents_prev, num_latents)
        for number, block in enumerate(self.blocks, start=1):
            run = partial(checkpoint, block, use_reentrant=False) if self._recomputes() else block
            latents, interface = run(latents, interface, latents_only and number == len(self.blocks))
        if latents_only:
            return Denoised(None, latents)
        return Denoised(self.tokenizer.detokenize(interface, x.shape[1:]), latents)

    def initial_latents(
        self,
        gamma: PerExample,
        condition: Condition,
        latents_prev: LatentsBefore | None,
        num_latents: int | None = None,
    ) -> Latents:
        """Z_init = [learned latents | noise level | condition tokens], warm-started by the previous latents."""
        batch, num_learned = gamma.shape[0], self.config.num_learned_latents
        if num_latents is not None:
            num_learned = num_latents - self.config.num_condition_latents
        tokens = [self.latents[:num_learned].expand(batch, -1, -1), self.noise_level(gamma)]
        condition_tokens = self.condition(condition, batch)
        latents = torch.cat(tokens if condition_tokens is None else [*tokens, condition_tokens], dim=1)
        # no previous latents means zeros on the same path: after training it is not zero there
        if latents_prev is None:
            previous = torch.zeros_like(latents)
        else:
            previous = self._as_many(latents_prev.to(latents.dtype), num_learned)
        return latents + self.self_conditioning(previous)

    def _as_many(self, latents_prev: LatentsBefore, num_learned: int) -> Latents:
        """Carried latents, the last learned ones dropped, or further ones begun with zeros; the condition's stay."""
        given = latents_prev.shape[1] - self.config.num_condition_latents
        if given == num_learned:
            return latents_prev
        learned, of_condition = latents_prev[:, :given], latents_prev[:, given:]
        return torch.cat([F.pad(learned, (0, 0, 0, num_learned - given)), of_condition], dim=1)

    def unused_weights(self) -> list[str]:
        """The weights that no prediction depends on, and that training leaves as they are.

        They are those of the blocks after the last one that writes: their latents go to the next step alone.
        """
        after = max((n + 1 for n, depth in enumerate(self.config.compute_depth) if depth), default=0)
        return [f"blocks.{n}.{name}" for n, block in enumerate(self.blocks) if n >= after
                for name, _ in block.named_parameters()]  # fmt: skip

    def _recomputes(self) -> bool:
        return self.recompute_blocks and torch.is_grad_enabled()
