"""Condition pictures: exact against formulas, and the same whatever else is in a batch."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from rin import DataConfig, RinError
from rin.core.seeds import Chance, Purpose
from rin.data import batches, held_out_degraded
from rin.data.degrading import downscaled, free_form, grey, parse_degrade, with_hole
from rin.data.feeding.media_sets import MediaInMemory

PLACES = torch.arange(6)


def pictures(count=6, channels=3, height=8, width=12):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=draw, dtype=torch.uint8)


def stream(degrade, places=PLACES, first_step=0, flip=True):
    images = MediaInMemory(pictures(10), torch.zeros(10, dtype=torch.int64), ("a",))
    made = batches(
        images, seed=3, batch_size=6, places=places, first_step=first_step, flip=flip, num_workers=0, degrade=degrade
    )
    taken = list(itertools.islice(made, 3))
    made.close()
    return taken


@pytest.mark.parametrize("factor", [2, 4])
def test_downscale_is_the_mean_of_each_box(factor):
    levels = pictures()
    boxes = levels.numpy().astype(np.int64).reshape(6, 3, 8 // factor, factor, 12 // factor, factor)
    means = boxes.sum(axis=(3, 5)) / factor**2
    small = downscaled(levels, factor)
    assert small.dtype == torch.uint8
    assert np.array_equal(small.numpy(), np.floor(means + 0.5))
    as_floats = downscaled(levels.float() / 127.5 - 1, factor)
    np.testing.assert_allclose(as_floats.numpy(), means / 127.5 - 1, atol=1e-6)


def test_downscale_is_what_pillow_reduces_to():
    levels = pictures(count=1)
    reduced = np.asarray(Image.fromarray(levels[0].permute(1, 2, 0).numpy()).reduce(4))
    assert np.array_equal(downscaled(levels, 4)[0].permute(1, 2, 0).numpy(), reduced)


def test_grey_is_pillows_grey():
    levels = pictures(count=1, height=64, width=64)
    expected = np.asarray(Image.fromarray(levels[0].permute(1, 2, 0).numpy()).convert("L"))
    assert np.array_equal(grey(levels)[0, 0].numpy(), expected)
    as_floats = grey(levels.float() / 127.5 - 1)
    assert ((as_floats[0, 0] + 1) * 127.5 - torch.from_numpy(expected.astype(np.float32))).abs().max() <= 0.51


def test_a_hole_is_0_in_the_picture_and_in_the_channel_that_tells_it():
    levels, hole = pictures(), torch.zeros(6, 8, 12, dtype=torch.bool)
    hole[:, 2:4, 3:7] = True
    cut = with_hole(levels, hole)
    assert cut.shape == (6, 4, 8, 12)
    assert (cut[:, :, 2:4, 3:7] == 0).all()
    assert torch.equal(cut[:, :3][~hole[:, None].expand(-1, 3, -1, -1)], levels[~hole[:, None].expand(-1, 3, -1, -1)])
    assert (cut[:, 3][~hole] == 255).all()
    floats = with_hole(levels.float() / 127.5 - 1, hole)
    torch.testing.assert_close(floats, cut.float() / 127.5 - 1)


def test_holes_are_a_function_of_seed_step_and_place():
    holes = free_form(Chance(1, 2, torch.arange(64)), Purpose.MASK, 32, 32)
    assert torch.equal(holes[7:9], free_form(Chance(1, 2, torch.tensor([7, 8])), Purpose.MASK, 32, 32))
    for other in (Chance(2, 2, torch.arange(64)), Chance(1, 3, torch.arange(64)), Chance(1, 2, torch.arange(64) + 64)):
        assert not torch.equal(holes, free_form(other, Purpose.MASK, 32, 32))
    shares = holes.float().mean(dim=(1, 2))
    assert shares.min() > 0.01  # never empty
    assert shares.max() < 0.8
    assert 0.1 < shares.mean() < 0.4
    assert len(set(shares.tolist())) > 32


@pytest.mark.parametrize("degrade", ["downscale 2", "grey", "mask free-form"])
def test_a_batch_carries_what_its_mirrored_pictures_degrade_to(degrade):
    degradation = parse_degrade(degrade)
    for step, (batch, plain) in enumerate(zip(stream(degrade), stream(""), strict=True)):
        assert plain.degraded is None
        assert torch.equal(batch.media, plain.media)
        assert batch.degraded.shape[1:] == degradation.shape((3, 8, 12))
        assert torch.equal(batch.degraded, degradation(batch.media, Chance(3, step, PLACES)))


@pytest.mark.parametrize("degrade", ["downscale 2", "mask free-form"])
def test_condition_pictures_are_the_same_in_every_process_and_after_a_stop(degrade):
    whole = stream(degrade)
    halves = [stream(degrade, places=places) for places in (PLACES[:2], PLACES[2:])]
    for batch, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(batch.degraded, torch.cat([part.degraded for part in parts]))
    assert torch.equal(whole[2].degraded, stream(degrade, first_step=2)[0].degraded)


def test_held_out_holes_are_by_place_and_not_those_of_training():
    levels = pictures()
    held_out = held_out_degraded(levels, "mask free-form", PLACES)
    assert torch.equal(held_out[3:], held_out_degraded(levels[3:], "mask free-form", PLACES[3:]))
    assert not torch.equal(held_out, parse_degrade("mask free-form")(levels, Chance(0, 0, PLACES)))
    assert held_out_degraded(levels, "", PLACES) is None


@pytest.mark.parametrize(
    "text",
    ["blur", "downscale", "downscale 1", "downscale -2", "downscale 2.5", "downscale 2 3", "mask", "mask 3", "grey 2"],
)
def test_a_way_that_there_is_not_is_one_line(text):
    with pytest.raises(RinError, match=r'degrade is .*give "downscale N"'):
        DataConfig(degrade=text)


@pytest.mark.parametrize(
    ("degrade", "shape", "message"),
    [
        ("downscale 3", (3, 8, 12), "downscale 3 does not divide 12x8 pixels: take one of \\[2, 4\\]"),
        ("grey", (1, 8, 8), "grey is for 3 channels"),
        ("grey", (3, 4, 8, 8), "data.degrade is for pictures"),
        ("mask free-form", (1, 1, 64), "data.degrade is for pictures"),
        ("downscale 2", (128, 2), "data.degrade is for pictures"),
    ],
)
def test_data_that_cannot_be_degraded_so_are_one_line(degrade, shape, message):
    with pytest.raises(RinError, match=message):
        parse_degrade(degrade).shape(shape)
