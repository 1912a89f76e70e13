"""Sampling that starts from given data or noise, keeps a part of data, or takes it to noise.

SDEdit, RePaint and DDIM inversion, as changes to a sampling run.

Meng et al., 2022 (SDEdit, arXiv 2108.01073); Lugmayr et al., 2022 (RePaint, arXiv 2201.09865);
Song et al., 2021 (DDIM, arXiv 2010.02502, section 5.4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rin.core.shapes import Examples
from rin.diffusion.parametrisation import corrupt
from rin.diffusion.samplers import Draw, Level, noised_further


@dataclass(frozen=True, kw_only=True)
class Given:
    """What samples are made of: clean data, or noise."""

    x_0: Examples | None = None
    """Clean data in [-1, 1], one a sample."""

    noise: Examples | None = None
    """The noise that sampling starts from, or noises the data with, one a sample; that of the seeds if None."""

    t: float = 1.0
    """Sampling starts from the data noised to this time, above 0 and up to 1, which is noise alone."""

    redrawn: Bool[Tensor, "b ..."] | None = None
    """Where samples are new, of the data's shape; elsewhere they are the data. None is everywhere."""

    num_rounds: int = 1
    """How often each step is taken where a part is known, going back by fresh noise in between (RePaint's
    resampling), so that the new part comes to agree with the known one."""

    to_noise: bool = False
    """Take the data to the noise that a sampler without chance would draw it from; the result is that noise."""

    @property
    def num(self) -> int:
        """How many there are; 1 of nothing, which a diffusion refuses."""
        return next((len(part) for part in (self.x_0, self.noise) if part is not None), 1)

    def rows(self, places: Sequence[int], device: torch.device) -> "Given":
        """What some of the samples are made of."""
        return self._each(lambda part: part[list(places)].to(device))

    def expand(self, num: int) -> "Given":
        """What `num` samples are made of, where it is one for all."""
        return self._each(lambda part: part.expand(num, *part.shape[1:]))

    def start(self, noise: Examples, gamma: Level, scale: float) -> Examples:
        """Where sampling starts: noise, or the data noised to gamma; all scaled by the input scale."""
        noise = noise if self.noise is None else self.noise.float()
        if self.x_0 is None or (self.t == 1 and not self.to_noise):
            return noise
        x_0 = self.x_0.float() * scale
        return x_0 if self.to_noise else corrupt(x_0, noise, gamma.expand(len(noise)))

    def _each(self, act: Callable[[Tensor], Tensor]) -> "Given":
        parts = (self.x_0, self.noise, self.redrawn)
        x_0, noise, redrawn = (None if part is None else act(part) for part in parts)
        return replace(self, x_0=x_0, noise=noise, redrawn=redrawn)


class Known:
    """The known part of the samples during a run.

    Args:
        given: with a part that is redrawn.
        scale: the input scale.
        draw: noise by number, apart from that of the sampler.
    """

    def __init__(self, given: Given, scale: float, draw: Draw) -> None:
        assert given.x_0 is not None  # it is checked
        assert given.redrawn is not None
        self._x_0, self._redrawn, self._draw = given.x_0.float() * scale, given.redrawn, draw
        self.num_rounds = given.num_rounds

    def keep(self, x_0: Examples, x_t: Examples, gamma: Level, number: int) -> tuple[Examples, Examples]:
        """The clean estimate with the known part as it is, and x_t at gamma with it noised afresh (RePaint, eq. 8)."""
        noised = corrupt(self._x_0, self._draw(2 * number), gamma.expand(len(x_t)))
        return torch.where(self._redrawn, x_0, self._x_0), torch.where(self._redrawn, x_t, noised)

    def back(self, x_t: Examples, levels: Float[Tensor, "3"], number: int) -> tuple[Examples, Float[Tensor, "3"]]:
        """x_t back where its step began, and the levels to take the step again by: nothing before it to extrapolate."""
        gamma, gamma_next, share = levels
        x_t = noised_further(x_t, gamma_next, gamma, self._draw(2 * number + 1))
        return x_t, torch.stack([gamma, gamma_next, torch.zeros_like(share)])
