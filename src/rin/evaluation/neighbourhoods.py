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

from rin.core.errors import RinError

_ROWS = 1024
"""Rows of the table of distances that are held at a time."""


class Neighbourhoods(NamedTuple):
    """Shares, 0 to 1; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    reference: Float[Tensor, "n d"], drawn: Float[Tensor, "m _"], k_manifold: int = 3, k_density: int = 5
) -> Neighbourhoods:
    """Precision, recall, density and coverage of drawn samples.

    Memory grows with the number of samples, not with its square. The measures depend on both numbers: compare like with
    like.

    Args:
        reference: features of real samples.
        drawn: features of drawn ones, by the same network.
        k_manifold: neighbour whose distance is a ball's radius, for precision and recall.
        k_density: the same for density and coverage.

    Raises:
        RinError: features that are not as many, or no more samples than neighbours.
    """
    if reference.shape[1] != drawn.shape[1]:
        raise RinError(f"{reference.shape[1]} features beside {drawn.shape[1]}: take both from the same network")
    if min(len(reference), len(drawn)) <= max(k_manifold, k_density):
        raise RinError(
            f"precision and recall of {len(reference)} and {len(drawn)} samples: "
            f"give more than {max(k_manifold, k_density)}"
        )
    of_reference = _radii(reference, (k_manifold, k_density))
    of_drawn = _radii(drawn, (k_manifold,))[0]
    precise, balls = 0, 0
    recalled = torch.zeros(len(reference), dtype=torch.bool)
    nearest = torch.full((len(reference),), float("inf"), dtype=reference.dtype)
    for rows, distances in _distances(drawn, reference):
        precise += int((distances <= of_reference[0]).any(1).sum())
        balls += int((distances < of_reference[1]).sum())
        recalled |= (distances <= of_drawn[rows, None]).any(0)
        nearest = torch.minimum(nearest, distances.amin(0))
    return Neighbourhoods(
        precision=precise / len(drawn),
        recall=float(recalled.double().mean()),
        density=balls / (k_density * len(drawn)),
        coverage=float((nearest < of_reference[1]).double().mean()),
    )


def nearest(
    features: Float[Tensor, "n d"], among: Float[Tensor, "m d"], count: int
) -> tuple[Float[Tensor, "n count"], Tensor]:
    """The distances to the nearest of other features, nearest first, and which they are (both n count)."""
    found = [distances.topk(count, largest=False) for _, distances in _distances(features, among)]
    return torch.cat([values for values, _ in found]), torch.cat([places for _, places in found])


def _radii(features: Float[Tensor, "n d"], neighbours: tuple[int, ...]) -> list[Float[Tensor, " n"]]:
    """The distance of each to its k-th nearest neighbour, which is not itself."""
    distances, _ = nearest(features, features, max(neighbours) + 1)
    return [distances[:, k] for k in neighbours]


def _distances(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances, some rows at a time.

    They come out of a product of matrices, which loses the digits of small ones: hence float64, about the mean.
    """
    middle = other.double().mean(0)
    columns = other.double() - middle
    for start in range(0, len(one), _ROWS):
        rows = slice(start, min(start + _ROWS, len(one)))
        yield rows, torch.cdist(one[rows].double() - middle, columns, compute_mode="use_mm_for_euclid_dist")
