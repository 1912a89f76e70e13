"""What a page tells of a run: figures, losses, and the samples that it drew on the way."""

import math
import re
from pathlib import Path
from typing import Any

from PIL import Image

from rin.app.opened import Opened
from rin.core.kind import is_set
from rin.costs.operations import cost
from rin.data.decoding.pictures import open_upright
from rin.model_files import read_experiment
from rin.training.logging import LOG, read_log
from rin.training.run_state import is_run, run_state

_MOST_POINTS = 1000
"""Of a curve."""


def figures(opened: Opened) -> list[list[str]]:
    """Names and values: of the network, what it learned from, and where its run stands."""
    config, kind = opened.config, opened.kind
    price = cost(config)
    latents = f"{config.num_latents_min} to {price.latents}" if opened.is_elastic else str(price.latents)
    classes = config.classes_text
    told = {
        "model": opened.source,
        "draws": f"{kind.noun}, {' x '.join(map(str, kind.shape))}",
        "parameters": f"{price.parameters:,}",
        "operations": f"{price.operations / 1e9:.4g} G a pass",
        "patch": "none" if is_set(config.shape) else str(config.patch_size),
        "interface": f"{price.tokens} tokens x {config.interface_dim}",
        "latents": f"{latents} x {config.latent_dim}",
        "classes": classes,
        "names of classes": ", ".join(opened.class_names[:20]) + (", ..." if len(opened.class_names) > 20 else ""),
        **_of_run(opened.folder),
    }
    return [[name, value] for name, value in told.items() if value]


def _of_run(folder: Path) -> dict[str, str]:
    if not is_run(folder):
        return {}
    experiment = read_experiment(folder)
    assert experiment is not None  # it is a run
    told = {"data": experiment.data.path}
    if (folder / LOG).exists():
        state = run_state(folder)
        told |= {"state": state.state, "step": f"{state.step:,} of {state.num_steps:,}"}
    return told


def losses(folder: Path) -> dict[str, list[Any]]:
    """The curves of a run's losses as columns: step, loss, and which of them (training, held-out).

    Of long runs some lines, evenly spread, the last one among them.

    Raises:
        RinError: the log cannot be read.
    """
    columns: dict[str, list[Any]] = {"step": [], "loss": [], "of": []}
    log = read_log(folder / LOG)
    for name, called in (("loss", "training"), ("held_out_loss", "held-out")):
        points = [(line["step"], line[name]) for line in log if _is_number(line.get(name))]
        every = math.ceil(len(points) / _MOST_POINTS) or 1
        for step, loss in points[::-1][::every][::-1]:
            columns["step"].append(step)
            columns["loss"].append(loss)
            columns["of"].append(called)
    return columns


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def previews(folder: Path) -> dict[int, Path]:
    """The sheets of samples that a run drew while it went, by step."""
    found = {re.fullmatch(r"step-(\d+)\.png", path.name): path for path in (folder / "samples").glob("step-*.png")}
    return dict(sorted((int(match[1]), path) for match, path in found.items() if match))


def preview(folder: Path, place: int) -> tuple[str, Image.Image | None]:
    """One of them, by its place in time: what to write over it, and the picture; nothing where there is none.

    Raises:
        RinError: it cannot be read.
    """
    steps = list(previews(folder).items())
    if not steps:
        return "no samples", None
    step, path = steps[max(0, min(place, len(steps) - 1))]
    return f"step {step:,}", open_upright(path)
