"""One batch and one model on many processes: the model whole in each (DDP), or a part of it in each (FSDP2)."""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rin.core.distributed import share_of, world_size
from rin.core.errors import RinError
from rin.nn import RIN


def local_places(batch_size: int, accumulation_steps: int) -> list[range]:
    """The places of the global batch that this process computes, part by part.

    Raises:
        RinError: the batch cannot be split evenly.
    """
    if batch_size % (accumulation_steps * world_size()):
        raise RinError(
            f"training.batch_size {batch_size} cannot be split evenly into {accumulation_steps} accumulation steps "
            f"of {world_size()} processes: take a multiple of {accumulation_steps * world_size()}"
        )
    share = share_of(batch_size // accumulation_steps)
    return [
        range(start + share.start, start + share.stop)
        for start in range(0, batch_size, batch_size // accumulation_steps)
    ]


def distribute(model: nn.Module, sharded: bool) -> nn.Module:
    """What to call in training in place of a model, so that gradients are the mean over all processes.

    With `sharded`, every process keeps a part of each of the model's weights from here on; without, all of them.
    """
    if sharded:
        shard(model)
        return model
    if world_size() == 1:
        return model
    # they never get a gradient, for which DDP would wait
    unused = model.unused_weights() if isinstance(model, RIN) else []
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, unused)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def shard(model: nn.Module) -> None:
    """Leaves a part of each weight in every process (FSDP2): a RIN's block's are put together while it computes."""
    from torch.distributed.fsdp import fully_shard

    # nothing is written in place into what a RIN returns
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    for part in (*(model.blocks if isinstance(model, RIN) else ()), model):
        # PyTorch would leave the outermost part's weights whole after a forward pass without a backward one, and
        # whoever then looks them up, an average or a checkpoint, would get copies that nothing follows
        fully_shard(part, reshard_after_forward=True)


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor, in the same memory; any other tensor as it is."""
    if world_size() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_rows(model: nn.Module) -> dict[str, Tensor]:
    """This process's rows of every weight, by name, without a graph."""
    return {name: local(weight.detach()) for name, weight in model.named_parameters()}


class LocalWeights:
    """The weights that are trained, as an optimiser is to see them: plain tensors, perhaps parts of them.

    Args:
        model: the model, sharded or not.
        sharded: whether each process holds a part of each weight.
    """

    def __init__(self, model: nn.Module, sharded: bool) -> None:
        self._sharded = sharded
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.parts: dict[str, Tensor] = (
            {name: local(weight.detach()).requires_grad_() for name, weight in self._weights.items()}
            if sharded
            else dict(self._weights)
        )
        """By name; those of a model that is not sharded are its own weights."""

    def take_gradients(self) -> list[Tensor]:
        """Gives every part its own rows of the gradient, and returns all that there are."""
        if self._sharded:
            for name, weight in self._weights.items():
                self.parts[name].data = local(weight.detach())  # FSDP may have moved it
                self.parts[name].grad = None if weight.grad is None else local(weight.grad)
        return [part.grad for part in self.parts.values() if part.grad is not None]


def squared_norm(tensors: Iterable[Tensor], where: torch.device) -> Tensor:
    """The sum of squares of this process's tensors, in float32."""
    norms = torch._foreach_norm([tensor for tensor in tensors if tensor.numel()])  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return torch.stack(list(norms)).square().sum() if norms else torch.zeros((), device=where)


def load_rows(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Puts this process's rows of every weight in place; False if they are another network's."""
    rows = local_rows(model)
    if {name: part.shape for name, part in rows.items()} != {name: part.shape for name, part in tensors.items()}:
        return False
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        return False
    for name, part in rows.items():
        part.copy_(tensors[name])
    return True


def sums_gradients(network: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around a backward pass of one part of a batch: DDP shares out gradients with the last part's alone.

    FSDP does so with every part, since nobody has room for gradients of the whole.
    """
    return nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()
