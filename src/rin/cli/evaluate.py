"""`rin evaluate`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rin.cli.arguments import parse
from rin.core.compute import Compile, Precision, compiles, device, uses_bfloat16
from rin.core.distributed import is_first
from rin.core.errors import RinError
from rin.core.files import check_writable, written_whole
from rin.core.launch import processes
from rin.diffusion import SamplerName, SamplingOptions
from rin.evaluation.frechet import FeatureNetwork
from rin.prediction import MOVING_SHAPES, frechet_video_distance, measured_shapes
from rin.run import load, read_experiment


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Measures the clips that a run draws.

    A run on moving-shapes: how far each predicted shape is from where it must be, by frame, beside the same of copying
    the last given frame and of going on without bounces. With --features: the Frechet video distance (FVD) to held-out
    clips.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""

    num: int = 256
    """Clips to draw."""

    frames: int | None = None
    """Frames to predict of moving-shapes, block after block; the model's own if absent."""

    features: Path | None = None
    """A TorchScript network that maps uint8 clips (b c f h w) to features (b d), for the Frechet distance."""

    steps: int | None = None
    """Steps of sampling; the model's own if absent."""

    sampler: SamplerName | None = None
    """ddpm, ddpm-small or ddim; the model's own if absent."""

    seed: int = 0
    """Of the noise."""

    batch_size: int = 64
    """How many at a time."""

    precision: Precision = "auto"
    """Of the network: bfloat16 autocast, float32, or auto: bfloat16 on a CUDA device that has it."""

    compile: Compile = "auto"
    """Go through torch.compile and CUDA graphs; auto: on a CUDA device."""

    out: Path | None = None
    """Also write the results to this file, as JSON."""


def evaluate(arguments: list[str]) -> None:
    """Measures a run and prints what it finds."""
    chosen = parse(EvaluateArguments, arguments, "rin evaluate")
    with processes():
        _evaluate(chosen)


def _evaluate(chosen: EvaluateArguments) -> None:
    trained, run, where = load(chosen.run), Path(chosen.run), device()
    if chosen.out is not None:
        check_writable(chosen.out.parent)
        if chosen.out.is_dir():
            raise RinError(f"cannot write {chosen.out}: it is a folder")
    experiment = read_experiment(run) if run.is_dir() else None
    if experiment is None or len(experiment.model.shape) != 4:
        raise RinError(f"{chosen.run} is no run on clips: there are measures for these only, so far")
    of_shapes = experiment.data.path == MOVING_SHAPES
    if chosen.frames is not None and not of_shapes:
        raise RinError("--frames is for moving-shapes, whose true future is known: leave it out")
    network = None if chosen.features is None else FeatureNetwork(chosen.features, where)
    options: SamplingOptions = {
        "sampler": chosen.sampler,
        "num_steps": chosen.steps,
        "bfloat16": uses_bfloat16(chosen.precision, where),
        "compile": compiles(chosen.compile, where),
    }
    results: dict[str, Any] = {
        "run": chosen.run, "num": chosen.num, "seed": chosen.seed,
        "sampler": chosen.sampler or trained.process.config.sampler,
        "steps": trained.process.config.num_steps if chosen.steps is None else chosen.steps,
    }  # fmt: skip
    lines: list[str] = []
    if network is not None:
        results["frechet_video_distance"] = frechet_video_distance(
            trained, run, network, chosen.num, chosen.seed, chosen.batch_size, **options
        )
        lines.append(f"Frechet video distance, {chosen.num} clips a side: {results['frechet_video_distance']:.4g}")
    if network is None or of_shapes:
        shapes = measured_shapes(trained, run, chosen.num, chosen.frames, chosen.seed, chosen.batch_size, **options)
        results["moving_shapes"] = shapes.to_json()
        lines.append(shapes.describe())
    if not is_first():
        return
    print("\n".join(lines))
    if chosen.out is not None:
        _write(results, chosen.out)


def _write(results: dict[str, Any], path: Path) -> None:
    try:
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RinError(f"cannot write {path}: {error.strerror or error}") from error
