"""The running average of the weights, which is what one samples from."""

import torch
from torch import Tensor, nn


def average_decay(update: int, decay: float, warmup: bool) -> float:
    """The decay of an update, counted from 0.

    The original's is plain: over a short run its average is still mostly the initial weights. With `warmup` it is
    min(decay, (1 + update) / (10 + update)), so that it forgets them.
    """
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


class Average:
    """average = decay * average + (1 - decay) * weights, started at the weights before the first update."""

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.decay, self.warmup = decay, warmup
        self._weights: dict[str, Tensor] = dict(model.named_parameters())
        self.state: dict[str, Tensor] = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Takes in the weights after an update, counted from 0."""
        share = 1 - average_decay(update, self.decay, self.warmup)
        torch._foreach_lerp_(list(self.state.values()), list(self._weights.values()), share)

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a stored average."""
        for name, value in self.state.items():
            value.copy_(state[name])
