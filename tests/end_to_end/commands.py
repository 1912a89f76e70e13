"""The command line as a person has it: real processes, and the same in this one where that is enough."""

import os
import resource
import subprocess
import sys

TINY = [
    *("--model.latent-dim", "32", "--model.interface-dim", "16", "--model.num-latents", "6"),
    *("--model.compute-depth", "1", "--model.num-heads", "2", "--model.num-read-write-heads", "2"),
    *("--model.patch-size", "2", "--diffusion.num-steps", "4", "--training.batch-size", "60"),
    *("--training.log-every", "1", "--training.sample-every", "0", "--training.held-out-every", "0"),
    *("--training.warmup-steps", "1", "--data.num-held-out", "20"),
]
"""A model so small that a step takes milliseconds."""

KILL = """
import os, signal, sys
import rin.training.trainer as trainer
from rin.cli import main

calls, honest = 0, trainer.Trainer.part_loss

def deadly(self, batch, part):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(self, batch, part)

trainer.Trainer.part_loss = deadly
main(sys.argv[1:])
"""
"""`rin`, killed at a certain part of a batch."""


def rin(*arguments, kill_at=None, largest_file=None):
    """Runs `rin` in a process of its own.

    Args:
        arguments: of the command.
        kill_at: the process kills itself at that part of a batch, counted from 1.
        largest_file: no file may grow beyond so many bytes.
    """

    def limit():
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = ["-m", "rin.cli"] if kill_at is None else ["-c", KILL.format(call=kill_at)]
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        timeout=300,
        check=False,
    )


def assert_one_line(result, *words):
    """The process left with status 2 and one line on standard error that has all these words."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rin: ")
    for word in words:
        assert word in lines[0], lines[0]
