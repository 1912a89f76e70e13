"""The Frechet video distance (FVD): clips that a model draws beside a set of real ones, through a feature network."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rin.core.errors import RinError
from rin.core.pixels import to_floats, to_pictures
from rin.core.progress import LOGGER
from rin.core.shapes import Clips, Labels, Stored
from rin.data import DataConfig, MediaSet, open_data
from rin.data.config import BUILT_IN
from rin.data.feeding.media_sets import MediaInMemory
from rin.data.files.arrays import are_arrays
from rin.data.prepared.reading import is_prepared
from rin.evaluation.asked import has_labels_of_data, of_kind
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.frechet import feature_statistics, frechet_distance
from rin.evaluation.reference import Reference, measure_reference, read_reference
from rin.evaluation.videos import USUAL_BATCH, experiment_of, held_out_clips
from rin.model_files import read_experiment
from rin.sampling.requests import spread_labels
from rin.trained_model import TrainedModel

PART = 256
"""Clips that are drawn in a go."""


def clips_to_measure_against(
    trained: TrainedModel, run: Path, path: str | None, split: str, network: FeatureNetwork, num: int, batch_size: int
) -> tuple[Reference, MediaSet | None]:
    """What drawn clips are measured against, and the clips whose first frames and classes are given to the model.

    Args:
        trained: the model.
        run: its folder.
        path: a set of clips, as `--data.path` has it, of which all are taken; or an .npz that holds what was taken of
            one. None for as many held-out clips of the run as are drawn.
        split: of that set.
        network: makes features of clips.
        num: clips to draw.
        batch_size: clips that the network looks at at a time.

    Returns:
        The reference; and the set that conditions come from, the reference's own where it is a set, or else what the
        run holds out. None beside an .npz for a model that is given no frames.

    Raises:
        RinError: there are too few clips, they cannot be read, or the network does not fit.
    """
    kind = trained.kind
    if num < 2:
        raise RinError(f"--num {num}: a Frechet distance needs 2 clips or more")
    if path is not None and path.endswith(".npz"):
        reference = read_reference(Path(path), network)
        shape = reference.description.get("shape", list(kind.data_shape))
        if shape != list(kind.data_shape):
            raise RinError(f"{path} is of clips {tuple(shape)}, and this model's are {kind.data_shape}: give another")
        return reference, held_out_clips(run) if kind.num_context_frames else None
    if path is None:
        held_out = held_out_clips(run)
        if num > len(held_out):
            raise RinError(
                f"--num {num}: the run holds {len(held_out)} clips out, take 2 to as many of them, or give a set of "
                "clips as --reference"
            )
        clips: MediaSet = MediaInMemory(*held_out.get(torch.arange(num)), held_out.class_names)
        description = {"set": experiment_of(run).data.path, "part": "held out"}
    else:
        opened = open_data(_config(trained, run, path, split), kind.data_shape)
        for note in opened.notes:
            LOGGER.warning("%s", note)
        clips, description = opened.training, {"set": path, "split": split}
        if len(clips) < 2:
            raise RinError(f"{path} holds {len(clips)} clips: a Frechet distance needs 2 or more")
    return measure_reference(clips, network, batch_size, description), clips


def _config(trained: TrainedModel, run: Path, path: str, split: str) -> DataConfig:
    """How a reference set is read: cut into clips as what the model has learned from."""
    data = DataConfig(path=path, split=split, num_held_out=0, memory_gib=0.0)
    experiment = read_experiment(run) if run.is_dir() else None
    if path in BUILT_IN:
        shapes = None if experiment is None else experiment.data.moving_shapes
        return data if shapes is None else dataclasses.replace(data, moving_shapes=shapes)
    is_cut = is_prepared(Path(os.path.expanduser(path))) or are_arrays(path)
    return data if is_cut else dataclasses.replace(data, clips=trained.clips)


def frechet_video_distance(
    trained: TrainedModel,
    network: FeatureNetwork,
    reference: Reference,
    conditions: MediaSet | None,
    num: int,
    **options: Any,
) -> float:
    """The Frechet distance between a reference set of clips and drawn ones, context frames among both (FVD).

    Drawn clips go on from the first frames of the clips of `conditions`, evenly spaced ones of more than are drawn, and
    again from the first on where there are fewer; they have the classes of these, or where the model draws from nothing
    and these have none of its classes, all of its own in turn; a model that draws by captions gets theirs. All are in
    8 bits.

    Args:
        trained: the model.
        network: makes features of clips.
        reference: what the drawn clips are measured against.
        conditions: clips of the model's `data_shape`; None for a model that is given no frames.
        num: clips to draw, a part of them at a time in memory.
        **options: of `TrainedModel.sample`.

    Raises:
        RinError: clips have no classes of the model's, there are no captions for it, or the network does not fit.
    """
    if conditions is not None and not len(conditions):
        raise RinError("there are no clips to go on from: give a set of them as --reference")
    batch_size = options.get("batch_size") or USUAL_BATCH
    drawn = (batch for part in _drawn(trained, conditions, num, options) for batch in part.split(batch_size))
    return frechet_distance(feature_statistics(drawn, network), reference.statistics)


def _drawn(trained: TrainedModel, conditions: MediaSet | None, num: int, options: dict[str, Any]) -> Iterator[Clips]:
    """The drawn clips with their context, part by part."""
    kind = trained.kind
    of_classes = spread_labels(range(kind.num_classes), num) if kind.num_classes else None
    numbers = None if conditions is None or not kind.num_classes else _numbers_of_classes(trained, conditions)
    by_captions = has_labels_of_data(kind)
    if by_captions:
        if conditions is None:
            raise RinError("this model draws by captions, and an .npz has none: give a set of clips as --reference")
        trained = of_kind(trained, kind.reading(conditions.class_names))
    places = torch.arange(num)
    if conditions is not None:
        count = len(conditions)
        places = places * count // num if num < count else places % count
    for first in range(0, num, PART):
        part = places[first : first + PART]
        labels = None if of_classes is None else of_classes[first : first + PART]
        context = None
        if conditions is not None and (kind.num_context_frames or by_captions or numbers is not None):
            clips, of_clips = conditions.get(part)
            context = _first_frames(clips, kind.num_context_frames)
            if by_captions:
                labels = of_clips.tolist()
            labels = labels if numbers is None else _renumbered(of_clips, numbers)
        drawn = to_pictures(
            trained.sample(
                labels, len(part), first=first, context=None if context is None else to_floats(context), **options
            )
        )
        yield drawn if context is None else torch.cat([context, drawn], dim=2)


def _first_frames(clips: Stored, count: int) -> Clips | None:
    return to_pictures(clips[:, :, :count]).cpu() if count else None


def _numbers_of_classes(trained: TrainedModel, conditions: MediaSet) -> list[int] | None:
    """The model's number of each class of a set; None where all of the model's are to be drawn in turn.

    Raises:
        RinError: clips to go on from are of classes that the model does not have.
    """
    known = {name: number for number, name in enumerate(trained.class_names)}
    names = conditions.class_names
    if names and all(name in known for name in names):
        return [known[name] for name in names]
    if trained.kind.num_context_frames:
        unknown = next((name for name in names if name not in known), None)
        has = "have no classes" if unknown is None else f"have a class {unknown!r} that this model does not have"
        raise RinError(f"the clips to go on from {has}, and it draws by class: give clips of its classes")
    return None


def _renumbered(labels: Labels, numbers: list[int]) -> list[int]:
    if int(labels.min()) < 0:
        raise RinError("some clips of the reference set have no class, and this model draws by class: leave them out")
    return [numbers[label] for label in labels.tolist()]
