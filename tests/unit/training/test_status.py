"""Where a run stands: its status on disk, its lock, and what its folder tells."""

import json
import logging
import os
import socket
import subprocess
import sys
import time

import pytest

from rin.cli import main
from rin.cli.status import _time
from rin.core.errors import RinError
from rin.training import status_file as module
from rin.training.run_state import run_state
from rin.training.status_file import LOCK, STATUS, RunStatus, only_process, read_status, running_here, write_status

HERE = socket.gethostname()
HOLD = """
import sys, time
from pathlib import Path
from rin.training.status_file import only_process
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def status(**changes):
    now = time.time()
    return RunStatus(**{
        "state": "running", "step": 250, "num_steps": 1000, "loss": 0.25, "learning_rate": 1e-3,
        "examples_per_second": 64.0, "num_processes": 2, "host": HERE, "pid": 2**22 + 1, "started": now - 60,
        "written": now, "checkpoint": "step-000000200", **changes,
    })  # fmt: skip


def run_folder(folder, log=(), checkpoints=(), training=None):
    """A run's folder without a run."""
    options = {"num_steps": 1000, "batch_size": 32} | (training or {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"training": options}))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    for step in checkpoints:
        saved = folder / "checkpoints" / f"step-{step:09d}"
        saved.mkdir(parents=True)
        (saved / "model.safetensors").write_bytes(bytes(1000))
        (saved / "state.json").write_bytes(bytes(24))
    return folder


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a run in `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_status_is_read_as_it_was_written(tmp_path):
    for written in (status(), status(loss=None, learning_rate=None, examples_per_second=None, checkpoint=None, step=0)):
        write_status(tmp_path, written)
        assert read_status(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == [STATUS]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "\xff", json.dumps({"state": "running"}),
     json.dumps(vars(status()) | {"state": "asleep"}), json.dumps(vars(status()) | {"step": "many"}),
     json.dumps(vars(status()) | {"step": True})],
)  # fmt: skip
def test_a_damaged_status_is_as_good_as_none(tmp_path, content):
    assert read_status(tmp_path) is None
    (tmp_path / STATUS).write_text(content, encoding="latin-1")
    assert read_status(tmp_path) is None


def test_a_status_that_cannot_be_written_is_warned_of_and_the_old_one_stays(tmp_path, monkeypatch, caplog):
    write_status(tmp_path, status(step=1))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with caplog.at_level(logging.WARNING, "rin"):
        write_status(tmp_path, status(step=2))
    assert "No space left" in caplog.text
    assert read_status(tmp_path).step == 1


def test_one_process_alone_trains_a_run(tmp_path, holder):
    assert running_here(tmp_path)
    with pytest.raises(RinError, match=f"is being trained by process {holder.pid} on {HERE}"), only_process(tmp_path):
        pass
    assert running_here(tmp_path)


def test_a_killed_process_leaves_the_lock_to_the_next(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert not running_here(tmp_path)
    with only_process(tmp_path):
        assert running_here(tmp_path)
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()} {HERE}\n"
    assert not running_here(tmp_path)


def test_who_only_looks_for_an_instant_keeps_no_run_from_starting(tmp_path):
    import fcntl
    import threading

    (tmp_path / LOCK).touch()
    looking = (tmp_path / LOCK).open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.2, looking.close).start()
    with only_process(tmp_path):
        assert looking.closed


def test_without_locks_a_run_goes_on_and_its_process_tells(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    with caplog.at_level(logging.DEBUG, "rin"), only_process(tmp_path):
        assert "cannot be locked" in caplog.text
        write_status(tmp_path, status(pid=os.getpid()))
        assert running_here(tmp_path)
        write_status(tmp_path, status())
        assert not running_here(tmp_path)
        write_status(tmp_path, status(pid=os.getpid(), host="elsewhere"))
        assert not running_here(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(RinError, match="cannot write the run to"), only_process(tmp_path / "absent"):
        pass


def test_what_a_folder_tells_is_summed_by_hand(tmp_path):
    log = [
        {"step": 100, "loss": 0.5, "lr": 2e-3, "grad_norm": 3.0, "held_out_loss": 0.4},
        {"step": 200, "loss": 0.25, "lr": 1e-3, "grad_norm": 1.5},
        {"step": 300, "loss": None, "lr": 1e-3, "grad_norm": None},
    ]
    run_folder(tmp_path, log, checkpoints=(100, 200, 300), training={"keep_checkpoint_every": 200})
    write_status(tmp_path, status(skipped_updates=3, broken_pictures=2, message="words"))
    with only_process(tmp_path):
        found = run_state(tmp_path)
    assert (found.state, found.step, found.num_steps) == ("running", 250, 1000)
    assert (found.loss, found.held_out_loss, found.learning_rate, found.gradient_norm) == (0.25, 0.4, 1e-3, 1.5)
    assert found.seconds_left == 750 * 32 / 64
    kept = found.checkpoints
    assert (kept.count, kept.newest, kept.bytes, kept.kept_for_good) == (3, "step-000000300", 3 * 1024, 1)
    assert (found.skipped_updates, found.broken_pictures, found.message) == (3, 2, "words")


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ({}, "killed"),
        ({"state": "finished"}, "finished"),
        ({"state": "stopped"}, "stopped"),
        ({"state": "failed"}, "failed"),
        ({"host": "elsewhere"}, "running"),
        ({"host": "elsewhere", "written": time.time() - 720}, "silent"),
        ({"host": "elsewhere", "written": time.time() - 720, "state": "finished"}, "finished"),
    ],
)
def test_the_state_is_the_truth_and_not_what_was_last_written(tmp_path, written, state):
    write_status(run_folder(tmp_path), status(**written))
    assert run_state(tmp_path).state == state
    with only_process(tmp_path):
        assert run_state(tmp_path).state == "running"


@pytest.mark.parametrize(("saved", "state"), [((), "stopped"), ((500,), "stopped"), ((500, 1000), "finished")])
def test_a_run_without_a_status_is_judged_by_its_checkpoints(tmp_path, saved, state):
    run_folder(tmp_path, [{"step": 400, "loss": 1.0, "lr": 0.0}], saved)
    found = run_state(tmp_path)
    assert (found.state, found.step) == (state, max(400, *saved) if saved else 400)
    assert (found.examples_per_second, found.seconds_left, found.host) == (None, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0 s"), (59, "59 s"), (61, "1 min"), (720, "12 min"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_times_are_told_by_their_two_largest_units(seconds, text):
    assert _time(None if seconds is None else float(seconds)) == text


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        main(["status", *map(str, arguments)])
    captured = capsys.readouterr()
    return leaving.value.code, captured.out, captured.err


def test_a_silent_run_a_killed_run_and_a_failed_run_are_told_apart_at_a_glance(tmp_path, capsys):
    for name, changes in (
        ("a", {"host": "node7", "written": time.time() - 725}),
        ("b", {}),
        ("c", {"state": "failed", "message": "the disk is full"}),
    ):
        write_status(run_folder(tmp_path / name, [{"step": 200, "loss": 0.25, "lr": 1e-3}]), status(**changes))
    assert "silent for 12 min on node7" in told(capsys, tmp_path / "a")[1]
    assert "killed (process" in told(capsys, tmp_path / "b")[1]
    assert "the disk is full" in told(capsys, tmp_path / "c")[1]
    (tmp_path / "notes").mkdir()
    code, table, _ = told(capsys, tmp_path)
    assert code == 0
    heading, *lines = table.splitlines()
    assert heading.split()[:3] == ["run", "state", "step"]
    assert [line.split("  ")[0] for line in lines] == [str(tmp_path / name) for name in "abc"]
    assert all("25 %" in line and "0.2500" in line for line in lines)


def test_json_is_strict_and_a_list(tmp_path, capsys):
    write_status(run_folder(tmp_path, [{"step": 1, "loss": float("nan"), "lr": 0.5}]), status())
    code, out, _ = told(capsys, tmp_path, "--json")
    (found,) = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert code == 0
    assert (found["loss"], found["learning_rate"], found["step"]) == (None, 0.5, 250)
    assert found["checkpoints"]["count"] == 0


@pytest.mark.parametrize("content", [None, "{}", "{", '{"training": 3}', '{"training": {"num_steps": "x"}}'])
def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    code, out, error = told(capsys, tmp_path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("rin: ")
    assert told(capsys, tmp_path / "absent")[0] == 2
