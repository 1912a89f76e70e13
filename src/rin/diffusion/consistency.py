"""Samples that, made smaller, are the picture that they are drawn from."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rin.core.denoiser import Condition
from rin.core.errors import RinError
from rin.diffusion.given import Given

Images = Float[Tensor, "b c h w"]


def check_consistent(condition: Condition | None, shape: tuple[int, ...], given: Given | None) -> None:
    """Refuses samples that cannot agree with their condition picture.

    Raises:
        RinError: there is none, it is no smaller picture of as many channels, or the samples have to be another's.
    """
    low = None if condition is None else condition.context
    if len(shape) != 4 or low is None:
        raise RinError("consistent is for models that draw a picture from a smaller one: leave it out")
    (_, channels, *sides), (_, of_low, *low_sides) = shape, low.shape
    fits = all(side % part == 0 for side, part in zip(sides, low_sides, strict=True))
    if of_low != channels or sides == low_sides or not fits:
        raise RinError(
            f"consistent is for condition pictures that are smaller and else alike, and this one is "
            f"{tuple(low.shape[1:])} for samples of {(channels, *sides)}: leave it out"
        )
    if given is not None and (given.redrawn is not None or given.to_noise):
        raise RinError("consistent changes all of a picture, which is not to be kept or taken to noise: leave it out")


def made_consistent(x_0: Images, low: Float[Tensor, "b c low_h low_w"], bound: float) -> Images:
    """The pictures in [-bound, bound] nearly nearest to x_0 of which each box of pixels has the mean that `low` tells.

    x_0 + up(low - down(x_0)), down being the mean over a box and up the same value all over it: the nearest pictures
    of those means (as in Choi et al., ILVR, 2021, arXiv 2108.02938). Where that leaves the range it is cut, and the
    box's pixels make up for what is missing, each in proportion to its room.

    Args:
        x_0: estimates of clean data.
        low: the means, in [-bound, bound].
        bound: the input scale.
    """
    box = (x_0.shape[-2] // low.shape[-2], x_0.shape[-1] // low.shape[-1])

    def spread(means: Tensor) -> Tensor:
        return means.repeat_interleave(box[0], -2).repeat_interleave(box[1], -1)

    moved = (x_0 + spread(low - F.avg_pool2d(x_0, box))).clamp(-bound, bound)
    mean = F.avg_pool2d(moved, box)
    missing, tiny = low - mean, torch.finfo(x_0.dtype).tiny
    up = spread((missing / (bound - mean).clamp(min=tiny)).clamp(0, 1))
    down = spread((-missing / (mean + bound).clamp(min=tiny)).clamp(0, 1))
    return moved + up * (bound - moved) - down * (moved + bound)
