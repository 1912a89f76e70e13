"""The generated clips: where shapes are, how they bounce, what hides what, and that a seed says it all."""

import numpy as np
import pytest

from rin import RinError
from rin.data import open_data
from rin.data.config import DataConfig, MovingShapesConfig
from rin.toys.moving_shapes import COLOURS, GROUND, KINDS, Scenes, draw_scenes

ROWS = np.arange(200)


def scenes(frames=12, canvas=(32, 32), rows=ROWS, **changes):
    return draw_scenes(MovingShapesConfig(**changes), canvas, frames, rows)


def one(kind="disc", begin=(16.0, 16.0), velocity=(0.0, 0.0), canvas=(32, 32), radius=5.0, colour=0):
    """A clip of one shape."""
    return Scenes(
        canvas=canvas,
        radius=radius,
        kinds=np.array([[KINDS.index(kind)]]),
        colours=np.array([[colour]]),
        begin=np.array([[begin]]),
        velocity=np.array([[velocity]]),
    )


def test_a_row_is_the_same_scene_in_every_version():
    drawn = scenes(radius=0.2, occlusion_rate=0.25, min_bounces=2, speed=(0.08, 0.1), rows=np.arange(297, 300))
    assert drawn.kinds.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert drawn.colours.tolist() == [[0, 3], [2, 4], [1, 4]]
    begin = [
        [[25.4227, 26.314], [18.9573, 8.8933]],
        [[11.9474, 7.8849], [24.1929, 21.0783]],
        [[22.8013, 9.9701], [24.0446, 13.668]],
    ]
    np.testing.assert_allclose(drawn.begin, begin, atol=1e-4)


def test_shapes_are_reflected_at_the_walls_as_light_is():
    """Against a walk in small steps that turns the speed round wherever a shape's edge is beyond a wall."""
    drawn = scenes(frames=40)
    lowest, highest = drawn.walls
    place, speed, per_frame = drawn.begin.copy(), drawn.velocity.copy(), 4000
    for frame in range(1, 8):
        for _ in range(per_frame):
            place += speed / per_frame
            speed = np.where(place < lowest, np.abs(speed), np.where(place > highest, -np.abs(speed), speed))
        assert np.abs(place - drawn.positions([frame])[:, 0]).max() < 0.02


def test_a_shape_never_leaves_the_canvas_and_keeps_its_speed():
    drawn = scenes(canvas=(32, 48))
    frames = np.arange(300)
    ground = np.array(GROUND)[:, None]
    for number in range(5):
        clip = drawn.at([number]).draw(frames[::7])[0]
        assert (clip[:, :, 0] == ground[..., None]).mean() > 0.5  # the walls are not covered for good
    steps = np.diff(drawn.positions(frames), axis=1)
    length, speed = np.linalg.norm(steps, axis=-1), np.linalg.norm(drawn.velocity, axis=-1)[:, None]
    assert (length < speed + 1e-9).all()  # shorter only where the path turns within the step
    assert (np.abs(length - speed) < 1e-9).mean() > 0.7


def test_bounces_are_counted_at_the_frame_after_them():
    drawn = one(begin=(16.0, 16.0), velocity=(4.0, 0.0))  # the wall is at 27
    assert drawn.bounces(range(10))[0, :, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [(16.0, 16.0), (15.3, 17.8)])
def test_a_shape_is_drawn_where_its_centre_of_mass_is(kind, place):
    clip = one(kind, begin=place, colour=2).draw(range(1))[0, :, 0].astype(float)
    cover = (clip[2] - 128) / 127
    assert np.abs(clip[0] - 128 * (1 - cover)).max() <= 1  # an edge mixes the colour with the ground
    y, x = np.mgrid[:32, :32] + 0.5
    assert abs((cover * x).sum() / cover.sum() - place[0]) < 0.15
    assert abs((cover * y).sum() / cover.sum() - place[1]) < 0.15
    area = {"disc": np.pi * 25, "square": 2 * 25, "triangle": 3 * np.sqrt(3) / 4 * 25}[kind]
    assert abs(cover.sum() - area) < 0.05 * area


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_touches_the_wall_that_it_bounces_off(kind):
    lowest, highest = one(kind).walls
    for corner in (lowest, highest):
        clip = one(kind, begin=tuple(corner[0, 0]), colour=0).draw(range(1))[0, 0, 0].astype(float)
        cover = (clip - 128) / 127
        edge = cover.max(axis=1)[[0, -1]].max(), cover.max(axis=0)[[0, -1]].max()
        assert min(edge) > 0.2
        half = one(kind, begin=(16.0, 16.0)).draw(range(1))[0, 0, 0].astype(float)
        assert abs(cover.sum() - (half - 128).sum() / 127) < 2  # and none of it is beyond


def test_every_clip_is_as_asked():
    drawn = scenes(rows=np.arange(2000), occlusion_rate=0.3, min_bounces=3)
    assert drawn.bounces([11]).sum(axis=(1, 2)).min() >= 3
    hides, may_hide = drawn.hides(range(12))
    assert abs(hides.mean() - 0.3) < 0.04
    assert (hides == may_hide).all()
    assert all(len(set(colours)) == 2 for colours in drawn.colours.tolist())
    speed = np.linalg.norm(drawn.velocity, axis=-1) / 32
    assert speed.min() >= 0.05
    assert speed.max() <= 0.1


def test_what_hides_is_seen_in_the_pixels():
    drawn = scenes()
    hides, _ = drawn.hides(range(12))
    alone = [drawn.at(np.s_[:, :1] if shape == 0 else np.s_[:, 1:]).draw(range(12)) for shape in range(2)]
    ground = np.array(GROUND)[:, None, None, None]
    both = ((alone[0] != ground).any(1) & (alone[1] != ground).any(1)).any((1, 2, 3))
    assert (both == hides).all()


def test_later_shapes_lie_before_earlier_ones():
    drawn = Scenes(
        canvas=(32, 32), radius=5.0, kinds=np.array([[0, 1]]), colours=np.array([[0, 1]]),
        begin=np.full((1, 2, 2), 16.0), velocity=np.zeros((1, 2, 2)),
    )  # fmt: skip
    assert drawn.draw(range(1))[0, :, 0, 16, 16].tolist() == list(COLOURS[1])


def test_a_longer_clip_goes_on_from_a_shorter_one_and_a_row_from_nothing_else():
    few, many = scenes(rows=np.arange(5)), scenes()
    assert np.array_equal(few.draw(range(64))[:, :, :12], many.at(np.arange(5)).draw(range(12)))
    assert not np.array_equal(scenes(seed=1).begin, many.begin)


def test_colours_are_further_from_one_another_than_from_the_ground():
    colours = np.array(COLOURS, float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[np.triu_indices(6, 1)]
    assert apart.min() > np.linalg.norm(colours - np.array(GROUND), axis=-1).max()


def test_the_set_is_opened_by_its_name():
    data = open_data(DataConfig(path="moving-shapes", moving_shapes=MovingShapesConfig(num_clips=50)), (3, 12, 32, 32))
    assert (len(data.training), len(data.held_out)) == (45, 5)
    assert data.training.shape == (3, 12, 32, 32)
    everything = {
        clip.numpy().tobytes() for part in (data.training, data.held_out) for clip in part.get(np_range(part))[0]
    }
    assert everything == {clip.tobytes() for clip in scenes(rows=np.arange(50)).draw(range(12))}


def np_range(part):
    import torch

    return torch.arange(len(part))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_shapes": 7}, "1 to 6"),
        ({"radius": 0.3}, "0.25"),
        ({"speed": (0.2, 0.1)}, "speed"),
        ({"occlusion_rate": 1.5}, "occlusion_rate"),
        ({"num_shapes": 1}, "occlusion_rate"),
        ({"min_bounces": -1}, "min_bounces"),
        ({"seed": -1}, "seed"),
    ],
    ids=str,
)
def test_what_makes_no_shapes_is_refused(changes, words):
    with pytest.raises(RinError, match=words):
        MovingShapesConfig(**changes)


def test_scenes_that_cannot_be_are_refused():
    with pytest.raises(RinError, match="no moving shapes are as asked"):
        scenes(rows=np.arange(3), min_bounces=500)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 12, 32, 32)])
def test_shapes_of_another_kind_are_refused(shape):
    with pytest.raises(RinError, match="moving-shapes are clips in colour"):
        open_data(DataConfig(path="moving-shapes"), shape)
