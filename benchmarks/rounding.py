"""Sixteen bits emulated in float32: what an operation in bfloat16 or float16 would have answered, place by place.

A kernel in 16 bits takes rounded inputs, sums in float32 and rounds what it gives; so does `Rounding`, forward and
backward, in those places of the computation that it is told. `benchmarks.precision` trains with it;

    python -m benchmarks.rounding

measures why some places cannot bear bfloat16: what its eight bits of precision leave of a noise level, of a weight's
update, of an average's and of a second moment.
"""

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from rin.diffusion.schedules import Schedule, parse_schedule
from rin.nn import RIN
from rin.nn.embeddings import LatentSelfConditioning, NoiseLevelEmbedding
from rin.presets import preset
from rin.training.held_out import TIMES

PLACES = {
    "products": "linear layers, attention and GELU: what autocast does in 16 bits",
    "noise level": "gamma times 1000, its sinusoids and their MLP",
    "stream": "LayerNorms, residual additions and the tokens between layers",
    "latents": "the latents carried from the estimate pass",
    "noising": "gamma(t) and x_t",
    "loss": "from the prediction to the error and its mean",
}
"""Where the computation of a loss can be rounded."""

_PRODUCTS = (F.linear, F.scaled_dot_product_attention, F.gelu)


class _Rounded(torch.autograd.Function):
    """Straight through: both the numbers and their gradient are rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = dtype
        return x.to(dtype).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].to(ctx.dtype).to(gradients[0].dtype), None


def rounded(x: Any, dtype: torch.dtype) -> Any:
    """Numbers as `dtype` holds them, in the type that they came in; what is no floating tensor as it is."""
    return _Rounded.apply(x, dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


@torch.no_grad()
def round_(tensors: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Rounds what is stored, in place: a weight, a moment or an average that is kept in `dtype`."""
    for tensor in tensors:
        tensor.copy_(tensor.to(dtype))


class Rounding(TorchFunctionMode):
    """While it is entered, every operation in the chosen places gives rounded numbers and rounded gradients.

    It also notes the weights that a pass without gradient multiplies first, see `cast_without_gradient`.

    Args:
        dtype: what to round to.
        places: the chosen ones of `PLACES`.
    """

    def __init__(self, dtype: torch.dtype, places: Iterable[str]) -> None:
        super().__init__()
        self.dtype, self.places = dtype, frozenset(places)
        assert self.places <= PLACES.keys(), self.places
        self._inside: list[nn.Module] = []
        self._predicted = False
        self.cast_without_gradient: dict[Tensor, None] = {}
        """Weights of linear layers that autocast casts in the estimate pass."""

    def __enter__(self) -> Self:
        self._predicted = False
        self._hooks = (register_module_forward_pre_hook(self._enters), register_module_forward_hook(self._leaves))
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        self._inside.clear()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (place := self._place(func)) not in self.places:
            return func(*args, **(kwargs or {}))
        if place == "products" or func is F.linear:
            args = tuple(rounded(x, self.dtype) for x in args)
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, tuple):
            return type(answer)(self._rounded(x) for x in answer)
        return self._rounded(answer)

    def _rounded(self, answer: Any) -> Any:
        # a view holds no numbers of its own
        return answer if isinstance(answer, Tensor) and answer._is_view() else rounded(answer, self.dtype)

    def _place(self, func: Any) -> str:
        if not self._inside:
            return "loss" if self._predicted else "noising"
        if isinstance(self._inside[-1], NoiseLevelEmbedding):
            return "noise level"
        return "products" if func in _PRODUCTS else "stream"

    def _enters(self, module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        if isinstance(module, (RIN, NoiseLevelEmbedding)):
            self._inside.append(module)
        elif isinstance(module, LatentSelfConditioning) and "latents" in self.places:
            return tuple(rounded(x, self.dtype) for x in inputs)
        elif isinstance(module, nn.Linear) and not torch.is_grad_enabled() and self._casts():
            self.cast_without_gradient.update(dict.fromkeys(module.parameters()))
        return None

    def _casts(self) -> bool:
        """Whether autocast would cast here: not in the noise level's embedding, which turns it off."""
        return not (self._inside and isinstance(self._inside[-1], NoiseLevelEmbedding))

    def _leaves(self, module: nn.Module, _inputs: Any, _answer: Any) -> None:
        if self._inside and self._inside[-1] is module:
            self._inside.pop()
            self._predicted = isinstance(module, RIN) and torch.is_grad_enabled()


@torch.no_grad()
def noise_levels(model: RIN, schedule: Schedule) -> None:
    """Prints what is left of 1,000 noise levels at even times when gamma or its embedding are in bfloat16."""
    gamma = schedule((torch.arange(1000) + 0.5) / 1000)
    exact = model.noise_level(gamma)[:, 0]
    with Rounding(torch.bfloat16, ["noise level"]):
        coarse = model.noise_level(gamma)[:, 0]
    error = (coarse - exact).norm(dim=1) / exact.norm(dim=1)
    step = (exact[1:] - exact[:-1]).norm(dim=1) / exact[1:].norm(dim=1)
    print(
        f"distinct embeddings of 1000 noise levels: {len(coarse.unique(dim=0))}, in float32 {len(exact.unique(dim=0))}"
    )
    print(
        f"their error: median {error.median():.2f}, largest {error.max():.2f}; between neighbours {step.median():.2f}"
    )
    for t in (0.01, 0.03, *TIMES[::4]):
        exact_noise = (1 - schedule(torch.tensor(t))).sqrt().item()
        coarse_noise = (1 - schedule(torch.tensor(t)).bfloat16()).float().sqrt().item()
        print(f"sqrt(1 - gamma) at t = {t}: {coarse_noise:.4f}, in float32 {exact_noise:.4f}")


@torch.no_grad()
def vanishing(model: RIN) -> None:
    """Prints the share of weights that an update leaves as they are in bfloat16, by the update's size.

    LAMB moves a matrix by the learning rate times its norm; an average moves towards weights that differ by a tenth.
    """
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    for name, sizes in (("LAMB, rate", (1e-2, 3e-3, 1e-3)), ("average, 1 - decay", (1e-2, 1e-3, 1e-4))):
        for size in sizes:
            kept = count = 0
            for weight in matrices:
                old, direction = weight.bfloat16().float(), torch.randn_like(weight)
                step = direction * weight.norm() / direction.norm() * size * (1.0 if name.startswith("LAMB") else 0.1)
                kept += ((old + step).bfloat16().float() == old).sum().item()
                count += weight.numel()
            print(f"{name} {size:g}: {kept / count:.1%} of the weights stay as they are")


def second_moment(decay: float, updates: int = 4000, numbers: int = 10_000) -> None:
    """Prints a bfloat16 second moment over the exact one: of even gradients, then of gradients a third as large."""
    exact, kept = torch.zeros(numbers), torch.zeros(numbers)
    for size in (1.0, 0.3):
        for _ in range(updates):
            share = (size * torch.randn(numbers)).square() * (1 - decay)
            exact, kept = exact * decay + share, (kept * decay + share).bfloat16().float()
        ratio = (kept / exact).sqrt().median()
        print(f"root of the second moment, decay {decay}, gradients of size {size}: {ratio:.2f} times the exact one")


def main() -> None:
    """Prints the reasons, for the network and the schedule of the digits preset."""
    torch.manual_seed(0)
    experiment = preset("digits")
    model = RIN(experiment.model)
    noise_levels(model, parse_schedule(experiment.diffusion.schedule))
    vanishing(model)
    for decay in (0.99, 0.999):
        second_moment(decay)


if __name__ == "__main__":
    main()
