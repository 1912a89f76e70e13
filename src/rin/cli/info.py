"""`rin info`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rin.cli.arguments import parse
from rin.core.errors import RinError
from rin.core.kind import is_set, is_video
from rin.costs.memory import RESERVE, Plan, held, needed, passing, plan, ways
from rin.costs.operations import ASSUMED_SHARE_OF_PEAK, Cost, cost, gpu_hours, peak_operations, update_operations
from rin.data.config import BUILT_IN
from rin.diffusion import DiffusionConfig
from rin.experiment import ExperimentConfig
from rin.model_files import models_that_come_along, read_model_config
from rin.nn import RINConfig
from rin.presets import preset, preset_names, preset_source

GPU = "NVIDIA H100 80GB HBM3"
"""Whose hours a run is told in."""

GPUS_A_MACHINE = 8

_WIDTH = 2 + max(map(len, preset_names()))
"""Of the first column of a table."""


@dataclass(frozen=True, kw_only=True)
class InfoArguments:
    """Tells what a preset or a run costs, and where its figures come from."""

    what: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PRESET|RUN]")] = None
    """A preset, a run or a saved model; every preset if absent."""

    gpus: int | None = None
    """Tell how to train a preset, or each, on so many GPUs: what fits, the command, GPU hours."""

    memory: float = 80.0
    """Memory of each of these GPUs in GiB."""


def info(arguments: list[str]) -> None:
    """Prints the sizes of one preset or run, or a table of all presets; with GPUs, how to train there."""
    chosen = parse(InfoArguments, arguments, "rin info")
    _check(chosen)
    if chosen.what is None:
        _print_table() if chosen.gpus is None else _print_training_table(chosen.gpus, chosen.memory)
    elif chosen.what in preset_names():
        training = {} if chosen.gpus is None else _training_figures(chosen.what, chosen.gpus, chosen.memory)
        _print_model(preset(chosen.what).model, _drawn_by(chosen.what))
        if chosen.gpus is not None:
            _print_training(training, chosen.gpus, chosen.memory)
        print(f"\n{preset_source(chosen.what)}")
    elif Path(chosen.what).is_dir():
        if chosen.gpus is not None:
            raise RinError(f"{chosen.what} is a folder: --gpus goes with a preset, or alone")
        _print_model(*read_model_config(Path(chosen.what)))
    else:
        raise _neither(chosen.what)


def _check(chosen: InfoArguments) -> None:
    if chosen.gpus is not None and chosen.gpus < 1:
        raise RinError(f"--gpus {chosen.gpus}: take 1 or more")
    if chosen.gpus is not None and chosen.gpus > GPUS_A_MACHINE and chosen.gpus % GPUS_A_MACHINE:
        raise RinError(f"--gpus {chosen.gpus}: beyond {GPUS_A_MACHINE} take a multiple of {GPUS_A_MACHINE}")
    if not 0 < chosen.memory <= 1e6:
        raise RinError(f"--memory {chosen.memory}: take GiB above 0, a million at most")


def _neither(what: str) -> RinError:
    try:
        preset(what)
    except RinError as error:
        return RinError(f"{error}; and there is no folder of that name")
    raise AssertionError(what)


def _drawn_by(name: str) -> DiffusionConfig:
    """The diffusion of the model that comes along by a preset's name, for it may be guided; else the preset's."""
    along = models_that_come_along()
    return read_model_config(along[name])[1] if name in along else preset(name).diffusion


def _print_model(config: RINConfig, diffusion: DiffusionConfig) -> None:
    for name, value in (_figures(config, cost(config)) | {"samples": _sampling(diffusion)}).items():
        print(f"{name:<24} {value}")


def _sampling(diffusion: DiffusionConfig) -> str:
    """How they are drawn where nothing else is asked for."""
    levels = diffusion.guidance_interval
    interval = "" if levels is None else " at noise levels sigma {:g} to {:g}".format(*levels)
    guidance = f", guidance {diffusion.guidance:g}{interval}" if diffusion.guidance else ""
    return f"{diffusion.sampler} in {diffusion.num_steps} steps{guidance}"


def _figures(config: RINConfig, price: Cost) -> dict[str, str]:
    patch = f"{config.patch_size} x {config.patch_size}"
    if is_video(config.shape):
        patch = f"{config.temporal_patch_size} x {patch}"
    latents, operations = str(price.latents), f"{price.operations / 1e9:.4g}"
    if config.num_latents_min:
        latents = f"{config.num_latents_min} to {latents}"
        by_count = {count: cost(config, count).operations / 1e9 for count in config.latent_counts}
        operations = ", ".join(f"{each:.4g} ({count} latents)" for count, each in by_count.items())
    return {
        "example": " x ".join(map(str, config.shape)),
        "patch": "none" if is_set(config.shape) else patch,
        "interface": f"{price.tokens} tokens x {config.interface_dim}",
        **({"condition picture": " x ".join(map(str, config.condition_shape))} if config.condition_shape else {}),
        "latents": f"{latents} x {config.latent_dim}",
        "compute layers a block": ", ".join(map(str, config.compute_depth)),
        "heads": f"{config.num_heads}, read and write {config.num_read_write_heads}",
        "classes": config.classes_text,
        "parameters": f"{price.parameters:,} (counted)",
        "operations": f"{operations} G a forward pass of one example (counted, 2 a multiply-add)",
    }


def _print_table() -> None:
    columns = f"{'example':<16}{'tokens x width':<16}{'latents x width':<17}{'parameters':<13}operations"
    print(f"{'preset':<{_WIDTH}}{columns}")
    for name in preset_names():
        config = preset(name).model
        price = cost(config)
        example, tokens = "x".join(map(str, config.shape)), f"{price.tokens} x {config.interface_dim}"
        latents, parameters = f"{price.latents} x {config.latent_dim}", f"{price.parameters / 1e6:.4g} M"
        print(f"{name:<{_WIDTH}}{example:<16}{tokens:<16}{latents:<17}{parameters:<13}{price.operations / 1e9:.4g} G")
    print("\nParameters and operations of a forward pass are counted; `rin info PRESET` says where sizes come from.")


def _print_training(figures: dict[str, str], gpus: int, memory: float) -> None:
    """What training a preset takes of each GPU, what fits, how long it takes and how to begin."""
    print(f"\ntraining on {_gpus(gpus, memory)} (calculated; {RESERVE:.0%} of the memory is left free)")
    for figure, value in figures.items():
        print(f"{figure:<24} {value}")


def _training_figures(name: str, gpus: int, memory: float) -> dict[str, str]:
    experiment = preset(name)
    model, training = experiment.model, experiment.training
    fit = _plan(experiment, gpus, memory)
    holds = {way: held(model, optimiser=training.optimiser, parallel=way, num_gpus=gpus) for way in ways(gpus)}
    kept, anew = (passing(model, experiment.diffusion, recompute_blocks=way) for way in (False, True))
    figures = {
        "held": "; ".join(f"{_size(there.always)} ({way})" for way, there in holds.items())
        + ": weights, gradients, moments, average",
        "each example more": f"{_size(kept.an_example())}; with blocks computed anew {_size(anew.an_example())}",
    }
    if fit is None:
        least = min(needed(there, passes, 1) for there in holds.values() for passes in (kept, anew))
        return figures | {"fits": f"nothing: one example at a time needs {_size(least)} and the reserve"}
    hours, peak = _hours(experiment, fit), (peak_operations(GPU) or 0.0) / 1e12
    return figures | {
        "fits": f"{fit.part} examples at a time, {fit.accumulation_steps} times an update: {_size(fit.bytes)} a GPU",
        "H100 hours": f"{_rounded(hours)} for {training.num_steps:,} updates, in {_rounded(hours / gpus)} hours "
        f"(assumed: {ASSUMED_SHARE_OF_PEAK:.0%} of its peak of {peak:.0f} Tflop/s)",
        "command": _command(name, experiment, fit, gpus),
    }


def _print_training_table(gpus: int, memory: float) -> None:
    """A line a preset: how it fits, and how long it takes."""
    print(f"{'preset':<{_WIDTH}}{'batch':<7}{'way':<20}{'at a time':<11}{'times':<7}{'a GPU':<11}H100 hours")
    for name in preset_names():
        experiment = preset(name)
        batch = experiment.training.batch_size
        if batch % gpus:
            print(f"{name:<{_WIDTH}}{batch:<7}{gpus} GPUs do not divide the batch", flush=True)
            continue
        fit = _plan(experiment, gpus, memory)
        if fit is None:
            print(f"{name:<{_WIDTH}}{batch:<7}nothing fits", flush=True)
            continue
        way = ("one GPU" if gpus == 1 else fit.parallel) + (", recompute" if fit.recompute_blocks else "")
        fits = f"{way:<20}{fit.part:<11}{fit.accumulation_steps:<7}{_size(fit.bytes):<11}"
        print(f"{name:<{_WIDTH}}{batch:<7}{fits}{_rounded(_hours(experiment, fit))}", flush=True)
    print(
        f"\nCalculated for {_gpus(gpus, memory)}, {RESERVE:.0%} of it left free: examples that a GPU computes at a"
        " time, how many times\nan update, and the memory that this takes. Hours are assumed, at"
        f" {ASSUMED_SHARE_OF_PEAK:.0%} of the peak. `rin info PRESET --gpus {gpus}` has the command."
    )


def _plan(experiment: ExperimentConfig, gpus: int, memory: float) -> Plan | None:
    training = experiment.training
    return plan(
        experiment.model, experiment.diffusion, batch_size=training.batch_size, optimiser=training.optimiser,
        num_gpus=gpus, memory=int(memory * 2**30),
    )  # fmt: skip


def _hours(experiment: ExperimentConfig, fit: Plan) -> float:
    """Of all GPUs together, over the whole run."""
    training = experiment.training
    update = update_operations(
        experiment.model, experiment.diffusion, training.batch_size, fit.recompute_blocks, training.all_latents_every
    )
    return gpu_hours(update * training.num_steps, GPU)


def _command(name: str, experiment: ExperimentConfig, fit: Plan, gpus: int) -> str:
    start = "rin train"
    if gpus > 1:
        machines, each = max(gpus // GPUS_A_MACHINE, 1), min(gpus, GPUS_A_MACHINE)
        meet = f"--nnodes {machines} --rdzv-backend c10d --rdzv-endpoint HOST:29500" if machines > 1 else "--standalone"
        start = f"torchrun {meet} --nproc-per-node {each} -m rin.cli train"
    options = [] if experiment.data.path in BUILT_IN else ["--data.path PATH"]
    options += [f"--training.accumulation-steps {fit.accumulation_steps}"] if fit.accumulation_steps > 1 else []
    options += ["--training.recompute-blocks"] if fit.recompute_blocks else []
    options += [f"--training.parallel {fit.parallel}"] if fit.parallel != "ddp" else []
    return " ".join([start, name, *options, f"--out runs/{name}"])


def _gpus(gpus: int, memory: float) -> str:
    return f"{gpus} GPU{'s' if gpus > 1 else ''} of {memory:.4g} GiB"


def _rounded(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "under 0.1"


def _size(count: int | float) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
