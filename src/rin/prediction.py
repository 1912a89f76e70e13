"""Frames predicted by a run: what they go on from, and how far they are from what must come."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch

from rin.core.errors import RinError
from rin.core.shapes import Clips
from rin.data.cutting import cut
from rin.data.decoding import BrokenMediaError
from rin.data.media_sets import MediaSet
from rin.data.moving_shapes import draw_scenes
from rin.data.opening import open_held_out
from rin.data.videos import look_into
from rin.diffusion import SamplingOptions
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.frechet import feature_statistics, frechet_distance
from rin.evaluation.rollout import sample_clips
from rin.evaluation.shapes import ShapesMeasures, measure_shapes
from rin.experiment import ExperimentConfig
from rin.run import clip_shape
from rin.trained import Trained, read_experiment

MOVING_SHAPES = "moving-shapes"


def last_frames(video: Path, trained: Trained) -> Clips:
    """The last frames of a video, as many as a model goes on from, cut as the clips it learned from (1 c f h w).

    Raises:
        RinError: the video cannot be read or is too short, or the model goes on from no frames.
    """
    config = trained.model.config
    if not config.num_context_frames:
        raise RinError("this model goes on from no frames: leave the context out")
    clips = dataclasses.replace(trained.clips, every=1)
    needed, (channels, _, *sides) = config.num_context_frames, config.shape
    try:
        opened = look_into(video)
        count = opened.num_clips(needed, clips)
        if not count:
            raise opened.too_short(needed, clips)
        return cut(opened, count - 1, needed, clips).decode((channels, needed, *sides))[None]
    except BrokenMediaError as error:
        raise RinError(f"cannot go on from {video}: {error.reason}") from error


def held_out_frames(trained: Trained, run: Path, num: int, labels: Sequence[int] | None = None) -> Clips:
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
        held_out = _held_out(run)
    except RinError as error:
        raise RinError(f"{error}; or {way_out}") from error
    if not len(held_out):
        raise RinError(f"{run} holds no clips out: {way_out}")
    clips, classes = held_out.get(torch.arange(len(held_out)))
    places = torch.arange(num) % len(held_out)
    for label in set(labels or ()):
        of_class, asked = (classes == label).nonzero()[:, 0], (torch.tensor(labels) == label).nonzero()[:, 0]
        if not len(of_class):
            name = trained.class_names[label] if label < len(trained.class_names) else label
            raise RinError(f"{run} holds no clips of class {name} out: give --classes without it, or {way_out}")
        places[asked] = of_class[torch.arange(len(asked)) % len(of_class)]
    return clips[places, :, : trained.model.config.num_context_frames]


def measured_shapes(
    trained: Trained, run: Path, num: int, num_frames: int | None, seed: int, batch_size: int,
    carry_latents: bool = False, **options: Unpack[SamplingOptions],
) -> ShapesMeasures:  # fmt: skip
    """How far a run on moving-shapes is from the true future of clips that its set does not hold.

    Args:
        trained: the run's model.
        run: its folder.
        num: clips.
        num_frames: frames to predict; the model's own if None, block after block if more.
        seed: of the noise.
        batch_size: clips at a time.
        carry_latents: see `rin.evaluation.rollout.sample_clips`.
        **options: see `SamplingOptions`.

    Raises:
        RinError: it is no run on moving-shapes, or one that goes on from no frames.
    """
    experiment, config = _experiment(run), trained.model.config
    if experiment.data.path != MOVING_SHAPES or not config.num_context_frames:
        raise RinError(f"{run} does not predict moving-shapes, whose true future is known: give --features")
    shapes, (_, length, *canvas) = experiment.data.moving_shapes, clip_shape(config)
    rows = np.arange(shapes.num_clips, shapes.num_clips + num)
    scenes = draw_scenes(shapes, (canvas[0], canvas[1]), length, rows)
    given = torch.from_numpy(scenes.draw(range(config.num_context_frames)))
    drawn = sample_clips(
        trained.model, trained.process, None, given, num, config.shape[1] if num_frames is None else num_frames,
        seed, batch_size, carry_latents, **options,
    )  # fmt: skip
    return measure_shapes(drawn, scenes, config.num_context_frames)


def frechet_video_distance(
    trained: Trained, run: Path, network: FeatureNetwork, num: int, seed: int, batch_size: int,
    **options: Unpack[SamplingOptions],
) -> float:  # fmt: skip
    """The Frechet distance between held-out clips and as many drawn ones, given frames among both (FVD).

    Drawn clips have the classes and go on from the given frames of the held-out ones; all are in 8 bits.

    Raises:
        RinError: the run holds fewer clips out, or the network does not fit.
    """
    config, held_out = trained.model.config, _held_out(run)
    if not 2 <= num <= len(held_out):
        raise RinError(f"--num {num}: the run holds {len(held_out)} clips out, take 2 to as many of them")
    clips, labels = held_out.get(torch.arange(num))
    of_held_out = feature_statistics(clips.split(batch_size), network)  # first, to know soon whether the network fits
    given = clips[:, :, : config.num_context_frames] if config.num_context_frames else None
    drawn = sample_clips(
        trained.model, trained.process, labels.tolist() if config.num_classes else None, given, num,
        config.shape[1], seed, batch_size, **options,
    )  # fmt: skip
    drawn = drawn if given is None else torch.cat([given, drawn], dim=2)
    return frechet_distance(feature_statistics(drawn.split(batch_size), network), of_held_out)


def _held_out(run: Path) -> MediaSet:
    experiment = _experiment(run)
    return open_held_out(experiment.data, clip_shape(experiment.model))


def _experiment(run: Path) -> ExperimentConfig:
    experiment = read_experiment(run)
    if experiment is None:
        raise RinError(f"{run} is no run: its data and what it holds out are not known")
    return experiment
