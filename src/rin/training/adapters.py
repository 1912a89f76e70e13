"""Low-rank adapters (LoRA, Hu et al., 2021): linear layers stay as they are, and a low-rank change of each is learned.

The change is part of how a layer looks up its weight (`torch.nn.utils.parametrize`), so `layer.weight` is the merged
one for whoever asks: the layer itself, an average, the network that is left. The library peft puts a module of its own
in each layer's place instead. It merges by writing into the layer's weights and takes that back by subtraction, which
leaves them another by rounding, while our averages need the merged weights after every update; and what reads a
layer's weight directly would find it without its adapter.
"""

from collections import Counter
from collections.abc import Collection, Generator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rin.core.errors import RinError
from rin.data.files.encoded import listed

ALPHA = 16.0
"""Over the rank, what a change is scaled by. It is no option: under Adam it is tuned by tuning the learning rate (Hu et
al., section 4.1), and every adapter moves by Adam, see `rin.training.optim.parameter_groups`."""


class Adapter(nn.Module):
    """W + (alpha / rank) B A in place of a layer's W.

    A starts at random as PyTorch's own linear layers do, and B at zeros: before the first update nothing is changed.

    Args:
        weight: W.
        rank: of the change; that of the weight itself where it is smaller.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], rank: int) -> None:
        super().__init__()
        self.scale = ALPHA / rank
        inner = min(rank, *weight.shape)
        a = nn.init.kaiming_uniform_(torch.empty(inner, weight.shape[1]), a=5**0.5)  # the same on every device
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], inner))

    def forward(self, weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs inputs"]:
        """The merged weight, in the precision of the weight whatever is around it."""
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight, self.b, self.a, alpha=self.scale)


def add_adapters(model: nn.Module, rank: int, anew: Collection[str]) -> dict[str, str]:
    """Gives linear layers adapters, and takes all other weights out of training that are another model's.

    A layer that is frozen gets none.

    Args:
        model: once `freeze` has been there, before it is distributed or an optimiser is made.
        rank: of the adapters, from 1.
        anew: names of weights that are no other model's, or were resized: they are trained whole.

    Returns:
        The names of the adapters' own weights, A and B, and of the layer's weight that each is for.

    Raises:
        RinError: no linear layer is left to adapt, all are smaller than the rank, or one shares its weight.
    """
    free = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    layers = {name: layer for name, layer in linear.items() if (own := _weight_of(name)) in free and own not in anew}
    _check(model, rank, layers, linear)
    for name, weight in free.items():
        weight.requires_grad_(name in anew)
    parts: dict[str, str] = {}
    for name, layer in layers.items():
        parametrize.register_parametrization(layer, "weight", Adapter(layer.weight.detach(), rank))
        own = _weight_of(name)
        parts |= dict.fromkeys((f"{name}.parametrizations.weight.0.{part}".lstrip(".") for part in "ab"), own)
    return parts


def adapted_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers with an adapter, by the names that their weights have without."""
    return {
        _weight_of(name): layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and _has_adapter(layer)
    }


@contextmanager
def merged_at_the_end(model: nn.Module) -> Generator[None]:
    """Leaves a model that gets adapters in between with merged weights and no adapters, whatever happens."""
    try:
        yield
    finally:
        for layer in adapted_layers(model).values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def described(model: nn.Module, rank: int, parts: Collection[str]) -> str:
    """In words, what is trained of a model with adapters.

    Args:
        model: the model.
        rank: of its adapters.
        parts: the names of the adapters' own weights.
    """
    weights = dict(model.named_parameters())
    trained = {name: weight.numel() for name, weight in weights.items() if weight.requires_grad}
    whole = [name for name in trained if name not in parts]
    taken = sum(weight.numel() for name, weight in weights.items() if name not in parts)
    return (
        f"adapters of rank {rank} on {len(parts) // 2} linear layers: {sum(trained.values()):,} numbers are trained "
        f"for a network of {taken:,}" + (f"; trained whole: {listed(whole)}" if whole else "")
    )


def _weight_of(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"


def _has_adapter(layer: nn.Linear) -> bool:
    return any(isinstance(module, Adapter) for module in layer.modules())


def _check(model: nn.Module, rank: int, layers: dict[str, nn.Linear], linear: Collection[str]) -> None:
    if not layers:
        why = "all are frozen or start anew" if linear else "the network has none"
        raise RinError(f"training.adapter_rank {rank}: no linear layer is there to adapt, {why}: take 0")
    largest = max(min(layer.weight.shape) for layer in layers.values())
    if rank > largest:
        raise RinError(f"training.adapter_rank {rank}: no layer has a rank above {largest}: take so many at most")
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    for name, layer in layers.items():
        if uses[id(layer.weight)] > 1:  # an average could not tell the merged from the other's
            raise RinError(
                f"training.adapter_rank {rank}: {name} shares its weight with another layer: freeze it, by "
                f"--training.freeze {name}"
            )
