"""Where the shapes of moving-shapes are in frames that a network has drawn, to a small part of a pixel.

Each shape's kind, colour and size are known. Every pixel is taken for a mixture of the ground, the shape's colour and
the colour of the other shape nearest to the pixel; the shape is where its own anti-aliased form explains its share of
the pixels best, those left out that show another shape, which may hide it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from rin.toys.moving_shapes import COLOURS, GROUND, KINDS, Scenes, covered

_AT_A_TIME = 2**19
"""Pixels of shapes that are worked on at once: some 100 MB."""

_COARSE_RADIUS = 4.0
"""The least radius, in pixels, at which places are searched for; larger shapes are searched for in smaller frames."""

_NEARBY = 0.5
"""What a pixel's neighbourhood shows of a shape's colour at least where the shape may be in the pixel."""

_BEHIND = 0.8
"""The share of a pixel from which on one that shows a shape behind says less: a network may err about the order."""

_OUTSIDE = 0.1
"""What a pixel outside the frame says, taken for one of the ground: a little, so that no shape is sought out there."""

_STEPS, _LONGEST_STEP = 6, 1.0
"""How often a place is refined, and by how many pixels at most at a time; larger shapes take more steps."""


class Found(NamedTuple):
    """What is seen of the shapes of some clips."""

    places: Float[ndarray, "n f k 2"]
    """Of each shape's centre, x to the right and y down, in pixels."""

    areas: Float[ndarray, "n f k"]
    """How many pixels' worth of the shape's own colour there are at that place."""

    foreign: Float[ndarray, "n f"]
    """How many pixels' worth there are of what is neither ground nor any of the clip's colours, nor a mixture."""


def find_shapes(frames: UInt8[Tensor, "n 3 f h w"], scenes: Scenes) -> Found:
    """Finds each shape in each frame, by itself.

    Args:
        frames: any frames of clips.
        scenes: the clips' shapes; where they are is not looked at.
    """
    count, num_frames = scenes.kinds.shape[1], frames.shape[2]
    clips = max(1, _AT_A_TIME // (count * num_frames * math.prod(scenes.canvas)))
    found = [
        _find(frames[first : first + clips], scenes.at(slice(first, first + clips)))
        for first in range(0, len(frames), clips)
    ]
    return Found(*map(np.concatenate, zip(*found, strict=True)))


def _find(frames: UInt8[Tensor, "n 3 f h w"], scenes: Scenes) -> Found:
    num_frames, count = frames.shape[2], scenes.kinds.shape[1]
    ground, colours = torch.tensor(GROUND).float(), torch.tensor(COLOURS).float()
    towards = (colours[torch.from_numpy(scenes.colours)] - ground).repeat_interleave(num_frames, 0)
    length = towards.norm(dim=-1).mean()
    pixels = (frames.transpose(1, 2).flatten(0, 1) - ground[:, None, None]) / length
    towards = towards / length
    kinds = scenes.kinds.repeat(num_frames, 0)
    nearby = F.max_pool2d(_likeness(pixels[:, None], towards), 3, 1, 1)
    foreign = _foreign(pixels, towards)
    factor = max(1, int(scenes.radius / _COARSE_RADIUS))
    places, areas = np.empty((len(pixels), count, 2)), np.empty((len(pixels), count))
    for shape in range(count):
        seen = _seen(pixels, towards, nearby, shape)
        seen = seen._replace(weight=seen.weight * (1 - foreign))  # it may hide the shape
        rough = _search(seen, kinds[:, shape], scenes.radius, factor)
        for kind in range(len(KINDS)):
            rows = np.flatnonzero(kinds[:, shape] == kind)
            window = _Window(seen.at(rows), rough[rows], factor, scenes.radius, kind)
            places[rows, shape], areas[rows, shape] = window.refined()
    return Found(
        places.reshape(-1, num_frames, count, 2),
        areas.reshape(-1, num_frames, count),
        foreign.sum((1, 2)).double().numpy().reshape(-1, num_frames),
    )


def _likeness(pixels: Float[Tensor, " m #k 3 h w"], towards: Float[Tensor, "m k 3"]) -> Float[Tensor, "m k h w"]:
    """How near pixels are to a colour: 1 at it, 0 at the ground and beyond, even on the way between."""
    return (1 - _length(pixels - towards[..., None, None], 2)).clamp(min=0)


def _length(vectors: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    return vectors.square().sum(dim).sqrt()  # ten times as fast as norm, over a dimension that is not the last


class _Seen(NamedTuple):
    """One shape of each of m frames."""

    share: Float[Tensor, "m h w"]
    """How much of each pixel is of the shape's colour."""

    free: Float[Tensor, "m h w"]
    """How much of each pixel shapes before it leave free."""

    weight: Float[Tensor, "m h w"]
    """What each pixel says about the shape: nothing where there is another one behind."""

    def at(self, rows: Int[ndarray, " r"]) -> "_Seen":
        return _Seen(*(part[torch.from_numpy(rows)] for part in self))


def _seen(
    pixels: Float[Tensor, "m 3 h w"], towards: Float[Tensor, "m k 3"], nearby: Float[Tensor, "m k h w"], shape: int
) -> _Seen:
    """Takes pixels apart into the shape's colour, that of the other shape most of which is nearby, and the ground."""
    own, rest = towards[:, shape], torch.zeros_like(pixels[:, 0])
    if towards.shape[1] == 1:
        return _Seen(_likeness(pixels[:, None], own[:, None])[:, 0], rest + 1, rest + 1)
    others = nearby.clone()
    others[:, shape] = -1
    most, which = others.max(1)
    other = towards.gather(1, which.flatten(1)[..., None].expand(-1, -1, 3)).mT.unflatten(2, pixels.shape[2:])
    along_own = torch.einsum("mchw,mc->mhw", pixels, own)
    along_other = (pixels * other).sum(1)
    both = torch.einsum("mchw,mc->mhw", other, own)
    square_own, square_other = own.square().sum(1)[:, None, None], other.square().sum(1)
    determinant = square_own * square_other - both.square()
    opposite = determinant < 0.1  # then half of one and half of the other is the ground's colour
    rest = (square_own * along_other - both * along_own) / determinant.clamp(min=0.1)
    between = opposite & (nearby[:, shape] > _NEARBY)
    rest = torch.where(opposite, torch.where(between, (1 - along_own) / 2, -along_own), rest)
    rest = torch.where(most > _NEARBY, rest.clamp(0, 1), 0)
    share = _likeness((pixels - rest[:, None] * other)[:, None], own[:, None])[:, 0]
    before = which > shape
    weight = torch.where(before, 1, ((1 - rest) / (1 - _BEHIND)).clamp(max=1))
    return _Seen(share, torch.where(before, 1 - rest, 1), weight)


def _search(seen: _Seen, kinds: Int[ndarray, " m"], radius: float, factor: int) -> Float[ndarray, "m 2"]:
    """The middle of the pixel, larger by a factor, where the shape's form leaves the least unexplained."""
    moments = torch.stack([seen.weight * seen.free * seen.share, seen.weight * seen.free.square()], 1)
    moments = F.avg_pool2d(moments, factor, ceil_mode=True)
    reach = math.ceil(radius / factor) + 1
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    forms = np.stack([covered(kind, offsets, offsets[:, None], radius / factor) for kind in range(len(KINDS))])
    form = torch.from_numpy(forms)[torch.from_numpy(kinds)][:, None]
    explained, drawn = (
        # each frame is a channel: many times faster
        F.conv2d(F.pad(part, (reach,) * 4, value=outside)[None], weight, groups=len(kinds))[0]
        for part, weight, outside in ((moments[:, 0], form, 0.0), (moments[:, 1], form.square(), _OUTSIDE))
    )
    best = (2 * explained - drawn).flatten(1).argmax(1)
    width = moments.shape[-1]
    return (torch.stack([best % width, best // width], -1).double().numpy() + 0.5) * factor


class _Window:
    """The pixels around each rough place of shapes of one kind.

    Args:
        seen: of r frames.
        rough: a place in each.
        factor: about how many pixels it may be off.
        radius: of the circle around each shape.
        kind: of all of them.
    """

    def __init__(self, seen: _Seen, rough: Float[ndarray, "r 2"], factor: int, radius: float, kind: int) -> None:
        self._kind, self._radius, self._rough = kind, radius, rough
        self._steps, self._furthest = _STEPS + factor, 1.0 + factor
        reach = math.ceil(radius + self._furthest) + 1
        corner = np.floor(rough).astype(np.int64) - reach
        self._offsets = np.arange(-1, 2 * reach + 2)  # one pixel more on every side, for the form's slope
        height, width = seen.share.shape[1:]
        across, down = (corner[:, axis, None] + self._offsets[1:-1] for axis in (0, 1))
        inside = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None]
        rows = np.arange(len(rough))[:, None, None]
        pick = (rows, down.clip(0, height - 1)[:, :, None], across.clip(0, width - 1)[:, None])
        share, free, weight = (part.numpy()[pick] for part in seen)
        self._share, self._free = share * inside, np.where(inside, free, 1)
        self._weight = np.where(inside, weight, np.float32(_OUTSIDE))
        self._corner = corner

    def refined(self) -> tuple[Float[ndarray, "r 2"], Float[ndarray, " r"]]:
        """The places that explain the pixels best, and the shape's area there: Gauss and Newton's steps, damped."""
        place, best, least = self._rough, self._rough, np.full(len(self._rough), np.inf)
        for _ in range(self._steps):
            form = self._form(place, self._radius)
            left = self._share - form[:, 1:-1, 1:-1] * self._free
            unexplained = (self._weight * left**2).sum((1, 2))
            better = unexplained < least
            best, least = np.where(better[:, None], place, best), np.where(better, unexplained, least)
            # the form moves against the pixels' numbers
            slope_x = (form[:, 1:-1, :-2] - form[:, 1:-1, 2:]) / 2 * self._free
            slope_y = (form[:, :-2, 1:-1] - form[:, 2:, 1:-1]) / 2 * self._free
            xx, xy, yy, x, y = (
                np.einsum("rhw,rhw,rhw->r", self._weight, one, other).astype(np.float64)
                for one, other in (
                    (slope_x, slope_x), (slope_x, slope_y), (slope_y, slope_y), (slope_x, left), (slope_y, left),
                )
            )  # fmt: skip
            damping = 1e-3 * (xx + yy) + 1e-6
            xx, yy = xx + damping, yy + damping
            step = np.stack([yy * x - xy * y, xx * y - xy * x], -1) / (xx * yy - xy**2)[:, None]
            place = place + step.clip(-_LONGEST_STEP, _LONGEST_STEP)
            place = self._rough + (place - self._rough).clip(-self._furthest, self._furthest)
        around = self._form(best, self._radius + 1)[:, 1:-1, 1:-1]  # its blurred edges are still the shape's
        return best, (around * self._share).sum((1, 2), dtype=np.float64)

    def _form(self, place: Float[ndarray, "r 2"], radius: float) -> Float[ndarray, "r down across"]:
        x, y = (
            (self._corner[:, axis, None] + 0.5 - place[:, axis, None] + self._offsets).astype(np.float32)
            for axis in (0, 1)
        )
        return covered(self._kind, x[:, None], y[:, :, None], radius)


def _foreign(pixels: Float[Tensor, "m 3 h w"], towards: Float[Tensor, "m k 3"]) -> Float[Tensor, "m h w"]:
    """Nothing near the lines between the ground and the clip's colours, and between two of these; 1 far from them."""
    ends = torch.cat([torch.zeros_like(towards[:, :1]), towards], 1)
    nearest = torch.full_like(pixels[:, 0], torch.inf)
    for one in range(ends.shape[1]):
        for other in range(one):
            begin, line = ends[:, one], ends[:, other] - ends[:, one]
            off = pixels - begin[..., None, None]
            share = torch.einsum("mchw,mc->mhw", off, line) / line.square().sum(1)[:, None, None]
            distance = _length(off - share.clamp(0, 1)[:, None] * line[..., None, None], 1)
            nearest = torch.minimum(nearest, distance)
    return (2 * nearest - 0.5).clamp(0, 1)
