"""Prepared sets under hostile circumstances: many shards, two processes, files that change, vanish or shrink."""

import json
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rin.core.errors import RinError
from rin.data import preparing
from rin.data.feeding.stream import GroupedOrder
from tests.unit.data.test_prepared import GREY, coloured, everything, files, opened, prepared, same, told


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "MAX_PICTURES", 7)


@pytest.fixture
def source(tmp_path):
    return coloured(tmp_path / "source")


@pytest.fixture
def out(tmp_path, source):
    prepared(source, tmp_path / "out")
    return tmp_path / "out"


@contextmanager
def few_descriptors(count):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_shards_than_a_process_may_open(out):
    count = 1100
    for number in range(count):
        np.save(out / "train" / f"images-{number:05d}.npy", np.full((1, *GREY), number % 251, np.uint8))
        np.save(out / "train" / f"labels-{number:05d}.npy", np.zeros(1, np.int64))
    content = told(out)
    content["splits"]["train"]["shards"] = [1] * count
    (out / "set.json").write_text(json.dumps(content))
    images = opened(out, num_held_out=0).training
    with few_descriptors(256):
        for _ in range(2):
            assert everything(images)[0][:, 0, 3, 4].tolist() == [number % 251 for number in range(count)]


def test_a_shard_truncated_while_a_run_reads_it_is_one_line(out):
    """In a process of its own, which a map of the file would end."""
    code = """if True:
        import os, sys, torch
        from rin.core.errors import RinError
        from rin.data import DataConfig, open_data
        images = open_data(DataConfig(path=sys.argv[1], num_held_out=0), (1, 8, 8)).training
        images.get(torch.arange(25))
        os.truncate(sys.argv[1] + "/train/images-00001.npy", 200)
        images.get(torch.tensor([7, 0]))
        try:
            images.get(torch.arange(25))
        except RinError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "images-00001.npy, which was whole at the start: it has been truncated; copy it again" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_shard_that_vanishes_is_one_line(out):
    images = opened(out, num_held_out=0).training
    (out / "train" / "images-00002.npy").unlink()
    with pytest.raises(RinError, match=r"images-00002\.npy, .*: No such file"):
        everything(images)


def test_two_processes_do_not_prepare_one_set(tmp_path, source):
    code = """if True:
        import sys, time
        from pathlib import Path
        from rin.data import preparing
        from rin.data.prepared.shard_writing import Preparation
        def wait(*_):
            print("locked", flush=True)
            time.sleep(60)
        preparing.MAX_PICTURES, preparing._write_shards = 7, wait
        preparing.prepare_set(Preparation(source=sys.argv[1], shape=(1, 8, 8)), Path(sys.argv[2]))
    """
    command = [sys.executable, "-c", code, source, tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        try:
            with pytest.raises(RinError, match=f"out is being prepared by process {other.pid} on .*: wait for it, or"):
                prepared(source, tmp_path / "out")
        finally:
            other.kill()
    assert not prepared(source, tmp_path / "out").was_finished
    assert len(opened(tmp_path / "out", num_held_out=0).training) == 25


def test_a_folder_of_something_else_is_not_touched(tmp_path, source):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    with pytest.raises(RinError, match="not empty"):
        prepared(source, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"]


@pytest.mark.parametrize("harm", ["missing", "truncated", "other"])
def test_a_finished_set_is_repaired(source, out, harm):
    before = files(out)
    time = (out / "train" / "images-00000.npy").stat().st_mtime_ns
    for file in (out / "train" / "images-00001.npy", out / "train" / "labels-00003.npy"):
        if harm == "missing":
            file.unlink()
        elif harm == "truncated":
            os.truncate(file, 130)
        else:
            file.write_bytes(bytes(file.stat().st_size))
    assert not prepared(source, out).was_finished
    assert files(out) == before
    assert (out / "train" / "images-00000.npy").stat().st_mtime_ns == time
    assert prepared(source, out).was_finished


def test_a_repair_finds_other_pictures(source, out):
    """The same names and sizes, so that only the count of those that can be read tells."""
    file = source / "cat" / "1.png"
    content = told(out)
    content["settings"]["skip_broken"] = True
    (out / "set.json").write_text(json.dumps(content))
    file.write_bytes(bytes(file.stat().st_size))
    (out / "train" / "images-00000.npy").unlink()
    with pytest.raises(RinError, match=r"tells of other pictures .*: remove .*out to make it anew"):
        prepared(source, out, skip_broken=True)


@pytest.mark.parametrize("change", [{"splits": {}}, {"splits": None}, {"shape": [1, 4, 4]}])
def test_a_finished_set_of_another_content_is_one_line(source, out, change):
    (out / "set.json").write_text(json.dumps(told(out) | change))
    with pytest.raises(RinError, match=r"set\.json"):
        prepared(source, out)


def test_a_set_inside_its_source_is_refused(tmp_path, source):
    (tmp_path / "link").symlink_to(source)
    for inside in (source / "set", source / "cat" / "deep" / "set", tmp_path / "link" / "set"):
        with pytest.raises(RinError, match=r"lies in the source, .*source: give a folder outside it"):
            prepared(source, inside)
        assert not inside.exists()
    assert not (source / "cat" / "deep").exists()


@pytest.mark.parametrize("skip", [False, True])
def test_a_mended_picture_is_gone_on_with(tmp_path, source, monkeypatch, skip):
    torn = source / "dog" / "0.png"  # in the third of four shards
    whole = torn.read_bytes()
    torn.write_bytes(b"torn")
    with monkeypatch.context() as patched:
        if skip:
            patched.setattr(preparing, "write_json", stop_at("set.json", preparing.write_json))
        with pytest.raises((RinError, KeyboardInterrupt)):
            prepared(source, tmp_path / "out", skip_broken=skip)
    before = (tmp_path / "out" / "train" / "images-00000.npy").stat().st_mtime_ns
    torn.write_bytes(whole)
    result = prepared(source, tmp_path / "out", skip_broken=skip)
    assert (result.num_pictures, result.num_broken) == ({"train": 25}, 0)
    assert (tmp_path / "out" / "train" / "images-00000.npy").stat().st_mtime_ns == before
    prepared(source, tmp_path / "at-once", skip_broken=skip)
    assert files(tmp_path / "out") == files(tmp_path / "at-once")


def stop_at(name, honest):
    def write(path, content):
        if path.name == name:
            raise KeyboardInterrupt
        honest(path, content)

    return write


def test_an_unfinished_set_follows_a_source_with_fewer_pictures(tmp_path, source, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(preparing, "write_json", stop_at("set.json", preparing.write_json))
        with pytest.raises(KeyboardInterrupt):
            prepared(source, tmp_path / "out")
    (tmp_path / "out" / "train" / "images-00003.npy.unfinished").touch()
    shutil.rmtree(source / "dog")
    prepared(source, tmp_path / "out")
    prepared(source, tmp_path / "at-once")
    assert files(tmp_path / "out") == files(tmp_path / "at-once")
    assert same(opened(tmp_path / "out").training, opened(source).training)


def test_smaller_shards_of_an_earlier_set_are_kept(source, out, monkeypatch):
    before = files(out)
    monkeypatch.setattr(preparing, "MAX_PICTURES", 9)
    assert prepared(source, out).was_finished
    (out / "train" / "images-00003.npy").unlink()
    prepared(source, out)
    assert files(out) == before


@pytest.mark.parametrize("shape", [(1, 99999, 99999), (3, 8193, 8), (3, 8, 8193)])
def test_a_size_beyond_reason_is_refused_before_anything_is_written(tmp_path, source, shape):
    with pytest.raises(RinError, match="at most 8192 pixels a side"):
        prepared(source, tmp_path / "out", shape)
    assert not (tmp_path / "out").exists()


def test_an_unfinished_set_without_settings_tells_no_command(out):
    (out / "set.json").unlink()
    (out / "preparing.json").write_text('{"format_version": 1, "settings": {}}')
    with pytest.raises(RinError, match=r"preparing\.json is no prepared set's") as refused:
        opened(out)
    assert "None" not in str(refused.value)


def test_only_the_groups_asked_for_are_listed(monkeypatch):
    listed, honest = [], torch.Tensor.tolist
    order = GroupedOrder([2] * 1000, seed=0)
    expected = [order.groups_from(2 * start, 1)[0] for start in range(40)]
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: listed.append(len(tensor)) or honest(tensor))
    assert order.groups_from(0, 40) == expected
    assert listed == [40]
    assert len(order.groups_from(2 * 999, 40)) == 40


def test_folders_are_on_the_disk_before_the_set_is_told_of(tmp_path, source, monkeypatch):
    done, honest = [], preparing.write_json
    monkeypatch.setattr(preparing, "flush_folder", lambda folder: done.append(folder.name))
    monkeypatch.setattr(preparing, "write_json", lambda path, content: done.append(path.name) or honest(path, content))
    prepared(source, tmp_path / "out")
    assert done == ["preparing.json", "train", "set.json", "out"]


def test_many_threads_read_while_files_are_dropped(out, monkeypatch):
    monkeypatch.setattr("rin.data.prepared.shards._MAX_OPEN", 1)
    images = opened(out, num_held_out=0).training
    expected = everything(images)[0]
    before = len(os.listdir("/dev/fd"))
    places = [torch.randperm(25, generator=torch.Generator().manual_seed(number)) for number in range(400)]
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda index: images.get(index)[0], places))
    assert all(torch.equal(pictures, expected[index]) for pictures, index in zip(got, places, strict=True))
    assert len(os.listdir("/dev/fd")) == before
