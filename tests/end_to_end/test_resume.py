"""A run that is killed and resumed ends as the uninterrupted one, to the last digit."""

import pytest

from tests.end_to_end.commands import TINY, files, rin

EVERYTHING_ON = [
    *("train", "digits", *TINY, "--model.dropout-rate", "0.1", "--model.depth-drop-rate", "0.1"),
    *("--diffusion.label-drop-rate", "0.2", "--data.flip", "--training.batch-size", "600"),
    *("--training.accumulation-steps", "3", "--training.num-steps", "8", "--training.checkpoint-every", "2"),
    *("--training.log-every", "3", "--training.held-out-every", "4", "--seed", "5"),
]
"""1,618 digits in batches of 600: an epoch ends within the third step; a step has three parts."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the uninterrupted run leaves."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert rin(*EVERYTHING_ON, "--out", run).returncode == 0
    return files(run)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([2], id="in the first step, before any checkpoint"),
        pytest.param([11, 3], id="in the second epoch within an accumulation, then in the same step again"),
        pytest.param([7, 4, 7], id="three times"),
    ],
)
def test_a_killed_run_ends_as_the_uninterrupted_one(tmp_path, whole, kills):
    broken = tmp_path / "broken"
    for call in kills:
        killed = rin(*EVERYTHING_ON, "--out", broken, kill_at=call)
        assert killed.returncode == -9, killed.stderr
    assert rin(*EVERYTHING_ON, "--out", broken).returncode == 0
    assert files(broken) == whole
    assert "log.jsonl" in whole


def test_a_finished_run_is_left_as_it_is(tmp_path):
    command = ["train", "digits", *TINY, "--training.num-steps", "2", "--out", tmp_path / "run"]
    assert rin(*command).returncode == 0
    before = files(tmp_path / "run")
    assert rin(*command).returncode == 0
    assert files(tmp_path / "run") == before


def test_a_torn_log_and_half_a_checkpoint_are_taken_back(tmp_path):
    command = ["train", "digits", *TINY, "--training.num-steps", "4", "--training.checkpoint-every", "2"]
    run = tmp_path / "run"
    assert rin(*command, "--out", run).returncode == 0
    before = files(run)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    (run / "checkpoints" / "step-000000006.unfinished").mkdir()
    (run / "checkpoints" / "step-000000006.unfinished" / "model.safetensors").write_bytes(b"half")
    assert rin(*command, "--out", run).returncode == 0
    assert files(run) == before
