"""What training a network takes of a GPU's memory, calculated: nothing is computed, and no GPU is needed.

What is held all the time (weights, gradients, the optimiser's two moments, the average, in float32) is multiplied
out. What comes and goes is counted: the loss of a batch and its gradient are run on fake tensors, which have sizes
and no numbers, and every piece of memory is followed from where it is taken to where it is given back. The memory
in use after each operation is a straight line in the number of examples, so that two runs tell it for any number.

This is the memory of PyTorch's operations as they stand, one by one. CUDA's own share, its libraries' and what
fragments are in `RESERVE`; what torch.compile saves by fusing operations is not taken off.
"""

import functools
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rin.core.compute import autocast_to
from rin.core.errors import RinError
from rin.core.memory import memory_here
from rin.core.seeds import Chance
from rin.costs.operations import example_inputs
from rin.diffusion import Diffusion, DiffusionConfig
from rin.nn import RIN, RINConfig
from rin.nn.attention import Attention
from rin.nn.blocks import LocalMixing
from rin.nn.linear import Linear
from rin.nn.size import num_values

RESERVE = 0.1
"""Share of a GPU's memory that is left free: for CUDA itself, its libraries, and fragments."""

_SAMPLES_AT_A_TIME = {"cuda": 256}
"""The most that sampling draws at a time by kind of device, where more are no faster; `_USUAL_SAMPLES` elsewhere."""

_USUAL_SAMPLES = 64
"""Samples at a time elsewhere, and of networks whose memory is not known."""

_PASS = 3
"""A pass without gradients holds up to so many times what one example's tokens and latents are."""

Parallel = Literal["ddp", "fsdp"]
Optimiser = Literal["lamb", "adamw", "muon"]

_FLOAT = 4

_MUON_COPIES = 6
"""What Muon holds at once of the matrices of one shape: gradients, momentum, and those of making it orthogonal."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes that a GPU holds throughout training, whatever the batch."""

    weights: int
    gradients: int
    optimiser: int
    average: int

    gathered: int
    """FSDP's whole blocks: weights and gradients of the largest, twice, since the next is fetched while one computes;
    and those of what is in no block."""

    update: int
    """LAMB's moves, Muon's copies: taken in the update alone, when what the batch took is free again."""

    @property
    def always(self) -> int:
        """All but what the update takes."""
        return self.weights + self.gradients + self.optimiser + self.average + self.gathered


def held(config: RINConfig, *, optimiser: Optimiser = "lamb", parallel: Parallel = "ddp", num_gpus: int = 1) -> Held:
    """What each of `num_gpus` GPUs holds: everything under ddp (whose buckets are the gradients), a part under fsdp."""
    with torch.device("meta"):
        model = RIN(config)
    numbers = sum(weight.numel() for weight in model.parameters())
    matrices = sum(weight.numel() for weight in model.parameters() if weight.ndim > 1)
    blocks = [sum(weight.numel() for weight in block.parameters()) for block in model.blocks]
    of_shape: Counter[torch.Size] = Counter()
    for weight in model.parameters():
        of_shape[weight.shape] += weight.numel() if weight.ndim > 1 else 0
    alike = max(of_shape.values())
    parts = num_gpus if parallel == "fsdp" else 1
    whole = 2 * max(blocks) + (numbers - sum(blocks)) if parts > 1 else 0
    mine = -(-numbers // parts) * _FLOAT
    return Held(
        weights=mine,
        gradients=mine,
        optimiser=2 * mine if optimiser != "muon" else (2 * numbers - matrices) * _FLOAT,
        average=mine,
        gathered=2 * whole * _FLOAT,
        update={"lamb": -(-matrices // parts), "muon": _MUON_COPIES * alike, "adamw": 0}[optimiser] * _FLOAT,
    )


@dataclass(frozen=True)
class Passing:
    """Bytes that come and go with the loss of a batch and its gradient, beyond what is held.

    The highest of some straight lines in the number of examples.
    """

    lines: tuple[tuple[float, float], ...]
    """Bytes for none, bytes for each one more."""

    def peak(self, examples: int) -> int:
        """The most that is in use at a time."""
        return round(max(fixed + each * examples for fixed, each in self.lines))

    def an_example(self) -> float:
        """What one example more takes, where there are many."""
        return max(each for _, each in self.lines)


_COUNTED_AT = (2, 4)  # one example alone takes shortcuts


@functools.cache
def passing(
    config: RINConfig, diffusion: DiffusionConfig, *, recompute_blocks: bool = False, bfloat16: bool = True
) -> Passing:
    """Counts the memory of a batch on fake tensors: seconds for the largest preset.

    Every example counts as one whose latents are estimated, if any are.

    Args:
        config: the network.
        diffusion: its diffusion, for the estimate pass.
        recompute_blocks: blocks are computed anew in the backward pass.
        bfloat16: under autocast, as on GPUs; float32 otherwise.
    """
    few, many = _COUNTED_AT
    courses = [_course(config, diffusion, count, recompute_blocks, bfloat16) for count in _COUNTED_AT]
    lines: set[tuple[float, float]] = set()
    for at_few, at_many in zip(*courses, strict=True):
        each = (at_many - at_few) / (many - few)
        lines.add((at_few - few * each, each))
    return Passing(tuple(_upper(lines)))


def _upper(lines: set[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lines that no other one is above everywhere, the flattest first."""
    upper: list[tuple[float, float]] = []
    for fixed, each in sorted(lines, key=lambda line: (line[1], line[0]), reverse=True):
        if not upper or fixed > upper[-1][0]:
            upper.append((fixed, each))
    return upper[::-1]


def _course(
    config: RINConfig, diffusion: DiffusionConfig, examples: int, recompute_blocks: bool, bfloat16: bool
) -> list[int]:
    """Bytes in use after each operation of a batch's loss and its gradient."""
    with torch.device("meta"):
        model = RIN(config).train()
    model.recompute_blocks = recompute_blocks
    compute_as_gpus(model)
    cpu = torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        weights = list(model.parameters())
        for weight in weights:
            weight.grad = torch.empty_like(weight)  # held, and only added to
        chance = Chance(torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64), torch.arange(examples))
        everyone = torch.ones(examples, dtype=torch.bool)
        with _Watch([*weights, *(weight.grad for weight in weights), *model.buffers()]) as watch:
            x_0, _, condition = example_inputs(config, examples)
            with autocast_to(bfloat16, cpu):
                loss = Diffusion(diffusion).loss(model, x_0, condition, self_cond=everyone, chance=chance)
            loss.backward()
    return watch.course


def compute_as_gpus(model: RIN) -> None:
    """Has a network on a CPU leave out what is done for a CPU's speed alone."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.has_faster = False
        if isinstance(module, Linear | Attention | LocalMixing):
            module.float32_on_cpu = False


class _Watch(TorchDispatchMode):
    """Follows memory: what each operation leaves in use, of what is taken while this is on."""

    def __init__(self, known: list[Tensor | None]) -> None:
        super().__init__()
        self.course: list[int] = []
        """Bytes in use after each operation."""
        self._in_use = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in known:
            if tensor is not None:
                self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        self.course.append(self._in_use)
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            self._in_use += storage.nbytes()
            weakref.finalize(storage, self._give_back, storage.nbytes())

    def _give_back(self, count: int) -> None:
        self._in_use -= count


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A way to train."""

    parallel: Parallel
    recompute_blocks: bool
    part: int
    """Examples that a GPU computes at a time."""

    accumulation_steps: int
    """Parts, one after the other, that a GPU's share of the batch is computed in."""

    bytes: int
    """What it takes of each GPU."""


def needed(holds: Held, passes: Passing, part: int) -> int:
    """Bytes that a GPU needs for parts of so many examples.

    That is what is held, and the larger of what a part of the batch and what the update takes.
    """
    return holds.always + max(passes.peak(part), holds.update)


def sampling_batch(model: object, where: torch.device, num: int) -> int:
    """How many of `num` samples to draw at a time: as many as fit into the memory that there is, 1 at the least.

    That of other networks than RINs is not known: they draw 64.

    Args:
        model: the network.
        where: it computes; half of a machine's own memory is left to others.
        num: samples in all.
    """
    most, config = _SAMPLES_AT_A_TIME.get(where.type, _USUAL_SAMPLES), getattr(model, "config", None)
    if not isinstance(config, RINConfig):
        return min(num, _USUAL_SAMPLES)
    free = torch.cuda.mem_get_info(where)[0] * (1 - RESERVE) if where.type == "cuda" else memory_here() / 2
    return max(1, min(num, most, int(free / sample_bytes(config))))


def sample_bytes(config: RINConfig) -> int:
    """What drawing one sample more takes at most, beside the weights."""
    return _PASS * num_values(config) * _FLOAT


def ways(num_gpus: int) -> tuple[Parallel, ...]:
    """How so many GPUs can share a model, the faster way first; one alone has nothing to share."""
    return ("ddp", "fsdp") if num_gpus > 1 else ("ddp",)


def plan(
    config: RINConfig,
    diffusion: DiffusionConfig,
    *,
    batch_size: int,
    optimiser: Optimiser,
    num_gpus: int,
    memory: int,
) -> Plan | None:
    """The first way that fits: whole models before parts of them (fsdp), blocks kept before blocks computed anew.

    Args:
        config: the network.
        diffusion: its diffusion.
        batch_size: examples of an update.
        optimiser: decides what is held.
        num_gpus: over which the batch is spread evenly.
        memory: bytes of each GPU, `RESERVE` of which are left free.

    Returns:
        With the largest part that divides a GPU's share of the batch; None if nothing fits.

    Raises:
        RinError: the GPUs do not divide the batch.
    """
    if batch_size % num_gpus:
        raise RinError(f"{num_gpus} GPUs do not divide training.batch_size {batch_size}: take another number")
    share = batch_size // num_gpus
    parts = [part for part in range(share, 0, -1) if share % part == 0]
    for parallel in ways(num_gpus):
        there = held(config, optimiser=optimiser, parallel=parallel, num_gpus=num_gpus)
        for recompute in (False, True):
            passes = passing(config, diffusion, recompute_blocks=recompute)
            for part in parts:
                taken = needed(there, passes, part)
                if taken <= memory * (1 - RESERVE):
                    return Plan(
                        parallel=parallel, recompute_blocks=recompute, part=part,
                        accumulation_steps=share // part, bytes=taken,
                    )  # fmt: skip
    return None
