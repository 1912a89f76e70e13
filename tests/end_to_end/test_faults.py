"""Whatever ends a run, the same command goes on, and ends with what the undisturbed run has, bit by bit."""

import json
import os
import random
import signal
import time

import pytest

from tests.end_to_end.commands import TINY, assert_one_line, ended, files, rin, start, start_together, together
from tests.end_to_end.faults import POINTS

STEPS = 12
TRAIN = [
    *("train", "digits", *TINY, "--model.dropout-rate", "0.1", "--model.depth-drop-rate", "0.1"),
    *("--diffusion.label-drop-rate", "0.2", "--data.flip", "--training.batch-size", "600"),
    *("--training.accumulation-steps", "3", "--training.num-steps", STEPS, "--training.checkpoint-every", "2"),
    *("--training.keep-checkpoints", "2", "--training.keep-checkpoint-every", "4"),
    *("--training.log-every", "1", "--training.held-out-every", "4", "--seed", "5"),
]
"""1,618 digits in batches of 600: an epoch ends within the third step; a step has three parts."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the undisturbed run leaves."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = rin(*TRAIN, "--out", run, afresh=True)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step-{step:09d}" for step in (4, 8, 10, 12)
    ]
    return files(run)


def go_on(run, processes=1):
    """The same command once more."""
    results = together(processes, *TRAIN, "--out", run)
    assert all(result.returncode == 0 for result in results), results[0].stderr
    return results[0].stderr


def end_of(run_files):
    """The log and the last checkpoint."""
    return {name: content for name, content in run_files.items() if name == "log.jsonl" or f"step-{STEPS:09d}" in name}


def wait_for_lines(run, count, process):
    log = run / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, ended(process).stderr
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "count"),
    [
        ("at_a_part", 2), ("at_a_part", 8), ("at_a_part", 20), ("before_the_average", 5), ("within_a_line", 3),
        ("within_a_file", 1), ("within_a_file", 5), ("within_a_file", 9), ("between_files", 1), ("between_files", 5),
        ("before_the_rename", 1), ("before_the_rename", 3), ("after_the_rename", 1), ("after_the_rename", 4),
        ("while_pruning", 1), ("while_pruning", 2),
    ],
)  # fmt: skip
def test_killed_at_a_named_point(tmp_path, whole, point, count):
    killed = rin(*TRAIN, "--out", tmp_path, fault=(point, count))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    go_on(tmp_path)
    assert files(tmp_path) == whole


def test_every_point_is_tried():
    tried = {point for point, _ in test_killed_at_a_named_point.pytestmark[0].args[1]}
    assert tried == set(POINTS)


@pytest.mark.parametrize("number", [*range(3), *(pytest.param(more, marks=pytest.mark.slow) for more in range(3, 20))])
def test_killed_at_a_random_moment(tmp_path, whole, number):
    chance = random.Random(number)
    process = start(*TRAIN, "--out", tmp_path)
    wait_for_lines(tmp_path, chance.randrange(STEPS), process)
    time.sleep(chance.uniform(0, 0.15))
    process.kill()
    ended(process)
    go_on(tmp_path)
    assert files(tmp_path) == whole


def test_sigterm_saves_and_leaves(tmp_path, whole):
    process = start(*TRAIN, "--out", tmp_path)
    wait_for_lines(tmp_path, 5, process)
    process.terminate()
    left = ended(process)
    step = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert left.returncode == 128 + signal.SIGTERM
    assert left.stderr.splitlines()[-1].startswith(f"rin: stopped by SIGTERM after step {step}, saved as ")
    assert f"step-{step:09d}" in {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"
    assert f"going on from step {step}\n" in go_on(tmp_path)
    assert end_of(files(tmp_path)) == end_of(whole)


def damage_model(checkpoint):
    """Its file is shorter than it was."""
    os.truncate(checkpoint / "model.safetensors", 5000)


def damage_a_bit(checkpoint):
    """Its file has a bit of another value, near its end, where the numbers are."""
    file = checkpoint / "optimiser.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 64
    file.write_bytes(content)


def lose_a_file(checkpoint):
    """One of its files is missing."""
    (checkpoint / "average.safetensors").unlink()


def lose_the_state(checkpoint):
    """Nothing tells what it holds."""
    (checkpoint / "state.json").write_text("")


@pytest.mark.parametrize(
    "damage",
    [
        damage_model,
        *(pytest.param(case, marks=pytest.mark.slow) for case in (damage_a_bit, lose_a_file, lose_the_state)),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, whole, damage):
    assert rin(*TRAIN, "--out", tmp_path, kill_at=20).returncode == -signal.SIGKILL
    newest = tmp_path / "checkpoints" / "step-000000006"
    damage(newest)
    told = go_on(tmp_path)
    assert f"checkpoint {newest} is damaged" in told
    assert "going on from step 4\n" in told
    assert files(tmp_path) == whole


def test_when_every_checkpoint_is_damaged_nothing_begins_anew(tmp_path):
    assert rin(*TRAIN, "--out", tmp_path, kill_at=14).returncode == -signal.SIGKILL
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        damage_model(checkpoint)
    refused = rin(*TRAIN, "--out", tmp_path)
    assert refused.returncode == 2
    assert "every checkpoint in" in refused.stderr.splitlines()[-1]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "step-000000002.damaged", "step-000000004.damaged",
    }  # fmt: skip


def test_a_write_refused_in_the_middle_leaves_the_last_good_checkpoint(tmp_path, whole):
    """A limit on the size of files stands in for a full disk: the optimiser's file is the largest."""
    assert rin(*TRAIN, "--out", tmp_path, kill_at=14).returncode == -signal.SIGKILL
    before = files(tmp_path)
    newest = tmp_path / "checkpoints" / "step-000000004"
    size = (newest / "optimiser.safetensors").stat().st_size
    refused = rin(*TRAIN, "--out", tmp_path, largest_file=size - 1000)
    assert refused.returncode == 2
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("rin: cannot write the checkpoint ")
    assert last.endswith(f"the last good checkpoint is {newest}")
    after = files(tmp_path)
    assert {name for name in after if "checkpoints" in name} == {name for name in before if "checkpoints" in name}
    assert all(after[name] == before[name] for name in before if "checkpoints" in name)
    go_on(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("fault", [("at_a_part", 14), ("within_a_file", 2), ("between_files", 4)])
def test_one_process_of_two_killed(tmp_path, parallel, fault):
    options = [*TRAIN, "--training.parallel", parallel]
    assert all(result.returncode == 0 for result in together(2, *options, "--out", tmp_path / "whole"))
    number = 1 if parallel == "fsdp" or fault[0] == "at_a_part" else 0  # under DDP the first process alone writes
    processes = start_together(2, *options, "--out", tmp_path / "broken", faults={number: fault})
    results = [ended(process, timeout=90) for process in processes]
    assert results[number].returncode == -signal.SIGKILL
    assert results[1 - number].returncode == 2
    assert f"rin: process {number} of 2" in results[1 - number].stderr
    assert all(result.returncode == 0 for result in together(2, *options, "--out", tmp_path / "broken"))
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    process = start(*TRAIN, "--training.num-steps", "100000", "--out", tmp_path)
    wait_for_lines(tmp_path, 1, process)
    assert_one_line(rin(*TRAIN, "--training.num-steps", "100000", "--out", tmp_path), str(process.pid), "trained")
    process.kill()
    ended(process)
