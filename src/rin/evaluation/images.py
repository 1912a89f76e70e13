"""Pictures that a model draws, or that come from anywhere, and the set that they are measured against."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rin.core.compute import device_of, uses_bfloat16
from rin.core.distributed import is_first, wait_for_all
from rin.core.errors import RinError
from rin.core.memory import memory_here
from rin.core.pixels import to_pictures
from rin.core.progress import LOGGER
from rin.core.shapes import Pictures
from rin.data import DataConfig, MediaSet, open_data
from rin.data.config import BUILT_IN
from rin.data.feeding.media_sets import in_turn
from rin.data.feeding.workers import Asked
from rin.data.files.arrays import are_arrays
from rin.data.prepared.reading import is_prepared
from rin.diffusion.guidance import guidance_of
from rin.evaluation.asked import DrawnBy, asked_for, of_kind
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.kept_samples import Labelled, claim, part_of, read_part
from rin.evaluation.quality import PictureMeasures
from rin.evaluation.reference import Reference, measure_reference, read_reference
from rin.model_files import read_experiment, weights_digest
from rin.nn import RIN
from rin.run_data import check_data, held_out_of
from rin.sampling.outputs import save
from rin.sampling.pictures import grid
from rin.trained_model import TrainedModel
from rin.training.held_out import held_out_losses

PART = 1000
"""Pictures that are drawn, and kept, in a go."""

_AS_THEY_ARE = {"resizing": "none"}
_RESIZED = {"resizing": "cropped at the centre, antialiased bicubic; none for those of the size"}
"""What the protocol says of pictures that are measured."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pictures to be measured, part by part."""

    num: int
    """How many."""

    description: dict[str, Any]
    """Where they come from: what someone needs to have the same again."""

    parts: Iterator[Labelled]

    num_classes: int
    """Of the labels; 0 if there are none."""


def drawn_samples(
    trained: TrainedModel, num: int, keep: Path | None, asked: DrawnBy | None = None, **options: Any
) -> Samples:
    """Pictures that a model draws; every process gets all of them.

    Args:
        trained: the model.
        num: how many.
        keep: a folder for them, as .npz files; those that an earlier, interrupted call has drawn are not drawn again.
        asked: what they are drawn by, see `asked_for`; the model's classes, spread evenly, if None.
        **options: of `TrainedModel.sample`.

    Raises:
        RinError: a number below 2, a folder with something else in it or one that cannot be written, options that the
            model cannot follow, or no captions for a model that draws by such.
    """
    kind, labels = asked_for(trained.kind, None, num) if asked is None else asked
    num_classes, trained = kind.num_classes, of_kind(trained, kind)
    of_labels = "spread evenly" if num_classes else "captions of the training set, evenly spaced"
    description = {
        "num": num,
        **sampling_protocol(trained, options),
        "classes": "none" if labels is None else of_labels,
    }
    if keep is not None:
        if is_first():
            claim(keep, description)
        wait_for_all()
    starts = range(0, num, PART)
    missing = {start for start in starts if keep is None or not part_of(keep, start).is_file()}

    def parts() -> Iterator[Labelled]:
        for start in starts:
            count = min(PART, num - start)
            requested = None if labels is None else labels[start : start + count]
            classes = requested if num_classes else None
            if start not in missing:
                assert keep is not None
                yield read_part(part_of(keep, start))[0], classes
                continue
            pictures = to_pictures(trained.sample(requested, count, first=start, **options))
            if keep is not None and is_first():
                save(pictures, part_of(keep, start), labels=classes)
            yield pictures, classes

    return Samples(num=num, description=description | _AS_THEY_ARE, parts=parts(), num_classes=num_classes)


def sampling_protocol(trained: TrainedModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """How samples were drawn: what someone needs to draw the same."""
    config = trained.diffusion.config
    bfloat16 = uses_bfloat16(options.get("precision", "auto"), device_of(trained.model))
    guidance, interval = guidance_of(config, options, trained.kind.is_labelled)
    return {
        "seed": options.get("seed") or 0,
        "sampler": options.get("sampler") or config.sampler,
        "steps": options.get("num_steps") or config.num_steps,
        "schedule": options.get("schedule") or config.sampling_schedule,
        "guidance": guidance,
        **({"guidance_latents": "own"} if guidance and config.guidance_latents == "own" else {}),
        **({"guidance_interval": list(interval)} if guidance and interval else {}),
        **{name: options[name] for name in ("num_latents", "num_guide_latents") if options.get(name) is not None},
        **({"consistent": True} if options.get("consistent") else {}),
        "network": "bfloat16" if bfloat16 else "float32",
        "weights_sha256": weights_digest(trained.model),
    }


def measure_samples(
    samples: Samples,
    network: FeatureNetwork,
    reference: Reference,
    batch_size: int,
    patch_size: int = 0,
) -> PictureMeasures:
    """All measures of samples.

    Args:
        samples: drawn or given; their parts are used up.
        network: what looks at them.
        reference: what they are measured against.
        batch_size: how many the network looks at at a time.
        patch_size: of the patches whose seams are looked for; 0 for none.

    Raises:
        RinError: the network fails, or gives other features than the reference has.
    """
    measures = PictureMeasures(network, reference, samples.num, samples.num_classes, patch_size)
    for part, labels in samples.parts:
        for begin in range(0, len(part), batch_size):
            end = begin + batch_size
            measures.update(part[begin:end], None if labels is None else labels[begin:end])
    return measures


def patch_size_of(trained: TrainedModel | None) -> int:
    """Of the patches that a model draws in; 0 if there is no model, or it is no RIN."""
    return trained.model.config.patch_size if trained is not None and isinstance(trained.model, RIN) else 0


def measuring_protocol(samples: Samples, reference: Reference, network: FeatureNetwork) -> dict[str, Any]:
    """All that someone needs to have the same figures."""
    return {
        "samples": samples.description,
        "quantisation": "8 bits",
        "reference": dict(reference.description),
        "features": dict(network.description),
    }


def given_samples(path: Path, shape: Sequence[int] | None, num: int | None) -> tuple[Samples, tuple[int, ...]]:
    """Pictures from anywhere: an .npz file or a folder of these, a folder of pictures, a tar or a parquet file.

    Args:
        path: where they are. An .npz has `images`, or `arr_0`, (n h w c) in 8 bits, and may have `labels`.
        shape: of each (c h w), which those that are no .npz are cropped at the centre and resized to.
        num: how many of them, the first ones; all if None.

    Returns:
        The pictures and the shape of each.

    Raises:
        RinError: they cannot be read, are fewer, have several shapes, or need one.
    """
    files = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz")) if path.is_dir() else []
    if files:
        read, room = list[Labelled](), memory_here()
        for file in files:
            read.append(read_part(file))
            room -= read[-1][0].nbytes
            if room < 0:
                raise RinError(f"{path} holds more pictures than this machine has memory for: measure fewer files")
        counts, description = [len(pictures) for pictures, _ in read], _AS_THEY_ARE
        parts = iter(read)
        num_classes = max((max(labels) + 1 for _, labels in read if labels), default=0)
        shapes = {tuple(pictures.shape[1:]) for pictures, _ in read}
        if len(shapes) > 1:
            raise RinError(f"{path} holds pictures of several shapes, {sorted(shapes)}: measure each apart")
        of_each = shapes.pop()
        if shape is not None and tuple(shape) != of_each:
            raise RinError(f"{path} holds pictures of {of_each} (c h w), which are measured as they are: no --shape")
    else:
        if shape is None:
            raise RinError(f"{path}: say what size its pictures are measured at, as in --shape 3 32 32")
        media = open_data(DataConfig(path=str(path), num_held_out=0, labels=False, memory_gib=0.0), tuple(shape))
        for note in media.notes:
            LOGGER.warning("%s", note)
        counts, of_each, num_classes = [len(media.training)], tuple(shape), 0
        description = _RESIZED
        wanted = map(Asked, torch.arange(counts[0]).split(PART))
        parts = ((to_pictures(pictures), None) for _, (pictures, _) in in_turn(media.training, wanted))
    there = sum(counts)
    if num is not None and num > there:
        raise RinError(f"--num {num}: {path} holds {there} pictures")
    count = there if num is None else num
    if count < 2:
        raise RinError(f"{path} gives {count} pictures: measures need 2 or more")
    description = {"num": count, **description}
    return Samples(num=count, description=description, parts=_first(parts, count), num_classes=num_classes), of_each


def reference_of(
    run: Path | None,
    path: str | None,
    split: str,
    shape: tuple[int, ...],
    network: FeatureNetwork,
    batch_size: int,
) -> tuple[Reference, MediaSet | None]:
    """What samples are measured against, and its pictures where they are at hand.

    Args:
        run: the run whose training pictures they are, if no other set is given.
        path: another set, as `--data.path` has it, or an .npz that holds what was taken of one.
        split: of that set.
        shape: of the samples (c h w); the set's are cropped at the centre and resized to it.
        network: what makes features of them.
        batch_size: pictures at a time.

    Raises:
        RinError: there is none, or it cannot be read.
    """
    if path is not None and path.endswith(".npz"):
        return read_reference(Path(path), network), None
    experiment = None if run is None else read_experiment(run)
    if path is not None:
        data = DataConfig(path=path, split=split, num_held_out=0, labels=False)
        if experiment is not None and not (path in BUILT_IN or is_prepared(Path(os.path.expanduser(path)))):
            data = dataclasses.replace(data, value_range=experiment.data.value_range)  # its pictures and these alike
            data = data if are_arrays(path) else dataclasses.replace(data, bits=experiment.data.bits)
        description = {"set": path, "split": split}
    elif experiment is None:
        raise RinError("no set to measure against is known: give one with --reference")
    elif experiment.model.shape != shape:
        raise RinError(f"the samples are {shape} and the run's pictures {experiment.model.shape}: give --reference")
    else:
        data = experiment.data
        description = {"set": data.path, "split": data.split, "part": "all but what the run held out of it"}
    opened = open_data(dataclasses.replace(data, memory_gib=0.0), shape)
    if path is None and run is not None:
        check_data(run, opened.identity)
    for note in opened.notes if path is not None else ():  # of its own set the run has said it
        LOGGER.warning("%s", note)
    return measure_reference(opened.training, network, batch_size, description | _RESIZED), opened.training


def neighbours_sheet(measures: PictureMeasures, pictures: MediaSet, rows: int = 10, neighbours: int = 5) -> Pictures:
    """One picture (1 c h w): the samples most like copies, each in a row with its nearest of the reference set.

    Args:
        measures: what has seen the samples.
        pictures: the reference set.
        rows: samples.
        neighbours: of each.

    Raises:
        RinError: the set has too few pictures.
    """
    samples, places = measures.most_like_copies(rows, neighbours)
    nearest = to_pictures(pictures.get(places.flatten())[0]).cpu().unflatten(0, places.shape)
    return grid(torch.cat([samples[:, None], nearest], 1).flatten(0, 1), neighbours + 1)


def held_out_loss(run: Path, trained: TrainedModel, batch_size: int) -> dict[str, float] | None:
    """The loss on the run's held-out pictures by t; None if it holds none out, or they are not there any more."""
    experiment = read_experiment(run)
    if experiment is None:
        return None
    try:
        held_out = held_out_of(run, experiment)
    except RinError as error:  # all else has been measured, against another set perhaps
        LOGGER.warning("no held-out loss: %s", error)
        return None
    if not held_out:
        return None
    version = experiment.training.noise_version
    return held_out_losses(
        trained.model,
        trained.diffusion,
        trained.kind,
        held_out,
        batch_size,
        device_of(trained.model),
        version,
        experiment.data.condition_by,
    )


def _first(parts: Iterator[Labelled], num: int) -> Iterator[Labelled]:
    for pictures, labels in parts:
        if num <= 0:
            return
        yield pictures[:num], labels and labels[:num]
        num -= len(pictures)
