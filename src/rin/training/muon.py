"""Muon, for short runs: every direction of a matrix moves alike."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its fused Adam under a private name only.

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's coefficients: five rounds bring singular values from 0.01 to 1 to between 0.7 and 1.2."""

_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for matrices, AdamW for vectors.

    A matrix moves by its Nesterov momentum made orthogonal, scaled by 0.2 sqrt(longer side): each number then moves
    about as far as under AdamW (Liu et al., 2025, equation 4), so that both share a learning rate.

    Args:
        params: groups of weights; those with `adapt` True are matrices, see `rin.training.optim.parameter_groups`.
        lr: learning rate.
        betas: decay of AdamW's two moments; the first is also Muon's momentum.
        eps: added to the root of AdamW's second moment.
        weight_decay: decay of groups that set none of their own.
    """

    found_inf: Tensor | None = None
    """As PyTorch's own optimisers have it: 1 leaves weights, moments and the count of updates as they are."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True, "step": 0}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every weight that has a gradient."""
        assert closure is None, "Muon evaluates no closure"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            group["step"] = group["step"] + (1 if self.found_inf is None else 1 - self.found_inf)
            if group["adapt"]:
                for shape in dict.fromkeys(weight.shape for weight in weights):
                    self._turn([weight for weight in weights if weight.shape == shape], group)
            else:
                self._adam(weights, group)

    def _turn(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Muon's update of some matrices of one shape, all at once."""
        gradients = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
        made: Tensor | float = 1.0
        if self.found_inf is not None:
            made = 1 - self.found_inf
            gradients = torch.where(made > 0, gradients, 0)
        held, beta = self._moments(matrices, "momentum"), group["betas"][0]
        momentum = torch.stack(held)
        momentum += (1 - beta) * made * (gradients - momentum)
        torch._foreach_copy_(held, list(momentum.unbind()))
        moves = orthogonal(torch.lerp(gradients, momentum, beta)) * (0.2 * max(matrices[0].shape) ** 0.5)
        moves += group["weight_decay"] * torch.stack(matrices)
        torch._foreach_sub_(matrices, list((group["lr"] * made * moves).unbind()))

    def _adam(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        first, second = self._moments(weights, "exp_avg"), self._moments(weights, "exp_avg_sq")
        steps = [torch.as_tensor(group["step"], dtype=torch.float32, device=weights[0].device)] * len(weights)
        beta_1, beta_2 = group["betas"]
        torch._fused_adamw_(
            weights, gradients, first, second, [], steps,
            lr=group["lr"], beta1=beta_1, beta2=beta_2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False, found_inf=self.found_inf,
        )  # fmt: skip

    def _moments(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def orthogonal(matrices: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """Matrices with the same singular vectors and singular values near 1: U V' of U S V', by Newton and Schulz.

    Directions smaller than a hundredth of the Frobenius norm stay behind; zeros stay zeros.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the smaller of the two products with itself
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
