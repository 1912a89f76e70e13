"""The endless stream: its order, its batches, its flips and the thread that runs ahead."""

import itertools
import threading
import time

import pytest
import torch
from PIL import Image

from rin.core.errors import RinError
from rin.core.seeds import permutation
from rin.data import Batch, DataConfig, Order, open_data
from rin.data import batches as shares
from rin.data.feeding.media_sets import MediaInMemory
from rin.data.feeding.stream import GroupedOrder

GREY = (1, 8, 8)


def memory_set(count=10):
    """Picture i is i at the left and 100 + i at the right; its class is i."""
    numbers = torch.arange(count, dtype=torch.uint8)
    pictures = torch.stack([numbers, numbers + 100], dim=1)[:, None, None, :]
    return MediaInMemory(pictures, numbers.long(), tuple(str(number) for number in range(count)))


@pytest.fixture
def folder(tmp_path):
    for level in range(10):
        Image.new("L", (8, 8), level).save(tmp_path / f"{level}.png")
    return tmp_path


def batches(images, *, batch_size, places=None, **options):
    """The batches of a process that is alone, unless its places are given."""
    places = torch.arange(batch_size) if places is None else torch.tensor(places)
    return shares(images, batch_size=batch_size, places=places, **options)


def on_demand(folder):
    return open_data(DataConfig(path=str(folder), num_held_out=0, memory_gib=0.0), GREY).training


def take(stream, count):
    with_end = list(itertools.islice(stream, count))
    stream.close()
    return with_end


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def test_every_epoch_is_a_permutation_of_its_own():
    stream = Order(50, seed=3).at(0, 150)
    epochs = stream.reshape(3, 50)
    assert (epochs.sort(dim=1).values == torch.arange(50)).all()
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[2], permutation(3, 2, 50))
    assert not torch.equal(epochs[0], Order(50, seed=4).at(0, 50))


@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 20, 10**9])
def test_order_is_a_function_of_the_position(start):
    order = Order(7, seed=1)
    expected = [int(permutation(1, p // 7, 7)[p % 7]) for p in range(start, start + 25)]
    assert order.at(start, 25).tolist() == expected
    assert order.at(start, 25).tolist() == expected
    assert order.at(start, 0).tolist() == []


def test_an_empty_set_has_no_order():
    with pytest.raises(RinError, match="0 examples"):
        Order(0, seed=0)


@pytest.mark.parametrize("flip", [False, True])
def test_batches_resume_at_any_step(flip):
    images = memory_set()
    whole = take(batches(images, seed=5, batch_size=4, first_step=0, flip=flip), 10)
    for step in (1, 7):
        assert equal(next(batches(images, seed=5, batch_size=4, first_step=step, flip=flip)), whole[step])


def test_batches_follow_the_order():
    seen = torch.cat(
        [batch.labels for batch in take(batches(memory_set(), seed=5, batch_size=4, first_step=0, flip=True), 5)]
    )
    assert torch.equal(seen, Order(10, 5).at(0, 20))


def test_pictures_and_labels_stay_together():
    for batch in take(batches(memory_set(), seed=0, batch_size=4, first_step=0, flip=True), 5):
        assert isinstance(batch, Batch)
        assert torch.equal(batch.media[:, 0, 0].min(dim=1).values.long(), batch.labels)


def test_about_half_of_the_pictures_are_mirrored_and_none_without_flips():
    images = memory_set()
    plain = next(batches(images, seed=0, batch_size=2000, first_step=0, flip=False)).media
    mirrored = next(batches(images, seed=0, batch_size=2000, first_step=0, flip=True)).media
    changed = (plain != mirrored).flatten(1).any(dim=1)
    assert (plain[..., 0] < plain[..., 1]).all()
    assert 0.45 < changed.float().mean() < 0.55
    assert torch.equal(mirrored[changed], plain[changed].flip(-1))


def test_the_flips_change_from_step_to_step():
    first, second = take(batches(memory_set(1), seed=0, batch_size=64, first_step=0, flip=True), 2)
    assert not torch.equal(first.media, second.media)


@pytest.mark.parametrize("kind", ["in memory", "on demand"])
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_the_shares_of_many_processes_are_the_batches_of_one(folder, kind, num_processes):
    images = memory_set() if kind == "in memory" else on_demand(folder)
    options = {"seed": 5, "batch_size": 8, "first_step": 2, "flip": True}
    whole = take(batches(images, **options), 3)
    of_each = [range(rank, 8, num_processes) for rank in range(num_processes)]
    parts = [take(batches(images, places=list(places), **options), 3) for places in of_each]
    places = torch.tensor([place for places in of_each for place in places])
    for step, batch in enumerate(whole):
        joined = Batch(*(torch.cat(fields) for fields in zip(*(part[step][:3] for part in parts), strict=True)))
        assert equal(joined, Batch(*(field[places] for field in batch[:3])))


def test_the_places_of_a_share_may_have_any_order():
    options = {"seed": 5, "batch_size": 6, "first_step": 1, "flip": True}
    whole = next(batches(memory_set(), **options))
    share = next(batches(memory_set(), places=[4, 0, 3], **options))
    assert equal(share, Batch(*(field[[4, 0, 3]] for field in whole[:3])))


def test_batches_name_their_examples(folder):
    for images in (memory_set(), on_demand(folder)):
        stream = batches(images, seed=5, batch_size=4, first_step=0, flip=False)
        seen = take(stream, 5)
        assert torch.equal(torch.cat([batch.examples for batch in seen]), Order(10, 5).at(0, 20))
        assert torch.equal(torch.cat([batch.media[:, 0, 0, 0] for batch in seen]), Order(10, 5).at(0, 20))


SIZES = (3, 1, 4, 2)
GROUP_OF = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 3, 3])


def test_grouped_order_sees_every_example_once_an_epoch_and_each_epoch_anew():
    epochs = GroupedOrder(SIZES, seed=3).at(0, 60).reshape(6, 10)
    assert (epochs.sort(dim=1).values == torch.arange(10)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 6
    assert len({tuple(GROUP_OF[epoch].tolist()) for epoch in epochs}) > 1
    assert len({tuple(epoch[GROUP_OF[epoch] == 2].tolist()) for epoch in epochs}) > 1
    assert not torch.equal(epochs[0], GroupedOrder(SIZES, seed=4).at(0, 10))


def test_the_examples_of_a_group_follow_one_another():
    for epoch in GroupedOrder(SIZES, seed=3).at(0, 60).reshape(6, 10):
        _, runs = GROUP_OF[epoch].unique_consecutive(return_counts=True)
        assert sorted(runs.tolist()) == sorted(SIZES)


def test_the_groups_of_an_epoch_are_mixed_in_different_ways():
    epoch = GroupedOrder((50, 50), seed=0).at(0, 100)
    assert not torch.equal(epoch[:50] % 50, epoch[50:] % 50)


@pytest.mark.parametrize("start", [0, 1, 9, 10, 23, 10**9])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 35])
def test_grouped_order_is_a_function_of_the_position(start, batch_size):
    expected = torch.cat([GroupedOrder(SIZES, seed=1).at(place, 1) for place in range(start, start + 35)])
    order = GroupedOrder(SIZES, seed=1)
    pieces = [order.at(place, min(batch_size, start + 35 - place)) for place in range(start, start + 35, batch_size)]
    assert torch.equal(torch.cat(pieces), expected)


@pytest.mark.parametrize("start", [0, 2, 9, 10, 25])
def test_the_groups_to_come_are_those_of_the_order(start):
    order = GroupedOrder(SIZES, seed=1)
    of_stream = GROUP_OF[order.at(start, 40)].tolist()
    epochs = [(start + number) // 10 for number in range(40)]
    runs = [group for (_, group), _ in itertools.groupby(zip(epochs, of_stream, strict=True))]
    assert order.groups_from(start, 9) == runs[:9]


def test_an_empty_grouped_set_has_no_order():
    with pytest.raises(RinError, match="0 examples"):
        GroupedOrder((), seed=0)


def test_a_batch_may_be_larger_than_the_set():
    batch = next(batches(memory_set(3), seed=0, batch_size=9, first_step=2, flip=False))
    assert batch.labels.bincount().tolist() == [3, 3, 3]


def test_a_batch_has_at_least_one_example():
    with pytest.raises(RinError, match="batch_size is 0"):
        batches(memory_set(), seed=0, batch_size=0, first_step=0, flip=False)


def test_batches_on_demand_equal_those_in_memory(folder):
    in_memory = open_data(DataConfig(path=str(folder), num_held_out=0), GREY).training
    options = {"seed": 2, "batch_size": 4, "flip": True}
    ones = take(batches(in_memory, first_step=3, **options), 8)
    others = take(batches(on_demand(folder), first_step=3, **options), 8)
    assert all(equal(one, other) for one, other in zip(ones, others, strict=True))


def threads_named(prefix):
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_the_thread_runs_ahead_and_ends_with_the_stream(folder):
    images = on_demand(folder)
    asked = []
    images.get, get = lambda index: asked.append(index) or get(index), images.get
    stream = batches(images, seed=0, batch_size=2, first_step=0, flip=False)
    next(stream)
    deadline = time.monotonic() + 10
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 3 <= len(asked) <= 4
    assert len(threads_named("rin-batches")) == 1
    stream.close()
    assert threads_named("rin-batches") == []
    with pytest.raises(StopIteration):
        next(stream)


def test_errors_reach_the_batch_they_belong_to(folder):
    images = on_demand(folder)
    torn = folder / "7.png"
    torn.write_bytes(torn.read_bytes()[:30])
    stream = batches(images, seed=0, batch_size=1, first_step=0, flip=False)
    place = Order(10, 0).at(0, 10).tolist().index(7)
    for _ in range(place):
        next(stream)
    with pytest.raises(RinError, match=r"7\.png"):
        next(stream)
    assert threads_named("rin-batches") == []


def test_a_stream_that_was_never_begun_has_no_thread(folder):
    batches(on_demand(folder), seed=0, batch_size=2, first_step=0, flip=False).close()
    assert threads_named("rin-batches") == []
