"""`rin evaluate`."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from rin.cli.arguments import SamplingArguments, command_of, parse
from rin.core.compute import device
from rin.core.distributed import is_first
from rin.core.errors import RinError
from rin.core.files import check_writable_file, written_whole
from rin.core.launch import processes
from rin.core.names import printable
from rin.evaluation.asked import DrawnBy, asked_for
from rin.evaluation.captions import describe_captions, measured_captions
from rin.evaluation.features import FeatureNetwork, feature_network
from rin.evaluation.images import (
    Samples,
    drawn_samples,
    given_samples,
    held_out_loss,
    measure_samples,
    measuring_protocol,
    neighbours_sheet,
    patch_size_of,
    reference_of,
    sampling_protocol,
)
from rin.evaluation.likelihood import describe_bits, measured_bits
from rin.evaluation.quality import table
from rin.evaluation.restored import describe_restored, measured_restored
from rin.evaluation.sets import describe_sets, measured_sets
from rin.evaluation.video_distance import clips_to_measure_against, frechet_video_distance
from rin.evaluation.videos import USUAL_BATCH, measured_shapes
from rin.experiment import ExperimentConfig
from rin.model_files import CONFIG, model_folder, read_experiment
from rin.sampling.pictures import save_image
from rin.sharing.measured import COMMAND
from rin.trained_model import TrainedModel, load
from rin.training import checkpoint

_CLIPS, _PICTURES = 256, 10_000

_SENTENCES = 500
"""Pictures of sentences that were trained on, and of such that were not, if nothing is said."""

_MATCHED = 100
"""Sets a side whose earth mover's distances are worked out, which takes long."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Measures what a model draws, or pictures from anywhere.

    Pictures, through the feature network of --features, against a reference set: Frechet distance (FID), kernel
    distance (KID), precision and recall, density and coverage, nearest neighbours, seams between patches; with a
    network that classifies, too, Inception Score and class accuracy. Of a run, the held-out loss by noise level.

    Clips of a run on moving-shapes: how far each predicted shape is from where it must be, by frame, beside the same
    of copying the last given frame and of going on without bounces. With --features: the Frechet video distance (FVD)
    to held-out clips, or to a reference set of any size.

    Pictures of a run on the generated set captions: how many show what their sentence says.

    Pictures of a run that draws from others (data.degrade, data.condition): PSNR to the held-out pictures that these
    belong to; from smaller ones, beside that of bicubic enlargement.

    Sets of points and signals of a run, beside those that it holds out: 1-nearest-neighbour accuracy, coverage and
    minimum matching distance; of sets by the Chamfer distance and, where SciPy is installed, by the earth mover's, of
    signals by the mean squared difference.

    With --bits-per-dim, of any run: the likelihood of held-out examples, by the probability-flow ODE.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|PICTURES")]
    """A run's folder, a saved model's, the name of one that comes with rin, or a Hub name; or pictures: an .npz file, a
    folder, a tar or a parquet file."""

    num: int | None = None
    """How many; if absent 256 clips, 10000 drawn pictures, 500 drawn sets, 100 examples for --bits-per-dim, or all
    that are given."""

    features: str | None = None
    """What looks at them: a file with a TorchScript network that maps uint8 pictures (b c h w) or clips (b c f h w) to
    features (b d), or a network of torch-fidelity: inception-v3-compat (of published FIDs), dinov2-vit-l-14 or another
    DINOv2."""

    reference: str | None = None
    """What pictures or clips are measured against: a set, as --data.path has it, or an .npz that --keep-reference wrote
    or that has mu and sigma; if absent what the run was trained on, and of clips what it holds out."""

    reference_split: str = "train"
    """The split of that set."""

    keep_reference: Path | None = None
    """An .npz file for what is taken of the reference set, to be given as --reference another time."""

    shape: tuple[int, int, int] | None = None
    """Channels, height, width that pictures of a folder, a tar or a parquet file are measured at."""

    keep: Path | None = None
    """A folder for the pictures that are drawn; with it, an interrupted evaluation goes on where it was."""

    neighbours: Path | None = None
    """A picture (.png) of those samples that are most like copies, each beside its nearest of the reference set."""

    bits_per_dim: bool = False
    """Bits per dimension of held-out examples, and nothing else; --num-steps are then those of the ODE, 100 if absent.
    """

    average_decays: tuple[float, ...] = ()
    """Which of a run's averages of its weights (training.average_decay and training.further_decays), several of them
    side by side; the first if absent."""

    frames: int | None = None
    """Frames to predict of moving-shapes, block after block; the model's own if absent."""

    sampling: tyro.conf.OmitArgPrefixes[SamplingArguments] = field(default_factory=SamplingArguments)
    """How they are drawn."""

    out: Path | None = None
    """Also write the results, and how they were had, to this file, as JSON."""


def evaluate(arguments: list[str]) -> None:
    """Measures a run and prints what it finds."""
    chosen = parse(EvaluateArguments, arguments, "rin evaluate")
    with processes():
        _evaluate(chosen, command_of("rin evaluate", arguments))


def _evaluate(chosen: EvaluateArguments, command: str) -> None:
    where, source = device(), model_folder(chosen.run)
    for path in (chosen.out, chosen.neighbours, chosen.keep_reference):
        if path is not None:
            check_writable_file(path)
    is_model = (source / CONFIG).is_file() or not source.exists()
    if chosen.average_decays and not is_model:
        raise RinError("--average-decays is for a run: leave it out")
    trained = load(chosen.run, chosen.average_decays[0] if chosen.average_decays else None) if is_model else None
    network = None if chosen.features is None or chosen.bits_per_dim else feature_network(chosen.features, where)
    if chosen.bits_per_dim:
        results, lines = _of_likelihood(chosen, trained)
    elif trained is not None and trained.kind.is_video:
        results, lines = _of_clips(chosen, trained, network)
    elif trained is not None and (trained.kind.is_set or (trained.kind.is_signal and network is None)):
        results, lines = _of_sets(chosen, trained)
    elif trained is not None and network is None and trained.kind.has_captions:
        results, lines = _of_captions(chosen, trained)
    elif trained is not None and trained.kind.condition_shape:
        results, lines = _of_restored(chosen, trained)
    elif network is None:
        no_model = "" if trained is not None else f"{chosen.run} is neither a run nor a saved model, and "
        raise RinError(
            f"{no_model}pictures are measured through a feature network: give one with --features, a TorchScript file "
            "or a name of torch-fidelity as inception-v3-compat"
        )
    else:
        results, lines = _of_pictures(chosen, trained, network)
    if not is_first():
        return
    print("\n".join(lines))
    if chosen.out is not None:
        _write(results | {COMMAND: command}, chosen.out)


def _of_clips(
    chosen: EvaluateArguments, trained: TrainedModel, network: FeatureNetwork | None
) -> tuple[dict[str, Any], list[str]]:
    for name in ("shape", "keep", "neighbours"):
        if getattr(chosen, name) is not None:
            raise RinError(f"--{name.replace('_', '-')} is for pictures, and this model draws clips: leave it out")
    for name in ("reference", "keep_reference"):
        if network is None and getattr(chosen, name) is not None:
            raise RinError(f"--{name.replace('_', '-')}: clips are measured through a network, with --features FILE")
    if len(chosen.average_decays) > 1:
        raise RinError("--average-decays: of clips, give one")
    run, options, num = model_folder(chosen.run), chosen.sampling.options, _CLIPS if chosen.num is None else chosen.num
    experiment = read_experiment(run)
    of_shapes = experiment is not None and experiment.data.moving_shapes is not None
    for name, number in (("num", num), ("frames", chosen.frames)):
        if number is not None and number < 1:
            raise RinError(f"--{name} {number}: take 1 or more")
    if chosen.frames is not None and not of_shapes:
        raise RinError("--frames is for moving-shapes, whose true future is known: leave it out")
    results: dict[str, Any] = {"run": chosen.run, "num": num, **sampling_protocol(trained, options)}
    lines: list[str] = []
    if network is not None:
        found, line = _video_distance(chosen, trained, network, num)
        results |= found
        lines.append(line)
    if network is None or of_shapes:
        shapes = measured_shapes(trained, run, num, chosen.frames, **options)
        results["moving_shapes"] = shapes.to_json()
        lines.append(shapes.describe())
    return results, lines


def _video_distance(
    chosen: EvaluateArguments, trained: TrainedModel, network: FeatureNetwork, num: int
) -> tuple[dict[str, Any], str]:
    options = chosen.sampling.options
    reference, conditions = clips_to_measure_against(
        trained, model_folder(chosen.run), chosen.reference, chosen.reference_split, network, num,
        chosen.sampling.batch_size or USUAL_BATCH,
    )  # fmt: skip
    if chosen.keep_reference is not None and is_first():
        reference.save(chosen.keep_reference)
    distance = frechet_video_distance(trained, network, reference, conditions, num, **options)
    sides = f"{num} clips a side"
    if chosen.reference is not None:
        count = reference.description["count"]
        sides = f"{num} drawn clips beside {'those' if count is None else count} of {printable(chosen.reference)}"
    found = {"reference": dict(reference.description), "features": dict(network.description)}
    return {"frechet_video_distance": distance, **found}, f"Frechet video distance, {sides}: {distance:.4g}"


def _check_alone(chosen: EvaluateArguments, what: str) -> None:
    """Refuses options that are for pictures of a feature network, or for clips."""
    for name in ("features", "reference", "keep_reference", "shape", "keep", "neighbours", "frames"):
        if getattr(chosen, name) is not None:
            raise RinError(f"--{name.replace('_', '-')} is not for {what}: leave it out")
    if len(chosen.average_decays) > 1:
        raise RinError(f"--average-decays: of {what}, give one")


def _experiment_of(run: Path, name: str, wanted: str) -> ExperimentConfig:
    experiment = read_experiment(run) if (run / checkpoint.FOLDER).is_dir() else None
    if experiment is None:
        raise RinError(f"{name} is no run, whose held-out {wanted}: give one")
    return experiment


def _of_likelihood(chosen: EvaluateArguments, trained: TrainedModel | None) -> tuple[dict[str, Any], list[str]]:
    _check_alone(chosen, "bits per dimension")
    sampling, usual, run = chosen.sampling, SamplingArguments(), model_folder(chosen.run)
    for name in set(vars(usual)) - {"num_steps", "seed", "batch_size"}:
        if getattr(sampling, name) != getattr(usual, name):
            raise RinError(f"--{name.replace('_', '-')} is for drawing, which bits per dimension do not: leave it out")
    experiment = _experiment_of(run, chosen.run, "examples have a likelihood")
    assert trained is not None  # a run's
    found = measured_bits(
        trained, run, experiment, chosen.num,
        num_steps=sampling.num_steps, seed=sampling.seed, batch_size=sampling.batch_size,
    )  # fmt: skip
    return {"run": chosen.run, **found}, [printable(chosen.run), describe_bits(found)]


def _of_sets(chosen: EvaluateArguments, trained: TrainedModel) -> tuple[dict[str, Any], list[str]]:
    _check_alone(chosen, trained.kind.noun)
    options = chosen.sampling.options
    results = {
        "run": chosen.run,
        **measured_sets(trained, model_folder(chosen.run), chosen.num, _MATCHED, **options),
        **sampling_protocol(trained, options),
    }
    return results, [f"{results['num']} {trained.kind.noun} of {printable(chosen.run)}", describe_sets(results)]


def _of_captions(chosen: EvaluateArguments, trained: TrainedModel) -> tuple[dict[str, Any], list[str]]:
    run = model_folder(chosen.run)
    experiment = read_experiment(run) if (run / CONFIG).is_file() else None
    if experiment is None or experiment.data.path != "captions":
        raise RinError(
            "what a caption says can be told of the generated set captions alone; other pictures are measured through "
            "a feature network: give one with --features"
        )
    options, num = chosen.sampling.options, _SENTENCES if chosen.num is None else chosen.num
    if num < 1:
        raise RinError(f"--num {num}: take 1 or more")
    found = measured_captions(trained, run, experiment, num, **options)
    results = {"run": chosen.run, **found, **sampling_protocol(trained, options)}
    return results, [printable(chosen.run), describe_captions(found)]


def _of_restored(chosen: EvaluateArguments, trained: TrainedModel) -> tuple[dict[str, Any], list[str]]:
    _check_alone(chosen, "models that draw from a picture")
    run, options = model_folder(chosen.run), chosen.sampling.options
    experiment = _experiment_of(run, chosen.run, "pictures could be drawn again")
    found = measured_restored(trained, run, experiment, chosen.num, **options)
    results = {"run": chosen.run, **found, **sampling_protocol(trained, options)}
    return results, [printable(chosen.run), describe_restored(found)]


def _of_pictures(
    chosen: EvaluateArguments, trained: TrainedModel | None, network: FeatureNetwork
) -> tuple[dict[str, Any], list[str]]:
    source, batch_size = model_folder(chosen.run), chosen.sampling.batch_size or USUAL_BATCH
    if chosen.frames is not None:
        raise RinError("--frames is for clips: leave it out")
    of_models = {
        "keep": chosen.keep,
        **{name: vars(chosen.sampling)[name] for name in ("sampler", "num_steps", "schedule")},
    }
    for name, given in ({"shape": chosen.shape} if trained is not None else of_models).items():
        if given is not None:
            whose = "are given" if trained is not None else "a model draws"
            raise RinError(f"--{name.replace('_', '-')} is for pictures that {whose}: leave it out")
    decays = chosen.average_decays
    if len(decays) > 1 and chosen.neighbours is not None:
        raise RinError("--neighbours shows the samples of one average: give one of --average-decays")
    asked: DrawnBy | None = None
    if trained is None:
        samples, shape = given_samples(source, chosen.shape, chosen.num)
    else:
        asked = asked_for(trained.kind, source, _PICTURES if chosen.num is None else chosen.num)
        samples, shape = _drawn(chosen, trained, decays[:1], asked), trained.kind.shape
    run = source if (source / checkpoint.FOLDER).is_dir() else None
    reference, pictures = reference_of(run, chosen.reference, chosen.reference_split, shape, network, batch_size)
    if chosen.neighbours is not None and pictures is None:
        raise RinError("--neighbours shows pictures of the reference set: give the set as --reference")
    if chosen.keep_reference is not None and is_first():
        reference.save(chosen.keep_reference)

    def measured(trained: TrainedModel | None, samples: Samples) -> dict[str, Any]:
        measures = measure_samples(samples, network, reference, batch_size, patch_size_of(trained))
        results: dict[str, Any] = {"source": chosen.run, **measures.results()}
        if trained is not None and run is not None and (losses := held_out_loss(run, trained, batch_size)):
            results["held_out_loss"] = losses
        if chosen.neighbours is not None and pictures is not None and is_first():
            save_image(neighbours_sheet(measures, pictures), chosen.neighbours)
        return results | {"protocol": measuring_protocol(samples, reference, network)}

    lines, results = [f"{samples.num} pictures of {printable(chosen.run)}"], measured(trained, samples)
    if len(decays) < 2:
        return results, [*lines, table({"": results})]
    columns = {f"decay {decays[0]}": results}
    for decay in decays[1:]:
        trained = load(chosen.run, decay)
        columns[f"decay {decay}"] = measured(trained, _drawn(chosen, trained, (decay,), asked))
    return columns, [*lines, table(columns)]


def _drawn(
    chosen: EvaluateArguments, trained: TrainedModel, decay: tuple[float, ...], asked: DrawnBy | None
) -> Samples:
    """What one average of a run draws; a folder for the pictures of several has one for each."""
    num, keep = _PICTURES if chosen.num is None else chosen.num, chosen.keep
    if keep is not None and len(chosen.average_decays) > 1:
        keep = keep / f"decay-{decay[0]}"
    samples = drawn_samples(trained, num, keep, asked, **chosen.sampling.options)
    return dataclasses.replace(
        samples, description=samples.description | ({"average_decay": decay[0]} if decay else {})
    )


def _write(results: dict[str, Any], path: Path) -> None:
    try:
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RinError(f"cannot write {path}: {error.strerror or error}") from error
