"""How samples come about, kept to be shown."""

import torch

from rin.core.pixels import to_pictures
from rin.core.shapes import Examples, Pictures
from rin.sampling.drawing import of_all

_MOMENTS = 60
"""Steps of the denoising that a .gif shows."""


class Denoising:
    """The clean estimates of all samples at some steps, spread over their run."""

    def __init__(self, num_steps: int) -> None:
        spread = torch.linspace(0, num_steps - 1, max(1, min(_MOMENTS, num_steps)))
        self._kept = {round(step) for step in spread.tolist()}
        self._batches: dict[int, list[Pictures]] = {}

    def __call__(self, step: int, x_0: Examples) -> None:
        """Keeps what is to be seen of a batch (see `rin.sampling.drawing.Callback`)."""
        if step in self._kept:
            self._batches.setdefault(step, []).append(to_pictures(x_0.cpu()))

    def moments(self, num: int) -> list[Pictures]:
        """All samples, of every process, at each of those steps."""
        return [of_all(batches, num) for batches in self._batches.values()]
