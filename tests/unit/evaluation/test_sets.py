"""Measures of sets of points, against their formulas written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import rin
from rin import DataConfig, RinError, open_data
from rin.evaluation import sets
from rin.evaluation.sets import (
    chamfer_distances,
    describe_sets,
    earth_movers_distances,
    measured_sets,
    set_quality,
)
from rin.toys.points import SHAPES, draw_points, outline

CHANCE = torch.Generator().manual_seed(0)


def some(count, points=7, size=3):
    """Sets of points by chance."""
    return torch.rand(count, points, size, generator=CHANCE) * 2 - 1


@pytest.mark.parametrize("at_a_time", [2**25, 100, 1])
def test_the_chamfer_distance_is_that_of_its_formula(monkeypatch, at_a_time):
    monkeypatch.setattr(sets, "_AT_A_TIME", at_a_time)
    a, b = some(5), some(4, points=9)
    found = chamfer_distances(a, b)
    for i in range(5):
        for j in range(4):
            apart = ((a[i][:, None] - b[j][None]) ** 2).sum(-1)
            expected = apart.min(1).values.mean() + apart.min(0).values.mean()
            torch.testing.assert_close(found[i, j], expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_points_means_nothing_to_a_distance():
    a = some(3)
    mixed = a[:, torch.randperm(7, generator=CHANCE)]
    for distance in (chamfer_distances, earth_movers_distances):
        torch.testing.assert_close(distance(mixed, mixed), distance(a, a), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(distance(a, mixed).diagonal(), torch.zeros(3), rtol=0, atol=1e-5)


def test_the_earth_movers_distance_is_the_least_of_all_matchings():
    from itertools import permutations

    a, b = some(2, points=4), some(2, points=4)
    found = earth_movers_distances(a, b)
    for i in range(2):
        for j in range(2):
            means = [(a[i] - b[j][list(order)]).norm(dim=1).mean() for order in permutations(range(4))]
            torch.testing.assert_close(found[i, j], min(means), rtol=1e-5, atol=1e-6)


def moved_apart(distance):
    """Sets on a line, so that which are near is plain: distances of their only points."""
    return lambda a, b: (a[:, None, 0, 0] - b[None, :, 0, 0]).abs() + distance


def test_quality_of_sets_on_a_line():
    drawn, reference = (
        torch.tensor(places)[:, None, None] for places in ([0.0, 1.0, 10.0, 11.0], [0.4, 5.0, 5.1, 20.0])
    )
    found = set_quality(drawn, reference, moved_apart(0))
    # nearest to 0 is 0.4, to 1 is 0.4; 10 and 11 have one another; 0.4 is nearest to 0; 5 and 5.1 one another; 20 to 11
    assert found.nearest_neighbour_accuracy == pytest.approx((2 + 2) / 8)
    assert found.coverage == pytest.approx(2 / 4)  # 0.4, and 5.1 of both 10 and 11
    assert found.minimum_matching_distance == pytest.approx((0.4 + 4.0 + 4.1 + 9.0) / 4)


def test_sets_of_one_kind_cannot_be_told_apart_and_others_can():
    x, kinds = draw_points(800, 32, seed=1)
    x, kinds = torch.from_numpy(x).float(), torch.from_numpy(kinds)
    assert 0.45 < set_quality(x[:400], x[400:], chamfer_distances).nearest_neighbour_accuracy < 0.55
    assert set_quality(x[:400] * 0.5, x[400:], chamfer_distances).nearest_neighbour_accuracy > 0.8
    copies = set_quality(x[:400], x[:400] + 1e-4, chamfer_distances)
    assert copies.nearest_neighbour_accuracy < 0.05
    assert copies.coverage == 1
    more, their_kinds = draw_points(4000, 32, seed=2)
    nearest = torch.from_numpy(their_kinds)[chamfer_distances(x[:200], torch.from_numpy(more).float()).argmin(1)]
    assert (nearest == kinds[:200]).double().mean() > 0.6


def test_as_many_are_compared():
    with pytest.raises(RinError, match="give as many"):
        set_quality(some(3), some(4), chamfer_distances)


def test_generated_points_lie_on_their_outlines_repeat_and_stay_inside():
    x, kinds = draw_points(600, 128)
    again, _ = draw_points(600, 128)
    assert np.array_equal(x, again)
    assert np.abs(x).max() <= 1
    assert np.mean(np.abs(x) == 1) < 1e-4, "next to none had to be cut off"
    assert np.bincount(kinds, minlength=len(SHAPES)).min() > 60
    for name in SHAPES:
        assert np.linalg.norm(outline(name), axis=1).max() <= 1.01


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on points of two updates."""
    folder = tmp_path_factory.mktemp("points") / "run"
    points = rin.preset("points")
    training = replace(points.training, num_steps=2, sample_every=2)
    rin.train(replace(points, training=training, model=replace(points.model, shape=(16, 2))), folder)
    return folder


def test_a_run_is_measured_and_its_previews_are_scatter_plots(run, monkeypatch):
    found = measured_sets(rin.load(run), run, 24, 6, num_steps=2)
    assert found["num"] == 24
    assert found["earth_mover"]["num"] == 6
    assert found["chamfer"]["nearest_neighbour_accuracy"] > 0.9, "untrained, it is told apart"
    assert 0 <= found["class_accuracy"]["drawn"] < 0.6 < found["class_accuracy"]["held_out"]
    assert found["nearest_of_training"]["drawn"] > found["nearest_of_training"]["held_out"] > 0
    assert "1-nearest-neighbour accuracy" in describe_sets(found)
    assert (run / "samples" / "step-000000002.png").is_file()
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    assert "earth_mover" not in measured_sets(rin.load(run), run, 4, 2, num_steps=1)


def test_what_is_looked_at_of_many_is_of_all_classes(run, monkeypatch):
    monkeypatch.setattr("rin.evaluation.sets._CHECKED", 12)
    trained = rin.load(run)
    data = open_data(DataConfig(path="points", num_held_out=1000, flip=False), (16, 2)).training
    sets, labels = data.get(torch.arange(1000))

    def copies(asked, _):
        """Sets that were trained on; circles in place of hearts, the last class."""
        places = {kind: iter((labels == kind).nonzero().flatten().tolist()) for kind in range(len(SHAPES))}
        return torch.stack([sets[next(places[kind % 5])] for kind in asked]).float()

    monkeypatch.setattr(trained, "sample", copies)
    found = measured_sets(trained, run, 60, 0)
    assert found["nearest_of_training"]["num"] == 12
    assert found["nearest_of_training"]["drawn"] == pytest.approx(0, abs=1e-6)
    assert found["class_accuracy"]["drawn"] == pytest.approx(10 / 12)


@pytest.mark.parametrize("num", [1, 0, 10_000])
def test_numbers_of_sets_that_there_are_not_are_one_line(run, num):
    with pytest.raises(RinError, match="take 2 to 1000"):
        measured_sets(rin.load(run), run, num, 0, num_steps=1)


def test_a_model_that_tells_no_data_is_one_line(run, tmp_path):
    rin.load(run).save(tmp_path / "saved")
    with pytest.raises(RinError):
        measured_sets(rin.load(tmp_path / "saved"), tmp_path / "saved", 4, 0, num_steps=1)
