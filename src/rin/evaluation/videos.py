"""Frames predicted by a run: what they go on from, and how far they are from what must come."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rin.core.errors import RinError
from rin.core.pixels import to_floats, to_pictures
from rin.core.progress import LOGGER
from rin.core.shapes import Clips
from rin.data.decoding.cutting import cut
from rin.data.decoding.pictures import BrokenMediaError
from rin.data.decoding.videos import look_into
from rin.data.feeding.media_sets import MediaSet
from rin.experiment import ExperimentConfig
from rin.model_files import read_experiment
from rin.run_data import held_out_of
from rin.toys.moving_shapes import draw_scenes
from rin.toys.shape_measures import ShapesMeasures, measure_shapes
from rin.trained_model import TrainedModel
from rin.training import checkpoint

USUAL_BATCH = 64
"""Samples that a feature network looks at at a time."""


def last_frames(video: Path, trained: TrainedModel) -> Clips:
    """The last frames of a video, as many as a model goes on from, cut as the clips it learned from (1 c f h w).

    Raises:
        RinError: the video cannot be read or is too short, or the model goes on from no frames.
    """
    kind = trained.kind
    if not kind.num_context_frames:
        raise RinError("this model goes on from no frames: leave the context out")
    clips = dataclasses.replace(trained.clips, every=1)
    needed, (channels, _, *sides) = kind.num_context_frames, kind.shape
    try:
        opened = look_into(video)
        count = opened.num_clips(needed, clips)
        if not count:
            raise opened.too_short(needed, clips)
        return cut(opened, count - 1, needed, clips).decode((channels, needed, *sides))[None]
    except BrokenMediaError as error:
        raise RinError(f"cannot go on from {video}: {error.reason}") from error


def check_pictures(run: Path, num_frames: int) -> None:
    """Refuses single pictures of a run of clips that has learned from clips alone; of a saved model, says so.

    Args:
        run: the folder of a model that goes on from no frames.
        num_frames: of the clips that it draws.

    Raises:
        RinError: the run has learned from no pictures.
    """
    if not (run / checkpoint.FOLDER).is_dir():
        LOGGER.warning("one frame is drawn as a picture, which means something only if the model has learned from some")
        return
    data = experiment_of(run).data
    if not (data.pictures_path and data.pictures_rate):
        raise RinError(
            f"one frame is drawn as a picture, and {run} has learned from clips alone: take 2 to {num_frames} frames, "
            "or train with --data.pictures-path"
        )


def held_out_frames(trained: TrainedModel, run: Path, num: int, labels: Sequence[int] | None = None) -> Clips:
    """The first frames of `num` held-out clips of a run's data, from the first again where there are fewer.

    Args:
        trained: the run's model.
        run: its folder.
        num: clips.
        labels: the class of each; None takes clips of any.

    Raises:
        RinError: it is no run, its data cannot be read, or it holds none out, or none of a class.
    """
    way_out = "give a video to go on from, with --context"
    try:
        held_out = held_out_clips(run)
    except RinError as error:
        raise RinError(f"{error}; or {way_out}") from error
    if not len(held_out):
        raise RinError(f"{run} holds no clips out: {way_out}")
    clips, classes = held_out.get(torch.arange(len(held_out)))
    places = torch.arange(num) % len(held_out)
    for label in set(labels or ()):
        of_class, requested = (classes == label).nonzero()[:, 0], (torch.tensor(labels) == label).nonzero()[:, 0]
        if not len(of_class):
            name = trained.class_names[label] if label < len(trained.class_names) else label
            raise RinError(f"{run} holds no clips of class {name} out: give --classes without it, or {way_out}")
        places[requested] = of_class[torch.arange(len(requested)) % len(of_class)]
    return clips[places, :, : trained.kind.num_context_frames]


def measured_shapes(
    trained: TrainedModel, run: Path, num: int, num_frames: int | None, **options: Any
) -> ShapesMeasures:
    """How far a run on moving-shapes is from the true future of clips that its set does not hold.

    Args:
        trained: the run's model.
        run: its folder.
        num: clips.
        num_frames: frames to predict; the model's own if None, block after block if more.
        **options: of `TrainedModel.sample`.

    Raises:
        RinError: it is no run on moving-shapes, or one that goes on from no frames.
    """
    experiment, kind = experiment_of(run), trained.kind
    shapes, (_, length, *canvas) = experiment.data.moving_shapes, kind.data_shape
    if shapes is None or not kind.num_context_frames:
        raise RinError(
            f"{run} does not predict moving-shapes, the one set whose true future is known: measure its clips through "
            "a feature network for video, with --features FILE"
        )
    rows = np.arange(shapes.num_clips, shapes.num_clips + num)
    scenes = draw_scenes(shapes, (canvas[0], canvas[1]), length, rows)
    context = to_floats(torch.from_numpy(scenes.draw(range(kind.num_context_frames))))
    drawn = trained.sample(num=num, context=context, num_frames=num_frames, **options)
    return measure_shapes(to_pictures(drawn), scenes, kind.num_context_frames)


def held_out_clips(run: Path) -> MediaSet:
    """The clips that a run holds out.

    Raises:
        RinError: it is no run, or its data cannot be read or are others now.
    """
    return held_out_of(run, experiment_of(run))


def experiment_of(run: Path) -> ExperimentConfig:
    """What a run was begun as.

    Raises:
        RinError: it is no run.
    """
    experiment = read_experiment(run)
    if experiment is None:
        raise RinError(f"{run} is no run: its data and what it holds out are not known")
    return experiment
