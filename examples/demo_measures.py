"""What the samples of the digits demo are measured by: are they right, various, and new?

Every measure looks at 8 by 8 pixels with values from 0 (paper) to 1 (ink). Pictures of a multiple of that size are
averaged down first, so that a network may draw the digits larger than they were scanned.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

SIDE = 8
"""Height and width of the scans."""

Pictures = NDArray[np.uint8]
"""Digits from 0 to 255: (n height width) or (n 1 height width)."""

Labels = NDArray[np.integer]
"""Their classes (n)."""


@dataclass(frozen=True, kw_only=True)
class DemoMeasures:
    """How good the samples of one run are; accuracies and shares from 0 to 1."""

    num_samples: int
    """Samples measured."""

    real_accuracy: float
    """The reference: a classifier trained on the real training digits, on the held-out digits."""

    class_share: float
    """Samples that this classifier takes for the class that was asked for."""

    sample_accuracy: float
    """A classifier trained on the samples alone, on the held-out digits."""

    sample_distance: float
    """From a sample to the nearest training digit, on average."""

    held_out_distance: float
    """From a held-out digit to the nearest training digit, on average."""

    median_sample_distance: float
    """From a sample to the nearest training digit, the median."""

    median_held_out_distance: float
    """From a held-out digit to the nearest training digit, the median."""

    @property
    def distance_ratio(self) -> float:
        """Mean distance of samples over that of held-out digits."""
        return self.sample_distance / self.held_out_distance

    @property
    def median_distance_ratio(self) -> float:
        """Median distance of samples over that of held-out digits."""
        return self.median_sample_distance / self.median_held_out_distance


def measure(
    samples: Pictures,
    sample_labels: Labels,
    train: Pictures,
    train_labels: Labels,
    held_out: Pictures,
    held_out_labels: Labels,
) -> DemoMeasures:
    """Measures samples against the digits that the network was trained on and those that it never saw.

    Args:
        samples: pictures drawn by the network.
        sample_labels: the class asked for of each; every class must occur.
        train: the digits that it was trained on.
        train_labels: their classes.
        held_out: digits kept from it.
        held_out_labels: their classes.
    """
    drawn, seen, unseen = pixels(samples), pixels(train), pixels(held_out)
    judge, pupil = classifier(seen, train_labels), classifier(drawn, sample_labels)
    sample_distances, held_out_distances = nearest_distances(drawn, seen), nearest_distances(unseen, seen)
    return DemoMeasures(
        num_samples=len(drawn),
        real_accuracy=float(judge.score(unseen, held_out_labels)),
        class_share=float(judge.score(drawn, sample_labels)),
        sample_accuracy=float(pupil.score(unseen, held_out_labels)),
        sample_distance=float(sample_distances.mean()),
        held_out_distance=float(held_out_distances.mean()),
        median_sample_distance=float(np.median(sample_distances)),
        median_held_out_distance=float(np.median(held_out_distances)),
    )


def pixels(pictures: Pictures) -> NDArray[np.float64]:
    """Pictures as rows of 64 numbers from 0 to 1, averaged down to 8 by 8 (n 64)."""
    *_, height, width = pictures.shape
    if height % SIDE or width % SIDE:
        raise ValueError(f"pictures of {height} by {width}: give digits of {SIDE} by {SIDE} or a multiple of it")
    cells = pictures.reshape(-1, SIDE, height // SIDE, SIDE, width // SIDE).astype(np.float64)
    return cells.mean(axis=(2, 4)).reshape(-1, SIDE * SIDE) / 255


def classifier(rows: NDArray[np.float64], labels: Labels) -> SVC:
    """A support vector machine with radial basis functions, trained on rows of pixels."""
    return SVC(kernel="rbf", C=10.0, gamma="scale").fit(rows, labels)


def nearest_distances(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Euclidean distance of each row to the nearest of the others (n)."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * rows @ others.T
    return np.sqrt(squares.min(axis=1).clip(min=0))


def describe(measures: DemoMeasures) -> str:
    """The measures as aligned lines: what was measured, the value, and what a good one is."""
    found = measures
    lines = (
        (
            f"right: of {found.num_samples} samples, the share taken for the class asked for",
            f"{found.class_share:.1%}",
            "good: 95% or more",
        ),
        (
            "  by a classifier that was trained on real digits; it is right on held-out ones",
            f"{found.real_accuracy:.1%}",
            "the most one can expect",
        ),
        (
            "various: a classifier trained on the samples alone is right on held-out digits",
            f"{found.sample_accuracy:.1%}",
            "good: 90% or more",
        ),
        (
            "new: mean distance of a sample to the nearest training digit",
            f"{found.sample_distance:.3f}",
            "",
        ),
        (
            "  the same distance of a held-out digit",
            f"{found.held_out_distance:.3f}",
            "",
        ),
        (
            "  their ratio: near 0, copies of training digits; well above 1, no digits",
            f"{found.distance_ratio:.2f}",
            "good: 0.90 or more, the nearer to 1 the better",
        ),
        (
            "  the ratio of the medians",
            f"{found.median_distance_ratio:.2f}",
            "good: 0.90 or more, the nearer to 1 the better",
        ),
    )
    what, value = (max(len(line[column]) for line in lines) for column in (0, 1))
    return "\n".join(f"{line[0]:<{what}}  {line[1]:>{value}}  {line[2]}".rstrip() for line in lines)
