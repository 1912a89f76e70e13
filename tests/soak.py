"""A long run, watched from outside: memory, open files, threads and processes must not grow.

    python tests/soak.py FOLDER [--minutes 60]

trains the digits with samples, a checkpoint and an evaluation at least every minute, prints what the run holds once a
minute, asks it to stop by SIGTERM, and leaves with status 1 if it holds more at the end than after the first minute.
Linux only.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

UPDATES_BETWEEN = 400
"""Between samples, checkpoints and evaluations: a quarter of what one core does in a minute, or all of what it does
beside other work."""

GROWTH = 1.03
"""What memory may grow by: allocators keep a little more as they go."""


class Holding(NamedTuple):
    """What a process holds."""

    memory_mib: float
    files: int
    threads: int
    processes: int


def holding(pid):
    """What a process holds now; its children count among the processes."""
    proc = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    children = sum(len((task / "children").read_text().split()) for task in (proc / "task").iterdir())
    memory = int(status["VmRSS"].split()[0]) / 1024
    return Holding(round(memory, 1), len(os.listdir(proc / "fd")), int(status["Threads"]), 1 + children)


def train(folder):
    every = [f"--training.{what}-every={UPDATES_BETWEEN}" for what in ("sample", "held-out", "checkpoint")]
    steps = ["--training.num-steps=100000000", "--training.lr-schedule=constant", "--training.log-every=100"]
    command = [sys.executable, "-m", "rin.cli", "train", "digits", *every, *steps, "--out", str(folder)]
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--minutes", type=int, default=60)
    chosen = arguments.parse_args()
    chosen.folder.mkdir(parents=True)
    process = train(chosen.folder)
    seen = []
    print(f"{'minute':>6} {'MiB':>8} {'files':>6} {'threads':>8} {'processes':>10} checkpoint", flush=True)
    for minute in range(chosen.minutes + 1):
        time.sleep(90 if minute == 0 else 60)  # the first minute begins when all has been done once
        if process.poll() is not None:
            sys.exit(f"the run ended by itself, see {chosen.folder}/output.txt")
        seen.append(holding(process.pid))
        newest = max((path.name for path in (chosen.folder / "checkpoints").glob("step-*")), default="none")
        memory, files, threads, processes = seen[-1]
        print(f"{minute:>6} {memory:>8} {files:>6} {threads:>8} {processes:>10} {newest}", flush=True)
    process.terminate()
    status = process.wait(timeout=60)
    first, last = seen[min(1, len(seen) - 1)], seen[-1]
    grown = last.memory_mib > GROWTH * first.memory_mib or last[1:] > first[1:]
    print(f"left with status {status}; after the first minute {first}, at the end {last}")
    sys.exit(int(grown or status != 128 + signal.SIGTERM))


if __name__ == "__main__":
    main()
