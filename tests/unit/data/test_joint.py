"""Clips and pictures learned from together: which steps are whose, and that a stream goes on where it stopped."""

import itertools

import pytest
import torch
from PIL import Image

from rin import DataConfig, RinError, open_data
from rin.data import joint_batches
from rin.data.config import MovingShapesConfig
from rin.data.feeding.media_sets import MediaInMemory
from rin.data.feeding.opened_data import OpenedData

PLACES = torch.arange(4)


def numbered(count, *shape):
    """Medium i is i all over; its class is i."""
    media = torch.arange(count, dtype=torch.uint8).reshape(-1, *[1] * len(shape)).expand(count, *shape)
    return MediaInMemory(media.contiguous(), torch.arange(count), tuple(map(str, range(count))))


def both(rate):
    return OpenedData(
        training=numbered(10, 3, 5, 4, 4),
        held_out=numbered(0, 3, 5, 4, 4),
        pictures=numbered(7, 3, 4, 4) if rate else None,
        pictures_rate=rate,
    )


def take(rate, count, first_step=0, places=PLACES):
    stream = joint_batches(both(rate), seed=3, batch_size=4, places=places, first_step=first_step, flip=False)
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


@pytest.mark.parametrize(("rate", "kinds"), [(0.0, "555555"), (0.25, "555455"), (0.5, "545454"), (0.4, "554545")])
def test_an_exact_share_of_the_steps_is_on_pictures(rate, kinds):
    assert [batch.media.ndim for batch in take(rate, 6)] == [int(kind) for kind in kinds]
    assert sum(batch.media.ndim == 4 for batch in take(rate, 20)) == int(20 * rate)


def test_each_kind_is_seen_as_if_it_were_alone():
    taken = take(0.4, 30)
    for kind, alone in ((5, take(0.0, 18)), (4, None)):
        seen = torch.cat([batch.examples for batch in taken if batch.media.ndim == kind])
        if alone is not None:
            assert torch.equal(seen, torch.cat([batch.examples for batch in alone]))
        count = 10 if kind == 5 else 7
        assert torch.equal(seen[:count].sort().values, torch.arange(count))


@pytest.mark.parametrize("first", [1, 4, 7])
def test_a_stream_goes_on_where_it_stopped(first):
    for one, other in zip(take(0.4, 12)[first:], take(0.4, 12 - first, first), strict=True):
        assert torch.equal(one.media, other.media)
        assert torch.equal(one.labels, other.labels)


def test_shares_of_processes_make_the_batch_of_one():
    halves = [take(0.5, 6, places=places) for places in (PLACES[:2], PLACES[2:])]
    for whole, *parts in zip(take(0.5, 6), *halves, strict=True):
        assert torch.equal(whole.media, torch.cat([part.media for part in parts]))


def opened(tmp_path, classes, **changes):
    for name in classes:
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (40, 32), "red").save(tmp_path / name / "1.png")
    config = DataConfig(
        path="moving-shapes", pictures_path=str(tmp_path), moving_shapes=MovingShapesConfig(num_clips=20), **changes
    )
    return open_data(config, (3, 12, 32, 32))


def test_a_folder_of_pictures_stands_beside_clips(tmp_path):
    data = opened(tmp_path, ["a", "b"], pictures_rate=0.1)
    assert data.pictures.shape == (3, 32, 32)
    assert len(data.pictures) == 2
    assert data.pictures_rate == 0.1
    assert data.pictures.get(torch.arange(2))[1].tolist() == [-1, -1]  # their classes are none of the clips'


def test_pictures_stand_beside_clips_alone(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(RinError, match=r"data.pictures_path is for models of clips"):
        open_data(DataConfig(path="digits", pictures_path=str(tmp_path)), (1, 8, 8))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(rate):
    with pytest.raises(RinError, match="pictures_rate"):
        DataConfig(pictures_rate=rate)
