"""Whether pictures fall apart into patches: steps between neighbouring pixels across the borders and inside."""

import torch
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Pictures

_LARGEST = 32
"""The largest patch that `border_ratios` looks for."""


class PixelSteps:
    """Squared steps between neighbouring pixels of pictures that come batch by batch, by where they are."""

    def __init__(self) -> None:
        self._down: Tensor | None = None
        self._across: Tensor | None = None

    def update(self, pictures: Pictures) -> None:
        """Adds some pictures (b c h w)."""
        values = pictures.to(torch.int32)  # exact, and a quarter of the work of float64, where the pictures are
        _, channels, height, width = values.shape
        down = values.diff(dim=2).square().sum(dim=(0, 1, 3)).cpu().double() / (channels * width)
        across = values.diff(dim=3).square().sum(dim=(0, 1, 2)).cpu().double() / (channels * height)
        self._down = down if self._down is None else self._down + down
        self._across = across if self._across is None else self._across + across

    def border_ratio(self, patch_size: int) -> float:
        """The mean squared step across the borders of patches over that inside; about 1 where none are to be seen.

        Raises:
            RinError: patches of that size have no borders, or no inside, in these pictures, or there are none.
        """
        if self._down is None or self._across is None:
            raise RinError("borders of no pictures: give some")
        across_borders, inside = list[Tensor](), list[Tensor]()
        for steps in (self._down, self._across):
            is_border = torch.arange(1, len(steps) + 1) % patch_size == 0
            across_borders.append(steps[is_border])
            inside.append(steps[~is_border])
        borders, insides = torch.cat(across_borders), torch.cat(inside)
        if not len(borders) or not len(insides):
            raise RinError(f"pictures have no borders of patches of {patch_size}, or nothing inside: take another size")
        return float(borders.mean() / insides.mean().clamp(min=1e-12))

    def border_ratios(self) -> dict[str, float]:
        """The ratio by patch size, for those from 2 on that divide the pictures, and have borders in them."""
        if self._down is None or self._across is None:
            return {}
        sides = len(self._down) + 1, len(self._across) + 1
        sizes = [p for p in range(2, _LARGEST + 1) if all(side % p == 0 for side in sides) and p < max(sides)]
        return {str(size): self.border_ratio(size) for size in sizes}
