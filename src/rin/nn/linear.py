"""Linear layers, where nearly all operations of a RIN are, through the fastest matrix product at hand.

PyTorch multiplies float32 matrices on x86 through MKL, which gives AVX-512 to Intel's processors alone; oneDNN, in
PyTorch too, looks at what a processor can do and not at its maker. On an AMD EPYC it is twice as fast
(docs/performance.md). So `Linear` takes oneDNN for large enough products there, and PyTorch's own way elsewhere.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rin.core.compute import is_autocast_on_cpu

_SMALLEST = 2**24
"""Multiply-adds below which handing a product to oneDNN costs more than it saves."""

_SMALLEST_BFLOAT16 = 2**23
"""Multiply-adds below which casting to bfloat16 costs a CPU more than the product saves."""

_LIBRARY = torch.library.Library("rin", "FRAGMENT")  # so that torch.compile sees one operator for each product
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_LIBRARY.define("linear_weights(Tensor gradient, Tensor x, Tensor weight) -> (Tensor, Tensor)")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _linear_weights(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    weights, bias = torch.ops.aten.mkldnn_linear_backward_weights(gradient.to_mkldnn(), x.to_mkldnn(), weight, True)
    return weights.to_dense(), bias.to_dense()


_LIBRARY.impl("linear", _linear, "CPU")
_LIBRARY.impl("linear_weights", _linear_weights, "CPU")
torch.library.register_fake(
    "rin::linear", lambda x, weight, _: x.new_empty(*x.shape[:-1], weight.shape[0]), lib=_LIBRARY
)
torch.library.register_fake(
    "rin::linear_weights",
    lambda gradient, _, weight: (torch.empty_like(weight), gradient.new_empty(weight.shape[0])),
    lib=_LIBRARY,
)


class _OneDNNLinear(torch.autograd.Function):
    """x W^T + b and its gradients, each one product of oneDNN's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.rin.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        for_x = torch.ops.rin.linear(gradient, weight.t(), None) if needs_x else None
        if not needs_weight:
            return for_x, None, gradient.flatten(0, -2).sum(0) if needs_bias else None
        return for_x, *torch.ops.rin.linear_weights(gradient.flatten(0, -2), x.flatten(0, -2), weight)


class Linear(nn.Linear):
    """x W^T + b, as PyTorch's own, with a bias always; see the module for what differs.

    Through oneDNN it has first derivatives only.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.has_faster = onednn_is_faster()

    float32_on_cpu = True
    """Leave a CPU's bfloat16 autocast where the product is small."""

    def forward(self, input: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """The layer's answer."""
        weight = self.weight  # once: with an adapter it is computed (see `rin.training.adapters`)
        # the size last, and only where it matters: an exported network must not depend on it
        if self.float32_on_cpu and is_autocast_on_cpu(input) and self._multiply_adds(input) < _SMALLEST_BFLOAT16:
            with torch.autocast("cpu", enabled=False):
                return F.linear(input.to(weight.dtype), weight, self.bias)
        if self.has_faster and self._takes_onednn(input):
            return _OneDNNLinear.apply(input, weight, self.bias)
        return F.linear(input, weight, self.bias)

    def _takes_onednn(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or x.dtype != torch.float32 or is_autocast_on_cpu(x):
            return False
        return self._multiply_adds(x) >= _SMALLEST

    def _multiply_adds(self, x: Tensor) -> int:
        return x.numel() * self.out_features


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this machine's processor has AVX-512 that MKL does not use."""
    backends, cpuinfo = torch.backends, Path("/proc/cpuinfo")
    if not (backends.mkldnn.is_available() and backends.mkl.is_available() and cpuinfo.exists()):
        return False
    return backends.cpu.get_cpu_capability() == "AVX512" and "GenuineIntel" not in cpuinfo.read_text()
