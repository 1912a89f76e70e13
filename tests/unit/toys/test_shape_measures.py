"""Measures of predicted moving-shapes: what was done to true frames is what is measured."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rin import RinError
from rin.data.config import MovingShapesConfig
from rin.toys.moving_shapes import COLOURS, GROUND, KINDS, Scenes, draw_scenes
from rin.toys.shape_measures import measure_shapes
from rin.toys.shape_places import find_shapes

GIVEN, PREDICTED = 3, 5
FRAMES = range(GIVEN, GIVEN + PREDICTED)
DIAGONAL = math.hypot(32, 32)


def scenes(begin, velocity, *, kinds=(0, 1), colours=(0, 1), canvas=(32, 32), radius=4.8):
    """One clip, its shapes' places and speeds by hand."""
    return Scenes(
        canvas=canvas,
        radius=radius,
        kinds=np.array([kinds[: len(begin)]]),
        colours=np.array([colours[: len(begin)]]),
        begin=np.array([begin], np.float64),
        velocity=np.array([velocity], np.float64),
    )


def drawn(clips, frames=FRAMES):
    return torch.from_numpy(clips.draw(frames))


def crowded(num_shapes=2, side=32, radius=0.15, count=48):
    """Clips in all of which shapes hide each other."""
    config = MovingShapesConfig(num_shapes=num_shapes, radius=radius, occlusion_rate=1.0)
    return draw_scenes(config, (side, side), 16, np.arange(count))


def without(clips, shape):
    names = ("kinds", "colours", "begin", "velocity")
    return replace(clips, **{name: np.delete(getattr(clips, name), shape, axis=1) for name in names})


def off(frames, clips, numbers):
    return np.linalg.norm(find_shapes(frames, clips).places - clips.positions(numbers), axis=-1)


APART = scenes([[8, 8], [22, 22]], [[0.9, 0.3], [-0.2, 0.4]])
"""A disc and a square that never meet each other or a wall."""


def values(means):
    return [mean.value for mean in means]


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
@pytest.mark.parametrize(("side", "radius"), [(32, 4.8), (64, 9.6), (33, 2.5), (160, 24.0)])
def test_a_shape_alone_is_found_anywhere_to_a_hundredth_of_a_pixel(kind, side, radius):
    one = scenes(
        [[radius + 1.0, radius + 2.0]], [[0.371, 0.233]], kinds=(kind,), canvas=(side, side + 3), radius=radius
    )
    assert off(drawn(one, range(12)), one, range(12)).max() < 0.02


@pytest.mark.parametrize(("shapes", "side", "radius"), [(2, 32, 0.15), (3, 64, 0.15), (6, 64, 0.1)])
def test_true_frames_are_found_even_where_half_is_hidden(shapes, side, radius):
    clips, frames = crowded(shapes, side, radius, 24), range(16)
    visible, whole = clips.areas(frames)
    wrong = off(drawn(clips, frames), clips, frames)
    open_, half = visible > 0.999 * whole, (visible >= 0.5 * whole) & (visible <= 0.999 * whole)
    assert half.sum() > 50
    assert wrong[open_].mean() < 0.02
    assert wrong[open_].max() < 0.35
    assert wrong[half].mean() < 0.05
    assert wrong[half].max() < 0.8


@pytest.mark.parametrize("colours", [(0, 3), (0, 4), (0, 1)], ids=["opposite", "near", "third"])
def test_colours_that_mix_at_edges(colours):
    clips, frames = crowded(), range(16)
    clips.colours[:] = colours
    visible, whole = clips.areas(frames)
    wrong = off(drawn(clips, frames), clips, frames)[visible >= 0.5 * whole]
    assert wrong.mean() < 0.05
    assert wrong.max() < 0.6


def test_noise_and_wrong_tints_move_little():
    clips, frames, random = crowded(), range(16), np.random.default_rng(0)
    noise = random.normal(0, 6, (48, 3, 16, 32, 32)) + random.normal(0, 12, (48, 3, 1, 1, 1))
    noisy = torch.from_numpy((clips.draw(frames) + noise).round().clip(0, 255).astype(np.uint8))
    visible, whole = clips.areas(frames)
    wrong = off(noisy, clips, frames)[visible >= 0.5 * whole]
    assert wrong.mean() < 0.08
    assert wrong.max() < 0.8
    measures = measure_shapes(noisy[:, :, GIVEN:], clips, GIVEN)
    assert measures.vanished.overall.value == 0
    assert measures.recoloured.overall.value == 0


def test_shapes_in_the_wrong_order_are_still_found():
    clips, frames = crowded(), range(16)
    names = ("kinds", "colours", "begin", "velocity")
    swapped = replace(clips, **{name: getattr(clips, name)[:, ::-1].copy() for name in names})
    visible, whole = clips.areas(frames)
    wrong = off(drawn(clips, frames), swapped, frames)[:, :, ::-1][visible >= 0.5 * whole]
    assert wrong.mean() < 0.05
    assert wrong.max() < 0.8


def test_what_the_edge_of_the_frame_leaves_open_is_taken_for_outside():
    # the front square leaves a strip of the one behind: its upper edge and what it could have above the frame
    two = scenes([[10.18, 3.424], [9.938, 7.337]], [[0, 0], [0, 0]], kinds=(1, 1), colours=(0, 3))
    assert off(drawn(two, range(1)), two, range(1)).max() < 0.6


@pytest.mark.parametrize("colours", [(0, 3), (0, 1), (0, 5)], ids=["opposite", "third", "near"])
def test_mixtures_at_edges_are_no_strange_colour(colours):
    clips = crowded()
    clips.colours[:] = colours
    found = find_shapes(drawn(clips), clips)
    assert found.foreign.max() < 0.02 * clips.areas(FRAMES)[1].mean()


def test_what_has_a_strange_colour_may_hide_a_shape():
    two = scenes([[14, 14.3], [18, 16.6]], [[0, 0], [0, 0]], kinds=(0, 0), colours=(0, 1))
    recoloured = drawn(replace(two, colours=np.array([[0, 4]])), range(1))
    assert off(recoloured, two, range(1))[0, 0, 0] < 0.2


def test_true_frames_measure_as_nothing_wrong():
    clips = crowded()
    measures = measure_shapes(drawn(clips), clips, GIVEN)
    assert measures.predicted.overall.value < 0.02
    assert max(values(measures.predicted.by_frame)) < 0.03
    assert measures.vanished.overall.value == measures.recoloured.overall.value == 0
    assert (measures.num_clips, measures.num_shapes, measures.num_context_frames) == (48, 2, GIVEN)
    visible, whole = clips.areas(FRAMES)
    assert measures.scored == (visible >= whole / 4).sum() < visible.size


def test_a_shift_is_measured_as_it_is():
    moved = replace(APART, begin=APART.begin + np.array([[1.5, -2.0], [0.0, 0.0]]))
    measures = measure_shapes(drawn(moved), APART, GIVEN)
    np.testing.assert_allclose(values(measures.predicted.by_frame), 2.5 / 2, atol=0.01)
    rolled = drawn(APART).roll((3, -4), dims=(3, 4))
    np.testing.assert_allclose(values(measure_shapes(rolled, APART, GIVEN).predicted.by_frame), 5, atol=0.01)


def test_a_shape_that_is_gone_counts_as_the_diagonal():
    frames = drawn(APART)
    frames[:, :, 2:] = drawn(without(APART, 1))[:, :, 2:]
    measures = measure_shapes(frames, APART, GIVEN)
    assert values(measures.vanished.by_frame) == [0, 0, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(values(measures.predicted.by_frame), [0, 0, *[DIAGONAL / 2] * 3], atol=0.01)
    assert measures.vanished.overall.value == pytest.approx(0.3)
    assert measures.recoloured.overall.value == 0


@pytest.mark.parametrize("colour", [*(COLOURS[n] for n in (2, 3, 4, 5)), (0, 0, 0), (255, 255, 255), (255, 128, 255)])
def test_a_shape_in_another_colour_is_told_from_one_that_is_gone(colour):
    frames = drawn(APART).permute(0, 2, 3, 4, 1).float()
    ground, own = torch.tensor(GROUND).float(), torch.tensor(COLOURS[1]).float()
    ours = torch.zeros(frames.shape[:-1], dtype=torch.bool)
    ours[:, 1:, 16:, 16:] = True
    share = ((frames - ground) @ (own - ground) / (own - ground).square().sum())[..., None]
    frames = torch.where(ours[..., None], ground + share * (torch.tensor(colour) - ground), frames)
    measures = measure_shapes(frames.permute(0, 4, 1, 2, 3).round().to(torch.uint8), APART, GIVEN)
    assert values(measures.recoloured.by_frame) == values(measures.vanished.by_frame) == [0, *[0.5] * 4]
    np.testing.assert_allclose(values(measures.predicted.by_frame), [0, *[DIAGONAL / 2] * 4], atol=0.01)


def test_a_shape_in_the_other_ones_colour_has_vanished_only():
    both = replace(APART, colours=np.array([[0, 0]]))
    measures = measure_shapes(drawn(both), APART, GIVEN)
    assert set(values(measures.vanished.by_frame)) == {0.5}
    assert measures.recoloured.overall.value == 0


def test_a_shape_that_must_be_hidden_is_not_scored():
    hidden = scenes([[12, 12], [12.5, 12]], [[0.5, 0], [0.5, 0]], kinds=(0, 0))
    measures = measure_shapes(drawn(without(hidden, 0)), hidden, GIVEN)  # where the hidden one is no one sees
    assert measures.scored == PREDICTED
    assert measures.predicted.overall.value < 0.01
    assert measures.vanished.overall.value == 0


def test_baselines_without_a_bounce_are_geometry():
    measures = measure_shapes(drawn(APART), APART, GIVEN)
    speeds = np.linalg.norm(APART.velocity[0], axis=-1).mean()
    np.testing.assert_allclose(values(measures.copied.by_frame), speeds * np.arange(1, PREDICTED + 1), atol=0.02)
    assert max(values(measures.linear.by_frame)) < 0.1
    assert math.isnan(measures.linear.after_bounce.value)
    assert measures.copied.before_bounce == measures.copied.overall
    one_given = measure_shapes(drawn(APART, range(1, 4)), APART, 1)
    np.testing.assert_allclose(values(one_given.linear.by_frame), speeds * np.arange(1, 4), atol=0.02)


def test_linear_motion_is_right_until_the_bounce_and_leaves_the_canvas():
    # the disc meets the wall at 27.2 between frames 4 and 5
    one = scenes([[18, 16]], [[2.0, 0]])
    measures = measure_shapes(drawn(one), one, GIVEN)
    overshot = [0, 0, *(2 * (18 + 2 * frame - 27.2) for frame in (5, 6, 7))]
    np.testing.assert_allclose(values(measures.linear.by_frame), overshot, atol=0.1)
    assert measures.linear.before_bounce.value < 0.05
    assert measures.linear.after_bounce.value == pytest.approx(np.mean(overshot[2:]), abs=0.1)
    assert measures.copied.after_bounce.value == pytest.approx(np.mean([4.4, 2.4, 0.4]), abs=0.05)


def test_linear_motion_goes_by_the_places_since_a_bounce_among_the_given_frames():
    one = scenes([[7, 16]], [[-2.0, 0.3]])  # it meets the wall at 4.8 between frames 1 and 2
    measures = measure_shapes(drawn(one, range(6, 9)), one, 6)
    assert max(values(measures.linear.by_frame)) < 0.1
    assert math.isnan(measures.linear.after_bounce.value)  # that bounce is a given one


def test_linear_motion_does_without_the_frames_that_hide_the_shape():
    # in the last given frame but one the first disc lies behind four others, which leave open where exactly
    begin = [[5, 5], [15, 15], [17, 15], [15, 17], [17, 17]]
    discs = scenes(begin, [[5.5, 5.5], *[[0, 0]] * 4], kinds=(0,) * 5, colours=range(5), canvas=(64, 64))
    visible, whole = discs.areas(range(4))
    assert (visible < whole / 4)[0, :, 0].tolist() == [False, False, True, False]
    measures = measure_shapes(drawn(discs, range(4, 7)), discs, 4)
    assert max(values(measures.linear.by_frame)) < 0.1


def test_clips_are_what_differs_by_chance():
    clips = crowded(count=6)
    shifts = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    visible, whole = clips.areas(range(GIVEN, GIVEN + 1))
    frames = drawn(clips, range(GIVEN, GIVEN + 1))
    for clip, shift in enumerate(shifts):
        frames[clip] = frames[clip].roll(int(shift), dims=-1)
    scored = (visible >= whole / 4)[:, 0]
    measures = measure_shapes(frames, clips, GIVEN)
    assert scored.all()
    mean, error = measures.predicted.by_frame[0]
    assert mean == pytest.approx(1, abs=0.02)
    assert error == pytest.approx(shifts.std(ddof=1) / math.sqrt(6), abs=0.01)


def test_many_clips_are_measured_as_few(monkeypatch):
    clips = crowded(count=7)
    whole = measure_shapes(drawn(clips), clips, GIVEN)
    monkeypatch.setattr("rin.toys.shape_measures._AT_A_TIME", 2 * FRAMES.stop * 32 * 32)
    monkeypatch.setattr("rin.toys.shape_places._AT_A_TIME", 1)
    parts = measure_shapes(drawn(clips), clips, GIVEN)
    assert parts.scored == whole.scored
    for name in ("predicted", "copied", "linear", "vanished"):
        np.testing.assert_allclose(getattr(parts, name).by_frame, getattr(whole, name).by_frame, atol=1e-3)


def test_it_is_written_as_a_table_and_as_json():
    measures = measure_shapes(drawn(APART), APART, GIVEN)
    lines = measures.describe().splitlines()
    assert len(lines) == 2 + PREDICTED + 3
    assert len({len(line) for line in lines[1:]}) == 1
    assert [line.split()[0] for line in lines[2:-3]] == [str(frame) for frame in FRAMES]
    assert lines[-1].split()[-5:] == ["-"] * 5  # nothing bounces
    written = json.loads(json.dumps(measures.to_json(), allow_nan=False))
    assert written["linear"]["after_bounce"] == [None, None]
    assert written["copied"]["by_frame"][0] == [measures.copied.by_frame[0].value, None]  # one clip has no spread
    assert written["scored"] == 2 * PREDICTED


@pytest.mark.parametrize("wrong", ["clips", "canvas", "no frames", "nothing given"])
def test_frames_of_other_scenes_are_refused(wrong):
    frames = drawn(APART)
    if wrong == "clips":
        frames = frames.repeat(2, 1, 1, 1, 1)
    elif wrong == "canvas":
        frames = frames[..., :-1]
    elif wrong == "no frames":
        frames = frames[:, :, :0]
    with pytest.raises(RinError, match=r"given frame|these scenes") as refused:
        measure_shapes(frames, APART, 0 if wrong == "nothing given" else GIVEN)
    assert "\n" not in str(refused.value)
