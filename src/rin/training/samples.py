"""Samples to look at while a run goes: a sheet of pictures or of clips' frames, and the clips playing."""

from pathlib import Path
from typing import NamedTuple

import torch

from rin.core.distributed import is_first
from rin.core.files import written_whole
from rin.core.shapes import Clips, Pictures
from rin.data import OpenedData
from rin.diffusion import Diffusion
from rin.evaluation.pictures import animation, bordered, contact_sheet, grid, playing, save_image
from rin.evaluation.rollout import sample_clips
from rin.evaluation.sampling import sample_pictures, spread_labels
from rin.nn import RIN

GRID_COLUMNS, GRID_ROWS = 8, 10
"""A grid of pictures: with classes, a row of each of the first ones."""

NUM_CLIPS, FRAME_MS = 8, 125
"""Clips on a sheet, and how long a frame of them is shown."""


class Samples(NamedTuple):
    """What a run draws to be looked at."""

    sheet: Pictures
    """One picture of all (1 c h w): a grid of pictures, or a row of frames a clip."""

    playing: bytes | None
    """The clips as a GIF; None of pictures."""


def samples(model: RIN, process: Diffusion, data: OpenedData, seed: int, bfloat16: bool) -> Samples:
    """Draws samples, always from the same noise and for the same classes and given frames, which are held-out ones."""
    classes = model.config.num_classes
    if len(model.config.shape) == 3:
        count = GRID_COLUMNS * (min(classes, GRID_ROWS) if classes else GRID_ROWS)
        labels = [number // GRID_COLUMNS for number in range(count)] if classes else None
        sampled = sample_pictures(model, process, labels, count, seed, count, bfloat16=bfloat16)
        return Samples(grid(sampled.pictures, GRID_COLUMNS), None)
    labels = spread_labels(range(classes), NUM_CLIPS) if classes else None
    given, num_frames = model.config.num_context_frames, model.config.shape[1]
    context = first_frames(data, given) if given else None
    drawn = sample_clips(model, process, labels, context, NUM_CLIPS, num_frames, seed, NUM_CLIPS, bfloat16=bfloat16)
    clips = bordered(drawn if context is None else torch.cat([context, drawn], dim=2), given)
    return Samples(contact_sheet(clips), animation(playing(clips, NUM_CLIPS // 2), FRAME_MS, last_ms=1000))


def first_frames(data: OpenedData, num_frames: int) -> Clips:
    """The first frames of the first held-out clips, of those to train on if none are held out."""
    clips = data.held_out if len(data.held_out) else data.training
    media, _ = clips.get(torch.arange(NUM_CLIPS) % len(clips))
    return media[:, :, :num_frames].cpu()


def keep(shown: Samples, folder: Path, step: int) -> Samples:
    """Writes samples of a step to a run's folder; returns them.

    Raises:
        RinError: the folder cannot be written.
    """
    path = folder / "samples" / f"step-{step:09d}.png"
    if is_first():
        save_image(shown.sheet, path)
        if shown.playing is not None:
            with written_whole(path.with_suffix(".gif")) as temporary:
                temporary.write_bytes(shown.playing)
    return shown
