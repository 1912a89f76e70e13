"""The running average of the weights, which is what one samples from."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its multi-tensor operations under private names only.

import copy

import torch
from torch import Tensor

from rin.nn import RIN


def average_decay(update: int, decay: float, warmup: bool) -> float:
    """The decay of an update, counted from 0.

    The original's is plain: over a short run its average is still mostly the initial weights. With `warmup` it is
    min(decay, (1 + update) / (10 + update)), so that it forgets them.
    """
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


class Average:
    """average = decay * average + (1 - decay) * weights, started at the weights before the first update.

    `model` is the network with the averaged weights, in evaluation mode.
    """

    def __init__(self, model: RIN, decay: float, warmup: bool) -> None:
        self.decay, self.warmup = decay, warmup
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._source: list[Tensor] = list(model.parameters())
        self._average: list[Tensor] = list(self.model.parameters())

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Takes in the weights after an update, counted from 0."""
        share = 1 - average_decay(update, self.decay, self.warmup)
        torch._foreach_lerp_(self._average, self._source, share)
