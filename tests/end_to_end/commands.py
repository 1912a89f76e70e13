"""The command line as a person has it: real processes, and the same in this one where that is enough."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.forking import OTHERS, Forking

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "train", "sample", "edit", "inpaint", "evaluate", "sweep", "explain", "app", "export", "push",
    "info", "prepare", "status",
)  # fmt: skip
FORKING = Forking([*(f"rin.cli.{command}" for command in COMMANDS), *OTHERS])

TINY = [
    *("--model.latent-dim", "32", "--model.interface-dim", "16", "--model.num-latents", "6"),
    *("--model.compute-depth", "1", "--model.num-heads", "2", "--model.num-read-write-heads", "2"),
    *("--model.patch-size", "2", "--diffusion.num-steps", "4", "--training.batch-size", "60"),
    *("--training.log-every", "1", "--training.sample-every", "0", "--training.held-out-every", "0"),
    *("--training.warmup-steps", "1", "--data.num-held-out", "20"),
]
"""A model so small that a step takes milliseconds."""


def start(*arguments, module="rin.cli", fault=None, largest_file=None, environment=None, afresh=False, cwd=ROOT):
    """Starts `rin` in a process of its own.

    Args:
        arguments: of the command.
        module: another one with a `main` than the command's.
        fault: a point of tests/end_to_end/faults.py and a count: the process kills itself there.
        largest_file: no file may grow beyond so many bytes.
        environment: more variables.
        afresh: in a new interpreter, as a person's shell does it, which takes seconds of imports, and not in a fork of
            one that has imported everything; see tests/forking.py.
        cwd: the folder that it runs in.
    """
    if fault is not None:
        module, arguments = "tests.end_to_end.faults", (*fault, *arguments)
    arguments = [str(argument) for argument in arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
    if not afresh:
        return FORKING.start(module, arguments, cwd=cwd, environment=environment, largest_file=largest_file)
    assert largest_file is None
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
    )


def ended(process, timeout=300):
    """A process that was started, at its end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def rin(*arguments, kill_at=None, fault=None, largest_file=None, afresh=False):
    """Runs `rin` in a process of its own, to its end; `kill_at` is a fault: at that part of a batch, from 1."""
    fault = fault if kill_at is None else ("at_a_part", kill_at)
    return ended(start(*arguments, fault=fault, largest_file=largest_file, afresh=afresh))


def start_together(num, *arguments, module="rin.cli", faults=None, cwd=ROOT):
    """Starts `rin` in several processes that work together, as a launcher does; `faults` are by process number."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": num, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [
        start(
            *arguments,
            module=module,
            fault=(faults or {}).get(number),
            cwd=cwd,
            environment={name: str(value) for name, value in (shared | {"RANK": number, "LOCAL_RANK": number}).items()},
        )
        for number in range(num)
    ]


def together(num, *arguments, module="rin.cli", faults=None, cwd=ROOT):
    """Runs `rin` in several processes that work together, to the end of them all."""
    return [ended(process) for process in start_together(num, *arguments, module=module, faults=faults, cwd=cwd)]


def files(run):
    """What a run leaves behind, byte by byte, but for what has the time in it: TensorBoard's events and the status."""
    paths = (path for path in run.rglob("*") if path.is_file())
    timeless = (path for path in paths if "tfevents" not in path.name and path.name not in ("status.json", ".lock"))
    return {str(path.relative_to(run)): path.read_bytes() for path in timeless}


def assert_one_line(result, *words):
    """The process left with status 2 and one line on standard error that has all these words."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rin: ")
    for word in words:
        assert word in lines[0], lines[0]
