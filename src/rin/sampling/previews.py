"""Samples to look at while a run goes: a sheet of images or of clips' frames, and the clips playing."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from rin.core.compute import Precision
from rin.core.distributed import is_first
from rin.core.files import written_whole
from rin.core.pixels import to_floats, to_pictures
from rin.core.shapes import Clips, Pictures
from rin.data import OpenedData, held_out_degraded
from rin.sampling.pictures import animation, bordered, contact_sheet, grid, playing, save_image
from rin.sampling.pipeline import Pipeline
from rin.sampling.plots import is_plotted, plots
from rin.sampling.requests import spread_labels

GRID_COLUMNS, GRID_ROWS = 8, 10
"""A grid of images: with classes, a row of each of the first ones."""

NUM_CLIPS, FRAME_MS = 8, 125
"""Clips on a sheet, and how long a frame of them is shown."""


class Previews(NamedTuple):
    """What a run draws to be looked at."""

    sheet: Pictures
    """One picture of all (1 c h w): a grid of images, or a row of frames a clip."""

    playing: bytes | None
    """The clips as a GIF; None of images."""


def draw_previews(pipeline: Pipeline, data: OpenedData, seed: int, precision: Precision) -> Previews | None:
    """Draws samples, always from the same noise and for the same classes, context frames and condition pictures.

    The frames and pictures are held-out ones. None of sets whose points have neither 2 nor 3 numbers: there is nothing
    to see.
    """
    kind = pipeline.kind
    classes, num_context = kind.num_classes, kind.num_context_frames
    if kind.is_set and kind.shape[1] not in (2, 3):
        return None
    if kind.condition_shape:
        return Previews(grid(_from_conditions(pipeline, data, seed, precision), GRID_COLUMNS), None)
    if not kind.is_video:
        count = GRID_COLUMNS * (min(classes, GRID_ROWS) if classes else GRID_ROWS)
        labels = [number // GRID_COLUMNS for number in range(count)] if classes else None
        if kind.captions is not None:
            shown = data.held_out if len(data.held_out) else data.training
            labels = shown.get(torch.arange(GRID_ROWS) % len(shown))[1].repeat_interleave(GRID_COLUMNS).tolist()
        drawn = pipeline.sample(labels, count, seed=seed, precision=precision, compile="off")
        shown = plots(drawn) if is_plotted(kind.shape) else to_pictures(drawn)
        return Previews(grid(shown, GRID_COLUMNS), None)
    labels = spread_labels(range(classes), NUM_CLIPS) if classes else None
    if kind.captions is not None:
        labels = data.training.get(torch.arange(NUM_CLIPS) % len(data.training))[1].tolist()
    context = to_floats(first_frames(data, num_context)) if num_context else None
    drawn = pipeline.sample(labels, NUM_CLIPS, seed=seed, context=context, precision=precision, compile="off")
    whole = drawn if context is None else torch.cat([context, drawn], dim=2)
    clips = bordered(to_pictures(whole), num_context)
    return Previews(contact_sheet(clips), animation(playing(clips, NUM_CLIPS // 2), FRAME_MS, last_ms=1000))


def _from_conditions(pipeline: Pipeline, data: OpenedData, seed: int, precision: Precision) -> Pictures:
    """A row a held-out picture: what is drawn from, enlarged, what is drawn, and the picture itself."""
    kind, each = pipeline.kind, GRID_COLUMNS - 2
    channels, *sides = kind.shape
    shown = data.held_out if len(data.held_out) else data.training
    places = torch.arange(GRID_ROWS) % len(shown)
    stored, labels = shown.get(places)
    degraded = held_out_degraded(stored, data.degrade, places)
    assert degraded is not None  # the trainer has seen to it
    asked = labels if kind.captions is not None else labels.clamp(min=0)
    conditions = to_floats(degraded).cpu()
    drawn = pipeline.sample(
        asked.repeat_interleave(each).tolist() if kind.is_labelled else None, GRID_ROWS * each, seed=seed,
        condition=conditions.repeat_interleave(each, dim=0), precision=precision, compile="off",
    )  # fmt: skip
    given = F.interpolate(conditions[:, :channels].expand(-1, channels, -1, -1), tuple(sides))
    rows = [given[:, None], drawn.unflatten(0, (GRID_ROWS, each)), to_floats(stored).cpu()[:, None, :channels]]
    return to_pictures(torch.cat(rows, dim=1).flatten(0, 1))


def first_frames(data: OpenedData, num_frames: int) -> Clips:
    """The first frames of the first held-out clips, of those to train on if none are held out."""
    clips = data.held_out if len(data.held_out) else data.training
    media, _ = clips.get(torch.arange(NUM_CLIPS) % len(clips))
    return media[:, :, :num_frames].cpu()


def write_previews(previews: Previews, folder: Path, step: int) -> None:
    """Writes the previews of a step to a run's folder.

    Raises:
        RinError: the folder cannot be written.
    """
    path = folder / "samples" / f"step-{step:09d}.png"
    if is_first():
        save_image(previews.sheet, path)
        if previews.playing is not None:
            with written_whole(path.with_suffix(".gif")) as temporary:
                temporary.write_bytes(previews.playing)
