"""From data to interface tokens and back: all that differs between images, video and sets of vectors.

Tokenize: patches through a linear layer, LayerNorm, learned positions. Read out: LayerNorm, linear, join.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.errors import RinError
from rin.core.shapes import Examples, Interface
from rin.nn.blocks import NORM_EPS
from rin.nn.linear import Linear

Patches = Float[Tensor, "b n p"]
"""Flattened patches; within one, channels run fastest, as in the original."""


class Tokenizer(nn.Module):
    """Data to interface tokens and back: all that a RIN knows of what it works on. Subclass it for data of your own."""

    def tokenize(self, x: Examples, context: Examples | None = None) -> Interface:
        """The interface tokens of noisy data x (b ...), and behind them those of clean context, if there is any.

        Raises:
            RinError: x or context are not what the tokenizer is for.
        """
        raise NotImplementedError

    def detokenize(self, interface: Interface, shape: Sequence[int]) -> Examples:
        """The data (b ...), each example of `shape`, that x's tokens stand for; those of context are left out."""
        raise NotImplementedError


class PatchTokenizer(Tokenizer):
    """Patches through a linear layer, LayerNorm and learned positions; subclasses say how to cut and to join.

    Args:
        shape: of one example.
        num_slots: places of tokens, each with a learned position; those of context frames follow the others.
        patch_values: numbers in one patch.
        interface_dim: width of a token.
        has_positions: whether there are positions.
    """

    def __init__(
        self, shape: Sequence[int], num_slots: int, patch_values: int, interface_dim: int, has_positions: bool = True
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.patch = Linear(patch_values, interface_dim)
        self.norm = nn.LayerNorm(interface_dim, eps=NORM_EPS)
        self.positions = nn.Parameter(torch.empty(num_slots, interface_dim)) if has_positions else None
        self.read_out_norm = nn.LayerNorm(interface_dim, eps=NORM_EPS)
        self.read_out = Linear(interface_dim, patch_values)

    def tokenize(self, x: Examples, context: Examples | None = None) -> Interface:
        """See `Tokenizer`."""
        self.check(x, context)
        tokens = self._embed(x, 0)
        return tokens if context is None else self.with_context(tokens, context)

    def with_context(self, tokens: Interface, context: Examples) -> Float[Tensor, "b all d"]:
        """The tokens of x, and behind them those of context, whose positions follow theirs."""
        return torch.cat([tokens, self._embed(context, first_slot=tokens.shape[1])], dim=1)

    def detokenize(self, interface: Interface, shape: Sequence[int]) -> Examples:
        """See `Tokenizer`."""
        return self.join(self.read_out(self.read_out_norm(interface[:, : self.num_tokens(shape)])), shape)

    def _embed(self, x: Examples, first_slot: int) -> Interface:
        patches = self.cut(x)
        embedded = self.patch(patches).to(self.norm.weight.dtype)  # autocast on a CPU would normalise in bfloat16
        tokens = self.norm(embedded)
        return tokens if self.positions is None else tokens + self.positions[first_slot : first_slot + patches.shape[1]]

    def check(self, x: Examples, context: Examples | None) -> None:
        """Refuses data of another shape.

        Raises:
            RinError: x is of another, or there is context.
        """
        if x.shape[1:] != self.shape:
            raise RinError(f"examples of shape {tuple(x.shape[1:])}: this network was made for {self.shape}")
        if context is not None:
            raise RinError("context frames were given: this network was made for none")

    @property
    def channels(self) -> int:
        """Channels of the data."""
        return self.shape[0]

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Tokens of data of which each example has `shape`."""
        raise NotImplementedError

    def cut(self, x: Examples) -> Patches:
        """Data to patches."""
        raise NotImplementedError

    def join(self, patches: Patches, shape: Sequence[int]) -> Examples:
        """Patches to data, each example of `shape`: the inverse of `cut`."""
        raise NotImplementedError


class SetTokenizer(PatchTokenizer):
    """A plain set of vectors (b n c): each is a token. Without positions their order means nothing."""

    def __init__(self, shape: Sequence[int], interface_dim: int, has_positions: bool = True) -> None:
        num_tokens, width = shape
        super().__init__(shape, num_tokens, width, interface_dim, has_positions)

    @property
    def channels(self) -> int:
        """Width of a vector."""
        return self.shape[1]

    def num_tokens(self, shape: Sequence[int]) -> int:
        """One a vector."""
        return shape[0]

    def cut(self, x: Float[Tensor, "b n c"]) -> Patches:
        """The vectors as they are."""
        return x

    def join(self, patches: Patches, shape: Sequence[int]) -> Float[Tensor, "b n c"]:  # noqa: ARG002
        """The vectors as they are."""
        return patches


class ConditionInPlace(nn.Module):
    """A clean condition picture (b c h w), added to the tokens of the noisy image where it belongs. Ours.

    Each token gets the part of the picture that lies where its patch does: from its first layer on, a network knows
    what it draws from to the last pixel. A picture whose sides the grid of patches does not divide is enlarged first,
    each pixel to a box of pixels, by the least factor that makes them divisible.

    Args:
        shape: of a picture (c h w).
        grid: rows and columns of the image's patches.
        patch_size: height and width of a token's part, in pixels of the enlarged picture.
        interface_dim: width of a token.
    """

    def __init__(
        self, shape: Sequence[int], grid: tuple[int, int], patch_size: tuple[int, int], interface_dim: int
    ) -> None:
        super().__init__()
        self.shape, self.patch_size = tuple(shape), patch_size
        self.box = [count * part // side for count, part, side in zip(grid, patch_size, self.shape[1:], strict=True)]
        self.patch = Linear(shape[0] * math.prod(patch_size), interface_dim)
        self.norm = nn.LayerNorm(interface_dim, eps=NORM_EPS)

    def forward(self, picture: Float[Tensor, "b c h w"]) -> Interface:
        """What is added to each token."""
        enlarged = repeat(picture, "b c h w -> b c (h p) (w q)", p=self.box[0], q=self.box[1])
        return self.norm(self.patch(image_patches(enlarged, self.patch_size)).to(self.norm.weight.dtype))


class ConditionPatches(nn.Module):
    """A clean condition picture (b c h w) as interface tokens: patches, positions and a marker of their own.

    The marker, one vector for all of its tokens, tells them from the noisy ones. What is in them reaches the noisy ones
    through the latents alone. Models were trained so before there was `ConditionInPlace`.

    Args:
        shape: of a picture (c h w).
        patch_size: height and width of a patch.
        interface_dim: width of a token.
    """

    def __init__(self, shape: Sequence[int], patch_size: tuple[int, int], interface_dim: int) -> None:
        super().__init__()
        (channels, height, width), (p, q) = shape, patch_size
        self.shape, self.patch_size = tuple(shape), patch_size
        self.patch = Linear(channels * p * q, interface_dim)
        self.norm = nn.LayerNorm(interface_dim, eps=NORM_EPS)
        self.positions = nn.Parameter(torch.empty(height // p * (width // q), interface_dim))
        self.marker = nn.Parameter(torch.empty(1, interface_dim))

    def forward(self, picture: Float[Tensor, "b c h w"]) -> Interface:
        """Its tokens."""
        embedded = self.patch(image_patches(picture, self.patch_size))
        return self.norm(embedded.to(self.norm.weight.dtype)) + self.positions + self.marker


def image_patches(x: Float[Tensor, "b c h w"], patch_size: tuple[int, int]) -> Patches:
    """Images to patches, row by row."""
    p, q = patch_size
    return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=q)


def patch_fans(patch: Linear, channels: int) -> tuple[int, int]:
    """Fan in and fan out of a patch layer's initial distribution: those of a convolution."""
    values = patch.in_features
    return values, values // channels * patch.out_features


class ImageTokenizer(PatchTokenizer):
    """Images (b c h w) of any height, width and number of channels, in patches of a height and a width.

    Args:
        shape: of an image (c h w).
        patch_size: height and width of a patch.
        interface_dim: width of a token.
        condition: what embeds a condition picture, of a network that draws from one.
    """

    def __init__(
        self,
        shape: Sequence[int],
        patch_size: tuple[int, int],
        interface_dim: int,
        condition: ConditionInPlace | ConditionPatches | None = None,
    ) -> None:
        self.patch_size = patch_size
        super().__init__(shape, self.num_tokens(shape), math.prod(patch_size) * shape[0], interface_dim)
        self.condition = condition

    def check(self, x: Examples, context: Examples | None) -> None:
        """Refuses images of another shape, and condition pictures that the network was not made for.

        Raises:
            RinError: x or context are such, or a condition picture is missing.
        """
        if self.condition is None:
            return super().check(x, context)
        super().check(x, None)
        given = None if context is None else tuple(context.shape[1:])
        if given != self.condition.shape:
            what = "no condition picture was given" if given is None else f"a condition picture of shape {given}"
            raise RinError(f"{what}: this network was made for one of {self.condition.shape}")
        return None

    def with_context(self, tokens: Interface, context: Examples) -> Float[Tensor, "b all d"]:
        """The tokens of x with a condition picture in them, or behind them."""
        assert self.condition is not None  # it is checked
        embedded = self.condition(context)
        if isinstance(self.condition, ConditionInPlace):
            return tokens + embedded
        return torch.cat([tokens, embedded], dim=1)

    def num_tokens(self, shape: Sequence[int]) -> int:
        """One a patch."""
        (_, height, width), (p, q) = shape, self.patch_size
        return height // p * (width // q)

    def cut(self, x: Float[Tensor, "b c h w"]) -> Patches:
        """Images to patches, row by row."""
        return image_patches(x, self.patch_size)

    def join(self, patches: Patches, shape: Sequence[int]) -> Float[Tensor, "b c h w"]:
        """Patches to images."""
        p, q = self.patch_size
        return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=shape[1] // p, p=p, q=q)


class VideoTokenizer(PatchTokenizer):
    """Clips (b c f h w) in patches of `temporal_patch_size` frames, with clean context frames behind them.

    The frames to predict and the context are each padded with zeros at their end to a whole number of temporal
    patches, so that no patch mixes clean and noisy frames: 11 frames in patches of 2 fill 6 slots, 5 fill 3. Fewer
    frames than the network was made for, an image as a clip of one for example, fill the first slots.
    """

    def __init__(
        self,
        shape: Sequence[int],
        patch_size: int,
        temporal_patch_size: int,
        num_context_frames: int,
        interface_dim: int,
    ) -> None:
        self.patch_size, self.temporal_patch_size = patch_size, temporal_patch_size
        self.num_context_frames = num_context_frames
        channels, _, height, width = shape
        slots = self.num_tokens(shape) + self.num_tokens((channels, num_context_frames, height, width))
        super().__init__(shape, slots, temporal_patch_size * patch_size**2 * channels, interface_dim)

    def check(self, x: Examples, context: Examples | None) -> None:
        """Refuses clips and context of other shapes; an image (b c 1 h w) without context is taken, too.

        Raises:
            RinError: they are.
        """
        channels, num_frames, *sides = self.shape
        num_context = 0 if context is None else context.shape[2]
        is_image = num_frames > 1 and x.shape[1:] == (channels, 1, *sides) and not num_context
        if x.shape[1:] != self.shape and not is_image:
            raise RinError(f"examples of shape {tuple(x.shape[1:])}: this network was made for {self.shape}")
        if num_context != self.num_context_frames and not is_image:
            raise RinError(
                f"{num_context} context frames were given: this network was made for {self.num_context_frames}"
            )
        needed = (channels, self.num_context_frames, *sides)
        if context is not None and context.shape[1:] != needed:
            raise RinError(f"context of shape {tuple(context.shape[1:])}: this network was made for {needed}")

    def num_tokens(self, shape: Sequence[int]) -> int:
        """One a patch; frames at the end may be padding in part."""
        _, num_frames, height, width = shape
        slots = math.ceil(num_frames / self.temporal_patch_size)
        return slots * (height // self.patch_size) * (width // self.patch_size)

    def cut(self, x: Float[Tensor, "b c f h w"]) -> Patches:
        """Clips to patches, frame by frame and row by row."""
        padded = F.pad(x, (0, 0, 0, 0, 0, -x.shape[2] % self.temporal_patch_size))
        pattern = "b c (f r) (h p) (w q) -> b (f h w) (r p q c)"
        return rearrange(padded, pattern, r=self.temporal_patch_size, p=self.patch_size, q=self.patch_size)

    def join(self, patches: Patches, shape: Sequence[int]) -> Float[Tensor, "b c f h w"]:
        """Patches to clips, without the frames that only padded."""
        pattern = "b (f h w) (r p q c) -> b c (f r) (h p) (w q)"
        _, num_frames, height, width = shape
        p, r = self.patch_size, self.temporal_patch_size
        return rearrange(patches, pattern, h=height // p, w=width // p, r=r, p=p, q=p)[:, :, :num_frames]
