"""Metrics of features, against brute force, closed forms and torchmetrics."""

import math

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from rin.core.errors import RinError
from rin.evaluation.kernel import kernel_distance
from rin.evaluation.neighbourhoods import nearest, neighbourhoods
from rin.evaluation.scores import ClassifierScores


def _normal(num: int, dim: int, seed: int, mean: float = 0.0) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def _radius(features: torch.Tensor, place: int, k: int) -> float:
    others = [math.dist(features[place].tolist(), other.tolist()) for n, other in enumerate(features) if n != place]
    return sorted(others)[k - 1]


def test_neighbourhoods_are_those_of_the_published_formulas():
    reference, drawn = _normal(60, 3, 0), _normal(50, 3, 1, mean=0.7)
    found = neighbourhoods(reference, drawn)
    between = [[math.dist(one.tolist(), other.tolist()) for other in reference] for one in drawn]
    wide = [_radius(reference, n, 3) for n in range(60)]
    wide_drawn = [_radius(drawn, n, 3) for n in range(50)]
    fifth = [_radius(reference, n, 5) for n in range(60)]
    precision = sum(any(row[n] <= wide[n] for n in range(60)) for row in between) / 50
    recall = sum(any(between[m][n] <= wide_drawn[m] for m in range(50)) for n in range(60)) / 60
    density = sum(row[n] < fifth[n] for row in between for n in range(60)) / (5 * 50)
    coverage = sum(any(row[n] < fifth[n] for row in between) for n in range(60)) / 60
    assert found == pytest.approx((precision, recall, density, coverage), abs=1e-12)
    assert all(0 < share < 1 for share in (precision, recall, coverage))


def test_neighbourhoods_of_a_set_and_itself_and_of_one_far_away():
    reference = _normal(3000, 4, 0)  # more than one part of the table of distances
    same = neighbourhoods(reference, reference.clone())
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = neighbourhoods(reference, reference + 100)
    assert far == (0, 0, 0, 0)


def test_small_distances_keep_their_digits_far_from_the_origin():
    one = _normal(20, 8, 0) * 1e-4 + 1e3
    distances, places = nearest(one, one, 2)
    assert places[:, 0].tolist() == list(range(20))
    truth = torch.tensor([_radius(one, n, 1) for n in range(20)], dtype=torch.float64)
    torch.testing.assert_close(distances[:, 1], truth, rtol=1e-4, atol=0)


def test_kernel_distance_is_that_of_torchmetrics():
    one, other = _normal(200, 16, 0), _normal(200, 16, 1, mean=0.3)
    estimate = kernel_distance(one, other)
    assert estimate.value == pytest.approx(float(poly_mmd(one, other)), rel=1e-12)


def test_kernel_distance_does_not_depend_on_the_number_of_samples_and_is_seeded():
    one, other = _normal(4000, 8, 0), _normal(4000, 8, 1, mean=0.5)
    whole = kernel_distance(one, other, subset_size=4000)
    small = kernel_distance(one, other, subset_size=200)
    assert small.value == pytest.approx(whole.value, abs=4 * small.deviation / 10)
    assert small == kernel_distance(one, other, subset_size=200)
    assert small != kernel_distance(one, other, subset_size=200, seed=1)
    assert abs(kernel_distance(one, _normal(4000, 8, 2)).value) < whole.value / 20


def test_inception_score_of_known_distributions():
    even = ClassifierScores(10)
    even.update(torch.zeros(100, 10), None)
    assert even.inception_score() == pytest.approx((1, 0), abs=1e-9)
    sure = ClassifierScores(10)
    classes = torch.arange(10).repeat_interleave(10)  # in order, as samples are drawn
    sure.update(torch.nn.functional.one_hot(classes, 10) * 1e3, classes.tolist())
    assert sure.inception_score() == pytest.approx((10, 0), abs=1e-9)
    assert sure.class_accuracy() == 1


def test_scores_do_not_depend_on_the_batches():
    logits = _normal(97, 10, 0) * 3
    labels = [n % 10 for n in range(97)]
    whole, parts = ClassifierScores(10), ClassifierScores(10)
    whole.update(logits, labels)
    for start in range(0, 97, 13):
        parts.update(logits[start : start + 13], labels[start : start + 13])
    assert parts.inception_score() == pytest.approx(whole.inception_score(), rel=1e-12)
    assert parts.class_accuracy() == whole.class_accuracy() == sum(logits.argmax(1) == torch.tensor(labels)) / 97


@pytest.mark.parametrize("wrong", [
    lambda: neighbourhoods(_normal(5, 3, 0), _normal(50, 3, 0)),
    lambda: neighbourhoods(_normal(50, 3, 0), _normal(50, 4, 0)),
    lambda: kernel_distance(_normal(1, 3, 0), _normal(50, 3, 0)),
    lambda: kernel_distance(_normal(50, 3, 0), _normal(50, 4, 0)),
    lambda: ClassifierScores(10).inception_score(),
])  # fmt: skip
def test_too_few_samples_and_features_of_other_networks_are_refused(wrong):
    with pytest.raises(RinError):
        wrong()
