"""Grey pictures of more than 8 bits: one rule says which value is black and which is white.

The range that a file declares decides: by its tags (a TIFF's SMinSampleValue and SMaxSampleValue, or MinSampleValue and
MaxSampleValue), or else by its type, 0 to 2**bits - 1 for unsigned whole numbers of up to 16 bits and 0 to 1 for
floats. Signed numbers and whole numbers of 32 bits declare none. A range that is given overrides all that. A picture
without a range, or with values outside it, is refused: its own least and largest value never decide anything, for then
the same grey would be another one in the next picture.
"""

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

ValueRange = tuple[float, float]
"""The least and the largest value: black and white, or white and black where a file says that its 0 is white."""

_BITS, _ZERO_IS, _FORMAT_OF_NUMBERS = 258, 262, 339
_LEAST, _LARGEST = (340, 280), (341, 281)
"""TIFF tags; of each pair the first there is counts."""

_SIGNED = 2
"""What the tag of the format of numbers can say."""

_ROUNDING = 1e-6
"""How far floats may lie outside, as a share of the range: as far as arithmetic in float32 takes them."""

OPTION = "--data.value-range (rin prepare: --value-range)"


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """How a file keeps its values, by what it says of itself."""

    range: ValueRange | None
    """What it declares."""

    source: str
    """Who says so, or why nobody does."""

    dtype: str | None = None
    """What the numbers are, where Pillow takes them for others."""

    zero_is_white: bool = False
    scale: float = 1.0
    """What Pillow has multiplied the values with."""


def is_deep_grey(picture: Image.Image) -> bool:
    """Whether a picture just opened has more than 8 bits and no colour, or numbers with a sign."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16") or is_signed_tiff(picture)


def in_eight_bits(picture: Image.Image, given: ValueRange | None) -> Image.Image:
    """A deep grey picture, just opened and not yet loaded, in 8 bits.

    Raises:
        ValueError: as `grey_levels`.
    """
    return Image.fromarray(np.rint(grey_levels(picture, given, 255)).astype(np.uint8))


def grey_levels(picture: Image.Image, given: ValueRange | None, white_level: int) -> Float64[np.ndarray, "h w"]:
    """The levels of a deep grey picture, from 0 for black on, not rounded.

    Args:
        picture: as it was opened, not yet loaded.
        given: the range of its values; None for the one that it declares.
        white_level: the level of white.

    Raises:
        ValueError: it declares no range, or has values outside of it.
    """
    kept = _kept(picture)
    stored = np.asarray(picture)
    values = (stored if kept.dtype is None else stored.view(kept.dtype)).astype(np.float64)
    if given is not None:
        kept = replace(kept, range=given, source=OPTION)
        values = np.rint(values / kept.scale) if kept.scale != 1 else values
    levels = levels_of(values, kept.range, kept.source, white_level)
    return white_level - levels if kept.zero_is_white else levels


def levels_of(
    values: Float64[np.ndarray, "*any"], value_range: ValueRange | None, source: str, white_level: int
) -> Float64[np.ndarray, "*any"]:
    """Values of a picture as levels, from 0 for black on, not rounded.

    Args:
        values: as its file has them.
        value_range: black and white; None if nobody says so.
        source: who says so, or why nobody does.
        white_level: the level of white.

    Raises:
        ValueError: there is no range, or there are values outside of it.
    """
    least, largest = float(values.min()), float(values.max())
    its_own = f"its values go from {least:.7g} to {largest:.7g}"
    if value_range is None:
        raise ValueError(f"{source}, so what is black and white is to be given with {OPTION}; {its_own}")
    black, white = value_range
    slack = _ROUNDING * (white - black)
    if not (black - slack <= least and largest <= white + slack):  # nor is NaN inside
        raise ValueError(f"{its_own}, and {source} has {black:.7g} to {white:.7g}: give the set's own as {OPTION}")
    return ((values - black) / (white - black) * white_level).clip(0, white_level)


def _kept(picture: Image.Image) -> _Kept:
    if picture.format == "TIFF":
        return _kept_by_tags(picture)
    if picture.mode == "F":
        return _Kept(range=(0.0, 1.0), source="its type, floats,")
    if picture.mode == "I" and picture.format not in ("PNG", "PPM"):
        return _Kept(range=None, source="whole numbers of 32 bits declare no range")
    return _Kept(range=(0.0, 65535.0), source="its type, unsigned 16 bits,", scale=_scale(picture))


def _scale(picture: Image.Image) -> float:
    """What Pillow multiplies the values of a PGM with, whose header says which one is white."""
    tiles: Any = getattr(picture, "tile", ()) if picture.format == "PPM" else ()
    return 65535 / tiles[0].args[1] if tiles and len(tiles[0].args) == 2 else 1.0


def _kept_by_tags(picture: Image.Image) -> _Kept:
    """How a TIFF keeps its values; its range is that of its tags, and what they leave open that of its type."""
    bits, is_signed = int(_tag(picture, _BITS) or 1), is_signed_tiff(picture)
    least, largest, source, dtype = 0.0, 2.0**bits - 1, f"its type, unsigned {bits} bits,", None
    if picture.mode == "F":
        largest, source = 1.0, "its type, floats,"
    elif is_signed or bits > 16:
        least = largest = math.nan
        source = f"{'signed numbers' if is_signed else f'whole numbers of {bits} bits'} declare no range"
        dtype = "i1" if picture.mode == "L" else "i4" if is_signed else "u4"
    declared = [_tag(picture, *tags) for tags in (_LEAST, _LARGEST)]
    if declared != [None, None]:
        source = "what its tags declare"
    least, largest = (of_type if tag is None else tag for tag, of_type in zip(declared, (least, largest), strict=True))
    return _Kept(
        range=(least, largest) if -math.inf < least < largest < math.inf else None,
        source=source if least < largest or declared == [None, None] else "its tags declare a range that is none",
        dtype=dtype,
        zero_is_white=_tag(picture, _ZERO_IS) == 0 and picture.mode != "L",  # of 8 bits Pillow turns it
    )


def bits_of_tiff(picture: Image.Image) -> int:
    """Bits of a number of a TIFF, by its tag; 8 of everything else."""
    return int(_tag(picture, _BITS) or 8)


def is_signed_tiff(picture: Image.Image) -> bool:
    """Whether it is a TIFF of numbers with a sign."""
    return _tag(picture, _FORMAT_OF_NUMBERS) == _SIGNED


def _tag(picture: Image.Image, *tags: int) -> float | None:
    """The number that a TIFF has under the first of some tags that it has; None if it has none, or is no TIFF."""
    for tag in tags:
        value: Any = getattr(picture, "tag_v2", {}).get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, numbers.Rational | float):
            return float(value)
    return None
