"""How well two sets of features cover one another: precision and recall, density and coverage.

A set's manifold is taken for the union of balls around its features, each as wide as the distance to its k-th nearest
neighbour in the same set. Precision is the share of drawn samples within the reference's manifold, recall the share of
the reference within that of the drawn (Kynkaanniemi et al., 2019, k = 3). Density counts in how many of the
reference's balls a drawn sample lies, over k, so that one outlier's wide ball counts little; coverage is the share of
the reference's balls that hold a drawn sample (Naeem et al., 2020, k = 5).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.compute import device
from rin.core.errors import RinError

_ROWS = 1024
"""Rows of the table of distances that are held at a time."""


class Neighbourhoods(NamedTuple):
    """Shares, 0 to 1; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


_MANIFOLD, _DENSITY = 3, 5
"""The neighbours whose distance is a ball's radius, for precision and recall and for density and coverage."""


def ball_radii(features: Float[Tensor, "n d"]) -> Float[Tensor, "2 n"]:
    """The distance of each feature to its third and its fifth nearest other, which takes time as the square of n.

    Raises:
        RinError: there are no more than five.
    """
    if len(features) <= _DENSITY:
        raise RinError(f"precision and recall of {len(features)} samples: give more than {_DENSITY}")
    distances, _ = nearest(features, features, _DENSITY + 1)  # the nearest is itself
    return distances[:, [_MANIFOLD, _DENSITY]].T


def neighbourhoods(
    reference: Float[Tensor, "n d"], drawn: Float[Tensor, "m _"], radii: Float[Tensor, "2 n"] | None = None
) -> Neighbourhoods:
    """Precision, recall, density and coverage of drawn samples.

    Memory grows with the number of samples, not with its square. The measures depend on both numbers: compare like with
    like.

    Args:
        reference: features of real samples.
        drawn: features of drawn ones, by the same network.
        radii: the reference's `ball_radii`, if they are known.

    Raises:
        RinError: features that are not as many, or no more than five samples on a side.
    """
    if reference.shape[1] != drawn.shape[1]:
        raise RinError(f"{reference.shape[1]} features beside {drawn.shape[1]}: take both from the same network")
    of_reference = ball_radii(reference) if radii is None else radii
    of_drawn = ball_radii(drawn)[0]
    precise, balls = 0, 0
    recalled = torch.zeros(len(reference), dtype=torch.bool)
    nearest = torch.full((len(reference),), float("inf"), dtype=reference.dtype)
    for rows, distances in _distances(drawn, reference):
        manifold, density = of_reference.to(distances.device)
        precise += int((distances <= manifold).any(1).sum())
        balls += int((distances < density).sum())
        recalled |= (distances <= of_drawn[rows, None].to(distances.device)).any(0).cpu()
        nearest = torch.minimum(nearest, distances.amin(0).cpu())
    return Neighbourhoods(
        precision=precise / len(drawn),
        recall=float(recalled.double().mean()),
        density=balls / (_DENSITY * len(drawn)),
        coverage=float((nearest < of_reference[1]).double().mean()),
    )


def nearest(
    features: Float[Tensor, "n d"], among: Float[Tensor, "m d"], count: int
) -> tuple[Float[Tensor, "n count"], Tensor]:
    """The distances to the nearest of other features, nearest first, and which they are (both n count)."""
    smallest = [distances.topk(count, largest=False) for _, distances in _distances(features, among)]
    return torch.cat([values.cpu() for values, _ in smallest]), torch.cat([places.cpu() for _, places in smallest])


def _distances(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances, some rows at a time; on a CUDA device if there is one, else on the CPU.

    They come out of a product of matrices, which loses the digits of small ones: hence float64, about the mean.
    """
    where = device() if device().type == "cuda" else torch.device("cpu")  # Metal has no float64
    middle = other.double().mean(0)
    columns = (other.double() - middle).to(where)
    for start in range(0, len(one), _ROWS):
        rows = slice(start, min(start + _ROWS, len(one)))
        offsets = (one[rows].double() - middle).to(where)
        yield rows, torch.cdist(offsets, columns, compute_mode="use_mm_for_euclid_dist")
