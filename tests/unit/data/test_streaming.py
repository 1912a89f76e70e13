"""Parquet files that are streamed row group by row group."""

import io
import itertools
import threading
import time
import weakref

import fsspec
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rin.core.errors import RinError
from rin.data import DataConfig, batches, open_data
from rin.data.feeding.stream import GroupedOrder
from rin.data.files import row_groups, streaming

GREY = (1, 8, 8)


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, "png")
    return buffer.getvalue()


def table(levels, broken=()):
    """A picture of each level, and its class."""
    images = [{"bytes": b"torn" if level in broken else png(level), "path": f"{level}.png"} for level in levels]
    return pa.table({"image": images, "label": [level % 3 for level in levels]})


def write(folder, *, count=40, rows=4, split="train", first=0, broken=()):
    """Two parquet files of a split, in row groups of so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    half = count // 2
    for number, levels in enumerate((range(first, first + half), range(first + half, first + count))):
        path = folder / f"{split}-0000{number}-of-00002.parquet"
        pq.write_table(table(levels, broken), path, row_group_size=rows)
    return folder


def opened(path, **options):
    return open_data(DataConfig(path=str(path), **{"stream": True, "num_held_out": 0, **options}), GREY)


def levels(images):
    return images.get(torch.arange(len(images)))[0][:, 0, 0, 0].tolist()


def take(images, steps, *, first_step=0, batch_size=6, places=None):
    places = torch.arange(batch_size) if places is None else torch.tensor(places)
    options = {"seed": 1, "batch_size": batch_size, "places": places, "first_step": first_step, "flip": True}
    stream = batches(images, **options)
    taken = list(itertools.islice(stream, steps))
    stream.close()
    return taken


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


@pytest.fixture
def tables_read(monkeypatch):
    """The row groups that are read, and how many of them are in memory."""

    class Read:
        groups, alive, most = [], [], 0
        lock = threading.Lock()

    honest = row_groups._read_images

    def read(group):
        images = honest(group)
        with Read.lock:
            Read.groups.append((group.file, group.number))
            Read.alive = [table for table in Read.alive if table() is not None] + [weakref.ref(images)]
            Read.most = max(Read.most, len(Read.alive))
        return images

    monkeypatch.setattr(row_groups, "_read_images", read)
    return Read


def test_what_is_streamed_equals_what_is_read_whole(tmp_path):
    write(tmp_path)
    whole, streamed = opened(tmp_path, stream=False).training, opened(tmp_path).training
    assert len(whole) == len(streamed) == 40
    assert whole.class_names == streamed.class_names == ("0", "1", "2")
    assert equal(whole.get(torch.arange(40)), streamed.get(torch.arange(40)))
    assert whole.group_sizes == ()
    assert streamed.group_sizes == (4,) * 10


def test_the_order_is_that_of_the_row_groups(tmp_path):
    training = opened(write(tmp_path, rows=7)).training
    assert training.group_sizes == (7, 7, 6, 7, 7, 6)
    seen = take(training, 20)
    examples = torch.cat([batch.examples for batch in seen])
    assert torch.equal(examples, GroupedOrder((7, 7, 6, 7, 7, 6), 1).at(0, 120))
    assert torch.equal(torch.cat([batch.media[:, 0, 0, 0] for batch in seen]), examples)
    assert torch.equal(torch.cat([batch.labels for batch in seen]), examples % 3)


def test_a_stream_resumes_at_any_step_and_is_shared_by_processes(tmp_path):
    training = opened(write(tmp_path)).training
    whole = take(training, 12)
    assert equal(take(training, 1, first_step=9)[0], whole[9])
    for places in ([0, 2, 4], [1, 3, 5]):
        share = take(opened(tmp_path).training, 2, first_step=9, places=places)
        for batch, full in zip(share, whole[9:], strict=False):
            assert equal(batch, [field[places] for field in full[:3]])


def test_each_row_group_is_read_once_an_epoch_and_few_are_held(tmp_path, monkeypatch, tables_read):
    write(tmp_path, count=200, rows=10)
    training = opened(tmp_path).training
    size = 10 * (len(png(0)) + 100)
    monkeypatch.setattr(row_groups, "_BYTES_HELD", 3 * size)
    take(training, 32)  # 192 of the 200, and 18 more ahead
    assert set(tables_read.groups[:20]) == {(str(file), n) for file in tmp_path.iterdir() for n in range(10)}
    assert len(tables_read.groups) <= 25
    assert 2 <= tables_read.most <= 5  # three held, and those let go of while a picture of theirs is decoded


def test_groups_are_read_before_they_are_asked_for(tmp_path, tables_read):
    training = opened(write(tmp_path)).training
    stream = batches(training, seed=1, batch_size=1, places=torch.arange(1), first_step=0, flip=False)
    next(stream)  # four pictures of one or two groups are decoded by now
    deadline = time.monotonic() + 10
    while len(tables_read.groups) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    stream.close()
    assert len(set(tables_read.groups)) == len(tables_read.groups) == 10


def test_two_groups_are_held_however_large_they_are(tmp_path, monkeypatch):
    source = source_of(tmp_path, count=40, rows=4)
    monkeypatch.setattr(row_groups, "_BYTES_HELD", 1)
    source.expect([5, 7, 2, 3])
    assert set(source._held) == {5, 7}
    source.cell(0)
    assert set(source._held) == {5, 0}  # the nearest of those expected is kept
    for row in (20, 8):  # group 5, which is used again, and group 2
        source.cell(row)
    assert set(source._held) == {5, 2}


def test_a_stream_that_is_closed_expects_nothing_any_more(tmp_path):
    training = opened(write(tmp_path)).training
    told = []
    training.expect, expect = lambda groups: told.append(groups) or expect(groups), training.expect
    take(training, 1)
    assert len(told[0]) == 16
    assert told[-1] == ()


def test_what_is_no_longer_expected_is_not_read(tmp_path, tables_read):
    source = source_of(tmp_path, count=40, rows=4)
    with tables_read.lock:  # no reading comes to its end
        source.expect(range(10))
        waiting = threading.Thread(target=source.cell, args=(39,))
        waiting.start()
        time.sleep(0.05)  # it waits by now for a group that is not begun
        source.expect(())
    waiting.join()
    deadline = time.monotonic() + 10
    while len(tables_read.groups) < len(source._held) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.cell(39)["path"] == "39.png"
    assert len(tables_read.groups) <= row_groups.NUM_READERS + 1


def test_as_many_groups_are_held_as_memory_is_set_aside_for(tmp_path, monkeypatch):
    source = source_of(tmp_path, count=40, rows=4)
    monkeypatch.setattr(row_groups, "_BYTES_HELD", 4 * max(group.num_bytes for group in source._groups))
    source.expect([9, 8, 7, 6, 5, 4])
    assert set(source._held) == {9, 8, 7, 6}
    source.expect([8, 7, 6, 5, 4, 3])
    assert set(source._held) == {8, 7, 6, 5}
    for row in range(40):
        source.cell(row)
        assert len(source._held) == 4


def source_of(folder, **options):
    system, _, files = streaming._local(write(folder, **options))
    groups = [group for file in files for group in streaming._open_file(system, file)[0]]
    return row_groups.RowGroups(groups)


def test_nothing_but_the_classes_is_read_to_open(tmp_path, tables_read):
    opened(write(tmp_path))
    assert tables_read.groups == []


def test_pictures_are_held_out_by_whole_groups(tmp_path, tables_read):
    data = opened(write(tmp_path, count=200, rows=8), num_held_out=18)
    assert len(tables_read.groups) <= 3
    assert len(data.held_out) == 18
    assert data.held_out.group_sizes == ()
    assert sum(data.training.group_sizes) == len(data.training) == 182
    assert sorted(levels(data.training) + levels(data.held_out)) == list(range(200))
    again = opened(tmp_path, num_held_out=18, memory_gib=0.0)
    assert levels(again.held_out) == levels(data.held_out)
    seen = torch.cat([batch.media[:, 0, 0, 0] for batch in take(data.training, 40)])
    assert set(seen.tolist()) == set(levels(data.training))


def test_a_held_out_split_is_sampled_by_whole_groups(tmp_path, tables_read):
    write(tmp_path)
    write(tmp_path, split="test", first=100, rows=5)
    data = opened(tmp_path, num_held_out=10)
    assert len(tables_read.groups) == 2
    assert len(data.training) == 40
    assert len(set(levels(data.held_out))) == 10
    assert min(levels(data.held_out)) >= 100


def test_broken_pictures_are_named_and_others_stand_in(tmp_path):
    write(tmp_path, broken=[26])
    with pytest.raises(RinError, match=r" 6 of .*train-00001-of-00002\.parquet \(26\.png\): .*--data\.skip-broken$"):
        take(opened(tmp_path).training, 7)
    training = opened(tmp_path, skip_broken=True).training
    assert levels(training) == [*range(26), 27, *range(27, 40)]
    assert training.num_broken == 1


def test_a_row_group_that_cannot_be_read_is_one_line_and_read_again_once_it_is_mended(tmp_path):
    training = opened(write(tmp_path)).training
    file = tmp_path / "train-00001-of-00002.parquet"
    file.rename(tmp_path / "gone")
    with pytest.raises(
        RinError, match=r"cannot read row group 0 of .*train-00001-of-00002\.parquet: .*goes on"
    ) as error:
        training.get(torch.tensor([20]))
    assert "\n" not in str(error.value)
    (tmp_path / "gone").rename(file)
    assert training.get(torch.tensor([20]))[0].unique().tolist() == [20]


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write(tmp_path)
    pq.write_table(pa.table({"image": [{"bytes": png(1), "path": None}]}), tmp_path / "train.parquet")
    with pytest.raises(RinError, match="and 2 more"):
        opened(tmp_path)


@pytest.mark.parametrize("split", [None, "train"])
def test_a_single_file_is_a_set(tmp_path, split):
    path = tmp_path / ("set.parquet" if split is None else f"{split}.parquet")
    pq.write_table(table(range(6)).select(["image"]), path, row_group_size=4)
    training = opened(path).training
    assert (levels(training), training.class_names) == (list(range(6)), ())


def test_pictures_at_a_url_are_streamed(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(write(tmp_path)), "/shelf/set", recursive=True)
    try:
        assert levels(opened("memory://shelf/set").training) == list(range(40))
        assert levels(opened("memory://shelf/set/train-00001-of-00002.parquet").training) == list(range(20, 40))
        with pytest.raises(RinError, match=r"memory://nothing holds no parquet files"):
            opened("memory://nothing")
    finally:
        memory.rm("/shelf", recursive=True)


@pytest.mark.parametrize("root", ["datasets/owner/name/data", "datasets/owner/name@refs%2Fconvert%2Fparquet/default"])
def test_the_parquet_files_of_a_set_on_the_hub_are_streamed(tmp_path, monkeypatch, root):
    memory = fsspec.filesystem("memory")
    write(tmp_path / "local")
    write(tmp_path / "local", split="test", first=100)
    memory.put(str(tmp_path / "local"), f"/{root}", recursive=True)
    memory.makedirs("/datasets/owner/name", exist_ok=True)
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: memory)
    try:
        data = opened("owner/name", num_held_out=6)
        assert levels(data.training) == list(range(40))
        assert min(levels(data.held_out)) >= 100
        with pytest.raises(RinError, match=r"no split 'extra'.* test, train"):
            opened("owner/name", split="extra")
    finally:
        memory.rm("/datasets", recursive=True)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        RinError, match=r"^there is no folder or file owner/name, and listing its files elsewhere failed: ."
    ) as error:
        opened("owner/name")
    assert "\n" not in str(error.value)


def test_what_is_no_parquet_is_not_streamed(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(RinError, match=r"holds no parquet files.*leave out --data\.stream"):
        opened(tmp_path)
    (tmp_path / "set.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(RinError, match=r"cannot read .*set\.parquet"):
        opened(tmp_path)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "set.parquet")
    with pytest.raises(RinError, match="no column of images"):
        opened(tmp_path)
    pq.write_table(table([1]).slice(1), tmp_path / "set.parquet")
    with pytest.raises(RinError, match="no pictures to train on"):
        opened(tmp_path)
