"""Pictures of any number of channels, of a satellite or a microscope: TIFF, by tifffile."""

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image

from rin.core.names import printable
from rin.core.optional import tifffile
from rin.data.decoding.deep_grey import OPTION, ValueRange, levels_of
from rin.data.decoding.deep_pictures import WHITE
from rin.data.decoding.pictures import BrokenMediaError, DeepPicture, Picture, Piece, Shape, Source, fitted, turned

OF_PILLOW = (1, 3, 4)
"""Channels of the pictures that Pillow reads."""

_OF_TYPE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
"""Black and white of numbers whose range is known by their type."""

_ORIENTATION = 274
"""The tag that tells how a picture is turned."""

_MOST_VALUES = 2**30
"""Of a picture, far beyond any that a model of pixels takes."""


def decode_many_channels(
    source: Source, shape: Shape, value_range: ValueRange | None, bits: int
) -> Picture | DeepPicture:
    """One TIFF of as many channels as the shape (c h w) has, cropped to the centre and resized, each channel alone.

    Channels may be the samples of a pixel, planes or pages.

    Args:
        source: the bytes of a file, or where it is.
        shape: channels, height and width of the answer.
        value_range: the least and the largest value, of all channels; None for those of unsigned 8 or 16 bits.
        bits: 8, for whole numbers from 0 to 255, or 16, for floats in [-1, 1].

    Raises:
        BrokenMediaError: it is no TIFF, has other channels, or values outside their range.
        RinError: tifffile is not installed.
    """
    channels, height, width = shape
    library = tifffile("for pictures of other channels than 1, 3 and 4")
    source = source.read() if isinstance(source, Piece) else source
    name = printable(source) if isinstance(source, Path) else "a picture in memory"
    try:
        with library.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            planes = _planes(file)
            orientation = file.pages[0].tags.get(_ORIENTATION)
        turn = 1 if orientation is None else int(orientation.value)
        if len(planes) != channels:
            raise ValueError(f"it has {len(planes)} channels, and the model takes {channels}")
        white = 255 if bits == 8 else WHITE
        known = value_range or _OF_TYPE.get(planes.dtype.name)
        source_of_it = (
            OPTION if value_range else f"its type, {planes.dtype}," if known else f"its type is {planes.dtype}"
        )
        levels = levels_of(planes.astype(np.float64), known, source_of_it, white)
    except BrokenMediaError:
        raise
    except Exception as error:  # damaged bytes make tifffile raise almost anything
        why = f"pictures of {channels} channels are read from TIFF, or from arrays, .npy or .npz: {error}"
        raise BrokenMediaError(why.rstrip("."), name) from error
    pictures = [turned(Image.fromarray(plane.astype(np.float32)), turn) for plane in levels]  # of mode F
    whole = np.concatenate([fitted(picture, (1, height, width)).numpy() for picture in pictures])
    # a bicubic resize goes a little beyond black and white
    if bits == 8:
        return torch.from_numpy(whole.round().clip(0, 255).astype(np.uint8))
    return torch.from_numpy((whole / (WHITE / 2) - 1).clip(-1, 1).astype(np.float32))


def _planes(file: object) -> Shaped[np.ndarray, "c h w"]:
    """The channels of a TIFF that is open.

    Raises:
        ValueError: it holds several pictures, something else than numbers, or far too many.
    """
    series = file.series  # pyright: ignore[reportAttributeAccessIssue]
    if len(series) != 1:
        raise ValueError(f"it holds {len(series)} pictures of different sizes or types")
    if series[0].size > _MOST_VALUES:
        raise ValueError(f"it has {series[0].size} numbers, and {_MOST_VALUES} are the most")
    axes = series[0].axes
    more = [place for place, axis in enumerate(axes) if axis not in "YX" and series[0].shape[place] > 1]
    if axes.count("Y") != 1 or axes.count("X") != 1 or len(more) > 1:
        raise ValueError(f"it has axes {axes} of {series[0].shape}, and one beside height and width is taken")
    array = series[0].asarray()
    if array.dtype.kind not in "uif":
        raise ValueError(f"its numbers are {array.dtype}")
    array = np.moveaxis(array, [*more, axes.index("Y"), axes.index("X")], range(-2 - len(more), 0))
    return array.reshape(-1, *array.shape[-2:])
