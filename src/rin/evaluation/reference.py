"""What is kept of a set of pictures that samples are measured against: computed once, for one feature network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from rin.core.errors import RinError
from rin.core.files import written_whole
from rin.core.kind import is_image
from rin.core.npz import Claim, read_npz
from rin.core.pixels import to_pictures
from rin.core.progress import progress_bar
from rin.core.strict_json import parse_json
from rin.data import MediaSet
from rin.data.feeding.media_sets import in_turn
from rin.data.feeding.workers import Asked
from rin.evaluation.borders import PixelSteps
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.frechet import FeatureStatistics
from rin.evaluation.neighbourhoods import ball_radii

_MOST_KEPT = 50_000
"""Pictures of a set whose features are kept one by one."""

_MOST_FEATURES = 2**14
"""Features of a picture: four times those of any network in use; their covariance takes 2 GiB."""

_ROUNDING = 1e-3
"""How far off a covariance may be, as a share of its largest variance: files in half precision are."""


def spacing(count: int, most: int = _MOST_KEPT) -> int:
    """So that one of so many, from the first on, are as many as can be and `most` at most."""
    return max(1, -(-count // most))


class Kept:
    """Something of each picture of a set, or of every second, third and so on where the set is large.

    Evenly spaced, because sets and samples often come class by class.

    Args:
        spacing: pictures from one of which something is kept to the next.
    """

    def __init__(self, spacing: int) -> None:
        self.spacing = spacing
        self._seen, self._parts = 0, list[Tensor]()

    def update(self, values: Shaped[Tensor, "b ..."]) -> None:
        """Adds what belongs to the next pictures."""
        self._parts.append(values[-self._seen % self.spacing :: self.spacing])
        self._seen += len(values)

    def all(self) -> Shaped[Tensor, "kept ..."]:
        """What is kept; that of place n belongs to picture n * spacing."""
        return torch.cat(self._parts)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A set of pictures, seen through a feature network."""

    statistics: FeatureStatistics
    """Of the features of all pictures."""

    features: Float[Tensor, "kept d"]
    """Those of evenly spaced pictures, see `Kept`; none where only statistics were stored."""

    description: Mapping[str, Any]
    """What a person has to know of it: which set, how many pictures of which size, a digest of their pixels, and that
    of the network."""

    known_radii: Float[Tensor, "2 kept"] | None = None
    """The features' `ball_radii`, if they have been worked out before."""

    def border_ratio(self, patch_size: int) -> float | None:
        """`PixelSteps.border_ratio` of its pictures; None where it was not kept."""
        ratios = self.description.get("border_ratios")
        found = ratios.get(str(patch_size)) if isinstance(ratios, dict) else None
        return found if isinstance(found, float) else None

    @cached_property
    def radii(self) -> Float[Tensor, "2 kept"]:
        """The features' `ball_radii`."""
        return ball_radii(self.features) if self.known_radii is None else self.known_radii

    def save(self, path: Path) -> None:
        """Writes it as an .npz: mu, sigma and n, as such files have them, features, their radii and its description.

        Raises:
            RinError: the file cannot be written.
        """
        arrays = {
            "mu": self.statistics.mean.numpy(),
            "sigma": self.statistics.covariance.numpy(),
            "n": np.array(self.statistics.count),
            "features": self.features.numpy(),
            **({"radii": self.radii.numpy()} if len(self.features) > 5 else {}),
            "told": np.array(json.dumps(dict(self.description))),
        }
        try:
            with written_whole(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise RinError(f"cannot write {path}: {error.strerror or error}") from error


def measure_reference(
    media: MediaSet, network: FeatureNetwork, batch_size: int, description: Mapping[str, Any]
) -> Reference:
    """Takes the features of a whole set of pictures or clips, in bounded memory.

    Args:
        media: the pictures, or the clips.
        network: what makes features of them.
        batch_size: pictures at a time.
        description: which set it is.

    Raises:
        RinError: a picture cannot be read, there are none, or the network fails.
    """
    statistics: FeatureStatistics | None = None
    kept = Kept(spacing(len(media)))
    pixels, steps = hashlib.sha256(), PixelSteps()
    with progress_bar("reference", len(media)) as bar:
        for asked, (examples, _) in in_turn(media, map(Asked, torch.arange(len(media)).split(batch_size))):
            pictures = to_pictures(examples)
            pixels.update(pictures.cpu().numpy().tobytes())
            if is_image(media.shape):
                steps.update(pictures)
            features = network(pictures)
            statistics = statistics or FeatureStatistics(features.shape[1])
            kept.update(features.float())
            statistics.update(features)
            bar.advance(len(asked.examples))
    if statistics is None:
        raise RinError("the reference set holds no pictures: give another")
    of_set = {"count": len(media), "shape": list(media.shape), "pixels_sha256": pixels.hexdigest()}
    description = {**description, **of_set, "network_sha256": network.digest}
    description["border_ratios"] = steps.border_ratios()
    return Reference(statistics=statistics, features=kept.all(), description=description)


_KINDS = {"mu": "f", "sigma": "f", "n": "iuf", "features": "f", "radii": "f", "told": "U"}
"""The arrays of a kept reference, and their kinds."""


def read_reference(path: Path, network: FeatureNetwork) -> Reference:
    """A reference that was kept, or the `mu` and `sigma` that other programs have written.

    Raises:
        RinError: the file is no such thing, or was made with another network.
    """
    refusal = f"{path} holds no statistics of a reference set, an .npz with mu and sigma"
    arrays = read_npz(path, _KINDS, _check_claims, refusal)
    try:
        description = parse_json(str(arrays["told"])) if "told" in arrays else {}
        count = _count(arrays["n"]) if "n" in arrays else None
        tensors = {
            name: torch.from_numpy(arrays[name]) for name in ("mu", "sigma", "features", "radii") if name in arrays
        }
        for name, values in tensors.items():
            if not values.isfinite().all():
                raise ValueError(f"{name} has NaN or infinity")
        mean, covariance = tensors["mu"].double(), tensors["sigma"].double()
        _check_covariance(covariance)
        if not isinstance(description, dict):
            raise ValueError("its description is no dictionary")
    except ValueError as error:
        raise RinError(f"{refusal}: {error}") from error
    if description.get("network_sha256", network.digest) != network.digest:
        raise RinError(f"{path} was made with another feature network: make it again, or give that network")
    statistics = FeatureStatistics(len(mean))
    statistics.count, statistics.mean = count or 2, mean
    statistics.scatter = covariance * (statistics.count - 1)
    return Reference(
        statistics=statistics,
        features=tensors.get("features", torch.empty(0, len(mean))),
        description={"count": count, **description, "file": path.name},
        known_radii=tensors.get("radii"),
    )


def _check_claims(claims: Mapping[str, Claim]) -> None:
    """Refuses arrays whose shapes do not go together.

    Raises:
        ValueError: they do not.
    """
    for name in ("mu", "sigma"):
        if name not in claims:
            raise ValueError(f"it has no {name}")
    mean = claims["mu"].shape
    if len(mean) != 1 or not 1 <= mean[0] <= _MOST_FEATURES:
        raise ValueError(f"mu has {mean}, where (d) is needed, {_MOST_FEATURES} at most")
    kept = claims["features"].shape[0] if "features" in claims and claims["features"].shape else 0
    if kept > _MOST_KEPT:
        raise ValueError(f"features are of {kept} pictures, where {_MOST_KEPT} are the most")
    shapes = {"sigma": mean * 2, "n": (), "told": (), "features": (kept, *mean), "radii": (2, kept)}
    for name, shape in shapes.items():
        if name in claims and claims[name].shape != shape:
            raise ValueError(f"{name} has {claims[name].shape}, where {shape} is needed")


def _count(stored: np.ndarray) -> int:
    """How many pictures a reference is of."""
    count = float(stored)
    if not (count.is_integer() and 2 <= count < 2**53):
        raise ValueError(f"n is {count:g}, where 2 or more are needed")
    return int(count)


def _check_covariance(matrix: Float[Tensor, "d d"]) -> None:
    """Refuses a matrix that is no covariance, by more than rounding.

    Raises:
        ValueError: it is not symmetric, or there is a direction in which it varies by less than nothing.
    """
    slack = _ROUNDING * float(matrix.diagonal().abs().max()) + torch.finfo(matrix.dtype).tiny
    if float((matrix - matrix.T).abs().max()) > slack:
        raise ValueError("sigma is not symmetric, as a covariance is")
    if int(torch.linalg.cholesky_ex(matrix + slack * torch.eye(len(matrix), dtype=matrix.dtype)).info):
        raise ValueError("sigma is no covariance: in some direction it is below 0")
