"""`rin sweep`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rin.cli.arguments import parse
from rin.core.compute import Compile, Precision, device
from rin.core.distributed import is_first
from rin.core.errors import RinError
from rin.core.files import check_writable_file
from rin.core.launch import processes
from rin.core.names import printable
from rin.diffusion import SamplerName
from rin.diffusion.samplers import is_everywhere
from rin.evaluation.asked import asked_for
from rin.evaluation.features import feature_network
from rin.evaluation.images import drawn_samples, measure_samples, measuring_protocol, patch_size_of, reference_of
from rin.evaluation.sweeping import SWEEP, Sweep, Way, check_plot, draw_sweep, sweep_table, ways
from rin.evaluation.videos import USUAL_BATCH
from rin.model_files import model_folder
from rin.nn import RIN
from rin.trained_model import TrainedModel, load
from rin.training import checkpoint


@dataclass(frozen=True, kw_only=True)
class SweepArguments:
    """Measures a model that draws pictures at every combination of the ways to sample that are given, best first.

    What is left out is the model's own. What --out holds already is not measured again, so that a sweep can be cut off
    and gone on with, and others can be added to it.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, the name of one that comes with rin, or a Hub name."""

    features: str
    """What looks at the pictures, as of rin evaluate."""

    out: Path | None = None
    """A file for the results, a line of JSON each; if absent sweep.jsonl in the run's folder, from which
    rin sample --budget chooses, or here if the run is none."""

    plot: Path | None = None
    """A picture (.png): Frechet distance over the operations of a sample."""

    samplers: tuple[SamplerName, ...] = ()
    """ddpm, ddpm-small, ddim, dpmpp-2m, heun."""

    num_steps: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["--steps"])] = ()
    """Numbers of steps."""

    schedules: tuple[str, ...] = ()
    """Schedules of sampling: cosine, karras, log-snr and so on."""

    guidances: tuple[float, ...] = ()
    """Strengths of guidance, 0 is none; the model's own if absent."""

    guidance_intervals: tuple[str, ...] = ()
    """The noise that guidance is for, as in 0.3,3 or all; the model's own if absent."""

    num_latents: tuple[str, ...] = ()
    """Latents, of an elastic model: as in 16 64 0.5:16,1:64; all if absent."""

    num_guide_latents: tuple[int, ...] = ()
    """Latents of the pass that guides, of an elastic model; the model without its label guides if absent."""

    average_decays: tuple[float, ...] = ()
    """Averages of a run's weights; the first if absent."""

    num: int = 1000
    """Pictures of each."""

    reference: str | None = None
    """What they are measured against, as of rin evaluate; what the run was trained on if absent."""

    reference_split: str = "train"
    """The split of that set."""

    seed: int = 0
    """Of the noise, the same for all."""

    batch_size: int | None = None
    """How many at a time; what fits into memory if absent."""

    precision: Precision = "auto"
    """Of the network: bfloat16 autocast, float32, or auto: bfloat16 where it is faster."""

    compile: Compile = "auto"
    """Go through torch.compile and CUDA graphs; auto: on a CUDA device."""


def sweep(arguments: list[str]) -> None:
    """Measures all ways and prints them."""
    chosen = parse(SweepArguments, arguments, "rin sweep")
    with processes():
        _sweep(chosen)


def _sweep(chosen: SweepArguments) -> None:
    folder = model_folder(chosen.run)
    out = (folder if folder.is_dir() else Path()) / SWEEP if chosen.out is None else chosen.out
    for path in (out, chosen.plot):
        if path is not None:
            check_writable_file(path)
    if chosen.plot is not None:
        check_plot(chosen.plot)
    found = Sweep(out)
    decay = chosen.average_decays[0] if chosen.average_decays else None
    trained = load(chosen.run, decay)
    all_ways = _ways(chosen, trained)
    model = trained.config if isinstance(trained.model, RIN) else None
    for way in all_ways:  # refuses ways that are none, and latents that the network has not, before hours of work
        _ = way.evaluations if model is None else way.operations(model)
    network = feature_network(chosen.features, device())
    batch_size = chosen.batch_size or USUAL_BATCH
    run = folder if (folder / checkpoint.FOLDER).is_dir() else None
    shape = trained.kind.shape
    reference, _ = reference_of(run, chosen.reference, chosen.reference_split, shape, network, batch_size)
    asked, protocols = asked_for(trained.kind, folder, chosen.num), list[dict[str, Any]]()
    for number, way in enumerate(all_ways, start=1):
        if way.average_decay != decay:
            decay, trained = way.average_decay, load(chosen.run, way.average_decay)
        samples = drawn_samples(
            trained, chosen.num, None, asked, seed=chosen.seed, batch_size=chosen.batch_size,
            precision=chosen.precision, compile=chosen.compile, **way.options,
        )  # fmt: skip
        protocol = measuring_protocol(samples, reference, network)
        protocols.append(protocol)
        if found.has(way, protocol):
            continue
        results = measure_samples(samples, network, reference, batch_size, patch_size_of(trained)).results()
        if is_first():
            found.add(way, model, protocol, results)
            distance = results["frechet_distance"]
            print(f"{number}/{len(all_ways)}  {way.words}, {way.num_steps} steps: {distance:.4g}", flush=True)
    if is_first():
        rows = found.of(protocols)
        print(f"\n{chosen.num} pictures each of {printable(chosen.run)}\n{sweep_table(rows)}")
        if chosen.plot is not None:
            draw_sweep(rows, chosen.plot)


def _ways(chosen: SweepArguments, trained: TrainedModel) -> list[Way]:
    if not trained.kind.is_image:
        raise RinError(f"rin sweep measures pictures, and this model draws {trained.kind.noun}")
    if trained.kind.condition_shape:
        raise RinError(
            "rin sweep draws from no picture, as this model does: rin evaluate measures it, one way at a time"
        )
    config = trained.diffusion.config
    guidances = chosen.guidances or (config.guidance,)
    intervals = [_interval(text) for text in chosen.guidance_intervals]
    for name in ("guidance_intervals", "num_guide_latents"):
        if getattr(chosen, name) and not any(guidances):
            raise RinError(f"--{name.replace('_', '-')} does nothing without guidance: give --guidances too")
    return ways(
        chosen.samplers or (config.sampler,),
        chosen.num_steps or (config.num_steps,),
        chosen.schedules or (config.sampling_schedule,),
        guidances,
        intervals or [config.guidance_interval],
        chosen.num_latents or (None,),
        chosen.num_guide_latents or (None,),
        chosen.average_decays or (None,),
    )


def _interval(text: str) -> tuple[float, float] | None:
    """An interval as it is written on the command line; None for all."""
    if text == "all":
        return None
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise RinError(f"--guidance-intervals {text}: write two numbers, as in 0.3,3, or all") from None
    return None if is_everywhere((low, high)) else (low, high)
