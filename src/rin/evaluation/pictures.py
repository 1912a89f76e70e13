"""Pictures to look at: grids, PNG files and animations."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Pictures

Sheet = UInt8[Tensor, "1 c down across"]
"""One picture of many."""

_GAP = 0.125  # between pictures, over their side
_GREY = 128  # of the gap: neither paper nor ink
_SMALLEST_SIDE = 48  # pictures are enlarged to at least this, pixel by pixel


def grid(pictures: Pictures, columns: int | None = None) -> Sheet:
    """One picture of all, row by row, with a grey gap between them; small ones are enlarged.

    Args:
        pictures: images (b c h w).
        columns: pictures in a row; about a square if None.
    """
    count, channels, height, width = pictures.shape
    factor = max(1, math.ceil(_SMALLEST_SIDE / min(height, width)))
    pictures = pictures.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    height, width = height * factor, width * factor
    gap = max(2, round(_GAP * min(height, width)))
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    size = (1, channels, rows * (height + gap) + gap, columns * (width + gap) + gap)
    canvas = torch.full(size, _GREY, dtype=torch.uint8)
    for place, picture in enumerate(pictures):
        top, left = (gap + (place // columns) * (height + gap), gap + (place % columns) * (width + gap))
        canvas[0, :, top : top + height, left : left + width] = picture
    return canvas


def to_image(pictures: Pictures) -> Image.Image:
    """The first picture as Pillow's: grey for one channel, RGB for three, RGBA for four, grey of the first else."""
    picture = pictures[0].cpu()
    if picture.shape[0] in (3, 4):
        return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    return Image.fromarray(picture[0].numpy())


def save_image(pictures: Pictures, path: Path) -> None:
    """Writes the first picture in the format of the path's ending.

    Raises:
        RinError: the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_image(pictures).save(path)
    except (OSError, ValueError) as error:
        raise RinError(f"cannot write {path}: {error}") from error


def save_animation(frames: Sequence[Pictures], path: Path, frame_ms: int = 60, last_ms: int = 2000) -> None:
    """Writes a GIF of the first pictures of `frames`, over and over, that rests on the last.

    Raises:
        RinError: the path cannot be written.
    """
    images = [to_image(frame) for frame in frames]
    durations = [frame_ms] * (len(images) - 1) + [last_ms]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
    except (OSError, ValueError) as error:
        raise RinError(f"cannot write {path}: {error}") from error
