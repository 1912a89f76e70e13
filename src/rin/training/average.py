"""The running average of the weights, which is what one samples from."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its multi-tensor operations under private names only.

import copy
import functools

import torch
from torch import Tensor, nn

from rin.training.adapters import adapted_layers
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

    Of layers with adapters it averages the merged weights: what it would be if the weights themselves were trained, and
    an ordinary network's. The product of averaged A and averaged B is another.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.decay, self.warmup = decay, warmup
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._source = model

    @functools.cached_property
    def _weights(self) -> tuple[list[Tensor], list[Tensor | nn.Linear]]:
        """The averaged weights and those that they follow, or the layers with adapters whose merged weights these are.

        Not looked up before the first update, since sharding and adapters put other tensors in their place.
        """
        averaged = dict(self.model.named_parameters())
        followed = dict(self._source.named_parameters()) | adapted_layers(self._source)
        return list(averaged.values()), [followed[name] for name in averaged]

    @torch.no_grad()
    def followed(self) -> list[Tensor]:
        """The weights that it follows, or this process's rows of them, merged where there are adapters."""
        weights = (each.weight if isinstance(each, nn.Linear) else each for each in self._weights[1])
        return [local(weight.detach()) for weight in weights]

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Takes in the weights after an update, counted from 0."""
        share = 1 - average_decay(update, self.decay, self.warmup)
        torch._foreach_lerp_([local(weight) for weight in self._weights[0]], self.followed(), share)
