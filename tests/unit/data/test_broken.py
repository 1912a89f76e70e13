"""Pictures that cannot be read: named, replaced by the next readable one, counted, and refused if they are too many."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from rin.core.errors import RinError
from rin.data import DataConfig, batches, open_data
from rin.data.decoding.pictures import BrokenMediaError
from rin.data.files.broken import BrokenMedia
from rin.data.files.folders import open_folder

GREY = (1, 8, 8)


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


def truncate(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "jpeg")
    path.write_bytes(path.read_bytes()[:900])


def numbered(folder, count, broken=()):
    """Pictures 0.png to count - 1, each grey as its number, some of them broken."""
    for number in range(count):
        path = folder / f"{number}.png"
        truncate(path) if number in broken else save(path, number)
    return folder


def training(path, memory_gib, **options):
    config = DataConfig(path=str(path), num_held_out=0, memory_gib=memory_gib, **options)
    return open_data(config, GREY).training


def everything(images):
    return images.get(torch.arange(len(images)))


def levels(images):
    return everything(images)[0][:, 0, 0, 0].tolist()


in_memory_and_on_demand = pytest.mark.parametrize("memory_gib", [4.0, 0.0])


@in_memory_and_on_demand
def test_a_broken_picture_is_named_with_the_way_out(tmp_path, memory_gib):
    save(tmp_path / "a.png")
    truncate(tmp_path / "torn.jpg")
    with pytest.raises(RinError, match=r"torn\.jpg: .*truncated.*--data\.skip-broken$"):
        everything(training(tmp_path, memory_gib))


@in_memory_and_on_demand
def test_the_next_readable_picture_stands_in_with_its_class(tmp_path, memory_gib):
    save(tmp_path / "cat/a.png", 1)
    truncate(tmp_path / "cat/b.jpg")
    save(tmp_path / "dog/c.png", 2)
    truncate(tmp_path / "dog/d.jpg")
    truncate(tmp_path / "dog/e.jpg")
    images = training(tmp_path, memory_gib, skip_broken=True)
    assert levels(images) == [1, 2, 2, 1, 1]
    assert everything(images)[1].tolist() == [0, 1, 1, 0, 0]
    assert images.num_broken == 3
    assert [name[-5:] for name in images.broken] == ["b.jpg", "d.jpg", "e.jpg"]


def test_on_demand_a_broken_picture_counts_once_it_is_met(tmp_path):
    images = training(numbered(tmp_path, 6, broken=[2, 5]), 0.0, skip_broken=True)
    assert images.num_broken == 0
    for _ in range(2):
        assert images.get(torch.tensor([2, 3, 1]))[0][:, 0, 0, 0].tolist() == [3, 3, 1]
    assert images.num_broken == 1


def test_a_picture_that_breaks_moves_no_other_one(tmp_path):
    whole = levels(training(numbered(tmp_path, 20), 4.0))
    truncate(tmp_path / "7.png")
    for memory_gib in (4.0, 0.0):
        images = training(tmp_path, memory_gib, skip_broken=True)
        assert levels(images) == [*whole[:7], whole[8], *whole[8:]]


def test_the_stream_is_the_same_in_memory_and_on_demand(tmp_path):
    numbered(tmp_path, 20, broken=[3, 4])
    streams = [
        batches(
            training(tmp_path, memory_gib, skip_broken=True),
            seed=1,
            batch_size=7,
            places=torch.arange(7),
            first_step=0,
            flip=True,
        )
        for memory_gib in (4.0, 0.0)
    ]
    for _ in range(6):
        one, other = (next(stream) for stream in streams)
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    for stream in streams:
        stream.close()


@in_memory_and_on_demand
def test_broken_pictures_are_named_ten_at_most_and_then_counted(tmp_path, memory_gib, caplog):
    numbered(tmp_path, 250, broken=range(0, 250, 11))
    with caplog.at_level(logging.WARNING, "rin"):
        images = training(tmp_path, memory_gib, skip_broken=True)
        for _ in range(2):
            everything(images)
    lines = [record.getMessage() for record in caplog.records]
    named = [line for line in lines if "passed over" in line and ".png, which cannot be read: " in line]
    assert len(named) == 10
    assert lines[10:] == [f"{count} of 250 pictures cannot be read so far and are passed over" for count in (11, 20)]
    assert images.num_broken == 23


@in_memory_and_on_demand
@pytest.mark.parametrize(
    ("count", "broken", "refused"), [(4, 3, False), (8, 4, True), (100, 10, False), (100, 11, True)]
)
def test_more_than_a_tenth_and_more_than_three_are_too_many(tmp_path, memory_gib, count, broken, refused):
    numbered(tmp_path, count, broken=range(broken))
    if not refused:
        images = training(tmp_path, memory_gib, skip_broken=True)
        everything(images)
        assert images.num_broken == broken
        return
    share = f"{broken / count:.0%}"
    with pytest.raises(RinError, match=rf"^{broken} of {count} pictures \({share}\).*0\.png, .*1\.png, .*2\.png first"):
        everything(training(tmp_path, memory_gib, skip_broken=True))


@in_memory_and_on_demand
def test_a_set_of_broken_pictures_is_refused(tmp_path, memory_gib):
    truncate(tmp_path / "a.jpg")
    with pytest.raises(RinError, match=r"none of 1 pictures can be read, .*a\.jpg"):
        everything(training(tmp_path, memory_gib, skip_broken=True))


def test_a_picture_that_two_threads_meet_is_told_of_once(tmp_path, caplog):
    broken = BrokenMedia(open_folder(numbered(tmp_path, 4)), skip=True)
    for _ in range(2):
        broken.meet(2, BrokenMediaError("torn"))
    assert len(broken) == len(caplog.records) == 1


def test_a_picture_that_is_mended_while_the_set_is_open_stays_passed_over(tmp_path):
    images = training(numbered(tmp_path, 6, broken=[2]), 0.0, skip_broken=True)
    assert levels(images) == [0, 1, 3, 3, 4, 5]
    save(tmp_path / "2.png", 2)
    assert levels(images) == [0, 1, 3, 3, 4, 5]
    assert levels(training(tmp_path, 0.0)) == [0, 1, 2, 3, 4, 5]
