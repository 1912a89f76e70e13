"""Many ways to sample one model, each measured: what they are, what is known of them already, tables and a plot."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rin.core.errors import RinError
from rin.core.optional import pyplot
from rin.core.strict_json import parse_json
from rin.costs.operations import cost
from rin.diffusion import SamplerName
from rin.diffusion.checks import check_options
from rin.diffusion.latent_counts import parse_num_latents
from rin.diffusion.samplers import EVERYWHERE, evaluations
from rin.model_files import weights_digest
from rin.nn import RINConfig
from rin.trained_model import TrainedModel

SWEEP = "sweep.jsonl"
"""The file of a run's or a model's folder that tells how well it draws in which way."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to sample."""

    sampler: SamplerName
    num_steps: int
    schedule: str
    guidance: float = 0.0

    guidance_interval: tuple[float, float] | None = None
    """None is all noise levels, and also where there is no guidance, so that no way is there twice."""

    num_latents: str | None = None
    """As on the command line: 16, or 0.5:16,1:128; None is all."""

    num_guide_latents: int | None = None
    """None also where there is no guidance."""

    average_decay: float | None = None
    """Which average of a run's weights; None is the first."""

    @property
    def options(self) -> dict[str, Any]:
        """The same as `TrainedModel.sample` takes it."""
        options = {**asdict(self), "num_latents": parse_num_latents(self.num_latents)}
        if self.guidance and self.guidance_interval is None:  # and not the model's own
            options["guidance_interval"] = EVERYWHERE
        del options["average_decay"]
        return options

    @property
    def evaluations(self) -> list[int | None]:
        """The latents of each evaluation of the network for a sample, see `rin.diffusion.samplers.evaluations`.

        Raises:
            RinError: the way is none: no steps, latents that no number is said of, and so on.
        """
        check_options(self.options, self.options)
        return evaluations(
            self.sampler, self.schedule, self.num_steps, self.guidance, self.guidance_interval,
            self.options["num_latents"], self.num_guide_latents,
        )  # fmt: skip

    def operations(self, model: RINConfig) -> int:
        """Of a network, for a sample: as `rin.costs.operations.cost` counts them."""
        return sum(times * cost(model, count).operations for count, times in Counter(self.evaluations).items())

    @property
    def words(self) -> str:
        """All but the number of steps, in words."""
        guidance = f", guidance {self.guidance:g}" if self.guidance else ""
        if self.num_guide_latents is not None:
            guidance += f" by {self.num_guide_latents} latents"
        if self.guidance_interval is not None:
            guidance += " in {:g} to {:g}".format(*self.guidance_interval)
        latents = "" if self.num_latents is None else f", latents {self.num_latents}"
        average = "" if self.average_decay is None else f", average {self.average_decay:g}"
        return f"{self.sampler}, {self.schedule}{guidance}{latents}{average}"


def ways(
    samplers: Sequence[SamplerName],
    num_steps: Sequence[int],
    schedules: Sequence[str],
    guidances: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    latents: Sequence[str | None],
    guide_latents: Sequence[int | None],
    decays: Sequence[float | None],
) -> list[Way]:
    """Every combination, once."""
    combined = itertools.product(decays, samplers, schedules, guidances, intervals, guide_latents, latents, num_steps)
    return list(
        dict.fromkeys(
            Way(
                sampler=sampler,
                num_steps=steps,
                schedule=schedule,
                guidance=guidance,
                guidance_interval=interval if guidance else None,
                num_latents=count,
                num_guide_latents=guide if guidance else None,
                average_decay=decay,
            )
            for decay, sampler, schedule, guidance, interval, guide, count, steps in combined
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
        return any(row["protocol"] == _plain(protocol) and way_of(row) == way for row in self.rows)

    def add(self, way: Way, model: RINConfig | None, protocol: dict[str, Any], results: dict[str, Any]) -> None:
        """Adds what was measured, and writes it down at once.

        Args:
            way: to sample.
            model: the network, whose operations are counted; None for one that is no RIN.
            protocol: how it was measured.
            results: what was measured.

        Raises:
            RinError: the file cannot be written.
        """
        counted = {} if model is None else {"operations": way.operations(model)}
        row = {"way": asdict(way), "words": way.words, "evaluations": len(way.evaluations), **counted,
               **results, "protocol": protocol}  # fmt: skip
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


def way_of(row: dict[str, Any]) -> Way:
    """The way of a row, of files from before an option was there too."""
    way: dict[str, Any] = {**row["way"]}
    if way["guidance_interval"] is not None:
        way["guidance_interval"] = tuple(way["guidance_interval"])
    return Way(**way)


CHOSEN = ("sampler", "num_steps", "schedule", "guidance_interval", "num_latents", "num_guide_latents")
"""Options of sampling that a budget chooses."""


def best_within(path: Path, trained: TrainedModel, budget: float, guidance: float | None) -> Way:
    """The measured way of the least Frechet distance within a share of the operations of the model's own way.

    Of the ways that were measured of these weights, those on the most samples are compared.

    Args:
        path: the file of a sweep.
        trained: the model; its own sampler, steps and interval of guidance, with all its latents, make the whole.
        budget: the share, above 0.
        guidance: of the ways to choose from, and of the whole; the model's own if None.

    Raises:
        RinError: it is no share, the file is none, or no way was measured that costs no more.
    """
    if not budget > 0:
        raise RinError(f"--budget {budget:g}: take a share of the operations, as in 0.4")
    own = trained.diffusion.config
    guidance = own.guidance if guidance is None else guidance
    whole = own_way(trained, guidance, own.guidance_interval).operations(trained.config)
    rows = measured_rows(path, trained, guidance)
    shares = [(row.get("operations", math.inf) / whole, row) for row in rows]
    fitting = [row for share, row in shares if share <= budget]
    if not fitting:
        cheapest = f"the cheapest takes {min(share for share, _ in shares):.2g}" if shares else "there are none"
        strengths = sorted({row["way"]["guidance"] for row in Sweep(path).rows} - {guidance})
        others = [f"{strength:g}" for strength in strengths if measured_rows(path, trained, strength)]
        there = f" (measured: --guidance {' or '.join(others)})" if others else ""
        raise RinError(
            f"--budget {budget:g}: of the ways to sample this model with guidance {guidance:g} in {path} {cheapest}"
            f"{there}; measure more: rin sweep RUN --features ... --num-latents ... --num-steps ..."
        )
    return way_of(min(fitting, key=lambda row: row["frechet_distance"]))


def own_way(
    trained: TrainedModel,
    guidance: float,
    guidance_interval: tuple[float, float] | None = None,
    num_latents: str | None = None,
) -> Way:
    """The model's own sampler, steps and schedule, guided at some noise levels or at all, with so many latents."""
    config = trained.diffusion.config
    return Way(
        sampler=config.sampler, num_steps=config.num_steps, schedule=config.sampling_schedule, guidance=guidance,
        guidance_interval=guidance_interval, num_latents=num_latents,
    )  # fmt: skip


def measured_rows(path: Path, trained: TrainedModel, guidance: float) -> list[dict[str, Any]]:
    """What a sweep has measured of these weights at a strength of guidance: the ways that have the most samples.

    Raises:
        RinError: the file is none of a sweep.
    """
    digest = weights_digest(trained.model)
    rows = [row for row in Sweep(path).rows if row["protocol"]["samples"].get("weights_sha256") == digest]
    latents = trained.diffusion.config.guidance_latents if guidance else "shared"
    rows = [row for row in rows if row["protocol"]["samples"].get("guidance_latents", "shared") == latents]
    most = max((row["protocol"]["samples"]["num"] for row in rows), default=0)
    return [row for row in rows if row["protocol"]["samples"]["num"] == most and row["way"]["guidance"] == guidance]


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(content))


def sweep_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a way."""
    names = {"precision": "precision", "recall": "recall", "class_accuracy": "as asked"}
    shown = {name: words for name, words in names.items() if all(name in row for row in rows)}
    width = max([len("way"), *(len(row["words"]) for row in rows)])
    heads = f"{'way':<{width}}  {'steps':>5}  {'evaluations':>11}  {'operations':>10}  {'distance':>9}"
    lines = [heads + "".join(f"  {words:>9}" for words in shown.values())]
    for row in rows:
        line = f"{row['words']:<{width}}  {row['way']['num_steps']:>5}  {row['evaluations']:>11}"
        counted = f"{row['operations'] / 1e9:.4g} G" if "operations" in row else ""
        line += f"  {counted:>10}  {row['frechet_distance']:>9.4g}"
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
    """Draws the Frechet distance over the operations of a sample, a line of each way over its numbers of steps.

    Over the evaluations of the network, where operations are not known: of one that is no RIN.

    Raises:
        RinError: matplotlib is missing, or the file cannot be written (see `check_plot`).
    """
    plot = pyplot("to plot a sweep")
    figure, axis = plot.subplots(figsize=(8, 5), layout="constrained")
    counted = all("operations" in row for row in rows)
    price, label = ("operations", "operations of a sample") if counted else ("evaluations", "evaluations of a sample")
    for words in dict.fromkeys(row["words"] for row in rows):
        line = sorted((row[price], row["frechet_distance"]) for row in rows if row["words"] == words)
        axis.plot(*zip(*line, strict=True), "o-", label=words)
    axis.set(xlabel=label, ylabel="Frechet distance", xscale="log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise RinError(f"cannot write {path}: {error}") from error
    finally:
        plot.close(figure)
