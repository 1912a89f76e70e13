"""How a process computes: where, in which precision, compiled or not."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# PyTorch has what a processor can do under private names only.

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rin.core.errors import RinError
from rin.core.progress import LOGGER

Precision = Literal["auto", "float32", "bfloat16"]
"""bfloat16 autocast, float32, or auto: bfloat16 on a CUDA device or a CPU that multiplies it faster."""

Compile = Literal["auto", "on", "off"]
"""Whether to go through torch.compile; auto does on a CUDA device."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_COMPILED: set[tuple[str, tuple[object, ...]]] = set()
"""What this process has compiled, for which shapes, numbers and texts."""


def device() -> torch.device:
    """Where to compute: CUDA, else Apple's Metal, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_of(model: object) -> torch.device:
    """Where a network computes: where its weights are; the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    first = next(parameters, None)
    return torch.device("cpu") if first is None else first.device


def is_at_hand(x: Tensor) -> bool:
    """Whether the numbers of a tensor can be looked at for nothing.

    A GPU would have to wait for what it still computes, compiled code cannot branch on them, and fake tensors and
    those on the meta device have none.
    """
    return x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()


def uses_bfloat16(precision: Precision, where: torch.device) -> bool:
    """Whether to compute in bfloat16 autocast: if asked, or if the device multiplies it faster than float32.

    Raises:
        RinError: it is asked for on a CUDA device that has none.
    """
    able = multiplies_bfloat16(where)
    if precision == "bfloat16" and where.type == "cuda" and not able:
        raise RinError("precision bfloat16: this GPU has none; take float32 or auto")
    return able if precision == "auto" else precision == "bfloat16"


def multiplies_bfloat16(where: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices: about twice as fast on a CPU.

    It asks the processor and does not time it: a run that goes on while the machine is busy must choose as before.
    """
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return where.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast_to(bfloat16: bool, where: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast, if asked: matrix products and attention in bfloat16; weights, norms and sums in float32.

    On a CPU convolutions stay in float32 too, and so does attention in training, see `is_autocast_on_cpu`.
    """
    return torch.autocast(where.type, torch.bfloat16) if bfloat16 else nullcontext()


def is_autocast_on_cpu(x: Tensor) -> bool:
    """Whether bfloat16 autocast is on for a tensor on a CPU.

    In bfloat16 the backward pass of attention takes four times as long there, and that of a convolution twice
    (docs/performance.md).
    """
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def compiles(choice: Compile, where: torch.device) -> bool:
    """Whether to compile: if asked, or on a CUDA device."""
    return choice == "on" or (choice == "auto" and where.type == "cuda")


def compiled(function: Callable[Arguments, Result], what: str, graphs: bool = False) -> Callable[Arguments, Result]:
    """A function through torch.compile, once for each shape of its tensors and each of its numbers and texts.

    It says so while that takes its time.

    Where compiling fails, for want of a compiler perhaps, it says so in one line and goes on without.

    Args:
        function: of tensors, among others.
        what: what it is, for messages.
        graphs: capture it in CUDA graphs: results must be copied before the next call.
    """
    from torch._dynamo.exc import TorchDynamoException  # here, since it takes seconds to import

    fast = torch.compile(function, dynamic=False, mode="reduce-overhead" if graphs else None)
    failed = False

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        nonlocal failed
        if failed:
            return function(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        shapes = tuple(leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in leaves
                       if isinstance(leaf, (Tensor, int, float, str)))  # fmt: skip
        new = (what, shapes) not in _COMPILED
        _COMPILED.add((what, shapes))
        started = time.perf_counter()
        if graphs:  # what the call before returned is needed no more
            torch.compiler.cudagraph_mark_step_begin()
        if new:
            LOGGER.info("compiling %s: a minute or so, once; to go without, set compile to off", what)
        try:
            result = fast(*args, **kwargs)
        except TorchDynamoException as error:
            failed = True
            LOGGER.warning("compiling %s failed, going on without: %s", what, str(error).strip().splitlines()[0])
            return function(*args, **kwargs)
        if new:
            LOGGER.info("compiled %s in %.0f s", what, time.perf_counter() - started)
        return result

    return call
