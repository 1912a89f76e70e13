"""The Recurrent Interface Network (Jabri, Fleet and Chen, 2023, section 3)."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rin.core.denoiser import Condition, Denoised
from rin.core.errors import RinError
from rin.core.shapes import Examples, Latents, PerExample
from rin.nn.blocks import MLP, NORM_EPS, Block, ComputeLayer, CrossLayer
from rin.nn.embeddings import ConditionEmbedding, LatentSelfConditioning, NoiseLevelEmbedding
from rin.nn.initialisation import initialise_, positions_
from rin.nn.tokenizers import ImageTokenizer, SetTokenizer, Tokenizer, VideoTokenizer


@dataclass(frozen=True, kw_only=True)
class RINConfig:
    """The size of a RIN and what it works on."""

    shape: tuple[int, ...] = (3, 32, 32)
    """One example: (channels, height, width) of an image, (channels, frames, height, width) of a clip to predict,
    or (vectors, width) of a set."""

    patch_size: int = 2
    """Height and width of a patch; divides those of the image."""

    temporal_patch_size: int = 1
    """Frames of a clip in one patch."""

    num_context_frames: int = 0
    """Clean frames given before those of a clip to predict."""

    num_classes: int = 0
    """Classes of the condition; 0 for none. In training the data decides how many, unless this is 0."""

    num_condition_tokens: int = 0
    """Tokens of an embedding condition, of a text for example; 0 for none."""

    condition_dim: int = 0
    """Width of those tokens."""

    num_latents: int = 128
    """Latents m, those for the noise level and the condition among them."""

    latent_dim: int = 512
    """Width e of a latent; a multiple of 4 and of `num_heads`."""

    interface_dim: int = 256
    """Width d of an interface token."""

    compute_depth: tuple[int, ...] = (2, 2, 2)
    """Compute layers of each block; a block of depth 0 only reads."""

    num_heads: int = 16
    """Attention heads among the latents."""

    num_read_write_heads: int = 8
    """Attention heads of read and write; divides min(interface_dim, latent_dim)."""

    latent_mlp_ratio: int = 4
    """Hidden width of the latents' MLPs over their width."""

    interface_mlp_ratio: int = 2
    """Hidden width of the interface's MLPs over its width; 0 for none."""

    dropout_rate: float = 0.0
    """Dropout in the compute layers' MLPs."""

    depth_drop_rate: float = 0.0
    """Stochastic depth of the compute layers' branches."""

    position_deviation: float = 0.02
    """Deviation that positions and learned latents start with; the paper's is small beside the tokens' own 1."""

    gamma_scale: float = 1000.0
    """What gamma is multiplied by before its sinusoids."""

    def __post_init__(self) -> None:
        """Refuses sizes that make no network."""
        self._check_positive()
        if len(self.shape) not in (2, 3, 4):
            raise RinError(f"model.shape {self.shape}: give (c h w) for images, (c f h w) for video, (n c) for sets")
        for name, size in zip(("height", "width"), self.shape[-2:], strict=True):
            if len(self.shape) > 2 and size % self.patch_size:
                fits = [patch for patch in range(1, size + 1) if size % patch == 0]
                raise RinError(
                    f"model.patch_size {self.patch_size} does not divide the {name} {size}: take one of {fits}"
                )
        if len(self.shape) != 4 and (self.temporal_patch_size != 1 or self.num_context_frames):
            raise RinError(
                "model.temporal_patch_size and model.num_context_frames are for video: give a shape (c f h w)"
            )
        for name, dim, heads in (
            ("num_heads", self.latent_dim, self.num_heads),
            ("num_read_write_heads", min(self.interface_dim, self.latent_dim), self.num_read_write_heads),
        ):
            if dim % heads:
                raise RinError(f"model.{name} {heads} does not divide the attention width {dim}")
        if self.latent_dim % 4:
            raise RinError(f"model.latent_dim {self.latent_dim}: take a multiple of 4, for the noise level's sinusoids")
        if self.num_learned_latents < 1:
            raise RinError(
                f"model.num_latents {self.num_latents} leaves no latent beside the noise level and the condition: "
                f"take more than {self.num_latents - self.num_learned_latents}"
            )
        if bool(self.num_condition_tokens) != bool(self.condition_dim):
            raise RinError("model.num_condition_tokens and model.condition_dim go together: give both or neither")

    def _check_positive(self) -> None:
        whole = (
            "patch_size",
            "temporal_patch_size",
            "latent_dim",
            "interface_dim",
            "num_heads",
            "num_read_write_heads",
        )
        for name in (*whole, "latent_mlp_ratio"):
            if getattr(self, name) < 1:
                raise RinError(f"model.{name} {getattr(self, name)}: take 1 or more")
        if min(self.shape, default=0) < 1:
            raise RinError(f"model.shape {self.shape}: every size must be 1 or more")
        if not self.compute_depth or min(self.compute_depth) < 0:
            raise RinError(
                f"model.compute_depth {self.compute_depth}: give the compute layers of each block, 0 or more"
            )
        for name in (
            "num_context_frames",
            "num_classes",
            "num_condition_tokens",
            "condition_dim",
            "interface_mlp_ratio",
        ):
            if getattr(self, name) < 0:
                raise RinError(f"model.{name} {getattr(self, name)}: take 0 or more")
        if not 0 < self.position_deviation < float("inf"):
            raise RinError(f"model.position_deviation {self.position_deviation}: take a number above 0")
        for name in ("dropout_rate", "depth_drop_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise RinError(f"model.{name} {getattr(self, name)}: take a rate from 0 to below 1")

    @property
    def num_condition_latents(self) -> int:
        """Latents that hold the noise level and the condition."""
        return 1 + (self.num_classes > 0) + self.num_condition_tokens

    @property
    def num_learned_latents(self) -> int:
        """Latents with a learned start."""
        return self.num_latents - self.num_condition_latents


def make_tokenizer(config: RINConfig) -> Tokenizer:
    """The tokenizer for the kind of data that `config.shape` tells."""
    if len(config.shape) == 2:
        return SetTokenizer(config.shape, config.interface_dim)
    if len(config.shape) == 3:
        return ImageTokenizer(config.shape, config.patch_size, config.interface_dim)
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
    return Block(CrossLayer(e, d, heads, config.latent_mlp_ratio), compute, write)


class RIN(nn.Module):
    """Recurrent Interface Network: interface tokens X, latents Z, and blocks between them that share no weights.

    With `recompute_blocks` set, the backward pass computes each block's inner results anew instead of keeping them
    (activation checkpointing): less memory for more computation, with the same results.
    """

    def __init__(self, config: RINConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_blocks = False
        e = config.latent_dim
        self.tokenizer = make_tokenizer(config)
        self.latents = nn.Parameter(torch.empty(config.num_learned_latents, e))
        self.noise_level = NoiseLevelEmbedding(e, config.gamma_scale)
        self.condition = ConditionEmbedding(e, config.num_classes, config.num_condition_tokens, config.condition_dim)
        self.self_conditioning = LatentSelfConditioning(MLP(e, config.latent_mlp_ratio), e, NORM_EPS)
        self.blocks = nn.ModuleList([make_block(config, depth) for depth in config.compute_depth])
        self.initialise()

    def initialise(self) -> None:
        """Draws every weight anew from PyTorch's own generator (see `rin.nn.initialisation`)."""
        initialise_(self, self.config.position_deviation)
        positions_(self.latents, self.config.position_deviation)

    def forward(
        self,
        x: Examples,
        gamma: PerExample,
        condition: Condition | None = None,
        latents_prev: Latents | None = None,
        latents_only: bool = False,
    ) -> Denoised:
        """Denoises x_t.

        Args:
            x: noisy data (b c h w), (b c f h w) or (b n c); for a network of clips also images (b c 1 h w), which have
                no context.
            gamma: share of clean data's variance in x, in [0, 1] (b); not t.
            condition: labels, embeddings, context frames; None says nothing.
            latents_prev: Z of the previous step (b m e); None means zeros.
            latents_only: leave out what the latents do not need: the last write and the read-out.

        Raises:
            RinError: x or the condition is not of the shape that the network was made for.
        """
        self._check(x, condition, latents_prev)
        condition = condition or Condition()
        interface = self.tokenizer.tokenize(x)
        num_tokens = interface.shape[1]
        if condition.context is not None:
            interface = torch.cat([interface, self.tokenizer.tokenize(condition.context, num_tokens)], dim=1)
        latents = self.initial_latents(gamma, condition, latents_prev)
        for number, block in enumerate(self.blocks, start=1):
            run = partial(checkpoint, block, use_reentrant=False) if self._recomputes() else block
            latents, interface = run(latents, interface, latents_only and number == len(self.blocks))
        if latents_only:
            return Denoised(None, latents)
        return Denoised(self.tokenizer.detokenize(interface, num_tokens, x.shape[1:]), latents)

    def initial_latents(self, gamma: PerExample, condition: Condition, latents_prev: Latents | None) -> Latents:
        """Z_init = [learned latents | noise level | condition tokens], warm-started by the previous latents."""
        batch = gamma.shape[0]
        tokens = [self.latents.expand(batch, -1, -1), self.noise_level(gamma)]
        told = self.condition(condition, batch)
        latents = torch.cat(tokens if told is None else [*tokens, told], dim=1)
        # no previous latents means zeros on the same path: after training it is not zero there
        return latents + self.self_conditioning(torch.zeros_like(latents) if latents_prev is None else latents_prev)

    def unused_weights(self) -> list[str]:
        """The weights that no prediction depends on, and that training leaves as they are.

        They are those of the blocks after the last one that writes: their latents go to the next step alone.
        """
        after = max((n + 1 for n, depth in enumerate(self.config.compute_depth) if depth), default=0)
        return [f"blocks.{n}.{name}" for n, block in enumerate(self.blocks) if n >= after
                for name, _ in block.named_parameters()]  # fmt: skip

    def _recomputes(self) -> bool:
        return self.recompute_blocks and torch.is_grad_enabled()

    def _check(self, x: Examples, condition: Condition | None, latents_prev: Latents | None) -> None:
        shape, frames = self.config.shape, self.config.num_context_frames
        context = None if condition is None else condition.context
        given = 0 if context is None else context.shape[2]
        is_image = len(shape) == 4 and shape[1] > 1 and x.shape[1:] == (shape[0], 1, *shape[2:]) and not given
        if tuple(x.shape[1:]) != shape and not is_image:
            raise RinError(f"examples of shape {tuple(x.shape[1:])}: this network was made for {shape}")
        if given != frames and not is_image:
            raise RinError(f"{given} context frames were given: this network was made for {frames}")
        latents = (x.shape[0], self.config.num_latents, self.config.latent_dim)
        if latents_prev is not None and tuple(latents_prev.shape) != latents:
            raise RinError(f"previous latents of shape {tuple(latents_prev.shape)}: {latents} are needed")
