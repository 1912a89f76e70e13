"""Going on from a model beside training anew, in as many updates.

    python -m studies --data path/to/cifar10 --features F.pt --out runs/equal-time --scale cpu-16-300s --arms base
    python -m studies.finetuning runs/equal-time --data path/to/cifar10 --features F.pt --out runs/finetuning
    python -m studies.finetuning runs/equal-time --out runs/finetuning --keep studies/results/finetuning.jsonl

The second runs what `--out` does not hold yet, and prints the table; the third only prints and keeps it. What is gone
on from is the base of the first, seed by seed: a RIN of all ten classes at 16x16. Two other things are made of it:

larger:  all ten classes at 32x32.
classes: three classes at 16x16, whose 2,700 pictures are of CIFAR-10's test split: it has seen none of them.

Each is trained from that model (`--init-from`) and anew, all else alike; anew with three times the updates too, and
from the model with a third of them, which shows what it saves. The rule is that of `studies`.
"""

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rin
from benchmarks.harness import machine
from rin.data import DataConfig, open_data
from rin.evaluation.images import held_out_loss, reference_of
from studies.arms import SCALES
from studies.queue import BATCH, Queue, measures_of, with_updates, write
from studies.report import columns

SEEDS = 3
CLASSES = (3, 5, 7)
"""Cat, dog and horse."""

LARGER, SAME = SCALES["cpu-32-1800s"], SCALES["cpu-16-300s"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of the ways to come to a model."""

    words: str
    goes_on: bool
    updates: float
    """As a share of the task's."""


ANEW = "anew"
WAYS = {
    ANEW: Way(words="anew", goes_on=False, updates=1),
    "anew-longer": Way(words="anew, three times the updates", goes_on=False, updates=3),
    "from-model": Way(words="from the model", goes_on=True, updates=1),
    "from-model-shorter": Way(words="from the model, a third of the updates", goes_on=True, updates=1 / 3),
}


class Task:
    """What is made of the model: its pictures, its network's shape, and what it is measured against."""

    def __init__(self, at_work: Queue, data: DataConfig, reference: str | None, updates: int) -> None:
        """Reads or measures the reference: `reference` is a set at the shape, or None for all of CIFAR-10."""
        whole = at_work.scale.base(at_work.set, updates)
        self.experiment = dataclasses.replace(whole, data=data)
        self.network, self.reference = at_work.network, at_work.reference
        if reference is not None:
            self.experiment = dataclasses.replace(
                self.experiment, model=dataclasses.replace(whole.model, num_classes=len(CLASSES))
            )
            self.reference, _ = reference_of(None, reference, "train", at_work.shape, at_work.network, BATCH)

    def run(self, way: Way, start: Path, seed: int, folder: Path) -> None:
        """Trains and measures one, if that is not done."""
        path = folder / "measures.json"
        if path.exists():
            return
        print(f"{folder} ...", flush=True)
        experiment = with_updates(self.experiment, round(way.updates * self.experiment.training.num_steps))
        experiment = dataclasses.replace(experiment, seed=seed, init_from=str(start) if way.goes_on else "")
        trained = rin.train(experiment, folder / "run")
        measures = measures_of(trained, SAME.samples, self.network, self.reference)
        measures["held_out_loss"] = held_out_loss(folder / "run", trained, BATCH)
        write(path, {**measures, "updates": experiment.training.num_steps, "machine": machine(torch.device("cpu"))})


def tasks(start: Path, folder: Path, data: str, features: Path) -> dict[str, Task]:
    """Both, their sets made on the way."""
    same = Queue(start, data, features, SAME, (7,))
    larger = Queue(folder / "32", data, features, LARGER, (7,))
    unseen, reference = (_three_classes(same, split, folder / f"three-classes-{split}") for split in ("test", "train"))
    few = DataConfig(path=str(unseen), num_held_out=300, flip=True)
    return {
        "larger": Task(larger, larger.scale.base(larger.set, 1).data, None, updates=600),
        "classes": Task(same, few, str(reference), updates=450),
    }


def _three_classes(at_work: Queue, split: str, folder: Path) -> Path:
    """Keeps the pictures of three classes of a split, which become classes 0, 1 and 2."""
    if not (folder / "labels.npy").exists():
        folder.mkdir(exist_ok=True)
        config = DataConfig(path=str(at_work.set), split=split, num_held_out=0)
        images = open_data(config, at_work.shape).training
        pictures, labels = images.get(torch.arange(len(images)))
        chosen = torch.isin(labels, torch.tensor(CLASSES))
        np.save(folder / "x.npy", pictures[chosen].numpy())
        np.save(folder / "labels.npy", np.searchsorted(CLASSES, labels[chosen].numpy()))
    return folder


def found_in(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """What was measured, by task, way and seed."""
    return {
        task: {
            way: {
                path.parent.name: json.loads(path.read_text())
                for path in sorted(folder.glob(f"{task}/{way}/*/measures.json"))
            }
            for way in WAYS
        }
        for task in ("larger", "classes")
    }


def report(folder: Path) -> str:
    """The tables of what there is."""
    lines: list[str] = []
    for task, ways in found_in(folder).items():
        lines += ["", task, "", "| way | seeds | updates | Frechet distance | by the rule | loss | by the rule |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, runs in ways.items():
            if runs:
                updates = next(iter(runs.values()))["updates"]
                lines.append(f"| {WAYS[name].words} | {len(runs)} | {updates} | {columns(runs, ways[ANEW])} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m studies.finetuning")
    parser.add_argument("start", type=Path, help="what `python -m studies --scale cpu-16-300s` had for --out")
    parser.add_argument("--out", type=Path, required=True, help="a folder for all runs")
    parser.add_argument("--data", help="CIFAR-10, as for studies; without it nothing is run")
    parser.add_argument("--features", type=Path, help="the feature network, as for studies")
    parser.add_argument("--keep", type=Path, help="a file (.jsonl) for what was measured")
    chosen = parser.parse_args()
    if (chosen.data is None) != (chosen.features is None):
        parser.error("give --data and --features, or neither")
    if chosen.data is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        all_tasks = tasks(chosen.start, chosen.out, chosen.data, chosen.features)
        for seed in range(SEEDS):
            start = chosen.start / "base" / f"seed-{seed}" / "run"
            for name, task in all_tasks.items():
                for way_name, way in WAYS.items():
                    task.run(way, start, seed, chosen.out / name / way_name / f"seed-{seed}")
    print(report(chosen.out))
    if chosen.keep is not None:
        lines = [
            json.dumps({"task": task, "way": way, "seed": seed, **run}) + "\n"
            for task, ways in found_in(chosen.out).items()
            for way, runs in ways.items()
            for seed, run in runs.items()
        ]
        chosen.keep.write_text("".join(lines))


if __name__ == "__main__":
    main()
