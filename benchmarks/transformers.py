"""Transformers to measure against: DiT on the latents of an autoencoder and JiT on pixels, in plain PyTorch.

Sizes and layers are those of the papers: Peebles and Xie 2023 (arXiv 2212.09748) and Li and He 2025 (arXiv
2511.13720). Weights start as PyTorch draws them, for products with zeros are not to be timed; `initialise` lets them
start as published, for those who train.

Both are called `network(x, t, labels)` with t in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from einops import rearrange
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Makes the norm of that width."""


def dit(
    size: int = 32,
    channels: int = 4,
    patch_size: int = 2,
    width: int = 1024,
    depth: int = 24,
    num_heads: int = 16,
    num_classes: int = 1000,
) -> nn.Module:
    """DiT-L/2 for 32x32x4, the latents of a 256x256 image: 458 M weights. DiT-XL/2 has width 1152 and depth 28.

    The autoencoder that makes latents of images, and images of latents, is neither counted nor timed.
    """
    return DiT(size, channels, patch_size, width, depth, num_heads, num_classes)


def jit(
    size: int = 256,
    patch_size: int = 16,
    width: int = 1024,
    depth: int = 24,
    num_heads: int = 16,
    bottleneck_dim: int = 128,
    num_classes: int = 1000,
    num_class_tokens: int = 32,
) -> nn.Module:
    """JiT-L/16 for 256x256 pixels: 459 M weights. JiT-B has width 768, depth 12, 12 heads; at 512 patches are of 32."""
    return JiT(size, patch_size, width, depth, num_heads, bottleneck_dim, num_classes, num_class_tokens)


def initialise(network: nn.Module) -> None:
    """Draws the weights anew as published for both: Glorot matrices, the condition's small, gates and read-out zero."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.data.flatten(1)  # a patch's convolution as the linear layer that it is
            if "modulation" in name or name.startswith("read_out"):
                nn.init.zeros_(weight)
            elif name.startswith("condition.time"):
                nn.init.normal_(weight, std=0.02)
            else:
                nn.init.xavier_uniform_(weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


class DiT(nn.Module):
    """A transformer over patches, with adaLN-Zero; twice the channels come out, the mean's and the variance's."""

    def __init__(
        self, size: int, channels: int, patch_size: int, width: int, depth: int, num_heads: int, num_classes: int
    ) -> None:
        super().__init__()
        self.side, self.patch_size = size // patch_size, patch_size
        self.patch = nn.Conv2d(channels, width, patch_size, patch_size)
        self.register_buffer("positions", sinusoids(axial_angles(self.side, width // 4)), persistent=False)
        self.condition = ConditionEmbedding(width, num_classes)
        self.layers = nn.ModuleList(
            [
                Layer(width, Attention(width, num_heads, nothing), gelu_mlp(width, 4 * width), plain_norm)
                for _ in range(depth)
            ]
        )
        self.read_out = ReadOut(width, patch_size**2 * 2 * channels, plain_norm)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Mean and variance (b 2c h w) for noisy latents or images x (b c h w), times t (b) and classes (b)."""
        told, _ = self.condition(t, labels)
        tokens = rearrange(self.patch(x), "b d h w -> b (h w) d") + self.positions
        for layer in self.layers:
            tokens = layer(tokens, told)
        return unfold(self.read_out(tokens, told), self.side, self.patch_size)


class JiT(nn.Module):
    """A plain vision transformer over large patches of pixels, which enter through a bottleneck.

    RMSNorm, also of queries and keys, SwiGLU, rotary positions beside fixed ones, adaLN-Zero, and tokens of the class
    that join at a third of the depth.
    """

    def __init__(
        self,
        size: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        bottleneck_dim: int,
        num_classes: int,
        num_class_tokens: int,
    ) -> None:
        super().__init__()
        self.side, self.patch_size = size // patch_size, patch_size
        self.patch = nn.Sequential(
            nn.Conv2d(3, bottleneck_dim, patch_size, patch_size, bias=False), nn.Conv2d(bottleneck_dim, width, 1)
        )
        self.register_buffer("positions", sinusoids(axial_angles(self.side, width // 4)), persistent=False)
        angles = axial_angles(self.side, width // num_heads // 4)
        # class tokens stand nowhere in the image: an angle of 0 leaves them as they are
        angles = torch.cat([angles.new_zeros(num_class_tokens, angles.shape[1]), angles])
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]), persistent=False)
        self.condition = ConditionEmbedding(width, num_classes)
        self.class_positions = nn.Parameter(0.02 * torch.randn(num_class_tokens, width))
        self.layers = nn.ModuleList(
            [
                Layer(width, Attention(width, num_heads, RMSNorm), SwiGLU(width, 8 * width // 3), RMSNorm)
                for _ in range(depth)
            ]
        )
        self.read_out = ReadOut(width, patch_size**2 * 3, RMSNorm)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Clean images (b 3 h w) for noisy ones x, times t (b) and classes (b)."""
        told, label = self.condition(t, labels)
        tokens = rearrange(self.patch(x), "b d h w -> b (h w) d") + self.positions
        num_class_tokens = len(self.class_positions)
        turns = self.turns[:, num_class_tokens:]
        for number, layer in enumerate(self.layers):
            if number == len(self.layers) // 3:
                tokens, turns = torch.cat([label[:, None] + self.class_positions, tokens], dim=1), self.turns
            tokens = layer(tokens, told, turns)
        return unfold(self.read_out(tokens[:, num_class_tokens:], told), self.side, self.patch_size)


class ConditionEmbedding(nn.Module):
    """Time and class in one vector; the class that is one too many stands for none."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.sinusoids = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(256, width)
        self.label = nn.Embedding(num_classes + 1, width)

    def forward(self, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of both, and the class alone (b d)."""
        label = self.label(labels)
        return self.time(self.sinusoids(t * 1000).to(label.dtype)) + label, label


class Layer(nn.Module):
    """Attention and an MLP, each shifted and scaled on its way in and gated on its way out by the condition."""

    def __init__(self, width: int, attention: nn.Module, mlp: nn.Module, norm: Norm) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = norm(width), norm(width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, tokens: Tensor, told: Tensor, turns: Tensor | None = None) -> Tensor:
        """The tokens (b n d) after the layer; `told` is the condition (b d)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(told)[:, None].chunk(6, dim=-1)
        tokens = tokens + gate * self.attention(self.attention_norm(tokens) * (1 + scale) + shift, turns)
        return tokens + mlp_gate * self.mlp(self.mlp_norm(tokens) * (1 + mlp_scale) + mlp_shift)


class Attention(nn.Module):
    """Self-attention, its queries and keys normalised a head at a time and, where turns are given, rotated."""

    def __init__(self, width: int, num_heads: int, norm: Norm) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.joined = nn.Linear(width, 3 * width)
        self.query_norm, self.key_norm = norm(width // num_heads), norm(width // num_heads)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, turns: Tensor | None) -> Tensor:
        """What the tokens (b n d) learn from one another."""
        q, k, v = rearrange(self.joined(tokens), "b n (three heads d) -> three b heads n d", three=3, d=self.head_dim)
        q, k = self.query_norm(q), self.key_norm(k)
        if turns is not None:
            q, k = rotated(q, turns), rotated(k, turns)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.out.in_features // self.num_heads


class SwiGLU(nn.Module):
    """down(silu(gate) * up), gate and up from one layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The branch's answer."""
        gate, up = self.gate_up(tokens).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the type of its input: under autocast PyTorch has no fused one for weights of another type."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Scales x to a root mean square of 1 and by the weights."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class ReadOut(nn.Module):
    """Norm, shift and scale by the condition, linear."""

    def __init__(self, width: int, patch_values: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, patch_values)

    def forward(self, tokens: Tensor, told: Tensor) -> Tensor:
        """Patches (b n p) of the tokens."""
        shift, scale = self.modulation(told)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm(tokens) * (1 + scale) + shift)


def gelu_mlp(width: int, hidden: int) -> nn.Module:
    """Two layers and the approximate GELU between them."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


def plain_norm(width: int) -> nn.Module:
    """LayerNorm without weights: the condition scales and shifts."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def nothing(_width: int) -> nn.Module:
    """No norm."""
    return nn.Identity()


def axial_angles(side: int, num_frequencies: int) -> Tensor:
    """Angles (side² 2·frequencies) of the places of a square: row times each frequency, then column."""
    frequencies = 10000.0 ** -(torch.arange(num_frequencies) / num_frequencies)
    along = torch.arange(side)[:, None] * frequencies
    rows, columns = along[:, None].expand(side, side, -1), along[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def sinusoids(angles: Tensor) -> Tensor:
    """Fixed positions: sines, then cosines."""
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def rotated(heads: Tensor, turns: Tensor) -> Tensor:
    """Each pair (first half, second half) of the heads (b heads n d) turned: cosines and sines are (2 n d/2)."""
    cosine, sine = turns.to(heads.dtype)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def unfold(patches: Tensor, side: int, patch_size: int) -> Tensor:
    """Patches (b n p) to images."""
    p = patch_size
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=side, w=side, p=p, q=p)
