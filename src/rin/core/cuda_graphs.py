"""Many small kernels of a GPU, started by one call."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its multi-tensor operations, and the working memory of cuBLAS, under private names only.

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Captured:
    """A function of tensors that works in place, as one CUDA graph: all its kernels are started by one call.

    It is called once as it is, and captured for the calls that follow.

    Args:
        function: of a list of tensors and some numbers, which are floats or tensors () on the device; it returns
            nothing, waits for nothing, and whatever else it changes or reads stays where it is.
        tensors: of the first call; those of later ones have the same shapes.
        numbers: of the first call.
    """

    def __init__(
        self, function: Callable[..., None], tensors: Sequence[Tensor], numbers: Sequence[Tensor | float]
    ) -> None:
        self._tensors = [tensor.clone() for tensor in tensors]
        self._numbers = [torch.zeros((), device=tensors[0].device) for _ in numbers]
        self._set(tensors, numbers)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries take their working memory where a capture would not let them
            function(self._tensors, *self._numbers)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # cuBLAS's working memory must be the graph's own: that of before is freed when torch.compile captures graphs
        torch._C._cuda_clearCublasWorkspaces()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            function(self._tensors, *self._numbers)
        torch._C._cuda_clearCublasWorkspaces()

    def __call__(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor | float]) -> None:
        """The function once more."""
        self._set(tensors, numbers)
        self._graph.replay()

    def _set(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor | float]) -> None:
        torch._foreach_copy_(self._tensors, list(tensors))
        for place, number in zip(self._numbers, numbers, strict=True):
            place.copy_(number) if isinstance(number, Tensor) else place.fill_(number)
