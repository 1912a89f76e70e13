"""`rin status` and `rin info --gpus` as a person has them."""

import json
import signal
import time

import pytest

from tests.end_to_end.commands import TINY, assert_one_line, ended, rin, start

LONG = ["train", "digits", *TINY, "--training.num-steps", "1000000", "--training.checkpoint-every", "5"]


def told(run):
    result = rin("status", run, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A run under way, after its first checkpoint."""
    run = tmp_path_factory.mktemp("runs") / "long"
    process = start(*LONG, "--out", run)
    until = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-?????????")) and time.monotonic() < until:
        assert process.poll() is None, ended(process).stderr
        time.sleep(0.1)
    yield run, process
    process.kill()
    ended(process)


def test_a_run_is_running_until_it_is_killed(running):
    run, process = running
    found = told(run)
    assert (found["state"], found["pid"], found["num_processes"]) == ("running", process.pid, 1)
    assert found["step"] >= 5
    assert found["loss"] > 0
    assert found["seconds_left"] > 0
    assert_one_line(rin(*LONG, "--out", run), "is being trained by process", str(process.pid))
    text = rin("status", run).stdout
    assert "running (process" in text
    assert "of 1,000,000 (0 %)" in text
    assert "time left" in text
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert told(run)["state"] == "killed"
    assert "killed (process" in rin("status", run).stdout


def test_a_finished_run_says_so(tmp_path):
    run = tmp_path / "runs" / "short"
    assert rin("train", "digits", *TINY, "--training.num-steps", "3", "--out", run).returncode == 0
    found = told(run)
    assert (found["state"], found["step"], found["num_steps"]) == ("finished", 3, 3)
    assert found["checkpoints"]["newest"] == "step-000000003"
    assert found["checkpoints"]["bytes"] == sum(f.stat().st_size for f in run.glob("checkpoints/*/*"))
    assert "3 of 3 (100 %)" in rin("status", tmp_path / "runs").stdout


def test_what_is_no_run_is_one_line(tmp_path):
    assert_one_line(rin("status", tmp_path), "is no run")
    assert_one_line(rin("status", tmp_path / "absent"), "there is no folder")
    assert_one_line(rin("status"), "status")


def test_a_plan_for_gpus_is_told():
    result = rin("info", "digits", "--gpus", "4")
    assert result.returncode == 0, result.stderr
    assert "torchrun --standalone --nproc-per-node 4 -m rin.cli train digits --out runs/digits\n" in result.stdout
    assert_one_line(rin("info", "digits", "--gpus", "-1"), "--gpus -1: take 1 or more")
