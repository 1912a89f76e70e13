"""Pictures kept at 16 bits: grey ones by Pillow, coloured ones by PyAV, since Pillow decodes these in 8 bits only."""

import io
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from PIL import Image

from rin.core.errors import RinError
from rin.core.optional import pyav
from rin.core.values import Values
from rin.data.decoding.deep_grey import (
    OPTION,
    ValueRange,
    bits_of_tiff,
    grey_levels,
    is_deep_grey,
    is_signed_tiff,
    levels_of,
)
from rin.data.decoding.pictures import (
    DeepPicture,
    Shape,
    Source,
    check_shape,
    fitted,
    in_channels,
    opened_picture,
    upright,
)
from rin.data.decoding.videos import reason_of

WHITE = 65535
"""The level of white at 16 bits."""

_LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue count in grey: ITU-R 601-2, as Pillow has it."""

_MAY_BE_DEEPER = {"JPEG2000", "AVIF"}
"""Formats whose colours Pillow gives in 8 bits without saying whether the file has more."""

_COLOUR_FORMS = {f"{form}{order}" for form in ("rgb48", "gbrp16", "rgba64", "gbrap16") for order in ("be", "le")}
"""The forms of colour at 16 bits that are taken from PyAV."""


def values_at_16_bits(value_range: ValueRange | None) -> Values:
    """What the numbers of samples mean: the range that was given, where unsigned 16 bits have it, or else all of them.

    Args:
        value_range: of the pictures that are learned from; None for what each of them declares.
    """
    low, high = (0.0, float(WHITE)) if value_range is None else value_range
    fits = low >= 0 and high <= WHITE and float(low).is_integer() and float(high).is_integer()
    return (
        Values(low=float(low), high=float(high), dtype="uint16") if fits else Values(high=float(WHITE), dtype="uint16")
    )


def decode_at_16_bits(source: Source, shape: Shape, value_range: ValueRange | None) -> DeepPicture:
    """One picture in [-1, 1], as `rin.data.decode` has it, of which nothing is rounded to 8 bits.

    Black is -1 and white is 1. A picture of 8 bits comes out as it is; coloured PNG and TIFF of 16 bits take PyAV.

    Args:
        source: the bytes of an image file, or where it is.
        shape: channels, height and width of the answer.
        value_range: the least and the largest value of pictures of more than 8 bits; None for what each declares.

    Raises:
        RinError: the shape is not possible, or PyAV is needed and not installed.
        BrokenMediaError: the picture cannot be read, in all its bits, or its values lie outside their range.
    """
    check_shape(shape)
    channels, height, width = shape
    with opened_picture(source) as picture:
        _check_first_is_all(picture)
        if is_deep_colour(picture):
            planes = _colour_planes(picture, value_range)
        elif is_deep_grey(picture):
            planes = grey_levels(picture, value_range, WHITE)[None]
        else:
            picture.load()
            plain = fitted(in_channels(upright(picture, picture), channels), shape)
            return torch.from_numpy(plain.numpy().astype(np.float32)) / 127.5 - 1
        one = (1, height, width)
        levels = [
            fitted(upright(Image.fromarray(plane.astype(np.float32)), picture), one).numpy()  # of mode F
            for plane in _in_channels(planes, channels)
        ]
    # a bicubic resize goes a little beyond black and white
    return torch.from_numpy((np.concatenate(levels) / (WHITE / 2) - 1).clip(-1, 1).astype(np.float32))


def depth_of(source: Source) -> tuple[bool, bool]:
    """Whether a picture is a grey one of more than 8 bits, and whether it is any of more; only its header is read.

    Raises:
        BrokenMediaError: it is no picture that can be opened.
    """
    with opened_picture(source) as picture:
        is_grey = is_deep_grey(picture)
        return is_grey, is_grey or is_deep_colour(picture)


def is_deep_colour(picture: Image.Image) -> bool:
    """Whether a picture just opened has colour or opacity at more than 8 bits, of which Pillow would keep 8."""
    if is_deep_grey(picture) and not (picture.mode.startswith("RGB") or picture.mode == "LA"):
        return False
    tiles: Any = getattr(picture, "tile", ())
    told = tiles[0].args if tiles else ""
    if picture.format == "PPM":  # the raw mode, and the largest value
        return isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], int) and told[1] > 255
    return bits_of_tiff(picture) > 8 if picture.format == "TIFF" else isinstance(told, str) and ";16" in told


def _check_first_is_all(picture: Image.Image) -> None:
    """Refuses what would be a part of a picture without a word.

    Raises:
        ValueError: it has several pages, or perhaps more bits than Pillow gives.
    """
    pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
    if pages > 1:
        raise ValueError(
            f"it has {pages} pages, of which one would count: write pictures of other channels than 1, 3 and 4 as "
            "arrays, .npy or .npz"
        )
    if picture.format in _MAY_BE_DEEPER and not is_deep_grey(picture):
        raise ValueError(f"Pillow gives the colours of {picture.format} in 8 bits: write it as PNG or TIFF")


def _colour_planes(picture: Image.Image, value_range: ValueRange | None) -> Float64[np.ndarray, "c h w"]:
    """The levels of a coloured picture, with its opacity if it has some."""
    if picture.format not in ("PNG", "TIFF") or is_signed_tiff(picture):
        raise ValueError("it has colours of more than 8 bits, which are read from PNG and unsigned TIFF: write it so")
    file: Any = picture
    file.fp.seek(0)
    stored = _by_pyav(file.fp.read(), picture.size)
    given = value_range or (0.0, float(WHITE))
    levels = levels_of(stored[:3], given, OPTION if value_range else "its type, unsigned 16 bits,", WHITE)
    return np.concatenate([levels, stored[3:]])


def _by_pyav(file: bytes, size: tuple[int, int]) -> Float64[np.ndarray, "c h w"]:
    """The numbers of a coloured picture of 16 bits as they are stored, not turned; `size` is what Pillow tells."""
    try:
        av = pyav("for colours at 16 bits, of which Pillow keeps 8")
    except RinError as error:  # it is told with the picture's name
        raise ValueError(str(error)) from error
    try:
        with av.open(io.BytesIO(file), options={"protocol_whitelist": ""}) as container:
            frame = next(container.decode(video=0))
    except Exception as error:  # damaged bytes make libav raise almost anything
        raise ValueError(f"its colours of 16 bits cannot be decoded: {reason_of(error)}") from error
    form, its_size = frame.format.name, {frame.width, frame.height}
    if form not in _COLOUR_FORMS or its_size != {*size}:  # Pillow has turned some TIFFs already
        raise ValueError(f"it has more than 8 bits in a form ({form}) that is not read: write it as RGB or RGBA")
    return np.moveaxis(frame.to_ndarray(), -1, 0).astype(np.float64)


def _in_channels(planes: Float64[np.ndarray, "had h w"], channels: int) -> Float64[np.ndarray, "c h w"]:
    """Levels in grey (1), RGB (3) or RGBA (4); what is transparent lies on white, but in RGBA."""
    colour, opacity = planes[:3], planes[3:] / WHITE
    if channels == 4:
        whole = opacity if len(opacity) else np.ones_like(planes[:1])
        return np.concatenate([np.broadcast_to(colour, (3, *planes.shape[1:])), whole * WHITE])
    if len(opacity):
        colour = colour * opacity + WHITE * (1 - opacity)
    if channels == 1:
        return colour if len(colour) == 1 else np.tensordot(np.array([_LUMA]), colour, 1)
    return np.broadcast_to(colour, (3, *planes.shape[1:]))
