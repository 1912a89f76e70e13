"""One picture, from bytes as people have them to the uint8 tensor that a model takes."""

import io
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from rin.core.errors import RinError

Shape = tuple[int, int, int]
"""Channels, height and width."""

Picture = UInt8[Tensor, "c h w"]
"""One image as files hold it, 0 to 255."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright."""

_WHITES = {
    "I;16": (65535.0,),
    "I;16L": (65535.0,),
    "I;16B": (65535.0,),
    "I;16N": (65535.0,),
    "I": (65535.0, 2.0**31 - 1),
    "F": (1.0, 255.0, 65535.0),
}
"""The values that can stand for white in deep grey pictures: the first that no pixel exceeds does."""

_JPEG_MARGIN = 3
"""A JPEG may be shrunk while it is decoded, but stays so many times larger than needed: from there on, nobody sees
a difference from a full decoding, and pictures that are not that large are decoded in full."""


class BrokenPictureError(RinError):
    """A picture that cannot be read.

    Args:
        reason: what is wrong with it.
        name: which picture it is.
    """

    def __init__(self, reason: str, name: str = "in memory") -> None:
        super().__init__(f"cannot read the picture {name}: {reason}")
        self.reason = reason


def check_shape(shape: Shape) -> None:
    """Refuses shapes that no picture can have.

    Raises:
        RinError: channels other than 1, 3 and 4, or a size below 1.
    """
    channels, height, width = shape
    if channels not in _MODES:
        raise RinError(f"pictures of {channels} channels: there are 1 (grey), 3 (colour) and 4 (colour and opacity)")
    if min(height, width) < 1:
        raise RinError(f"pictures of {height} by {width} pixels: height and width are at least 1")


def decode(source: bytes | Path, shape: Shape) -> Picture:
    """One picture of any format that Pillow reads, at the shape (c, h, w) of a model.

    It is turned upright (EXIF), made grey (c = 1), RGB (3) or RGBA (4), cropped to the centre and resized, antialiased
    and bicubic. What is transparent lies on white, unless opacity is asked for; of an animation the first frame counts;
    deep grey pictures keep their range. A picture that already has the shape is passed on bit by bit.

    Args:
        source: the bytes of an image file, or where the file is.
        shape: channels, height and width of the answer.

    Raises:
        RinError: the shape is not possible.
        BrokenPictureError: the picture is broken, truncated, in no known format, or not there.
    """
    check_shape(shape)
    channels, height, width = shape
    fitted = _fit(_read(source, _MODES[channels], _JPEG_MARGIN * max(height, width)), (width, height))
    pixels = np.asarray(fitted).reshape(height, width, channels)
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def _read(source: bytes | Path, mode: str, side: int) -> Image.Image:
    """The first frame, upright, in `mode`; a large JPEG comes out smaller, though no side goes below `side`."""
    name = printable(source) if isinstance(source, Path) else "in memory"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            picture.draft(None, (side, side))
            picture.load()
            return _in_mode(_in_eight_bits(_upright(picture)), mode)
    except UnidentifiedImageError as error:
        raise BrokenPictureError("it is in no format that Pillow knows", name) from error
    except OSError as error:
        raise BrokenPictureError(error.strerror or str(error), name) from error
    except Exception as error:  # damaged bytes make Pillow raise almost anything
        raise BrokenPictureError(str(error) or type(error).__name__, name) from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data that cannot be read says nothing; the pixels are still good
        return picture
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """Pictures of 16 or 32 bits scaled to 8, where Pillow's own conversion would clip them."""
    whites = _WHITES.get(picture.mode)
    if whites is None:
        return picture
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(values.max())
    white = next((white for white in whites if largest <= white), largest)
    return Image.fromarray(np.rint(values.clip(0, white) / white * 255).astype(np.uint8))


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode != "RGBA" and picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert(mode)


def _fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest part of the centre that has the proportions of `size` (width, height), at that size."""
    width, height = picture.size
    part_width, part_height = float(width), float(height)
    if width * size[1] > height * size[0]:
        part_width = height * size[0] / size[1]
    else:
        part_height = width * size[1] / size[0]
    left, top = (width - part_width) / 2, (height - part_height) / 2
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, width - left, height - top))


def printable(name: str | Path) -> str:
    """A name that can be printed, even if the file system holds bytes that are no text."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")
