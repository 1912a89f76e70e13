"""LAMB as RINs are trained with it, learning rates, and which weights decay."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rin.core.errors import RinError, unknown


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al., 2020) as the original uses it (TensorFlow Addons').

    Adam's bias-corrected direction plus decoupled weight decay, scaled for each tensor by the ratio of the weights'
    norm to the direction's: no clamp on the ratio, 1 where a norm is 0. Groups with `adapt` False take no ratio.

    Args:
        params: parameter groups, see `parameter_groups`.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decay of groups that set none of their own.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True, "step": 0}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every weight that has a gradient."""
        assert closure is None, "LAMB evaluates no closure"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                group["step"] += 1
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        beta_1, beta_2 = group["betas"]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        first, second = self._moments(weights, "exp_avg"), self._moments(weights, "exp_avg_sq")
        torch._foreach_lerp_(first, gradients, 1 - beta_1)
        torch._foreach_mul_(second, beta_2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta_2)

        roots = torch._foreach_sqrt(second)
        torch._foreach_div_(roots, math.sqrt(1 - beta_2 ** group["step"]))
        torch._foreach_add_(roots, group["eps"])
        directions = torch._foreach_div(first, roots)
        torch._foreach_div_(directions, 1 - beta_1 ** group["step"])
        if group["weight_decay"]:
            torch._foreach_add_(directions, weights, alpha=group["weight_decay"])
        if group["adapt"]:
            torch._foreach_mul_(directions, trust_ratios(weights, directions))
        torch._foreach_add_(weights, directions, alpha=-group["lr"])

    def _moments(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def trust_ratios(weights: Sequence[Tensor], directions: Sequence[Tensor]) -> list[Tensor]:
    """|weights| / |direction| for each tensor; 1 where either is 0."""
    weight_norms = torch.stack(torch._foreach_norm(weights))
    direction_norms = torch.stack(torch._foreach_norm(directions))
    ratios = torch.where((weight_norms > 0) & (direction_norms > 0), weight_norms / direction_norms, 1.0)
    return list(ratios.unbind())


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights in two groups: those that decay and adapt, and biases and LayerNorms, which do neither.

    Positions, learned latents and every kernel decay, as in the original. Vectors are biases or LayerNorms.
    """
    weights = list(model.parameters())
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay, "adapt": True},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]


def learning_rate(
    step: int, *, base: float, schedule: str, warmup_steps: int, num_steps: int, end_factor: float = 0.0
) -> float:
    """The rate of an update, counted from 0; under warm-up the first is 0.

    Args:
        step: number of the update.
        base: rate after the warm-up.
        schedule: constant, linear, cosine, or cosine@share for the first `share` of a cosine's descent.
        warmup_steps: updates of linear warm-up.
        num_steps: updates in all.
        end_factor: what linear and cosine end at, over `base`.

    Raises:
        RinError: there is no such schedule.
    """
    name, share = _parse_lr_schedule(schedule)
    if step < warmup_steps:
        return base * step / warmup_steps
    if name == "constant":
        return base
    length = (num_steps - warmup_steps) / share
    progress = min((step - warmup_steps) / length, 1.0) if length > 0 else 1.0
    left = 1 - progress if name == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return base * ((1 - end_factor) * left + end_factor)


def check_lr_schedule(schedule: str) -> None:
    """Refuses a learning-rate schedule that there is not.

    Raises:
        RinError: as said.
    """
    _parse_lr_schedule(schedule)


def _parse_lr_schedule(schedule: str) -> tuple[str, float]:
    name, _, text = schedule.partition("@")
    if name not in ("constant", "linear", "cosine") or (text and name != "cosine"):
        raise unknown("learning-rate schedule", schedule, ["constant", "linear", "cosine", "cosine@0.8"])
    try:
        share = float(text) if text else 1.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise RinError(f"learning-rate schedule {schedule!r}: write a share above 0 and up to 1, as in cosine@0.8")
    return name, share
