"""The Frechet distance between two sets of clips or pictures, seen through a network's features: FVD and its like.

The features of each set are taken for draws from a normal distribution, and the distance is that between the two. It
falls as samples become more: with fewer of them than features it is defined, but far too high. Compare distances only
of the same network and the same numbers of samples.

The network is a TorchScript file of the user's: uint8 clips (b c f h w), 0 to 255, go in and features (b d) come out;
rescaling and resizing are its own business. The I3D network that published FVDs use, `i3d_torchscript.pt`, gives logits
unless it is told otherwise, and so has to be wrapped once:

    class Features(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return self.network(clips.float(), rescale=True, resize=True, return_features=True)

    torch.jit.script(Features(torch.jit.load("i3d_torchscript.pt"))).save("features.pt")
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Media


class FeatureNetwork:
    """A network of the user's that turns clips or pictures into features.

    TorchScript has an interpreter and a reader of its own, in C++: Python's pickle takes no part, and no Python in the
    file is run. What TorchScript itself can do, which includes reading and writing files, the file can do: take it from
    people you trust.

    Args:
        path: a file that `torch.jit.save` wrote.
        device: what to compute on.

    Raises:
        RinError: the file is not there, or is not TorchScript.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        if not path.is_file():
            raise RinError(f"no feature network at {path}: give a TorchScript file")
        try:
            with warnings.catch_warnings():
                # PyTorch would have files of torch.export instead, but the networks that people share are these
                warnings.simplefilter("ignore", DeprecationWarning)
                self._network = torch.jit.load(path, map_location=device).eval()
        except (RuntimeError, ValueError, OSError, torch.jit.Error) as error:
            raise RinError(
                f"cannot read the feature network {path}: give a TorchScript file, as torch.jit.save writes it "
                f"({_last_line(error)})"
            ) from error

    @torch.no_grad()
    def __call__(self, media: Media) -> Float[Tensor, "b d"]:
        """The features of some clips or pictures, in float64 on the CPU.

        Raises:
            RinError: the network fails at them, or gives what are not features (b d), or not finite ones.
        """
        try:
            features = self._network(media.to(self._device))
        except (RuntimeError, torch.jit.Error) as error:
            shape = "x".join(map(str, media.shape))
            raise RinError(f"the feature network {self._path} fails at uint8 {shape}: {_last_line(error)}") from error
        if not (isinstance(features, Tensor) and features.is_floating_point() and features.ndim == 2) or (
            len(features) != len(media)
        ):
            given = (
                f"{features.dtype} {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            )
            raise RinError(
                f"the feature network {self._path} gives {given} for {len(media)} clips: wrap it so that it gives "
                f"floats (b d)"
            )
        features = features.cpu().double()
        if not features.isfinite().all():
            raise RinError(f"the feature network {self._path} gives NaN or infinity: take one that fits these clips")
        return features


def _last_line(error: Exception) -> str:
    """The sentence that says what went wrong, behind TorchScript's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__


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
