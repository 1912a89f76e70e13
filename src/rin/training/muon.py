"""Muon, for short runs: every direction of a matrix moves alike."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has its fused Adam under a private name only.

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.compute import multiplies_bfloat16
from rin.core.cuda_graphs import Captured

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's coefficients: five rounds bring singular values from 0.01 to 1 to between 0.7 and 1.2."""

_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for matrices, AdamW for everything else: vectors, and kernels of convolutions.

    A matrix moves by its Nesterov momentum made orthogonal, scaled by 0.2 sqrt(longer side): each number then moves
    about as far as under AdamW (Liu et al., 2025, equation 4), so that both share a learning rate.

    Args:
        params: groups of weights, see `rin.training.optim.parameter_groups`; Muon takes the matrices of those with
            `adapt` True.
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
        self._graphs: dict[int, tuple[tuple[int, ...], Captured]] = {}
        """Of each group by its first matrix, with what it was captured for."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every weight that has a gradient."""
        assert closure is None, "Muon evaluates no closure"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            group["step"] = group["step"] + (1 if self.found_inf is None else 1 - self.found_inf)
            if matrices := [weight for weight in weights if weight.ndim == 2 and group["adapt"]]:
                self._turn(matrices, group)
            if others := [weight for weight in weights if weight.ndim != 2 or not group["adapt"]]:
                self._adam(others, group)

    def _turn(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Muon's update of matrices."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        update = partial(_turn, matrices, self._moments(matrices, "momentum"), group["betas"][0], group["weight_decay"])
        made = 1.0 if self.found_inf is None else 1 - self.found_inf
        kind = matrices[0].device.type
        if kind == "cpu" and not made:  # only there is the answer known without waiting for the device
            return
        if kind != "cuda":
            update(gradients, group["lr"], 1.0 if kind == "cpu" else made)
            return
        # hundreds of small kernels for the shapes of a network: a GPU is done with each before the next is submitted
        key = tuple(tensor.data_ptr() for tensor in (*matrices, *self._moments(matrices, "momentum")))
        known, graph = self._graphs.get(id(matrices[0]), (None, None))
        if graph is None or known != key:
            self._graphs.pop(id(matrices[0]), None)  # its memory first
            self._graphs[id(matrices[0])] = key, Captured(update, gradients, [group["lr"], made])
        else:
            graph(gradients, [group["lr"], made])

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


def _turn(
    matrices: list[Tensor],
    momenta: list[Tensor],
    beta: float,
    weight_decay: float,
    gradients: list[Tensor],
    lr: Tensor | float,
    made: Tensor | float,
) -> None:
    """Muon's update of matrices and momenta in place; those of one shape, or of its transpose, in one product.

    Where `made` is 0, it leaves them as they are; it is 1 otherwise.
    """
    if isinstance(made, Tensor):  # a skipped update takes the momentum for its gradient, and a step of size 0
        gradients = [torch.where(made > 0, *pair) for pair in zip(gradients, momenta, strict=True)]
    torch._foreach_lerp_(momenta, gradients, 1 - beta)
    moves = [
        move.mT if move.shape[0] > move.shape[1] else move for move in torch._foreach_lerp(gradients, momenta, beta)
    ]
    if weight_decay:
        torch._foreach_mul_(matrices, 1 - lr * made * weight_decay)
    for shape in dict.fromkeys(move.shape for move in moves):
        places = [place for place, move in enumerate(moves) if move.shape == shape]
        turned = orthogonal(torch.stack([moves[place] for place in places])).mul_(lr * made * 0.2 * shape[1] ** 0.5)
        weights = [matrices[place] for place in places]
        torch._foreach_sub_(
            weights, [move if weight.shape == shape else move.mT for weight, move in zip(weights, turned, strict=True)]
        )


def orthogonal(matrices: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """Matrices with the same singular vectors and singular values near 1: U V' of U S V', by Newton and Schulz.

    Directions smaller than a hundredth of the Frobenius norm stay behind; zeros stay zeros. Where bfloat16 is faster
    the products are in it, as Jordan et al. have them: the result needs to be near orthogonal, not exact.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the smaller of the two products with itself
    norm = x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = torch.div(x, norm, out=torch.empty_like(x, dtype=torch.bfloat16 if multiplies_bfloat16(x.device) else None))
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
