"""Condition pictures made of the pictures that are learned from: smaller, grey, with a hole; or given beside them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import is_image, is_signal
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Stored
from rin.data.decoding.pictures import Shape

WAYS = '"downscale N", as in "downscale 4", "grey", "mask free-form" or "pair"'
"""How pictures can be degraded, in words."""

_LUMA = (19595, 38470, 7471)
"""Shares of red, green and blue in grey, of 65536: ITU-R BT.601, as Pillow rounds them."""

_STROKES, _TURNS = 4, 3
"""Strokes of a free-form hole at most, and the straight parts of each."""

_LENGTH, _RADIUS = (0.1, 0.4), (0.04, 0.1)
"""Of a straight part, least and most, and of the brush: shares of the picture's smaller side."""


@dataclass(frozen=True)
class Degradation:
    """A way to make condition pictures (`DataConfig.degrade`)."""

    factor: int = 1
    """How often smaller each side is; 1 leaves the size."""

    is_grey: bool = False
    """Whether colour is taken out."""

    has_hole: bool = False
    """Whether a part is cut out, other for each example, and told by a further channel."""

    is_given: bool = False
    """Whether examples have it as the second half of their channels."""

    def shape(self, shape: Shape) -> tuple[int, int, int]:
        """Of the condition picture of pictures of a shape (c h w).

        Raises:
            RinError: pictures of that shape cannot be degraded so.
        """
        if not is_image(shape) or is_signal(shape):
            raise RinError(f"data.degrade is for pictures (c h w), and model.shape is {tuple(shape)}: leave it empty")
        channels, height, width = shape
        if height % self.factor or width % self.factor:
            raise RinError(
                f"data.degrade: downscale {self.factor} does not divide {width}x{height} pixels: take one of "
                f"{[n for n in range(2, math.gcd(height, width) + 1) if math.gcd(height, width) % n == 0]}"
            )
        if self.is_grey and channels != 3:
            raise RinError(f"data.degrade: grey is for 3 channels (colour), and model.shape has {channels}")
        channels = 1 if self.is_grey else channels + self.has_hole
        return channels, height // self.factor, width // self.factor

    def __call__(self, pictures: Stored, chance: Chance, purpose: Purpose = Purpose.MASK) -> Stored:
        """The condition pictures (b c h w) of pictures (b c h w), in the same type of number.

        Args:
            pictures: 0 to 255, or floats in [-1, 1].
            chance: of the examples, on the CPU; decides where holes are.
            purpose: what holes are drawn for.
        """
        if self.is_given:
            return pictures.chunk(2, dim=1)[1]
        if self.is_grey:
            return grey(pictures)
        if not self.has_hole:
            return downscaled(pictures, self.factor)
        return with_hole(pictures, free_form(chance, purpose, *pictures.shape[-2:]).to(pictures.device))


def parse_degrade(text: str) -> Degradation | None:
    """What `DataConfig.degrade` says; None for an empty text.

    Raises:
        RinError: it says nothing that there is.
    """
    words = text.split()
    if not words:
        return None
    if words == ["grey"]:
        return Degradation(is_grey=True)
    if words == ["pair"]:
        return Degradation(is_given=True)
    if words == ["mask", "free-form"]:
        return Degradation(has_hole=True)
    if words[0] == "downscale" and len(words) == 2 and words[1].isdecimal() and 2 <= int(words[1][:9]) <= 10_000:
        return Degradation(factor=int(words[1]))
    raise RinError(f"degrade is {text!r}: give {WAYS}, with N from 2 on, or leave it empty")


def downscaled(pictures: Stored, factor: int) -> Stored:
    """The mean of each box of `factor` x `factor` pixels; of 8 bits rounded to the nearest level, halves up."""
    boxes = pictures.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
    if pictures.is_floating_point():
        return boxes.mean(dim=(-3, -1))
    return ((boxes.sum(dim=(-3, -1)) + factor**2 // 2) // factor**2).to(pictures.dtype)


def grey(pictures: Stored) -> Stored:
    """Colour (b 3 h w) to grey (b 1 h w) by ITU-R BT.601; of 8 bits to the level that Pillow's "L" has."""
    of_red, of_green, of_blue = _LUMA
    wide = pictures if pictures.is_floating_point() else pictures.int()
    mixed = of_red * wide[:, :1] + of_green * wide[:, 1:2] + of_blue * wide[:, 2:]
    return mixed / 65536 if pictures.is_floating_point() else (mixed + 32768 >> 16).to(pictures.dtype)


def with_hole(pictures: Stored, hole: Bool[Tensor, "b h w"]) -> Stored:
    """Pictures (b c h w) whose hole is filled with 0, black, and a last channel that is 0 there and 255 elsewhere.

    In a file it is a picture that is transparent in its hole. Of floats, black is -1 and white is 1.
    """
    black, white = (-1, 1) if pictures.is_floating_point() else (0, 255)
    known = torch.where(hole[:, None], black, white).to(pictures.dtype)
    return torch.cat([pictures.masked_fill(hole[:, None], black), known], dim=1)


def free_form(chance: Chance, purpose: Purpose, height: int, width: int) -> Bool[Tensor, "b h w"]:
    """Holes as a hand would paint them: some strokes of a round brush along lines that turn (Yu et al., 2019).

    Yu et al., "Free-form image inpainting with gated convolution", arXiv 1806.03589; the numbers are ours.
    """
    a_stroke = 4 + 2 * _TURNS  # whether it is there, a place, a radius; direction and length of each part
    numbers = (chance.words(purpose, _STROKES * a_stroke)[:, : _STROKES * a_stroke] >> 8).float() * 2.0**-24
    side = min(height, width)
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    hole = torch.zeros(len(numbers), height, width, dtype=torch.bool)
    for stroke, drawn in enumerate(numbers.split(a_stroke, dim=1)):
        y, x = drawn[:, 1] * height, drawn[:, 2] * width
        radius = _between(_RADIUS, drawn[:, 3]).mul(side).clamp(min=1)
        is_there = drawn[:, 0] * (stroke + 1) < 1  # the first one always, the others half, a third ... of the time
        for turn in range(_TURNS):
            angle, length = drawn[:, 4 + 2 * turn] * math.tau, _between(_LENGTH, drawn[:, 5 + 2 * turn]) * side
            to_y, to_x = y + length * angle.sin(), x + length * angle.cos()
            near = _near_line(rows, columns, (y, x), (to_y, to_x), radius)
            hole |= near & is_there[:, None, None]
            y, x = to_y.clamp(0, height), to_x.clamp(0, width)
    return hole


def _between(ends: tuple[float, float], share: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return ends[0] + (ends[1] - ends[0]) * share


Point = tuple[Float[Tensor, " b"], Float[Tensor, " b"]]
"""Rows and columns of a point of each picture."""


def _near_line(
    rows: Float[Tensor, " h"], columns: Float[Tensor, " w"], start: Point, end: Point, radius: Float[Tensor, " b"]
) -> Bool[Tensor, "b h w"]:
    """Which pixels lie within a radius of the line between two points."""
    (y, x), (to_y, to_x) = ([each[:, None, None] for each in point] for point in (start, end))
    down, right = rows[None, :, None] - y, columns[None, None, :] - x
    along_y, along_x = to_y - y, to_x - x
    share = ((down * along_y + right * along_x) / (along_y**2 + along_x**2)).clamp(0, 1)
    away = (down - share * along_y) ** 2 + (right - share * along_x) ** 2
    return away <= radius[:, None, None] ** 2


def held_out_degraded(pictures: Stored, degrade: str, places: Int[Tensor, " b"]) -> Stored | None:
    """The condition pictures of held-out pictures, the same in every run; None if there are none.

    Args:
        pictures: some of those that are held out (b c h w).
        degrade: how to make them (`DataConfig.degrade`).
        places: the numbers of the pictures, on the CPU (b).
    """
    degradation = parse_degrade(degrade)
    return None if degradation is None else degradation(pictures, Chance(0, 0, places), Purpose.HELD_OUT_MASK)
