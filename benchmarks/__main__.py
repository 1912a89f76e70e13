"""Runs the benchmarks: `python -m benchmarks [NAME ...] [--full] [--out FILE]`; see docs/performance.md."""

import argparse
import logging
import time
import warnings
from pathlib import Path

import torch

from benchmarks.breakdown import breakdown
from benchmarks.figure_1 import figure_1
from benchmarks.growth import growth
from benchmarks.harness import Bench, matmul_rates
from benchmarks.loading import loading
from benchmarks.numerics import numerics
from benchmarks.other_rins import other_rins
from benchmarks.report import report
from benchmarks.steps import steps
from benchmarks.training_memory import training_memory
from rin.core.compute import device


def main() -> None:
    """Runs what is asked for, all by default, and makes the tables and plots."""
    benchmarks = {
        run.__name__: run
        for run in (machine, numerics, other_rins, steps, figure_1, growth, training_memory, breakdown, loading)
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(benchmarks)}; all by default")
    parser.add_argument("--full", action="store_true", help="the presets' own sizes, for a GPU")
    parser.add_argument("--out", type=Path, default=Path("bench/results.jsonl"), help="where results are added")
    parser.add_argument("--presets", nargs="+", default=(), help="for training_memory: these alone")
    parser.add_argument("--beside", type=Path, help="for loading: another tree of this project, to read sets beside")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(benchmarks):
        parser.error(f"no benchmark is called {sorted(unknown)[0]}: there are {', '.join(benchmarks)}")
    warnings.simplefilter("ignore", FutureWarning)  # rin-pytorch calls what PyTorch has renamed
    logging.basicConfig(level=logging.WARNING)
    bench = Bench(device=device(), full=asked.full, path=asked.out, presets=tuple(asked.presets), beside=asked.beside)
    for name in asked.names or benchmarks:
        started = time.perf_counter()
        benchmarks[name](bench)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    report(asked.out, asked.out.parent / "plots")


def machine(bench: Bench) -> None:
    """The machine's own matrix products, that everything else is measured by."""
    for dtype in (torch.float32, torch.bfloat16):
        best = {library: max(rates) for library, rates in matmul_rates(bench.device, dtype).items()}
        bench.record("matrix products", dtype=str(dtype).removeprefix("torch."), operations_per_second=best)


if __name__ == "__main__":
    main()
