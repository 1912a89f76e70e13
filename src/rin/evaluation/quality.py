"""How good pictures are: every measure of them against a reference set, as they come, batch by batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Pictures
from rin.evaluation.borders import PixelSteps
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.frechet import FeatureStatistics, frechet_distance
from rin.evaluation.kernel import kernel_distance
from rin.evaluation.neighbourhoods import nearest, neighbourhoods
from rin.evaluation.reference import Kept, Reference, spacing
from rin.evaluation.scores import ClassifierScores

_COPY = 1 / 3
"""A sample is taken for a copy if its nearest picture of the reference is nearer than this share of the second nearest
(Yoon et al., "Diffusion probabilistic models generalize when they fail to memorize", 2023)."""


_SHOWN = 1000
"""Pictures that are kept themselves, to be looked at."""


class Nearest(NamedTuple):
    """Which of the reference's kept features are nearest to those of each kept sample."""

    places: Int[Tensor, "n k"]
    """Places among the reference's features, the nearest first."""

    ratios: Float[Tensor, " n"]
    """The distance to the nearest over that to the second nearest: near 1 for new samples, near 0 for copies."""


class PictureMeasures:
    """Measures of pictures that come batch by batch.

    Memory does not grow with their number for the Frechet distance, the Inception Score and class accuracy; for what
    compares sample with sample the features of 50,000 are kept, see `Kept`.

    Args:
        network: what sees them.
        reference: what they are measured against.
        num: how many come.
        num_classes: of the labels that come with them; they count if the network has as many.
        patch_size: of the model that drew them, whose seams are looked for; 0 if it has no patches of several pixels.
    """

    def __init__(
        self, network: FeatureNetwork, reference: Reference, num: int, num_classes: int = 0, patch_size: int = 0
    ) -> None:
        self._network, self._reference, self._num_classes = network, reference, num_classes
        self._patch_size, self._steps = patch_size, PixelSteps()
        self._statistics = FeatureStatistics(len(reference.statistics.mean))
        self._features = Kept(spacing(num))
        few = spacing(-(-num // self._features.spacing), _SHOWN)
        self._pictures = Kept(few * self._features.spacing)
        self._scores: ClassifierScores | None = None

    def update(self, pictures: Pictures, labels: Sequence[int] | None) -> None:
        """Adds some pictures (b c h w) and the classes that were asked for, if any were.

        Raises:
            RinError: the network fails, or gives other features than the reference has.
        """
        features, logits = self._network.with_logits(pictures)
        self._features.update(features.float())
        self._pictures.update(pictures.cpu())
        if self._patch_size:
            self._steps.update(pictures)
        self._statistics.update(features)
        if logits is not None:
            self._scores = self._scores or ClassifierScores(logits.shape[1])
            requested = None if labels is None or logits.shape[1] != self._num_classes else list(labels)
            self._scores.update(logits, requested)

    def results(self) -> dict[str, Any]:
        """All measures by name, as JSON has them; those that cannot be had are left out.

        Raises:
            RinError: there are fewer than two samples.
        """
        count, against = self._statistics.count, self._reference
        results: dict[str, Any] = {"frechet_distance": frechet_distance(self._statistics, against.statistics)}
        if self._scores is not None:
            if count >= 10:  # as many parts
                results["inception_score"] = self._scores.inception_score()._asdict()
            if self._scores.requested:
                results["class_accuracy"] = self._scores.class_accuracy()
        ratio = self._steps.border_ratios().get(str(self._patch_size))
        if ratio is not None:
            of_reference = against.border_ratio(self._patch_size)
            results["border_ratio"] = {"patch_size": self._patch_size, "samples": ratio, "reference": of_reference}
        if not len(against.features):
            return results
        features = self._features.all()
        results["kernel_distance"] = kernel_distance(features, against.features)._asdict()
        if min(count, len(against.features)) > 5:
            results |= neighbourhoods(against.features, features, against.radii)._asdict()
        ratios = self.nearest(2).ratios
        results["copies"] = {"share": float((ratios < _COPY).double().mean()), "nearer_than": _COPY}
        return results

    def nearest(self, count: int) -> Nearest:
        """The nearest pictures of the reference, two or more, to each kept sample.

        Raises:
            RinError: not as many features of the reference are kept.
        """
        among = self._reference.features
        if len(among) < count:
            raise RinError(f"{len(among)} features of the reference are kept: give a set of {count} pictures or more")
        distances, places = nearest(self._features.all(), among, count)
        return Nearest(places, distances[:, 0] / distances[:, 1].clamp(min=1e-12))

    def most_like_copies(self, count: int, neighbours: int) -> tuple[Pictures, Int[Tensor, "shown k"]]:
        """Of a thousand evenly spaced samples those most like copies, and where in the reference their nearest are.

        Raises:
            RinError: not as many features of the reference are kept.
        """
        pictures, nearest = self._pictures.all(), self.nearest(neighbours)
        every = self._pictures.spacing // self._features.spacing
        worst = nearest.ratios[::every].argsort()[:count]
        return pictures[worst], nearest.places[::every][worst] * spacing(self._reference.statistics.count)


def table(columns: dict[str, dict[str, Any]]) -> str:
    """The measures, a line each, higher or lower being better as it says.

    Args:
        columns: the results of each, by what is written over them.
    """
    rows = [
        ("frechet_distance", "Frechet distance (FID, if the network is its), lower"),
        ("kernel_distance", "kernel distance x 1000 (KID), lower"),
        ("inception_score", "Inception Score, higher"),
        ("class_accuracy", "taken for the class asked for"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("density", "density"),
        ("coverage", "coverage"),
    ]
    lines = [_line("", list(columns))] if any(columns) else []
    for name, words in rows:
        if all(name in results for results in columns.values()):
            scale = 1000.0 if name == "kernel_distance" else 1.0
            lines.append(_line(words, [_shown(results[name], scale) for results in columns.values()]))
    if all("copies" in results for results in columns.values()):
        shares = [f"{results['copies']['share']:.2%}" for results in columns.values()]
        lines.append(_line("copies of the reference, by the nearest neighbours", shares))
    if all("border_ratio" in results for results in columns.values()):
        ratios = [_shown_border(results["border_ratio"]) for results in columns.values()]
        lines.append(_line("steps across the borders of patches over those inside", ratios))
    losses = [results.get("held_out_loss", {}) for results in columns.values()]
    for t in losses[0]:
        lines.append(_line(f"held-out loss at t = {t}, lower", [f"{loss[t]:.4g}" for loss in losses]))
    return "\n".join(lines)


def _line(words: str, values: list[str]) -> str:
    return (f"{words:<54}" + "".join(f"{value:<28}" for value in values)).rstrip()


def _shown_border(ratio: dict[str, Any]) -> str:
    of_reference = "" if ratio["reference"] is None else f" (reference {ratio['reference']:.3f})"
    return f"{ratio['samples']:.3f}{of_reference}"


def _shown(value: Any, scale: float) -> str:
    if isinstance(value, dict):
        return f"{scale * value['value']:.4g} (deviation {scale * value['deviation']:.2g})"
    return f"{value:.4g}"
