"""One picture, from bytes as people have them to the uint8 tensor that a model takes."""

import io
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from rin.core.errors import RinError
from rin.core.names import printable
from rin.data.decoding.deep_grey import ValueRange, in_eight_bits, is_deep_grey

Shape = tuple[int, ...]
"""Channels, height and width of a picture; channels, frames, height and width of a clip."""

Picture = UInt8[Tensor, "c h w"]
"""One image as files hold it, 0 to 255."""

DeepPicture = Float32[Tensor, "c h w"]
"""One image of more than 8 bits, in [-1, 1]."""

Clip = UInt8[Tensor, "c f h w"]
"""One clip as files hold it, 0 to 255."""

Medium = UInt8[Tensor, "c *f h w"]
"""One image or clip: either of the two above."""

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

_TIFF = (b"II*\0", b"MM\0*")
"""How TIFFs begin."""

_PILLOW = re.compile(r"PIL\.")
"""Modules whose warnings are not shown."""

_JPEG_MARGIN = 3
"""A JPEG may be shrunk while it is decoded, but stays so many times larger than needed: from there on, nobody sees
a difference from a full decoding, and pictures that are not that large are decoded in full."""


class BrokenMediaError(RinError):
    """A picture, clip or video that cannot be read.

    Args:
        reason: what is wrong with it.
        name: which one it is.
    """

    def __init__(self, reason: str, name: str = "a picture in memory") -> None:
        super().__init__(f"cannot read {name}: {reason}")
        self.reason = reason
        self.name = name

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # workers answer with it
        return type(self), (self.reason, self.name)


class Piece(ABC):
    """A file that lies within another one, and is read by whoever decodes it: small to send to a worker."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes | Path:
        """What is in it, or where that is.

        Raises:
            BrokenMediaError: it cannot be read.
        """


Source = bytes | Path | Piece
"""A picture or video file: what is in it, or where it is."""


class Footage(ABC):
    """What a clip is made from, of whatever shape is asked for."""

    @abstractmethod
    def decode(self, shape: Shape) -> Clip:
        """The clip at a shape (c, f, h, w).

        Raises:
            BrokenMediaError: it cannot be read.
        """


def check_shape(shape: Shape, any_channels: bool = False) -> None:
    """Refuses shapes that no picture or clip can have.

    Args:
        shape: channels, perhaps frames, height and width.
        any_channels: whether a picture may have other channels than Pillow knows, see `many_channels`.

    Raises:
        RinError: channels other than 1, 3 and 4, or a size below 1.
    """
    channels, *frames, height, width = shape
    if channels not in _MODES and (frames or channels < 1 or not any_channels):
        raise RinError(
            f"{'clips' if frames else 'pictures'} of {channels} channels: there are 1 (grey), 3 (colour) and 4 (colour "
            "and opacity); write others as arrays, .npy or .npz"
        )
    if min(height, width, *frames) < 1:
        raise RinError(f"pictures of {height} by {width} pixels: height, width and frames are at least 1")


def decode(source: Source, shape: Shape, value_range: ValueRange | None = None) -> Picture:
    """One picture of any format that Pillow reads, at the shape (c, h, w) of a model.

    It is turned upright (EXIF), made grey (c = 1), RGB (3) or RGBA (4), cropped to the centre and resized, antialiased
    and bicubic. What is transparent lies on white, unless opacity is asked for; of an animation the first frame counts;
    grey pictures of more than 8 bits are scaled by the range that they declare (see `deep_grey`). A picture of 8 bits
    that already has the shape is passed on bit by bit.

    Args:
        source: the bytes of an image file, or where it is.
        shape: channels, height and width of the answer.
        value_range: the least and the largest value of grey pictures of more than 8 bits, black and white; None for
            what each of them declares.

    Raises:
        RinError: the shape is not possible.
        BrokenMediaError: the picture is broken, truncated, empty, in no known format, or not there; or its values lie
            outside their range.
    """
    check_shape(shape)
    channels, height, width = shape
    with opened_picture(source) as picture:
        side = _JPEG_MARGIN * max(height, width)
        picture.draft(None, (side, side))  # a large JPEG comes out smaller, though no side goes below that
        plain = in_eight_bits(picture, value_range) if is_deep_grey(picture) else picture
        plain.load()
        return fitted(in_channels(upright(plain, picture), channels), shape)


def open_upright(source: Path) -> Image.Image:
    """The first frame of a file, turned upright (EXIF), of its own size and mode.

    Raises:
        BrokenMediaError: it is broken, truncated, empty, in no known format, or not there.
    """
    with opened_picture(source) as picture:
        picture.load()
        return upright(picture, picture).copy()


@contextmanager
def opened_picture(source: Source) -> Generator[Image.Image]:
    """A picture opened and not yet loaded; whatever is found wrong with it, within too, is a `BrokenMediaError`."""
    source = source.read() if isinstance(source, Piece) else source
    name = printable(source) if isinstance(source, Path) else "a picture in memory"
    _hush_pillow()
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if picture.format == "EPS":  # Pillow would run it, by Ghostscript
                raise BrokenMediaError("it is PostScript, which is a program", name)
            yield picture
    except BrokenMediaError:
        raise
    except UnidentifiedImageError as error:
        raise BrokenMediaError(_why_unknown(source), name) from error
    except OSError as error:
        raise BrokenMediaError(error.strerror or str(error), name) from error
    except Exception as error:  # damaged bytes make Pillow raise almost anything
        raise BrokenMediaError(str(error).rstrip(".") or type(error).__name__, name) from error


def _why_unknown(source: bytes | Path) -> str:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        begin = file.read(4)
    if begin in _TIFF:
        return (
            "it is a TIFF that is damaged, or of channels or numbers that Pillow does not read: give as many channels "
            "by --model.shape, or write it as an array, .npy or .npz"
        )
    return "it is in no format that Pillow knows" if begin else "it is empty, 0 bytes"


def _hush_pillow() -> None:
    """Keeps Pillow's warnings from the terminal: of tags that are not read, or of size. Damaged pixels are an error."""
    if not any(action == "ignore" and module == _PILLOW for action, _, _, module, _ in warnings.filters):
        # not `catch_warnings`, which would set the filters back under the feet of other threads that decode
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def upright(picture: Image.Image, opened: Image.Image) -> Image.Image:
    """A picture turned upright, by the EXIF data of the file that it was made from."""
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data that cannot be read says nothing; the pixels are still good
        return picture
    return turned(picture, orientation)


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """A picture turned upright from an orientation, as EXIF and TIFF number them; 1 is upright."""
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def in_channels(picture: Image.Image, channels: int) -> Image.Image:
    """A picture of 8 bits in grey (1), RGB (3) or RGBA (4); what is transparent lies on white, but in RGBA."""
    mode = _MODES[channels]
    if mode != "RGBA" and picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert(mode)


def fitted(picture: Image.Image, shape: Shape, pixel_aspect: float = 1.0) -> Picture | DeepPicture:
    """The largest part of the centre that has the proportions of a shape (c, h, w), at that size.

    Args:
        picture: in the mode of c channels, of 8 bits; or of mode F, grey in floats of any range, which it keeps.
        shape: of the answer.
        pixel_aspect: how many times as wide as high the picture's pixels are shown.
    """
    channels, height, width = shape
    whole_width, whole_height = picture.size
    part_width, part_height = float(whole_width), float(whole_height)
    if whole_width * pixel_aspect * height > whole_height * width:
        part_width = whole_height * width / height / pixel_aspect
    else:
        part_height = whole_width * pixel_aspect * height / width
    left, top = (whole_width - part_width) / 2, (whole_height - part_height) / 2
    box = (left, top, whole_width - left, whole_height - top)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return torch.from_numpy(np.array(pixels.reshape(height, width, channels).transpose(2, 0, 1), order="C"))
