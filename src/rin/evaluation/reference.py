"""What is kept of a set of pictures that samples are measured against: computed once, for one feature network."""

import hashlib
import json
import zipfile
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
from rin.core.progress import progress_bar
from rin.data import MediaSet
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.frechet import FeatureStatistics
from rin.evaluation.neighbourhoods import ball_radii

_MOST_KEPT = 50_000
"""Pictures of a set whose features are kept one by one."""


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

    told: Mapping[str, Any]
    """What a person has to know of it: which set, how many pictures of which size, a digest of their pixels, and that
    of the network."""

    known_radii: Float[Tensor, "2 kept"] | None = None
    """The features' `ball_radii`, if they have been worked out before."""

    @cached_property
    def radii(self) -> Float[Tensor, "2 kept"]:
        """The features' `ball_radii`."""
        return ball_radii(self.features) if self.known_radii is None else self.known_radii

    def save(self, path: Path) -> None:
        """Writes it as an .npz: mu, sigma and n, as such files have them, features, their radii and what is told.

        Raises:
            RinError: the file cannot be written.
        """
        arrays = {
            "mu": self.statistics.mean.numpy(),
            "sigma": self.statistics.covariance.numpy(),
            "n": np.array(self.statistics.count),
            "features": self.features.numpy(),
            **({"radii": self.radii.numpy()} if len(self.features) > 5 else {}),
            "told": np.array(json.dumps(dict(self.told))),
        }
        try:
            with written_whole(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise RinError(f"cannot write {path}: {error.strerror or error}") from error


def measure_reference(media: MediaSet, network: FeatureNetwork, batch_size: int, told: Mapping[str, Any]) -> Reference:
    """Takes the features of a whole set of pictures, in bounded memory.

    Args:
        media: the pictures.
        network: what makes features of them.
        batch_size: pictures at a time.
        told: which set it is.

    Raises:
        RinError: a picture cannot be read, there are none, or the network fails.
    """
    statistics: FeatureStatistics | None = None
    kept = Kept(spacing(len(media)))
    pixels = hashlib.sha256()
    with progress_bar("reference", len(media)) as bar:
        for places in torch.arange(len(media)).split(batch_size):
            pictures, _ = media.get(places)
            pixels.update(pictures.cpu().numpy().tobytes())
            features = network(pictures)
            statistics = statistics or FeatureStatistics(features.shape[1])
            kept.update(features.float())
            statistics.update(features)
            for _ in places:
                bar.advance()
    if statistics is None:
        raise RinError("the reference set holds no pictures: give another")
    of_set = {"count": len(media), "shape": list(media.shape), "pixels_sha256": pixels.hexdigest()}
    told = {**told, **of_set, "network_sha256": network.digest}
    return Reference(statistics=statistics, features=kept.all(), told=told)


def read_reference(path: Path, network: FeatureNetwork) -> Reference:
    """A reference that was kept, or the `mu` and `sigma` that other programs have written.

    Raises:
        RinError: the file is no such thing, or was made with another network.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("mu", "sigma"))
            count = int(arrays["n"]) if "n" in arrays else None
            features = torch.from_numpy(arrays["features"]) if "features" in arrays else torch.empty(0, len(mean))
            radii = torch.from_numpy(arrays["radii"]) if "radii" in arrays else None
            told = json.loads(str(arrays["told"])) if "told" in arrays else {"count": count}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RinError(f"{path} holds no statistics of a reference set ({error}): an .npz with mu and sigma") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not covariance.isfinite().all():
        raise RinError(f"{path} holds no statistics: mu has {tuple(mean.shape)}, sigma {tuple(covariance.shape)}")
    if told.get("network_sha256", network.digest) != network.digest:
        raise RinError(f"{path} was made with another feature network: make it again, or give that network")
    statistics = FeatureStatistics(len(mean))
    statistics.count, statistics.mean = count or 2, mean
    statistics.scatter = covariance * (statistics.count - 1)
    told = {**told, "file": path.name}
    return Reference(statistics=statistics, features=features, told=told, known_radii=radii)
