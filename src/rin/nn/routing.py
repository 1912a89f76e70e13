"""What a network's latents read of the interface, and what its tokens take from them: its attention, looked at.

The paper shows the read attention in its figures; nothing of it is kept in an ordinary pass.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rin.nn.attention import Attention
from rin.nn.blocks import Block
from rin.nn.rin import RIN

Read = Float[Tensor, "blocks b latents tokens"]
Write = Float[Tensor, "blocks b tokens latents"]


class Attended(NamedTuple):
    """The attention of one pass, mean over heads; on the CPU, in float32."""

    read: Read
    """How much of what a latent reads comes from each token: sums to 1 over tokens."""

    write: Write
    """How much of a token's update comes from each latent: sums to 1 over latents. Of blocks that write."""


class Recorder:
    """Keeps the attention of the passes that are made while it records; see `recorded`."""

    def __init__(self) -> None:
        self.read: list[list[Tensor]] = []
        self.write: list[list[Tensor]] = []

    def first(self) -> Attended:
        """The attention of the first pass since the last call, and forgets all of them.

        Of a step under guidance it is the pass with the label; of Heun's method the one at the step's beginning.
        """
        attended = Attended(torch.stack([passes[0] for passes in self.read]),
                            torch.stack([passes[0] for passes in self.write]))  # fmt: skip
        for passes in (*self.read, *self.write):
            passes.clear()
        return attended


@contextmanager
def recorded(model: RIN) -> Generator[Recorder]:
    """Records the read and write attention of every pass of a network while it lasts; it computes as without."""
    recorder, handles = Recorder(), []

    def watch(layer: Attention, kept: list[list[Tensor]]) -> None:
        passes: list[Tensor] = []
        kept.append(passes)

        @torch.no_grad()
        def keep(_: nn.Module, inputs: tuple[Tensor, Tensor], __: Tensor) -> None:
            passes.append(layer.weights(*inputs).mean(1).cpu())

        handles.append(layer.register_forward_hook(keep))

    for block in model.modules():
        if isinstance(block, Block):
            watch(block.read.attention, recorder.read)
            if block.write is not None:
                watch(block.write.attention, recorder.write)
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
