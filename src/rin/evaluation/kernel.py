"""The kernel distance between two sets of features (KID): how far apart their means are in a polynomial kernel's space.

Binkowski et al., "Demystifying MMD GANs", 2018. Unlike the Frechet distance its expectation does not depend on the
number of samples, so that small sets may be compared with large ones.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError


class Estimate(NamedTuple):
    """The mean over parts of a set, and how far the parts are spread."""

    value: float
    deviation: float
    """Standard deviation over the parts; of their mean it would be smaller."""


def kernel_distance(
    one: Float[Tensor, "n d"], other: Float[Tensor, "m _"], subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Estimate:
    """The mean over random subsets of the unbiased estimate of the squared distance, kernel (x . y / d + 1)^3.

    Args:
        one: features of one set.
        other: features of the other.
        subsets: how many times subsets are drawn; published figures have 100.
        subset_size: features that each takes of either set, without repetition; all, once, where there are no more.
        seed: of the draws.

    Raises:
        RinError: features that are not as many, or fewer than two samples.
    """
    if one.shape[1] != other.shape[1]:
        raise RinError(f"{one.shape[1]} features beside {other.shape[1]}: take both from the same network")
    size = min(subset_size, len(one), len(other))
    if size < 2:
        raise RinError(f"a kernel distance from {size} samples: give 2 or more on both sides")
    if size == len(one) == len(other):
        return Estimate(_squared_distance(one.double(), other.double()), 0.0)
    drawn = torch.Generator().manual_seed(seed)
    values = torch.tensor([
        _squared_distance(*(part[torch.randperm(len(part), generator=drawn)[:size]].double() for part in (one, other)))
        for _ in range(subsets)
    ])  # fmt: skip
    return Estimate(float(values.mean()), float(values.std(correction=0)))


def _squared_distance(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> float:
    """The unbiased estimate: no feature is compared with itself."""
    within = sum(float(_kernel(part, part).sum() - _kernel_of_equals(part).sum()) for part in (one, other))
    number = len(one)
    return within / (number * (number - 1)) - 2 * float(_kernel(one, other).mean())


def _kernel(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _kernel_of_equals(one: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return (one.square().mean(1) + 1) ** 3
