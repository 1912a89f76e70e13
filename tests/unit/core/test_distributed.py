"""What many processes share, seen from one; signals; files written whole. See end_to_end/test_processes.py for many."""

import os
import signal
import socket
import threading
from datetime import timedelta

import pytest
import torch

from rin.core import distributed, launch
from rin.core.distributed import LargestOfAll, first_says, gather, share_of, sum_over_processes
from rin.core.errors import RinError
from rin.core.files import discard, written_whole
from rin.core.launch import processes
from rin.core.progress import progress_bar
from rin.core.signals import listening
from rin.training.rows import rows_of
from rin.training.sharding import local_places


def test_one_process_answers_for_all():
    with processes():
        assert (distributed.rank(), distributed.world_size(), distributed.is_first()) == (0, 1, True)
    assert sum_over_processes(torch.tensor(3.0)) == 3
    assert gather(torch.arange(2)).tolist() == [[0, 1]]
    assert first_says(7) == 7


def as_process(monkeypatch, number, size):
    for module in (distributed, "rin.training.checkpoint", "rin.training.rows", "rin.training.sharding"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.world_size", lambda: size)
    monkeypatch.setattr(distributed, "rank", lambda: number)
    for name in ("rin.training.checkpoint", "rin.training.rows"):
        monkeypatch.setattr(f"{name}.rank", lambda: number)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_even_and_make_the_whole(monkeypatch, size):
    found = []
    for number in range(size):
        as_process(monkeypatch, number, size)
        found.append(share_of(17))
    assert [thing for share in found for thing in share] == list(range(17))
    assert {len(share) for share in found} <= {17 // size, -(-17 // size)}


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10, 64])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_rows_are_those_that_torch_chunk_gives(monkeypatch, count, size):
    chunks = [*torch.arange(count).chunk(size)] if count else []
    for number in range(size):
        as_process(monkeypatch, number, size)
        assert list(rows_of(count)) == (chunks[number].tolist() if number < len(chunks) else [])


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (1, 3), (2, 3), (4, 2)])
def test_places_of_all_processes_make_the_batch_part_by_part(monkeypatch, size, parts):
    by_process = []
    for number in range(size):
        as_process(monkeypatch, number, size)
        by_process.append(local_places(24, parts))
    places = [place for part in range(parts) for own in by_process for place in own[part]]
    assert places == list(range(24))


def test_a_batch_that_cannot_be_split_is_refused(monkeypatch):
    as_process(monkeypatch, 0, 4)
    with pytest.raises(
        RinError, match=r"batch_size 10 cannot be split evenly into 2 .* of 4 processes: .*multiple of 8"
    ):
        local_places(10, 2)


def test_the_largest_number_is_heard_one_call_later():
    largest = LargestOfAll()
    assert [largest.before(number) for number in (0, 15, 0)] == [0, 0, 15]
    assert largest.last() == 0


LAUNCH = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29999"}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (dict.fromkeys(["LOCAL_RANK", "MASTER_ADDR"]), "WORLD_SIZE is set, but not LOCAL_RANK, MASTER_ADDR"),
        ({"WORLD_SIZE": "two"}, "make no sense .*WORLD_SIZE=two"),
        ({"WORLD_SIZE": "0"}, "make no sense"),
        ({"RANK": "2"}, "make no sense .*RANK=2"),
        ({"LOCAL_RANK": "-1"}, "make no sense"),
        ({"MASTER_PORT": "99999"}, "make no sense"),
    ],
)
def test_a_launcher_that_makes_no_sense_is_refused(monkeypatch, told, message):
    for name, value in (LAUNCH | told).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(RinError, match=message), processes():
        pass


def test_a_process_that_does_not_come_is_named(monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    for name, value in (LAUNCH | {"MASTER_PORT": port}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "_COME_WITHIN", timedelta(seconds=2))
    with pytest.raises(RinError, match=f"process 1 of 2 did not come to localhost:{port} within"), processes():
        pass


SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts_as_ever(number):
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with listening() as asked:
        assert asked.signal == 0
        os.kill(os.getpid(), number)
        assert asked.signal == number
        assert {each: signal.getsignal(each) for each in before} == before
    assert {each: signal.getsignal(each) for each in before} == before


def test_other_threads_do_not_listen():
    heard = []

    def run():
        with listening() as asked:
            heard.append(asked.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [0]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fails():
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_folder_is_renamed_before_it_is_deleted(tmp_path, monkeypatch):
    folder = tmp_path / "step-1"
    folder.mkdir()
    (folder / "file").touch()
    seen = []
    monkeypatch.setattr("rin.core.files.shutil.rmtree", lambda path, **_: seen.append((path.name, path.exists())))
    discard(folder)
    assert seen == [("step-1.unfinished", False), ("step-1.unfinished", True)]
    assert not folder.exists()


def test_a_bar_within_a_bar_is_not_shown(monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with progress_bar("outer", 2) as outer:
        assert not outer._progress.disable
        with progress_bar("inner", 2) as inner:
            assert inner._progress.disable
    with progress_bar("next", 2) as following:
        assert not following._progress.disable
