"""Tables and plots out of results: `python -m benchmarks.report RESULTS.jsonl [--plots FOLDER]`."""

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Line = dict[str, Any]
"""One result, as `benchmarks.harness.Bench.record` writes it."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
"""Okabe and Ito's, which people tell apart however they see colours."""

OURS = "rin"
"""What this project is called among the sides of a comparison."""

BYTES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
COUNTS = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1}
TIMES = {"s": 1, "ms": 1e-3, "µs": 1e-6}
SCALES = {"seconds": TIMES, "memory": BYTES, "bytes": BYTES, "operations": COUNTS, "parameters": COUNTS}
"""By how the name of a figure ends, the units that it is shown in: the largest that it has one of."""


def tables(lines: Iterable[Line]) -> str:
    """Markdown: for each machine what it is, the versions, and a table a benchmark."""
    texts: list[str] = []
    for machine, benchmarks in newest(lines).items():
        texts.append(f"**{machine}** ({_versions(line for results in benchmarks.values() for line in results)})")
        texts += [f"### {benchmark}\n\n{_table(results)}" for benchmark, results in benchmarks.items()]
    return "\n\n".join(texts)


def newest(lines: Iterable[Line]) -> dict[str, dict[str, list[Line]]]:
    """The results that count, by machine and benchmark.

    A later result takes the place of an earlier one of the same benchmark, machine and settings; settings are texts,
    and whole numbers without a unit.
    """
    found: dict[str, dict[str, dict[str, Line]]] = {}
    for line in lines:
        settings = {key: told for key, told in _figures(line) if isinstance(told, str | int) and not _unit(key)}
        results = found.setdefault(_machine(line["machine"]), {}).setdefault(line["benchmark"], {})
        results[json.dumps(settings, sort_keys=True)] = line
    return {
        machine: {name: list(results.values()) for name, results in benchmarks.items()}
        for machine, benchmarks in found.items()
    }


def _figures(line: Line) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in line.items() if key not in ("benchmark", "machine", "versions")]


def _unit(key: str) -> str:
    return next((ending for ending in SCALES if key.endswith(ending)), "")


def _machine(machine: Mapping[str, Any]) -> str:
    cpu = f"{machine['cpu']}, cores: {machine['cores']}, threads: {machine['threads']}"
    return f"{machine['gpu']}; {cpu}" if "gpu" in machine else cpu


def _versions(lines: Iterable[Line]) -> str:
    """Every version that a result has, once."""
    return ", ".join(dict.fromkeys(" ".join(named) for line in lines for named in line["versions"].items()))


def _table(lines: list[Line]) -> str:
    rows = [row for line in lines for row in _rows(line)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(text)} |" for text in texts)


def _rows(line: Line) -> list[dict[str, str]]:
    """The cells of a result by column: a row for each side if it has sides, else one."""
    rows: list[dict[str, str]] = [{}]
    for key, value in _figures(line):
        if isinstance(value, dict) and value and all(isinstance(side, dict) for side in value.values()):
            rows = [row | {"side": name} | _cells(side) for row in rows for name, side in value.items()]
        else:
            rows = [row | _cells({key: value}) for row in rows]
    return rows


def _cells(figures: Line) -> dict[str, str]:
    """Figures as text by column; what has parts has a column for each, and parts of time their shares."""
    cells: dict[str, str] = {}
    for key, value in figures.items():
        name = key.replace("_", " ")
        if not isinstance(value, dict):
            cells[re.sub("seconds$", "time", name)] = shown(key, value)
        elif _unit(key) == "seconds":
            whole = sum(value.values())
            cells |= {part: f"{shown(key, seconds)} ({seconds / whole:.1%})" for part, seconds in value.items()}
        else:
            cells |= {f"{name} ({part})": shown(key, figure) for part, figure in value.items()}
    return cells


def shown(key: str, value: Any) -> str:
    """A figure as a person reads it, in the unit that its name tells."""
    if isinstance(value, list):
        return ", ".join(shown(key, part) for part in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    unit = _unit(key)
    if not unit and (isinstance(value, int) or abs(value) < 1e4):
        return str(value) if isinstance(value, int) else _digits(value)
    scales = SCALES.get(unit, COUNTS)
    name = next((name for name, scale in scales.items() if abs(value) >= scale), list(scales)[-1])
    return f"{_digits(value / scales[name])} {name}".rstrip()


def _digits(value: float) -> str:
    """Three significant digits, or all that stand before the point."""
    if not 1e-3 <= abs(value) < 1e15:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def draw(lines: Iterable[Line], folder: Path) -> None:
    """Draws what there are results for, a file for each plot and machine."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for machine, benchmarks in newest(lines).items():
        for benchmark, (name, plot) in PLOTS.items():
            if benchmark in benchmarks:
                figure = plot(benchmarks[benchmark], machine)
                figure.savefig(folder / f"{name}-{re.sub('[^a-z0-9]+', '-', machine.lower())}.png", dpi=150)
                pyplot.close(figure)


def _growth(lines: list[Line], machine: str) -> Any:
    """Time above and memory below, against what each sweep varies."""
    from matplotlib import pyplot, ticker

    sweeps = list(dict.fromkeys(line["sweep"] for line in lines))
    figure, axes = pyplot.subplots(2, len(sweeps), figsize=(4 * len(sweeps), 7), layout="constrained", squeeze=False)
    figure.suptitle(f"How a RIN's cost grows (a training step, a forward pass without gradient)\n{machine}")
    kinds = (("seconds", "time (ms)", 1e3), ("memory", "peak memory beyond weights (MiB)", 2**-20))
    for column, sweep in enumerate(sweeps):
        points = sorted((line for line in lines if line["sweep"] == sweep), key=lambda line: line[sweep])
        places = [line[sweep] for line in points]
        for axis, (kind, label, scale) in zip(axes[:, column], kinds, strict=True):
            for work, colour, marker in zip(("training", "forward"), COLOURS, "os", strict=False):
                heights = [line[f"{work}_{kind}"] * scale for line in points]
                axis.plot(places, heights, color=colour, marker=marker, label=work)
            last = points[-1][f"training_{kind}"] * scale
            axis.plot(places, [last * place / places[-1] for place in places], "--", color="grey", label="proportional")
            axis.set(xscale="log", yscale="log", xlabel=sweep, ylabel=label)
            axis.set_xticks(places, [str(place) for place in places])
            axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    axes[0, 0].legend()
    return figure


def _bars(groups: Mapping[str, Mapping[str, float]], digits: int) -> tuple[Any, Any]:
    """A figure and its axes with groups of bars side by side, each named by its colour, its value above it."""
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    figure, axis = pyplot.subplots(figsize=(12, 5), layout="constrained")
    width = 0.85 / len(names)
    for number, name in enumerate(names):
        there = {place: bars[name] for place, bars in enumerate(groups.values()) if name in bars}
        middles = [place + (number - (len(names) - 1) / 2) * width for place in there]
        drawn = axis.bar(middles, list(there.values()), width, color=COLOURS[number % len(COLOURS)], label=name)
        axis.bar_label(drawn, fmt=f"%.{digits}f", fontsize=7, padding=3)
    axis.set_xticks(range(len(groups)), list(groups), fontsize=8)
    figure.legend(loc="outside lower center", ncols=4)
    return figure, axis


def _breakdown(lines: list[Line], machine: str) -> Any:
    parts: dict[str, dict[str, float]] = {}
    for line in lines:
        name = f"{line['preset']}, batch {line['batch']}: {shown('seconds', line['step_seconds'])}"
        whole = sum(line["part_seconds"].values())
        for part, seconds in line["part_seconds"].items():
            parts.setdefault(part, {})[name] = 100 * seconds / whole
    figure, axis = _bars(parts, digits=1)
    axis.set(title=f"Where the time of a training step goes\n{machine}", ylabel="share of the step (%)")
    return figure


def _operations(lines: list[Line], _: str) -> Any:
    """The paper's figure 1: a bar a network, and a mark where a paper has published a figure of it."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(10, 1.5 + 0.36 * len(lines)), layout="constrained")
    families = [next((kind for kind in ("RIN", "U-Net") if kind in line["name"]), "transformer") for line in lines]
    for colour, family in zip(COLOURS, dict.fromkeys(families), strict=False):
        there = [place for place, own in enumerate(families) if own == family]
        axis.barh(there, [lines[place]["operations"] / 1e9 for place in there], color=colour, label=family)
    papers = dict.fromkeys(paper for line in lines for paper in line["published_operations"])
    for marker, paper in zip("Dv^so", papers, strict=False):
        marks = [line["published_operations"].get(paper, math.nan) / 1e9 for line in lines]
        axis.plot(marks, range(len(lines)), marker, color="black", markerfacecolor="white", label=f"{paper}'s paper")
    counts = [f"{line['name']} at {line['input']}: {shown('operations', line['operations'])}" for line in lines]
    axis.set_yticks(range(len(lines)), counts)
    axis.invert_yaxis()
    axis.set(xscale="log", xlim=(10, None), title="Operations of a forward pass: bars are counted, marks published")
    axis.set_xlabel("G operations; counted: two a multiply-add; published: in the paper's own convention")
    axis.legend(loc="upper right")
    return figure


def _speeds(lines: list[Line], machine: str) -> Any:
    groups: dict[str, dict[str, float]] = {}
    for line in lines:
        rates = {name: side["images_per_second"] for name, side in line["sides"].items()}
        ours = rates.pop(OURS)
        label = f"{line['size']}, {line['work']}".replace(", ", "\n")
        groups[label] = {f"{OURS} / {name}": ours / rate for name, rate in rates.items()}
    figure, axis = _bars(groups, digits=2)
    axis.axhline(1, color="grey", linestyle="--", zorder=0)
    axis.set(title=f"Speed beside other implementations\n{machine}", ylabel="images a second, as a ratio")
    return figure


PLOTS: dict[str, tuple[str, Callable[[list[Line], str], Any]]] = {
    "growth": ("growth", _growth),
    "breakdown": ("breakdown", _breakdown),
    "figure 1: operations": ("operations", _operations),
    "other rins": ("speed", _speeds),
}
"""What is drawn of which benchmark: how its file's name begins, and what draws it."""


def report(results: Path, plots: Path | None) -> None:
    """Prints the tables of a file of results, and draws its plots into a folder if asked."""
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    print(tables(lines))
    if plots:
        draw(lines, plots)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument("--plots", type=Path, metavar="FOLDER")
    report(**vars(parser.parse_args()))
