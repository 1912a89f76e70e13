"""Many processes: the losses, samples and checkpoints of one, and a clean end when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.end_to_end.commands import TINY, ended, rin, start_together, together

TRAIN = [
    *("train", "digits", *TINY, "--training.num-steps", "20", "--training.batch-size", "48"),
    *("--training.precision", "float32"),  # bfloat16 rounds what is summed in parts otherwise
    *("--training.checkpoint-every", "10", "--training.held-out-every", "10", "--training.optimiser", "lamb"),
    *("--training.clip-norm", "0.5"),
    *("--model.compute-depth", "1", "1", "0", "--seed", "5"),  # the read-only tail never gets a gradient
]


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


NUMBERS = {"loss", "grad_norm", "weight_norm", "held_out_loss"}


def assert_same_losses(one, other, numbers=NUMBERS, tolerance=1e-5):
    assert len(one) == len(other) == 20
    for line, beside in zip(one, other, strict=True):
        assert line.keys() == beside.keys()
        for name in numbers & line.keys():
            assert beside[name] == pytest.approx(line[name], rel=tolerance), (line["step"], name)


def succeed(results):
    for result in results:
        assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    succeed([rin(*TRAIN, "--out", run)])
    return run


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("optimiser", ["lamb", "adamw"])
def test_two_processes_have_the_losses_of_one(tmp_path, alone, parallel, optimiser):
    options = [*TRAIN, "--training.optimiser", optimiser]
    if optimiser == "adamw":  # of an elastic network: both processes draw the same number of latents
        options += ["--model.num-latents", "12", "--model.num-latents-min", "4"]
        alone = tmp_path / "alone"
        succeed([rin(*options, "--out", alone)])
    options += ["--training.accumulation-steps", "3"] if optimiser == "lamb" else []
    succeed(together(2, *options, "--training.parallel", parallel, "--out", tmp_path / "two"))
    assert_same_losses(log(alone), log(tmp_path / "two"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_frozen_weights_and_rates_by_group_are_the_same_in_two_processes(tmp_path, parallel):
    options = [*TRAIN, "--training.freeze", "blocks.1", "tokenizer.*.bias", "--training.rates", "condition=0.1"]
    succeed([rin(*options, "--out", tmp_path / "one")])
    succeed(together(2, *options, "--training.parallel", parallel, "--out", tmp_path / "two"))
    assert_same_losses(log(tmp_path / "one"), log(tmp_path / "two"))


def test_adapters_are_the_same_in_two_processes_and_refused_where_each_has_rows(tmp_path, alone):
    options = [*TRAIN, "--init-from", alone, "--training.adapter-rank", "4", "--model.num-latents", "12"]
    succeed([rin(*options, "--out", tmp_path / "one")])
    succeed(together(2, *options, "--out", tmp_path / "two"))
    assert_same_losses(log(tmp_path / "one"), log(tmp_path / "two"))
    for result in together(2, *options, "--training.parallel", "fsdp", "--out", tmp_path / "rows"):
        assert result.returncode == 2
        assert "training.adapter_rank 4 merges whole matrices: take training.parallel ddp" in result.stderr
    assert not (tmp_path / "rows" / "config.json").exists()


@pytest.mark.parametrize(("before", "after"), [((2, "fsdp"), (1, "ddp")), ((1, "ddp"), (2, "fsdp"))])
def test_a_run_goes_on_with_other_processes_and_another_sharding(tmp_path, alone, before, after):
    run = tmp_path / "run"
    for (processes, parallel), fault in ((before, ("at_a_part", 15)), (after, None)):
        faults = dict.fromkeys(range(processes), fault) if fault else None
        options = [*TRAIN, "--training.parallel", parallel, "--out", run]
        results = together(processes, *options, faults=faults)
        assert {result.returncode for result in results} == {-signal.SIGKILL if fault else 0}, results
        names = {file.name for file in (run / "checkpoints" / "step-000000010").iterdir()}
        assert ("model-00002-of-00002.safetensors" in names) == (before[1] == "fsdp")
    assert_same_losses(log(alone), log(run))


def test_a_run_whose_pictures_workers_read_goes_on_with_fewer_processes(tmp_path):
    for number in range(60):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 4 * number).save(path)
    options = [*TRAIN, "--data.path", tmp_path / "pictures", "--data.memory-gib", "0", "--data.num-workers", "2"]
    succeed([rin(*options, "--data.num-workers", "0", "--out", tmp_path / "alone")])
    killed = together(2, *options, "--out", tmp_path / "run", faults=dict.fromkeys(range(2), ("at_a_part", 15)))
    assert {result.returncode for result in killed} == {-signal.SIGKILL}, killed
    succeed([rin(*options, "--out", tmp_path / "run")])
    assert_same_losses(log(tmp_path / "alone"), log(tmp_path / "run"))


def test_four_processes_sample_the_pictures_of_one(tmp_path, alone):
    sample = ["sample", alone, "--num", "10", "--batch-size", "3", "--seed", "3", "--out"]
    succeed([rin(*sample, tmp_path / "one.npz")])
    succeed(together(4, *sample, tmp_path / "four.npz"))
    import numpy as np

    one, four = (np.load(tmp_path / f"{name}.npz")["images"].astype(int) for name in ("one", "four"))
    assert one.shape == four.shape == (10, 8, 8, 1)
    assert abs(one - four).max() <= 1
    assert one.std() > 10


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_process_that_dies_takes_the_other_down_by_name(tmp_path, parallel):
    options = [*TRAIN, "--training.parallel", parallel, "--out", tmp_path / "run"]
    processes = start_together(2, *options, faults={1: ("at_a_part", 12)})
    dead = ended(processes[1])
    died = time.monotonic()
    survivor = ended(processes[0], timeout=60)
    assert dead.returncode == -signal.SIGKILL
    assert survivor.returncode == 2
    assert "rin: process 1 of 2" in survivor.stderr.splitlines()[-1]
    assert f"pid {processes[1].pid}) died" in survivor.stderr
    assert time.monotonic() - died < 60
    succeed(together(2, *options))
    assert [line["step"] for line in log(tmp_path / "run")] == list(range(1, 21))


def test_a_mistake_of_all_processes_is_told(tmp_path):
    results = together(2, *TRAIN, "--training.batch-size", "45", "--out", tmp_path / "run")
    for result in results:
        assert result.returncode == 2
        last = result.stderr.splitlines()[-1]  # PyTorch may have had its say when the first one left
        assert last.startswith("rin: training.batch_size 45 cannot be split evenly")
        assert "2 processes" in last


def test_a_signal_to_one_process_saves_and_stops_both(tmp_path):
    options = [*TRAIN, "--training.num-steps", "100000", "--training.checkpoint-every", "100000"]
    run = tmp_path / "run"
    processes = start_together(2, *options, "--out", run)
    while not (run / "log.jsonl").exists() or len(log(run)) < 3:
        time.sleep(0.1)
        assert processes[0].poll() is None, ended(processes[0]).stderr
    processes[1].send_signal(signal.SIGUSR1)
    results = [ended(process, timeout=60) for process in processes]
    assert [result.returncode for result in results] == [128 + signal.SIGUSR1] * 2
    assert "stopped by SIGUSR1" in results[0].stderr
    step = log(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{step:09d}").is_dir()


def test_torchrun_samples_and_passes_a_mistake_on(tmp_path, alone):
    """The launcher itself; `--` keeps it from taking `--num` for an option of its own."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [*start, "rin.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)

    done = run("sample", alone, "--num", "3", "--out", tmp_path / "three.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"3 samples in {tmp_path / 'three.npz'}\n"
    refused = run("sample", alone, "--num", "0", "--out", tmp_path / "none.npz")
    assert refused.returncode == 1
    assert "rin: --num 0: take 1 or more" in refused.stderr


@pytest.mark.slow
def test_a_pause_of_all_processes_is_no_death(tmp_path):
    """A job that is suspended for longer than the patience, and goes on."""
    processes = start_together(2, *TRAIN, "--training.num-steps", "60", "--out", tmp_path)
    while not (tmp_path / "log.jsonl").exists():
        time.sleep(0.1)
        assert processes[0].poll() is None, ended(processes[0]).stderr
    for pause in (signal.SIGSTOP, signal.SIGCONT):
        for process in processes:
            process.send_signal(pause)
        time.sleep(35 if pause == signal.SIGSTOP else 0)
    succeed([ended(process) for process in processes])
