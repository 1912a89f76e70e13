"""Many ways to sample one model, each measured: what they are, what is known of them already, tables and a plot."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rin.core.errors import RinError
from rin.core.optional import pyplot
from rin.core.strict_json import parse_json
from rin.diffusion import SamplerName
from rin.diffusion.samplers import num_evaluations


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to sample."""

    sampler: SamplerName
    num_steps: int
    schedule: str
    guidance: float = 0.0

    guidance_interval: tuple[float, float] | None = None
    """None also where there is no guidance, so that no way is there twice."""

    average_decay: float | None = None
    """Which average of a run's weights; None is the first."""

    @property
    def options(self) -> dict[str, Any]:
        """The same as `TrainedModel.sample` takes it."""
        return {name: value for name, value in asdict(self).items() if name != "average_decay"}

    @property
    def evaluations(self) -> int:
        """Of the network, for a sample."""
        return num_evaluations(self.sampler, self.schedule, self.num_steps, self.guidance, self.guidance_interval)

    @property
    def words(self) -> str:
        """All but the number of steps, in words."""
        guidance = f", guidance {self.guidance:g}" if self.guidance else ""
        if self.guidance_interval is not None:
            guidance += " in {:g} to {:g}".format(*self.guidance_interval)
        average = "" if self.average_decay is None else f", average {self.average_decay:g}"
        return f"{self.sampler}, {self.schedule}{guidance}{average}"


def ways(
    samplers: Sequence[SamplerName],
    num_steps: Sequence[int],
    schedules: Sequence[str],
    guidances: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    decays: Sequence[float | None],
) -> list[Way]:
    """Every combination, once."""
    combined = itertools.product(decays, samplers, schedules, guidances, intervals, num_steps)
    return list(
        dict.fromkeys(
            Way(
                sampler=sampler,
                num_steps=steps,
                schedule=schedule,
                guidance=guidance,
                guidance_interval=interval if guidance else None,
                average_decay=decay,
            )
            for decay, sampler, schedule, guidance, interval, steps in combined
        )
    )


class Sweep:
    """The ways that have been measured, in a file with a line of JSON each, which any number of calls go on with.

    Args:
        path: of the file, which need not be there yet.

    Raises:
        RinError: the file is there and holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            for number, line in enumerate(lines, start=1):
                row = parse_json(line)
                if not isinstance(row, dict) or not {"way", "protocol", "frechet_distance"} <= row.keys():
                    raise ValueError(f"line {number} is no result of a sweep")
                self.rows.append(row)
        except (OSError, ValueError) as error:
            raise RinError(f"{path} is no file of a sweep ({error}): give another --out") from error

    def has(self, way: Way, protocol: dict[str, Any]) -> bool:
        """Whether a way has been measured by this protocol."""
        return any(row["way"] == _plain(asdict(way)) and row["protocol"] == _plain(protocol) for row in self.rows)

    def add(self, way: Way, protocol: dict[str, Any], results: dict[str, Any]) -> None:
        """Adds what was measured, and writes it down at once.

        Raises:
            RinError: the file cannot be written.
        """
        row = {"way": asdict(way), "words": way.words, "evaluations": way.evaluations, **results, "protocol": protocol}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RinError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.rows.append(_plain(row))

    def of(self, protocols: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """What was measured by these protocols, the least Frechet distance first."""
        plain = [_plain(protocol) for protocol in protocols]
        return sorted((row for row in self.rows if row["protocol"] in plain), key=lambda row: row["frechet_distance"])


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(content))


def sweep_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a way."""
    names = {"precision": "precision", "recall": "recall", "class_accuracy": "as asked"}
    shown = {name: words for name, words in names.items() if all(name in row for row in rows)}
    width = max([len("way"), *(len(row["words"]) for row in rows)])
    heads = f"{'way':<{width}}  {'steps':>5}  {'evaluations':>11}  {'distance':>9}"
    lines = [heads + "".join(f"  {words:>9}" for words in shown.values())]
    for row in rows:
        line = f"{row['words']:<{width}}  {row['way']['num_steps']:>5}  {row['evaluations']:>11}"
        line += f"  {row['frechet_distance']:>9.4g}"
        lines.append(line + "".join(f"  {row[name]:>9.3f}" for name in shown))
    return "\n".join(lines)


def check_plot(path: Path) -> None:
    """Makes sure, before hours of work, that a plot can be drawn.

    Raises:
        RinError: matplotlib is missing, or draws no files of that ending.
    """
    pyplot("to plot a sweep")
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise RinError(f"--plot {path}: give a name that ends in .png, .svg or .pdf")


def draw_sweep(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the Frechet distance over the evaluations of the network, a line of each way over its numbers of steps.

    Raises:
        RinError: matplotlib is missing, or the file cannot be written (see `check_plot`).
    """
    plot = pyplot("to plot a sweep")
    figure, axis = plot.subplots(figsize=(8, 5), layout="constrained")
    for words in dict.fromkeys(row["words"] for row in rows):
        line = sorted((row["evaluations"], row["frechet_distance"]) for row in rows if row["words"] == words)
        axis.plot(*zip(*line, strict=True), "o-", label=words)
    axis.set(xlabel="evaluations of the network a sample", ylabel="Frechet distance", xscale="log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise RinError(f"cannot write {path}: {error}") from error
    finally:
        plot.close(figure)
