"""Pictures to look at: grids, PNG files and animations."""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8, UInt16
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.files import written_whole
from rin.core.kind import is_video
from rin.core.optional import pyav
from rin.core.shapes import Clips, Pictures

Sheet = UInt8[Tensor, "1 colours down across"]
"""One picture of many."""

_GAP = 0.125  # between pictures, over their side
_GREY = 128  # of the gap: neither paper nor ink
_COLOURS = (1, 3, 4)  # channels that are one picture: grey, colour, colour and opacity
_PNG_COLOURS = {1: 0, 3: 2, 4: 6}  # what PNG calls grey, colour, colour and opacity
_SMALLEST_SIDE = 48  # pictures are enlarged to at least this, pixel by pixel


def grid(pictures: Pictures, columns: int | None = None) -> Sheet:
    """One picture of all, row by row, with a grey gap between them; small ones are enlarged.

    Of 2 channels, or more than 4, each is a grey picture, side by side.

    Args:
        pictures: images (b c h w).
        columns: pictures in a row; about a square if None.
    """
    apart = _channels_apart(pictures)
    count, channels, height, width = apart.shape
    laid = _laid_out(count, height, width, columns)
    enlarged = apart.repeat_interleave(laid.factor, dim=2).repeat_interleave(laid.factor, dim=3)
    canvas = torch.full((1, channels, *laid.size), _GREY, dtype=torch.uint8)
    for place, picture in enumerate(enlarged):
        row, column = divmod(place, laid.columns)
        top, left = laid.gap + row * laid.down, laid.gap + column * laid.across
        canvas[0, :, top : top + laid.down - laid.gap, left : left + laid.across - laid.gap] = picture
    return canvas


def _channels_apart(pictures: Pictures) -> UInt8[Tensor, "b shown h across"]:
    count, channels, height, width = pictures.shape
    if channels in _COLOURS:
        return pictures
    return pictures.movedim(1, 2).reshape(count, 1, height, channels * width)


def sheet_size(count: int, shape: Sequence[int], columns: int | None = None) -> tuple[int, int]:
    """Height and width of a `grid` of so many pictures (c h w), or of frames of clips (c f h w) in their borders."""
    height, width = shape[-2:]
    width *= 1 if shape[0] in _COLOURS else shape[0]
    edges = 2 * _edge(height, width) if is_video(shape) else 0
    return _laid_out(count, height + edges, width + edges, columns).size


class _LaidOut(NamedTuple):
    factor: int  # by which pictures are enlarged
    columns: int
    gap: int
    down: int  # from one to the next
    across: int
    size: tuple[int, int]  # of the whole


def _laid_out(count: int, height: int, width: int, columns: int | None) -> _LaidOut:
    factor = max(1, math.ceil(_SMALLEST_SIDE / min(height, width)))
    gap = max(2, round(_GAP * factor * min(height, width)))
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    down, across = factor * height + gap, factor * width + gap
    return _LaidOut(factor, columns, gap, down, across, (-(-count // columns) * down + gap, columns * across + gap))


GIVEN, DRAWN = (70, 130, 255), (255, 140, 0)
"""The borders of frames: blue where they were given, orange where they were drawn."""


def bordered(clips: Clips, num_given: int) -> UInt8[Tensor, "b 3 f down across"]:
    """Clips (b c f h w) in opaque colour, each frame in a border that tells the first `num_given` from those drawn."""
    count, channels, frames, height, width = clips.shape
    edge = _edge(height, width)
    shown = torch.empty(count, 3, frames, height + 2 * edge, width + 2 * edge, dtype=torch.uint8)
    for colour, place in ((GIVEN, slice(None, num_given)), (DRAWN, slice(num_given, None))):
        shown[:, :, place] = torch.tensor(colour, dtype=torch.uint8)[:, None, None, None]
    shown[..., edge:-edge, edge:-edge] = clips[:, :3] if channels >= 3 else clips[:, :1]
    return shown


def _edge(height: int, width: int) -> int:
    return max(1, min(height, width) // 24)


def contact_sheet(clips: Clips) -> Sheet:
    """One picture of all frames of all clips (b c f h w), a row a clip."""
    return grid(clips.transpose(1, 2).flatten(0, 1), columns=clips.shape[2])


def playing(clips: Clips, columns: int | None = None) -> list[Sheet]:
    """Clips (b c f h w) side by side: one picture of all for each of their frames."""
    return [grid(frame, columns) for frame in clips.unbind(2)]


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


def save_deep_image(picture: UInt16[np.ndarray, "c h w"], path: Path) -> None:
    """Writes a picture as a PNG of 16 bits, which Pillow does for grey alone; of 2 channels or more than 4, the first.

    Raises:
        RinError: the path cannot be written.
    """
    shown = picture if len(picture) in _COLOURS else picture[:1]
    channels, height, width = shown.shape
    rows = np.zeros((height, 1 + width * channels * 2), np.uint8)  # each begins with the number of its filter, none
    rows[:, 1:] = np.ascontiguousarray(np.moveaxis(shown, 0, -1), ">u2").view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    except OSError as error:
        raise RinError(f"cannot write {path}: {error}") from error


def save_animation(frames: Sequence[Pictures], path: Path, frame_ms: int = 60, last_ms: int = 2000) -> None:
    """Writes a GIF of the first pictures of `frames`, over and over, that rests on the last.

    Raises:
        RinError: the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_bytes(animation(frames, frame_ms, last_ms))
    except (OSError, ValueError) as error:
        raise RinError(f"cannot write {path}: {error}") from error


def animation(frames: Sequence[Pictures], frame_ms: int = 60, last_ms: int = 2000) -> bytes:
    """A GIF of the first pictures of `frames`, over and over, that rests on the last."""
    images, encoded = [to_image(frame) for frame in frames], io.BytesIO()
    durations = [frame_ms] * (len(images) - 1) + [last_ms]
    images[0].save(encoded, "gif", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return encoded.getvalue()


def save_video(frames: Sequence[Pictures], path: Path, rate: float) -> None:
    """Writes an MP4 (H.264) of the first pictures of `frames`, `rate` frames a second.

    Raises:
        RinError: PyAV is not installed, or the path cannot be written.
    """
    av = pyav("to write an MP4")
    images = [np.asarray(to_image(frame).convert("RGB")) for frame in frames]
    height, width = images[0].shape[:2]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # as a file: what comes before a colon in a name is none of libav's protocols
        with written_whole(path) as temporary, av.open(f"file:{temporary}", "w", format="mp4") as opened:
            stream = opened.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options={"crf": "12"})
            stream.pix_fmt, stream.height, stream.width = "yuv420p", height + height % 2, width + width % 2
            for image in images:
                even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                opened.mux(stream.encode(av.VideoFrame.from_ndarray(even)))
            opened.mux(stream.encode())
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise RinError(f"cannot write {path}: {error}") from error
