"""The running average of the weights, which is what one samples from."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its multi-tensor operations under private names only.

import copy
import functools

import torch
from torch import Tensor, nn

from rin.training.sharding import local


def average_decay(update: int, decay: float, warmup: bool) -> float:
    """The decay of an update, counted from 0.

    The original's is plain: over a short run its average is still mostly the initial weights. With `warmup` it is
    min(decay, (1 + update) / (10 + update)), so that it forgets them.
    """
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


class Average:
    """average = decay * average + (1 - decay) * weights, started at the weights before the first update.

    `model` is the network with the averaged weights, in evaluation mode. Where weights are sharded, those of both
    networks are, and each process averages its own rows.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.decay, self.warmup = decay, warmup
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._source = model

    @functools.cached_property
    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """The averaged weights and those that they follow.

        Not looked up before the first update, since sharding puts other tensors in their place.
        """
        return list(self.model.parameters()), list(self._source.parameters())

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Takes in the weights after an update, counted from 0."""
        share = 1 - average_decay(update, self.decay, self.warmup)
        averaged, followed = self._weights
        torch._foreach_lerp_([local(weight) for weight in averaged], [local(weight) for weight in followed], share)
