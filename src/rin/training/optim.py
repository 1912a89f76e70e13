"""LAMB as RINs are trained with it, which weights decay, and what happens to gradients before."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its multi-tensor operations under private names only.

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.distributed import sum_over_processes
from rin.core.errors import RinError
from rin.training.config import TrainingConfig
from rin.training.muon import Muon

IGNORES_FOUND_INF = ("mps",)
"""Kinds of device whose fused kernels take `found_inf` and do not look at it: Apple's Metal."""


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
        sharded: the weights are this process's rows; norms are those of all processes' rows together.
    """

    found_inf: Tensor | None = None
    """As PyTorch's own optimisers have it: 1 leaves weights, moments and the count of updates as they are."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        sharded: bool = False,
    ) -> None:
        self.sharded = sharded
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True, "step": 0}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every weight that has a gradient."""
        assert closure is None, "LAMB evaluates no closure"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                group["step"] = group["step"] + (1 if self.found_inf is None else 1 - self.found_inf)
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        first, second = self._moments(weights, "exp_avg"), self._moments(weights, "exp_avg_sq")
        # PyTorch's fused Adam, moving zeros at a rate of 1, leaves minus Adam's direction, and both moments updated
        steps = [torch.as_tensor(group["step"], dtype=torch.float32, device=weights[0].device)] * len(weights)
        moves = torch._foreach_mul(weights, 0.0)
        beta_1, beta_2 = group["betas"]
        torch._fused_adamw_(
            moves, gradients, first, second, [], steps,
            lr=1.0, beta1=beta_1, beta2=beta_2, weight_decay=0.0, eps=group["eps"], amsgrad=False, maximize=False,
            found_inf=self.found_inf,
        )  # fmt: skip
        if group["weight_decay"]:
            torch._foreach_add_(moves, weights, alpha=-group["weight_decay"])
        made = torch.ones_like(steps[0]) if self.found_inf is None else 1 - self.found_inf
        if group["adapt"]:
            ratios = trust_ratios(weights, moves, self.sharded) * made
            torch._foreach_mul_(moves, list(ratios.unbind()))
        else:
            torch._foreach_mul_(moves, made)
        torch._foreach_add_(weights, moves, alpha=group["lr"])

    def _moments(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def trust_ratios(
    weights: Sequence[Tensor], moves: Sequence[Tensor], sharded: bool = False
) -> Float[Tensor, " tensors"]:
    """|weights| / |move| for each tensor; 1 where either is 0.

    With `sharded` the tensors are this process's rows, and one reduction makes the norms those of the whole.
    """
    norms = torch.stack(torch._foreach_norm([*weights, *moves]))
    if sharded:
        norms = sum_over_processes(norms.square()).sqrt()
    weight_norms, move_norms = norms.chunk(2)
    return torch.where((weight_norms > 0) & (move_norms > 0), weight_norms / move_norms, 1.0)


def parameter_groups(
    weights: Iterable[Tensor],
    weight_decay: float,
    factors: Sequence[float] | None = None,
    low_rank: Sequence[bool] | None = None,
) -> list[dict[str, Any]]:
    """The weights in two groups: those that decay and adapt, and biases and LayerNorms, which do neither.

    Positions, learned latents and every kernel decay, as in the original. Vectors are biases or LayerNorms.

    The matrices of adapters are a group of their own, which decays, back to the weights that they began from, and moves
    by Adam whatever the optimiser: LAMB's ratio would hold one that starts at zeros near them, and Muon's directions
    are those of a layer's whole matrix.

    Args:
        weights: those to be trained.
        weight_decay: of those that decay.
        factors: what the learning rate of each weight is multiplied by, `lr_factor` of a group: there are groups for
            each; 1 for all if None.
        low_rank: which are matrices of adapters; none if None.
    """
    weights = list(weights)
    factors = [1.0] * len(weights) if factors is None else factors
    low_rank = [False] * len(weights) if low_rank is None else low_rank
    groups: list[dict[str, Any]] = []
    for factor in dict.fromkeys(factors):
        both = [(weight, low) for weight, low, its in zip(weights, low_rank, factors, strict=True) if its == factor]
        some = [weight for weight, low in both if not low]
        groups += [
            {"params": [w for w in some if w.ndim > 1], "weight_decay": weight_decay, "adapt": True},
            {"params": [w for w in some if w.ndim <= 1], "weight_decay": 0.0, "adapt": False},
            {"params": [w for w, low in both if low], "weight_decay": weight_decay, "adapt": False},
        ]
        for group in groups[-3:]:
            group["lr_factor"] = factor
    return [group for group in groups if group["params"]]


def make_optimiser(
    config: TrainingConfig,
    weights: Iterable[Tensor],
    sharded: bool = False,
    factors: Sequence[float] | None = None,
    low_rank: Sequence[bool] | None = None,
) -> Lamb | Muon | torch.optim.AdamW:
    """The configured optimiser over a model's weights, or this process's rows of them.

    Where its `found_inf` is 1, a step leaves weights and moments as they are, on every kind of device. `factors` and
    `low_rank` are those of `parameter_groups`.

    Raises:
        RinError: Muon is to see rows alone.
    """
    weights = list(weights)
    optimiser = _optimiser(config, parameter_groups(weights, config.weight_decay, factors, low_rank), sharded)
    if any(weight.device.type in IGNORES_FOUND_INF for weight in weights):
        put_back_what_is_skipped(optimiser)
    return optimiser


def _optimiser(config: TrainingConfig, groups: list[dict[str, Any]], sharded: bool) -> Lamb | Muon | torch.optim.AdamW:
    if config.optimiser == "lamb":
        return Lamb(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, sharded=sharded)
    if config.optimiser == "muon":
        if sharded:
            raise RinError("training.optimiser muon needs whole matrices: take training.parallel ddp")
        return Muon(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def put_back_what_is_skipped(optimiser: torch.optim.Optimizer) -> None:
    """Makes an optimiser skip an update whose `found_inf` is 1 where PyTorch's fused kernels do not look at it.

    Weights and moments are copied before every step and selected after it, without waiting for the device. Gradients
    become zeros, so that the moments that a first step makes are zeros too.
    """
    before: list[tuple[Tensor, Tensor]] = []

    def keep(*_: Any) -> None:
        before.clear()
        found_inf: Tensor | None = getattr(optimiser, "found_inf", None)
        if found_inf is None:
            return
        weights = [w for group in optimiser.param_groups for w in group["params"] if w.grad is not None]
        state = [value for weight in weights for value in optimiser.state[weight].values()]
        before.extend((tensor, tensor.detach().clone()) for tensor in (*weights, *state))
        for weight in weights:
            weight.grad.copy_(torch.where(found_inf > 0, 0, weight.grad))

    @torch.no_grad()
    def put_back(*_: Any) -> None:
        for tensor, kept in before:
            tensor.copy_(torch.where(optimiser.found_inf > 0, kept, tensor))  # pyright: ignore[reportAttributeAccessIssue]

    optimiser.register_step_pre_hook(keep)
    optimiser.register_step_post_hook(put_back)


def clip(gradients: Sequence[Tensor], norm: Float[Tensor, ""], largest: float) -> None:
    """Scales gradients in place so that their norm is at most `largest`, as `torch.nn.utils.clip_grad_norm_` does.

    Args:
        gradients: this process's, or its rows of them.
        norm: the norm of all gradients together, of all processes; one that is not finite leaves none finite.
        largest: above 0.
    """
    torch._foreach_mul_(list(gradients), (largest / (norm + 1e-6)).clamp(max=1.0))


def optimiser_tensors(optimiser: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimiser's state as tensors by name: the weight's name, a slash, what it is."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, weight in weights.items()
        for key, value in optimiser.state[weight].items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, Tensor], tensors: dict[str, Tensor], step: int
) -> None:
    """Puts back what `optimiser_tensors` took, after `step` updates.

    Raises:
        KeyError: a tensor is of a weight that there is not.
        ValueError: one is no number a weight has, or has another shape.
    """
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        weight = weights[name]
        if value.shape not in ((), weight.shape) or not value.is_floating_point():
            raise ValueError(f"{key} has {tuple(value.shape)} {value.dtype}, its weight {tuple(weight.shape)}")
        optimiser.state[weight][part] = value.to(weight.device)
    for group in optimiser.param_groups:
        if "step" in group:
            group["step"] = step
