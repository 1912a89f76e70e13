"""From data to interface tokens and back: all that differs between images, video and sets of vectors.

Tokenize: patches through a linear layer, LayerNorm, learned positions. Read out: LayerNorm, linear, unfold.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.shapes import Examples, Interface
from rin.nn.blocks import NORM_EPS
from rin.nn.linear import Linear

Patches = Float[Tensor, "b n p"]
"""Flattened patches; within one, channels run fastest, as in the original."""


class Tokenizer(nn.Module):
    """Patches to interface tokens and back; subclasses say how to cut and to join.

    Args:
        num_slots: places of tokens, each with a learned position; those of context frames follow the others.
        patch_values: numbers in one patch.
        interface_dim: width of a token.
    """

    def __init__(self, num_slots: int, patch_values: int, interface_dim: int) -> None:
        super().__init__()
        self.patch = Linear(patch_values, interface_dim)
        self.norm = nn.LayerNorm(interface_dim, eps=NORM_EPS)
        self.positions = nn.Parameter(torch.empty(num_slots, interface_dim))
        self.read_out_norm = nn.LayerNorm(interface_dim, eps=NORM_EPS)
        self.read_out = Linear(interface_dim, patch_values)

    def tokenize(self, x: Examples, first_slot: int = 0) -> Interface:
        """The interface tokens of x, with the positions from `first_slot` on."""
        patches = self.cut(x)
        embedded = self.patch(patches).to(self.norm.weight.dtype)  # autocast on a CPU would normalise in bfloat16
        return self.norm(embedded) + self.positions[first_slot : first_slot + patches.shape[1]]

    def detokenize(self, interface: Interface, num_tokens: int, shape: Sequence[int]) -> Examples:
        """The data, each example of `shape`, that the first `num_tokens` tokens stand for; the rest are of context."""
        return self.join(self.read_out(self.read_out_norm(interface[:, :num_tokens])), shape)

    def patch_fans(self) -> tuple[int, int]:
        """Fan in and fan out of the patch layer's initial distribution: those of a convolution."""
        values = self.patch.in_features
        return values, values // self.channels * self.patch.out_features

    @property
    def channels(self) -> int:
        """Channels of the data."""
        raise NotImplementedError

    def cut(self, x: Examples) -> Patches:
        """Data to patches."""
        raise NotImplementedError

    def join(self, patches: Patches, shape: Sequence[int]) -> Examples:
        """Patches to data, each example of `shape`: the inverse of `cut`."""
        raise NotImplementedError


class SetTokenizer(Tokenizer):
    """A plain set of vectors (b n c): each is a token."""

    def __init__(self, shape: Sequence[int], interface_dim: int) -> None:
        num_tokens, self._channels = shape
        super().__init__(num_tokens, self._channels, interface_dim)

    @property
    def channels(self) -> int:
        """Width of a vector."""
        return self._channels

    def cut(self, x: Float[Tensor, "b n c"]) -> Patches:
        """The vectors as they are."""
        return x

    def join(self, patches: Patches, shape: Sequence[int]) -> Float[Tensor, "b n c"]:  # noqa: ARG002
        """The vectors as they are."""
        return patches


class ImageTokenizer(Tokenizer):
    """Images (b c h w) of any height, width and number of channels, in square patches."""

    def __init__(self, shape: Sequence[int], patch_size: int, interface_dim: int) -> None:
        self._channels, height, width = shape
        self.patch_size = patch_size
        num_tokens = height // patch_size * (width // patch_size)
        super().__init__(num_tokens, patch_size**2 * self._channels, interface_dim)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self._channels

    def cut(self, x: Float[Tensor, "b c h w"]) -> Patches:
        """Images to patches, row by row."""
        return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=self.patch_size, q=self.patch_size)

    def join(self, patches: Patches, shape: Sequence[int]) -> Float[Tensor, "b c h w"]:
        """Patches to images."""
        p = self.patch_size
        return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=shape[1] // p, p=p, q=p)


class VideoTokenizer(Tokenizer):
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
        self._channels, num_frames, height, width = shape
        self.patch_size, self.temporal_patch_size = patch_size, temporal_patch_size
        slots = math.ceil(num_frames / temporal_patch_size) + math.ceil(num_context_frames / temporal_patch_size)
        tokens_a_slot = height // patch_size * (width // patch_size)
        patch_values = temporal_patch_size * patch_size**2 * self._channels
        super().__init__(slots * tokens_a_slot, patch_values, interface_dim)

    @property
    def channels(self) -> int:
        """Channels of the clips."""
        return self._channels

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
