"""The Frechet distance between two sets of clips or pictures, seen through a network's features: FVD and its like.

The features of each set are taken for draws from a normal distribution, and the distance is that between the two. It
falls as samples become more: with fewer of them than features it is defined, but far too high. Compare distances only
of the same network and the same numbers of samples.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.evaluation.features import FeatureNetwork


class FeatureStatistics:
    """The mean and the covariance of features that come batch by batch, in float64; memory grows with d alone.

    Sums are taken about the running mean, which loses no digits, and those of two parts of a set can be merged:
    `count` features, their `mean` (d), and `scatter` (d d), the sum of the products of what they are off it.

    Args:
        dim: how many features a sample has.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: Float[Tensor, "b d"]) -> None:
        """Adds some features.

        Raises:
            RinError: their number is not that of the features before.
        """
        batch = FeatureStatistics(features.shape[1])
        features = features.cpu().double()
        if len(features):
            batch.count, batch.mean = len(features), features.mean(0)
            off = features - batch.mean
            batch.scatter = off.T @ off
        self.merge(batch)

    def merge(self, other: "FeatureStatistics") -> None:
        """Adds the features of another part of the set.

        Raises:
            RinError: they are not as many as these.
        """
        _check_same(self, other)
        count = self.count + other.count
        if other.count:
            off = other.mean - self.mean
            self.mean = self.mean + off * (other.count / count)
            self.scatter = self.scatter + other.scatter + off.outer(off) * (self.count * other.count / count)
            self.count = count

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The unbiased one.

        Raises:
            RinError: there are fewer than two samples.
        """
        if self.count < 2:
            raise RinError(f"a Frechet distance from {self.count} samples: give 2 or more on both sides")
        return self.scatter / (self.count - 1)


def _check_same(one: FeatureStatistics, other: FeatureStatistics) -> None:
    if len(one.mean) != len(other.mean):
        raise RinError(f"{len(one.mean)} features beside {len(other.mean)}: take both from the same network")


def feature_statistics(batches: Iterable[Tensor], network: FeatureNetwork) -> FeatureStatistics:
    """The statistics of all clips or pictures of some batches.

    Args:
        batches: uint8 clips (b c f h w) or pictures (b c h w), not necessarily as many in each.
        network: what makes features of them.

    Raises:
        RinError: there are none, or the network fails.
    """
    statistics: FeatureStatistics | None = None
    for batch in batches:
        features = network(batch)
        statistics = statistics or FeatureStatistics(features.shape[1])
        statistics.update(features)
    if statistics is None:
        raise RinError("no clips or pictures to take features of: give 2 or more")
    return statistics


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """The squared distance between the means, and that between the covariances.

    With covariances A and B the latter is tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2. The last trace is the sum of the
    singular values of A^1/2 B^1/2: real and not negative whatever the covariances, singular ones of few samples too.

    Raises:
        RinError: features that are not as many, or fewer than two samples.
    """
    _check_same(one, other)
    first, second = one.covariance, other.covariance
    common = torch.linalg.svdvals(_root(first).T @ _root(second)).sum()
    distance = (one.mean - other.mean).square().sum() + first.trace() + second.trace() - 2 * common
    return max(float(distance), 0.0)  # rounding leaves a little less than nothing between equals


def _root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A matrix that, times its own transpose, is the covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    # what rounding has left of an eigenvalue of 0 would have a root a hundred million times as large
    values = values.where(values > values[-1] * len(values) * torch.finfo(values.dtype).eps, 0)
    return vectors * values.sqrt()
