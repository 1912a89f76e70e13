"""Workers: the same examples as a thread's, one line where something is wrong, and no process that stays behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from PIL import Image

from rin.core.errors import RinError
from rin.data import DataConfig, Source, batches, open_data, open_source
from rin.data.feeding import workers
from rin.data.source import why_not_sent
from rin.nn import RINConfig
from tests.unit.data import test_golden_streams as golden

KINDS = [(kind, way) for kind, way in golden.CASES if way == "on demand" or way == "streamed"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Workers from the first batch on."""
    monkeypatch.setattr(workers, "HEAD_START", 0.0)
    monkeypatch.setattr(workers, "IMPORT_TIME", 0.0)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(("kind", "way"), KINDS, ids=str)
def test_the_stream_is_that_of_a_thread(kind, way, num_workers, tmp_path):
    path = golden.SETS[kind](tmp_path)
    expected = golden.json.loads(golden.GOLDEN.read_text())[f"{kind}, {way}"]["batches"]
    assert golden.stream(path, way, num_workers=num_workers) == expected
    assert golden.stream(path, way, first_step=9, steps=5, num_workers=num_workers) == expected[9:]


def folder(path, count=12, broken=()):
    for number in range(count):
        Image.new("L", (8, 8), number).save(path / f"{number:02d}.png")
    for number in broken:
        (path / f"{number:02d}.png").write_bytes(b"torn")
    return path


def stream(path, **options):
    data = open_data(DataConfig(path=str(path), num_held_out=0, memory_gib=0.0, **options), (1, 8, 8))
    return data.training, batches(
        data.training, seed=1, batch_size=4, places=torch.arange(4), first_step=0, flip=False, num_workers=2
    )


def test_what_is_broken_is_named_by_the_main_process(tmp_path, caplog):
    with closing(stream(folder(tmp_path, broken=[5]))[1]) as made, pytest.raises(RinError, match=r"05\.png.*no format"):
        list(itertools.islice(made, 3))
    images, made = stream(tmp_path, skip_broken=True)
    with closing(made):
        seen = torch.cat([batch.media[:, 0, 0, 0] for batch in itertools.islice(made, 3)])
    assert sorted(seen.tolist()) == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 11]
    assert images.num_broken == 1
    assert "05.png, which cannot be read" in caplog.text


def test_workers_end_with_the_stream(tmp_path):
    _, made = stream(folder(tmp_path))
    next(made)
    assert len(active_children()) == 2
    made.close()
    assert active_children() == []


def test_a_killed_worker_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.utils.data.dataloader._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    _, made = stream(folder(tmp_path))
    next(made)
    for worker in active_children():
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RinError, match=r"a worker that reads the data was killed: .*--data\.num-workers"):
        list(itertools.islice(made, 20))


class Numbers:
    """A data set that pickles: this module can be imported."""

    def __len__(self):
        return 30

    def __getitem__(self, place):
        return np.full((1, 4, 4), place, np.uint8), 0


def own(data):
    kind = RINConfig(shape=(1, 4, 4), patch_size=2, num_classes=0).kind
    return open_source(Source(data), None, 0, kind).training


def test_data_sets_of_ones_own_are_read_by_workers_if_they_can_be_sent():
    options = {"seed": 1, "batch_size": 5, "places": torch.arange(5), "first_step": 2, "flip": False}
    with closing(batches(own(Numbers()), num_workers=2, **options)) as made:
        first = next(made)
        assert len(active_children()) == 2
        assert torch.equal(first.media[:, 0, 0, 0].long(), first.examples)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([(np.zeros((1, 4, 4), np.uint8), 0), lambda: 0], "cannot be pickled"),
        (np.zeros((1, 4, 4, 2**23), np.uint8), "more than 64 MiB"),
    ],
    ids=["a lambda", "large"],
)
def test_other_data_sets_are_read_by_a_thread_and_it_is_said_why(data, reason):
    assert reason in why_not_sent(Source(data))


SCRIPT = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from rin.data import DataConfig, batches, open_data
from rin.data.feeding import workers
from rin.data.source import why_not_sent
workers.HEAD_START = workers.IMPORT_TIME = 0.0
print("script", flush=True)
data = open_data(DataConfig(path=sys.argv[1], num_held_out=0, memory_gib=0.0), (1, 8, 8)).training
made = batches(data, seed=1, batch_size=4, places=torch.arange(4), first_step=0, flip=False, num_workers=2)
next(made)
from multiprocessing import active_children
print(*(child.pid for child in active_children()), flush=True)
class Mine(list): pass
print(why_not_sent(Mine()), flush=True)
for _ in range(600):  # a signal just before a long sleep begins would be seen at its end
    time.sleep(0.1)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_script_without_a_guard_has_workers_which_end_with_it(tmp_path, ending):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "set").mkdir()
    command = [sys.executable, tmp_path / "script.py", folder(tmp_path / "set")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "script\n"
        pids = list(map(int, process.stdout.readline().split()))
        assert len(pids) == 2
        assert "defined in the script" in process.stdout.readline()
        os.killpg(process.pid, ending) if ending == signal.SIGINT else process.kill()
        errors = process.communicate(timeout=60)[1]
    assert errors.count("Traceback") == (ending == signal.SIGINT)  # its own, and none of a worker's
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_what_a_thread_does_within_a_second_starts_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "HEAD_START", 60.0)
    monkeypatch.setattr(workers, "_by_workers", None)
    data = open_data(DataConfig(path=str(folder(tmp_path)), num_held_out=0), (1, 8, 8))
    assert data.training.get(torch.arange(12))[0][:, 0, 0, 0].tolist() == list(range(12))
