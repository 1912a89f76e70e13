"""How fast each kind of set is read, beside another tree of this project: `python -m benchmarks loading --beside TREE`.

    python -m benchmarks.loading_paths SET

measures one set by the `rin` that Python finds, and prints what it found as JSON. It calls only what older trees have.
"""

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import Bench
from benchmarks.jpegs import write_jpegs
from rin.data import DataConfig, batches, open_data

SHAPE, BATCH = (3, 32, 32), 64
NUM_SMALL, NUM_JPEGS, JPEG_SIZE = 20_000, 256, (500, 375)
ROUNDS = 3
WARM_UP, MEASURED = 6.0, 4.0
"""Seconds of each stream: workers are there well before the first are over."""


def loading_paths(bench: Bench, beside: Path) -> None:
    """Measures all sets by this tree and the one beside it, in turns, each time in a process of its own."""
    trees = {"here": Path(__file__).parents[1], "beside": beside}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_sets(Path(folder), trees["beside"]).items():
            found: dict[str, list[dict[str, float]]] = {tree: [] for tree in trees}
            for _ in range(ROUNDS):
                for tree, root in trees.items():
                    command = [sys.executable, "-m", "benchmarks.loading_paths", str(path)]
                    result = subprocess.run(
                        command, env=environment(root), check=True, stdout=subprocess.PIPE, text=True
                    )
                    found[tree].append(json.loads(result.stdout.splitlines()[-1]))
            medians = {
                f"{figure}_{tree}": round(statistics.median(one[figure] for one in of_tree), 3)
                for tree, of_tree in found.items()
                for figure in of_tree[0]
            }
            rates = [medians[f"images_per_second_{tree}"] for tree in trees]
            bench.record("loading paths", set=name, ratio=round(rates[0] / rates[1], 3), **medians)


def environment(root: Path) -> dict[str, str]:
    """That of a process which finds a tree's `rin`."""
    return os.environ | {"PYTHONPATH": str(root / "src")}


def write_sets(folder: Path, tree: Path) -> dict[str, Path]:
    """One set of each kind; the prepared one is made by the other tree, whose format both read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sets = {name: folder / name for name in ("small files", "JPEGs", "parquet", "tar", "prepared")}
    random = np.random.default_rng(0)
    sets["small files"].mkdir()
    for number in range(NUM_SMALL):
        pixels = random.integers(0, 256, (SHAPE[1], SHAPE[2], 3), np.uint8)
        Image.fromarray(pixels).save(sets["small files"] / f"{number}.png")
    write_jpegs(sets["JPEGs"], NUM_JPEGS, JPEG_SIZE)
    files = sorted(sets["JPEGs"].rglob("*.jpg"))
    sets["parquet"].mkdir()
    rows = {"image": [{"bytes": file.read_bytes(), "path": file.name} for file in files]}
    pq.write_table(pa.table(rows), sets["parquet"] / "train-00000-of-00001.parquet", row_group_size=64)
    sets["tar"].mkdir()
    with tarfile.open(sets["tar"] / "train.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    command = [sys.executable, "-m", "rin.cli", "prepare", sets["small files"], sets["prepared"], "--size", "32"]
    subprocess.run(list(map(str, command)), env=environment(tree), check=True, capture_output=True)
    return sets


def measured(path: str) -> dict[str, float]:
    """Seconds to open a set, to its first batch, and its rate once it runs."""
    started = time.perf_counter()
    data = open_data(DataConfig(path=path, num_held_out=0, memory_gib=0.0), SHAPE).training
    opened = time.perf_counter()
    with closing(
        batches(data, seed=0, batch_size=BATCH, places=torch.arange(BATCH), first_step=0, flip=True)
    ) as stream:
        next(stream)
        first = time.perf_counter()
        while time.perf_counter() < first + WARM_UP:
            next(stream)
        begun, count = time.perf_counter(), 0
        while time.perf_counter() < begun + MEASURED:
            count += len(next(stream).labels)
        rate = count / (time.perf_counter() - begun)
    return {"open_seconds": opened - started, "first_batch_seconds": first - opened, "images_per_second": rate}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
