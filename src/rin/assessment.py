"""Pictures that a model draws, or that come from anywhere, and the set that they are measured against."""

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from rin.core.compute import device
from rin.core.distributed import is_first, wait_for_all
from rin.core.errors import RinError
from rin.core.files import check_writable, written_whole
from rin.core.shapes import Pictures
from rin.data import DataConfig, MediaSet, open_data
from rin.data.opening import open_held_out
from rin.diffusion import SamplingOptions
from rin.evaluation.features import FeatureNetwork, weights_digest
from rin.evaluation.outputs import write_samples
from rin.evaluation.pictures import grid
from rin.evaluation.quality import PictureMeasures
from rin.evaluation.reference import Reference, measure_reference, read_reference
from rin.evaluation.sampling import Sampled, sample_pictures, spread_labels
from rin.trained import Trained, read_experiment
from rin.training.held_out import held_out_losses

PART = 1000
"""Pictures that are drawn, and kept, in a go."""

_DRAWN = "drawn.json"
"""Tells in a folder of kept samples what they are."""

_AS_THEY_ARE = {"resizing": "none"}
_RESIZED = {"resizing": "cropped at the centre, antialiased bicubic; none for those of the size"}
"""What the protocol says of pictures that are measured."""

Labelled = tuple[Pictures, list[int] | None]
"""Some pictures, and the classes that were asked for, if any were."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pictures to be measured, part by part."""

    num: int
    """How many."""

    told: dict[str, Any]
    """Where they come from: what someone needs to have the same again."""

    parts: Iterator[Labelled]

    num_classes: int
    """Of the labels; 0 if there are none."""


def drawn_samples(
    trained: Trained, num: int, seed: int, batch_size: int, keep: Path | None, **options: Unpack[SamplingOptions]
) -> Samples:
    """Pictures that a model draws, its classes spread evenly; every process gets all of them.

    Args:
        trained: the model.
        num: how many.
        seed: of the noise.
        batch_size: how many at a time.
        keep: a folder for them, as .npz files; those that an earlier, interrupted call has drawn are not drawn again.
        **options: see `SamplingOptions`.

    Raises:
        RinError: a number below 2, a folder with something else in it or one that cannot be written, or options that
            the model cannot follow.
    """
    if num < 2:
        raise RinError(f"--num {num}: measures need 2 pictures or more")
    config, sampling = trained.model.config, trained.process.config
    labels = spread_labels(range(config.num_classes), num) if config.num_classes else None
    told = {
        "num": num,
        "seed": seed,
        "sampler": options.get("sampler") or sampling.sampler,
        "steps": options.get("num_steps") or sampling.num_steps,
        "schedule": options.get("schedule") or sampling.sampling_schedule,
        "guidance": options.get("guidance", 0.0),
        "classes": "spread evenly" if labels else "none",
        "network": "bfloat16" if options.get("bfloat16") else "float32",
        "weights_sha256": weights_digest(trained.model),
    }
    if keep is not None:
        if is_first():
            _claim(keep, told)
        wait_for_all()
    starts = range(0, num, PART)
    missing = {start for start in starts if keep is None or not _part(keep, start).is_file()}

    def parts() -> Iterator[Labelled]:
        for start in starts:
            count = min(PART, num - start)
            asked = None if labels is None else labels[start : start + count]
            if start not in missing:
                assert keep is not None
                yield _read_part(_part(keep, start))[0], asked
                continue
            drawn = sample_pictures(
                trained.model, trained.process, asked, count, seed, batch_size, first=start, **options
            )
            if keep is not None and is_first():
                write_samples(Sampled(drawn.pictures, []), asked, trained.class_names, None, _part(keep, start))
            yield drawn.pictures, asked

    return Samples(num=num, told=told | _AS_THEY_ARE, parts=parts(), num_classes=config.num_classes)


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
        read = [_read_part(file) for file in files]
        counts, told = [len(pictures) for pictures, _ in read], _AS_THEY_ARE
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
        counts, of_each, num_classes = [len(media.training)], tuple(shape), 0
        told = _RESIZED
        parts = ((media.training.get(places)[0], None) for places in torch.arange(counts[0]).split(PART))
    there = sum(counts)
    if num is not None and num > there:
        raise RinError(f"--num {num}: {path} holds {there} pictures")
    count = there if num is None else num
    if count < 2:
        raise RinError(f"{path} gives {count} pictures: measures need 2 or more")
    told = {"num": count, **told}
    return Samples(num=count, told=told, parts=_first(parts, count), num_classes=num_classes), of_each


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
        told = {"set": path, "split": split}
    elif experiment is None:
        raise RinError("no set to measure against is known: give one with --reference")
    elif experiment.model.shape != shape:
        raise RinError(f"the samples are {shape} and the run's pictures {experiment.model.shape}: give --reference")
    else:
        data = experiment.data
        told = {"set": data.path, "split": data.split, "part": "all but what the run held out of it"}
    pictures = open_data(dataclasses.replace(data, memory_gib=0.0), shape).training
    return measure_reference(pictures, network, batch_size, told | _RESIZED), pictures


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
    found, _ = pictures.get(places.flatten())
    return grid(torch.cat([samples[:, None], found.cpu().unflatten(0, places.shape)], 1).flatten(0, 1), neighbours + 1)


def held_out_loss(run: Path, trained: Trained, batch_size: int) -> dict[str, float] | None:
    """The loss on the run's held-out pictures by t; None if it holds none out."""
    experiment = read_experiment(run)
    held_out = None if experiment is None else open_held_out(experiment.data, trained.model.config.shape)
    if not held_out:
        return None
    return held_out_losses(trained.model, trained.process, held_out, batch_size, device())


def _first(parts: Iterator[Labelled], num: int) -> Iterator[Labelled]:
    for pictures, labels in parts:
        if num <= 0:
            return
        yield pictures[:num], labels and labels[:num]
        num -= len(pictures)


def _part(folder: Path, start: int) -> Path:
    return folder / f"images-{start:08d}.npz"


def _claim(folder: Path, told: dict[str, Any]) -> None:
    """Makes a folder that of these samples, or makes sure that it already is."""
    check_writable(folder)
    path = folder / _DRAWN
    if not path.exists():
        if any(folder.iterdir()):
            raise RinError(f"{folder} is not empty and holds no kept samples: give a new folder")
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{name} was {before.get(name)} and is {told[name]}" for name in told if before.get(name) != told[name]
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise RinError(f"{path} tells of no kept samples: {error}") from error
    if changed:
        raise RinError(f"{folder} holds other samples ({'; '.join(changed)}): give another folder")


def _read_part(path: Path) -> Labelled:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays["images"] if "images" in arrays else arrays["arr_0"]
            labels = arrays["labels"].tolist() if "labels" in arrays else []
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RinError(f"cannot read pictures from {path}: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise RinError(f"{path} holds {images.dtype} {images.shape}: pictures are uint8 (n h w c)")
    return torch.from_numpy(images).movedim(-1, 1), labels if len(labels) == len(images) else None
