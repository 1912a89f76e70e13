"""`rin status`."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rin.cli.arguments import parse
from rin.core.errors import RinError
from rin.core.names import printable
from rin.training.run_state import RunState, is_run, run_state


@dataclass(frozen=True, kw_only=True)
class StatusArguments:
    """Tells where runs stand: how far they are, whether they are alive, how they do."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Runs, or folders of runs."""

    json: bool = False
    """Print JSON, for scripts: a list with an entry a run; what is not known is null."""


def status(arguments: list[str]) -> None:
    """Prints where one run stands, or a table of several."""
    chosen = parse(StatusArguments, arguments, "rin status")
    states = [run_state(folder) for path in chosen.runs for folder in _runs(path)]
    if not states:
        raise RinError("give a run, or a folder of runs: rin status runs")
    if chosen.json:
        print(json.dumps([_plain(dataclasses.asdict(run)) for run in states], indent=1))
    elif len(states) == 1:
        lines = [f"{name:<16} {text}" for name, text in _description(states[0]).items() if text]
        print("\n".join(map(printable, lines)))
    else:
        print("\n".join(map(printable, _table(states))))


def _runs(path: Path) -> list[Path]:
    """A run, or the runs in a folder of runs."""
    if not path.is_dir():
        raise RinError(f"there is no folder {path}: give a run, or a folder of runs")
    inside = [] if (path / "config.json").exists() else sorted(filter(is_run, path.iterdir()))
    return inside or [path]


def _description(run: RunState) -> dict[str, str]:
    """All that is to be said of a run, by name; what is empty is not known or not worth a line."""
    checkpoints = run.checkpoints
    held = f"{checkpoints.newest}, {checkpoints.count} on disk, {_bytes(checkpoints.bytes)}"
    good = f", {checkpoints.kept_for_good} kept for good" if checkpoints.kept_for_good else ""
    return {
        "run": printable(run.folder),
        "state": _state(run),
        "step": f"{run.step:,} of {run.num_steps:,} ({_percent(run)})",
        "loss": _number(run.loss, ".4f"),
        "held-out loss": _number(run.held_out_loss, ".4f"),
        "learning rate": _number(run.learning_rate, ".3g"),
        "gradient norm": _number(run.gradient_norm, ".3g"),
        "examples a second": _number(run.examples_per_second, ".4g"),
        "time left": _time(run.seconds_left),
        "checkpoints": held + good if checkpoints.newest else "none yet",
        "skipped updates": str(run.skipped_updates or ""),
        "broken pictures": str(run.broken_pictures or ""),
        "message": run.message,
    }


def _state(run: RunState) -> str:
    processes = run.num_processes or 1
    where = f"process {run.pid} on {run.host}" + (f" and {processes - 1} more" if processes > 1 else "")
    ago = _time(run.silent_seconds)
    if run.state == "silent":
        return f"silent for {ago} on {run.host}"
    if run.state == "killed":
        return f"killed ({where}), last heard of {ago} ago; the same command goes on from the newest checkpoint"
    if run.state == "running":
        return f"running ({where}), heard of {ago} ago" if run.host else "running"
    return f"{run.state} {ago} ago" if ago else run.state


def _table(runs: list[RunState]) -> list[str]:
    """A line a run under a line of headings."""
    rows = [("run", "state", "step", "of", "", "loss", "held-out", "examples/s", "time left")]
    for run in runs:
        numbers = (_number(run.loss, ".4f"), _number(run.held_out_loss, ".4f"), _number(run.examples_per_second, ".4g"))
        state = f"silent for {_time(run.silent_seconds)}" if run.state == "silent" else run.state
        known = (printable(run.folder), state, f"{run.step:,}", f"{run.num_steps:,}", _percent(run), *numbers)
        rows.append((*known, _time(run.seconds_left)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        cells = [text.ljust(width) if column < 2 else text.rjust(width)
                 for column, (text, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return lines


def _percent(run: RunState) -> str:
    """Rounded down: only what is finished has 100 %."""
    return f"{math.floor(1000 * run.step / run.num_steps) / 10:.4g} %"


def _number(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def _bytes(count: int) -> str:
    """A size as people read it."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 2**10:.3g} KiB"


def _time(seconds: float | None) -> str:
    """A time by its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def _plain(value: Any) -> Any:
    """A value as strict JSON has it, which knows no NaN."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
