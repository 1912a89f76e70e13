"""What the runs of `studies` have shown: tables by its rule, and a plot.

python -m studies.report runs/studies --plot studies.png
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import COLOURS
from studies.arms import ARMS, BASE, FEWER, LAMB

Found = dict[str, dict[str, Any]]
"""What was measured of an arm's runs, or of a run's ways to sample, by name."""


def verdict(differences: list[float]) -> str:
    """What the rule says of differences to the base, where lower is better."""
    count = len(differences)
    if count < 2:
        return "-"
    mean = statistics.mean(differences)
    half = T_95[min(count - 1, len(T_95)) - 1] * statistics.stdev(differences) / math.sqrt(count)
    if abs(mean) > half:
        return f"{'better' if mean < 0 else 'worse'}: {mean:+.3g} +- {half:.2g}"
    return f"no effect above {abs(mean) + half:.2g} ({mean:+.3g} +- {half:.2g})"


T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t for 95 %, two-sided, by degrees of freedom from 1 on."""


ALONE: dict[str, dict[int | None, str]] = {
    f"{place}elastic{drawn}": alone
    for place, alone in (
        ("", {**{count: f"latents-{count}" for count in FEWER}, None: BASE}),
        ("unmixed-", {FEWER[0]: "unmixed-latents-3", None: "unmixed"}),
    )
    for drawn in ("", "-drawn")
}
"""Study 8: by its latents, the arm that each elastic arm stands beside; None is all of them."""


def report(folder: Path) -> str:
    """The tables of what there is."""
    found = {name: measured(folder, name) for name in ARMS}
    lines: list[str] = []
    for study in (1, 3, 4, 5, 6, 7, 8, 9):
        if study > 1 and not any(found[name] for name, arm in ARMS.items() if arm.study == study):
            continue
        lines += ["", f"Study {study}", ""]
        lines += ["| arm | seeds | Frechet distance | by the rule | loss | by the rule | class accuracy | minutes |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for name, arm in ARMS.items():
            if (arm.study == study or name == BASE) and found[name]:
                lines.append(_row(arm.words, found[name], found[arm.beside] or found[BASE]))
    lines += _sampling_table(found[BASE])
    for name, alone in ALONE.items():
        lines += _elastic_table(found, name, alone)
    return "\n".join(lines)


def _row(words: str, runs: Found, base: Found) -> str:
    accuracy = statistics.mean(run["class_accuracy"] for run in runs.values())
    seconds = [run["seconds"] for run in runs.values() if run["seconds"] is not None]  # None: cut off, and went on
    minutes = f"{statistics.median(seconds) / 60:.1f}" if seconds else "-"
    return f"| {words} | {len(runs)} | {columns(runs, base)} | {accuracy:.1%} | {minutes} |"


def columns(runs: Found, base: Found) -> str:
    """Distance and loss of an arm's runs, each with what the rule says of its difference to the base's."""
    seeds = [seed for seed in runs if seed in base]

    def loss(run: dict[str, Any]) -> float:
        return statistics.mean(run["held_out_loss"].values())

    def differences(of: Callable[[dict[str, Any]], float]) -> str:
        return "" if runs is base else verdict([of(runs[seed]) - of(base[seed]) for seed in seeds])

    distances, losses = [run["frechet_distance"] for run in runs.values()], [loss(run) for run in runs.values()]
    return (
        f"{_spread(distances)} | {differences(lambda run: run['frechet_distance'])} | "
        f"{_spread(losses)} | {differences(loss)}"
    )


def _elastic_table(found: dict[str, Found], name: str, alone: dict[int | None, str]) -> list[str]:
    """Study 8: the distance of an elastic network by its latents, and that of one made with so many alone."""
    elastic = found[name]
    if not elastic:
        return []
    lines = ["", f"| latents | seeds | {ARMS[name].words} | seeds | made with so many alone | elastic - alone |"]
    lines += ["|---|---|---|---|---|---|"]
    for count in (*FEWER, None):
        ours = {
            seed: (run if count is None else run["by_latents"][str(count)])["frechet_distance"]
            for seed, run in elastic.items()
        }
        theirs = {seed: run["frechet_distance"] for seed, run in found.get(alone.get(count, ""), {}).items()}
        both = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        sides = " | ".join(f"{len(side)} | {_spread([*side.values()]) if side else '-'}" for side in (ours, theirs))
        lines.append(f"| {count or 'all'} | {sides} | {verdict(both) if both else '-'} |")
    return lines


def _spread(values: list[float]) -> str:
    """The mean, and the standard deviation over seeds."""
    return f"{statistics.mean(values):.4g}" + (f" (sd {statistics.stdev(values):.2g})" if len(values) > 1 else "")


def measured(folder: Path, arm: str) -> Found:
    """What there is of an arm, by seed: in a folder of runs, or in the file that `keep` made of one."""
    if folder.is_file():
        runs = [json.loads(line) for line in folder.read_text().splitlines()]
        return {run["seed"]: run for run in runs if run["arm"] == arm}
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob(f"{arm}/*/measures.json"))}
    for path in folder.glob(f"{arm}/*/sampling.json"):
        ways = json.loads(path.read_text())
        found[path.parent.name]["sampling"] = {name: way["frechet_distance"] for name, way in ways.items()}
    return found


def keep(folder: Path, path: Path) -> None:
    """Adds what a folder of runs has to a file, a line of JSON a run; what the file has of an arm and seed stays."""
    lines = path.read_text().splitlines() if path.exists() else []
    known = {(run["arm"], run["seed"]) for run in map(json.loads, lines)}
    for arm in ARMS:
        for seed, run in measured(folder, arm).items():
            if (arm, seed) not in known:
                lines.append(json.dumps({"arm": arm, "seed": seed, **run}))
    path.write_text("".join(f"{line}\n" for line in lines))


def sampling(runs: Found) -> dict[str, dict[str, float]]:
    """Distances of an arm's runs by way to sample and seed."""
    ways: dict[str, dict[str, float]] = {}
    for seed, run in runs.items():
        for name, distance in run.get("sampling", {}).items():
            ways.setdefault(name, {})[seed] = distance
    return ways


def _sampling_table(runs: Found) -> list[str]:
    ways = sampling(runs)
    if not ways:
        return []
    lines = [
        "",
        "Study 2",
        "",
        "| sampler, evaluations | seeds | latents carried | cold | carried - cold |",
    ]
    lines += ["|---|---|---|---|---|"]
    for name in dict.fromkeys(name.rpartition(" ")[0] for name in ways):
        carried, cold = ways[f"{name} carried"], ways.get(f"{name} cold", {})
        if seeds := [seed for seed in carried if seed in cold]:
            difference = verdict([carried[seed] - cold[seed] for seed in seeds])
            both = (_spread([way[seed] for seed in seeds]) for way in (carried, cold))
            lines.append(f"| {name} | {len(seeds)} | {' | '.join(both)} | {difference} |")
    return lines


def draw(folder: Path, path: Path) -> None:
    """Draws every run's distance as a dot, arm by arm, and beside them the ways to sample."""
    from matplotlib import pyplot

    found = {name: runs for name in ARMS if (runs := measured(folder, name))}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained", width_ratios=(3, 2))
    for place, (name, runs) in enumerate(found.items()):
        distances = [run["frechet_distance"] for run in runs.values()]
        colour = COLOURS[(BASE, LAMB).index(ARMS[name].beside)]
        left.plot(distances, [place] * len(distances), "o", color=colour, alpha=0.7)
        left.plot(statistics.mean(distances), place, "|", color="black", markersize=18)
    left.set_yticks(range(len(found)), [ARMS[name].words for name in found])
    left.invert_yaxis()
    left.set(xlabel="Frechet distance (a dot a seed, a bar their mean)", title="Runs")
    ways = sampling(found.get(BASE, {}))
    for colour, sampler in zip(COLOURS, dict.fromkeys(name.split()[0] for name in ways), strict=False):
        for latents, line in (("carried", "-o"), ("cold", "--s")):
            steps = [int(name.split()[1]) for name in ways if name.split()[::2] == [sampler, latents]]
            means = [statistics.mean(ways[f"{sampler} {count} {latents}"].values()) for count in steps]
            right.plot(steps, means, line, color=colour, label=f"{sampler}, {latents}")
    right.set(
        xlabel="evaluations", ylabel="Frechet distance, mean over seeds", xscale="log", title="Ways to sample the base"
    )
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_curves(folder: Path, path: Path) -> None:
    """Draws the training loss of every run over the CPU time that it took, seeds of an arm in one colour.

    Runs that started from others, those that were cut off and went on, and those of before losses were kept, are left
    out.
    """
    from matplotlib import pyplot

    found = {
        name: [run for run in measured(folder, name).values() if run.get("training_loss") and run["cpu_seconds"]]
        for name, arm in ARMS.items()
        if arm.grown_from is None
    }
    if not any(found.values()):
        raise SystemExit(f"no run of {folder} has its training losses and their time: there are no curves to draw")
    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for place, (name, runs) in enumerate((name, runs) for name, runs in found.items() if runs):
        for number, run in enumerate(runs):
            seconds = [run["cpu_seconds"] * int(update) / run["updates"] for update in run["training_loss"]]
            label = "" if number else "RIN (the base)" if name == BASE else ARMS[name].words
            axis.plot(seconds, list(run["training_loss"].values()), color=f"C{place}", label=label)
    axis.legend()
    axis.set(xlabel="CPU seconds", ylabel="training loss, mean of each part of the run", xscale="log", yscale="log")
    axis.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Prints the tables, and draws them if asked."""
    parser = argparse.ArgumentParser(prog="python -m studies.report")
    parser.add_argument("folder", type=Path, help="what studies had for --out, or a file that --keep wrote")
    parser.add_argument("--keep", type=Path, help="a file (.jsonl) to add the runs to, for --known of later ones")
    parser.add_argument("--plot", type=Path, help="a picture (.png) of them")
    parser.add_argument("--curves", type=Path, help="a picture (.png) of their training losses over CPU time")
    chosen = parser.parse_args()
    print(report(chosen.folder))
    if chosen.keep is not None:
        keep(chosen.folder, chosen.keep)
    if chosen.plot is not None:
        draw(chosen.folder, chosen.plot)
    if chosen.curves is not None:
        draw_curves(chosen.folder, chosen.curves)


if __name__ == "__main__":
    main()
