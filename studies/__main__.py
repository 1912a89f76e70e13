"""Runs the studies: `python -m studies --data CIFAR-10 --features NETWORK --out FOLDER`."""

import argparse
import dataclasses
from pathlib import Path

from studies.arms import ARMS, BASE, SCALES
from studies.queue import Queue


def main() -> None:
    """Runs the queue."""
    parser = argparse.ArgumentParser(prog="python -m studies")
    parser.add_argument("--out", type=Path, required=True, help="a folder for all runs")
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder with its parquet files, or its Hub name")
    parser.add_argument(
        "--features", type=Path, required=True, help="a TorchScript network for uint8 pictures of 32x32"
    )
    parser.add_argument("--scale", choices=list(SCALES), default="cpu")
    parser.add_argument("--studies", type=int, nargs="+", choices=range(1, 10), help="all of the scale if absent")
    parser.add_argument("--updates", type=int, help="of a run, if not the scale's")
    parser.add_argument("--known", type=Path, help="a file of runs that need not be run again (studies.report --keep)")
    parser.add_argument(
        "--arms", nargs="+", choices=list(ARMS), metavar="ARM", help="some of these alone, and the base: %(choices)s"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="some alone, from 0; all of the scale if absent")
    chosen = parser.parse_args()
    scale = SCALES[chosen.scale]
    studies = chosen.studies or scale.studies
    if others := [arm for arm in chosen.arms or () if arm != BASE and ARMS[arm].study not in studies]:
        asked = " ".join(map(str, studies))
        parser.error(f"{others[0]} is of study {ARMS[others[0]].study}, and the studies asked for are {asked}")
    if chosen.updates is not None:
        scale = dataclasses.replace(scale, updates=chosen.updates)
    queue = Queue(chosen.out, chosen.data, chosen.features, scale, studies, chosen.arms)
    queue.run(chosen.seeds, chosen.known)


if __name__ == "__main__":
    main()
