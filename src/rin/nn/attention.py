"""Multi-head attention between two sets of tokens."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.compute import is_autocast_on_cpu
from rin.nn.linear import Linear

Queries = Float[Tensor, "b heads queries dim"]
Memory = Float[Tensor, "b heads memory dim"]


class Attention(nn.Module):
    """MHA(queries, memory): softmax(Q K^T / sqrt(head width)) V, through an output layer.

    Query, key and value are layers of their own, because LAMB gives each a trust ratio of its own.

    Args:
        query_dim: width of the tokens that ask, and of the answer.
        memory_dim: width of the tokens that are asked.
        attention_dim: width of queries, keys and values, all heads together.
        num_heads: heads; divides `attention_dim`.
    """

    float32_on_cpu = True
    """Leave a CPU's bfloat16 autocast in training, whose backward pass it slows down; see `is_autocast_on_cpu`."""

    def __init__(self, query_dim: int, memory_dim: int, attention_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(query_dim, attention_dim)
        self.key = Linear(memory_dim, attention_dim)
        self.value = Linear(memory_dim, attention_dim)
        self.out = Linear(attention_dim, query_dim)

    def forward(
        self, queries: Float[Tensor, "b queries query_dim"], memory: Float[Tensor, "b memory memory_dim"]
    ) -> Float[Tensor, "b queries query_dim"]:
        """Attends from `queries` to `memory`."""
        q, k, v = (self._by_head(tokens) for tokens in (self.query(queries), self.key(memory), self.value(memory)))
        return self.out(rearrange(self.attend(q, k, v), "b heads n dim -> b n (heads dim)"))

    def weights(
        self, queries: Float[Tensor, "b queries query_dim"], memory: Float[Tensor, "b memory memory_dim"]
    ) -> Float[Tensor, "b heads queries memory"]:
        """softmax(Q K^T / sqrt(head width)): what `forward` weighs the values by; to look at, it computes them anew."""
        q, k = self._by_head(self.query(queries)), self._by_head(self.key(memory))
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1, dtype=torch.float32)  # under bfloat16 too

    def _by_head(self, tokens: Float[Tensor, "b n attention_dim"]) -> Float[Tensor, "b heads n dim"]:
        return rearrange(tokens, "b n (heads dim) -> b heads n dim", heads=self.num_heads)

    def attend(self, q: Queries, k: Memory, v: Memory) -> Queries:
        """softmax(Q K^T / sqrt(head width)) V."""
        if self.training and self.float32_on_cpu and is_autocast_on_cpu(q):
            q, k, v = (tokens.float() if tokens.dtype == torch.bfloat16 else tokens for tokens in (q, k, v))
            with torch.autocast("cpu", enabled=False):
                return F.scaled_dot_product_attention(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)
