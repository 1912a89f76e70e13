"""The block of a RIN (paper section 3.1): read, compute, write.

Every layer is pre-norm on the side that asks; in read and write, keys and values are not normalised.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.compute import is_autocast_on_cpu
from rin.core.shapes import Interface, Latents
from rin.nn.attention import Attention
from rin.nn.linear import Linear

NORM_EPS = 1e-6


class MLP(nn.Module):
    """tokens + W_2 dropout(GELU(W_1 LN(tokens))), the exact GELU.

    Dropout sits between the GELU and the second layer (the original's place), and depth is dropped with the branch.
    """

    def __init__(self, dim: int, ratio: int, dropout_rate: float = 0.0, depth_drop_rate: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.up = Linear(dim, dim * ratio)
        self.down = Linear(dim * ratio, dim)
        self.dropout_rate = dropout_rate
        self.stochastic_depth = StochasticDepth(depth_drop_rate)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The tokens with the branch's answer added."""
        hidden = F.dropout(F.gelu(self.up(self.norm(tokens))), self.dropout_rate, self.training)
        return tokens + self.stochastic_depth(self.down(hidden))


class StochasticDepth(nn.Module):
    """Drops a residual branch for whole examples in training, and scales the rest up (Huang et al., 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The branch, zero where it is dropped."""
        if self.rate == 0 or not self.training:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.rate
        return branch * (kept / (1 - self.rate)).to(branch.dtype)


class CrossLayer(nn.Module):
    """Read or write: X += MHA(LN(X), Y), X += MLP(X), for X the side that asks.

    An MLP ratio of 0 leaves the MLP out.
    """

    def __init__(self, dim: int, memory_dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = Attention(dim, memory_dim, min(dim, memory_dim), num_heads)
        self.mlp = MLP(dim, mlp_ratio) if mlp_ratio else nn.Identity()

    def forward(
        self, tokens: Float[Tensor, "b n d"], memory: Float[Tensor, "b memory memory_dim"]
    ) -> Float[Tensor, "b n d"]:
        """The tokens after attention to `memory`."""
        return self.mlp(tokens + self.attention(self.norm(tokens), memory))


class ComputeLayer(nn.Module):
    """Compute: Z += MHA(LN(Z), LN(Z)), Z += MLP(Z), with dropout and stochastic depth."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, dropout_rate: float, depth_drop_rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = Attention(dim, dim, dim, num_heads)
        self.stochastic_depth = StochasticDepth(depth_drop_rate)
        self.mlp = MLP(dim, mlp_ratio, dropout_rate, depth_drop_rate)

    def forward(self, latents: Latents) -> Latents:
        """The latents after one layer among themselves."""
        normed = self.norm(latents)
        return self.mlp(latents + self.stochastic_depth(self.attention(normed, normed)))


class LocalMixing(nn.Module):
    """X += DW(LN(X)): a depthwise convolution over the grid of an image's tokens, padded with zeros. Ours.

    In the paper's network tokens meet in the latents alone, which takes long to teach a patch to continue the next.
    Tokens behind those of the image, a condition picture's, stay as they are.
    """

    float32_on_cpu = True
    """Leave a CPU's bfloat16 autocast, see `is_autocast_on_cpu`."""

    def __init__(self, dim: int, grid: tuple[int, int], size: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.convolution = nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False)

    def forward(self, interface: Interface) -> Interface:
        """The tokens, each with what it took from its neighbours."""
        on_cpu = self.float32_on_cpu and is_autocast_on_cpu(interface)
        with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
            image = interface[:, : self.grid[0] * self.grid[1]]
            grid = self.norm(image).unflatten(1, self.grid).movedim(3, 1)
            mixed = image + self.convolution(grid).flatten(2).mT
            others = interface[:, mixed.shape[1] :]
            return torch.cat([mixed, others], dim=1) if others.shape[1] else mixed


class Block(nn.Module):
    """Latents read from the interface, compute, and write back to it; before, the tokens may mix with their neighbours.

    A block of compute depth 0 only reads (the original's read-only tail). At the end of a network such a block shapes
    only the latents carried to the next step, through which no gradient flows: it keeps its initial weights.
    """

    def __init__(
        self,
        read: CrossLayer,
        compute: list[ComputeLayer],
        write: CrossLayer | None,
        mixing: LocalMixing | None = None,
    ) -> None:
        super().__init__()
        self.read = read
        self.compute = nn.ModuleList(compute)
        self.mixing = mixing
        self.write = write

    def forward(self, latents: Latents, interface: Interface, latents_only: bool = False) -> tuple[Latents, Interface]:
        """The next latents and interface; the interface as it came if it is not written or not asked for."""
        latents = self.read(latents, interface)
        for layer in self.compute:
            latents = layer(latents)
        if self.write is None or latents_only:
            return latents, interface
        if self.mixing is not None:
            interface = self.mixing(interface)
        return latents, self.write(interface, latents)
