"""The generated set "moving-shapes": clips whose true future is known.

Flat discs, squares and triangles of distinct colours on a plain ground move with constant speed, bounce elastically
off the walls, and pass before and behind each other in a fixed order. Where a shape is at any time is a closed
formula, so a clip can be drawn on any canvas and for as long as wanted, beyond the frames that a network has seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from rin.core.errors import RinError
from rin.core.seeds import Chance, Purpose
from rin.data.config import DataConfig, MovingShapesConfig
from rin.data.decoding.pictures import Clip, Footage, Shape
from rin.data.files.encoded import Encoded

GROUND = (128, 128, 128)
"""The colour of the plain ground: as far from every colour of a shape as can be."""

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0))
"""Red, green, blue, cyan, magenta, yellow: further from each other than from the ground."""

KINDS = ("disc", "square", "triangle")

Frames = Sequence[int] | Int[ndarray, " f"]
"""Numbers of frames, from 0 on: as many as wanted, beyond a clip's own too."""

_ATTEMPTS = 1000
"""Scenes that are drawn and thrown away at most for one that is as asked."""

_AT_A_TIME = 2**22
"""Distances between shapes that are worked out at once."""

_TOUCHING = 1.0
"""Pixels between two circles within which neither hiding nor keeping apart is said to be certain."""

_SQUARE = math.sqrt(0.5)  # half a square's side, over its circle's radius
_EXTENTS = np.array([[1, 1, 1, 1], [_SQUARE] * 4, [math.sqrt(0.75), math.sqrt(0.75), 1, 0.5]])
"""How far each kind reaches to the left, to the right, up and down from its centre of mass, over its radius."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Some clips' shapes and how they move; lengths in pixels of the canvas, time in frames."""

    canvas: tuple[int, int]
    """Height and width."""

    radius: float
    """Of the circle around each shape."""

    kinds: Int[ndarray, "n k"]
    """Of each shape: a place in `KINDS`."""

    colours: Int[ndarray, "n k"]
    """Of each shape: a place in `COLOURS`, no two of a clip alike."""

    begin: Float[ndarray, "n k 2"]
    """Where each centre of mass is in frame 0: x to the right, y down."""

    velocity: Float[ndarray, "n k 2"]
    """Pixels a frame, before the first bounce."""

    def __len__(self) -> int:
        return len(self.kinds)

    def at(self, index: Any) -> "Scenes":
        """Some of the scenes."""
        names = ("kinds", "colours", "begin", "velocity")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    @cached_property
    def walls(self) -> tuple[Float[ndarray, "n k 2"], Float[ndarray, "n k 2"]]:
        """The least and the largest place that each centre can be at."""
        height, width = self.canvas
        left, right, up, down = np.moveaxis(_EXTENTS[self.kinds] * self.radius, -1, 0)
        return np.stack([left, up], -1), np.stack([width - right, height - down], -1)

    def positions(self, frames: Frames) -> Float[ndarray, "n f k 2"]:
        """Where each shape is in some frames: the straight path, folded at the walls."""
        lowest, highest = (wall[:, None] for wall in self.walls)
        room = highest - lowest
        path = (self._straight(frames) - lowest) % (2 * room)
        return lowest + np.minimum(path, 2 * room - path)

    def bounces(self, frames: Frames) -> Int[ndarray, "n f k"]:
        """How many times each shape has met a wall between frame 0 and some frames."""
        lowest, highest = (wall[:, None] for wall in self.walls)
        crossed = np.floor((self._straight(frames) - lowest) / (highest - lowest))
        return np.abs(crossed).sum(-1).astype(np.int64)

    def hides(self, frames: Frames) -> tuple[Bool[ndarray, " n"], Bool[ndarray, " n"]]:
        """Whether in each clip a shape certainly hides a part of another in one of the frames, and whether it may."""
        places = self.positions(frames)
        one, other = np.triu_indices(places.shape[2], 1)
        apart = np.linalg.norm(places[:, :, one] - places[:, :, other], axis=-1)
        nearest = apart.min(axis=(1, 2), initial=np.inf)
        # the circle within every kind has half the radius or more
        return nearest < self.radius - _TOUCHING, nearest < 2 * self.radius + _TOUCHING

    def draw(self, frames: Frames) -> UInt8[ndarray, "n 3 f h w"]:
        """The clips' frames, 0 to 255; later shapes lie before earlier ones."""
        height, width = self.canvas
        pixels = np.empty((len(self), 3, len(frames), height, width), np.float32)
        pixels[:] = np.array(GROUND, np.float32)[:, None, None, None]
        for shape in range(self.kinds.shape[1]):
            colour = np.array(COLOURS, np.float32)[self.colours[:, shape]][:, :, None, None, None]
            pixels += self._cover(shape, frames)[:, None] * (colour - pixels)
        return np.rint(pixels).astype(np.uint8)

    def areas(self, frames: Frames) -> tuple[Float[ndarray, "n f k"], Float[ndarray, "n f k"]]:
        """How many pixels' worth of each shape no other hides in some frames, and how many it covers, hidden or not."""
        count = self.kinds.shape[1]
        visible, whole = np.empty((2, len(self), len(frames), count))
        free = np.ones((len(self), len(frames), *self.canvas), np.float32)
        for shape in reversed(range(count)):
            cover = self._cover(shape, frames)
            whole[:, :, shape], visible[:, :, shape] = cover.sum((2, 3)), (cover * free).sum((2, 3))
            free *= 1 - cover
        return visible, whole

    def _cover(self, shape: int, frames: Frames) -> Float[ndarray, "n f h w"]:
        """The share of each pixel that one of the shapes covers, hidden or not."""
        height, width = self.canvas
        places = self.positions(frames)[:, :, shape].astype(np.float32)
        down, across = np.arange(height, dtype=np.float32) + 0.5, np.arange(width, dtype=np.float32) + 0.5
        x, y = across - places[:, :, 0, None, None], down[:, None] - places[:, :, 1, None, None]
        cover = np.empty((*places.shape[:2], height, width), np.float32)
        for kind in range(len(KINDS)):
            of_kind = np.flatnonzero(self.kinds[:, shape] == kind)
            cover[of_kind] = covered(kind, x[of_kind], y[of_kind], self.radius)
        return cover

    def _straight(self, frames: Frames) -> Float[ndarray, "n f k 2"]:
        return self.begin[:, None] + np.asarray(frames)[:, None, None] * self.velocity[:, None]


def covered(kind: int, x: Float[ndarray, "..."], y: Float[ndarray, "..."], radius: float) -> Float[ndarray, "..."]:
    """The share of a pixel that a shape covers: d + 1/2 where the pixel's middle is d inside the shape's edge.

    Args:
        kind: a place in `KINDS`.
        x: how far the pixel's middle is to the right of the shape's centre.
        y: and below it.
        radius: of the circle around the shape.
    """
    return (0.5 - _outside(kind, x, y, radius)).clip(0, 1)


def _outside(kind: int, x: Float[ndarray, "..."], y: Float[ndarray, "..."], radius: float) -> Float[ndarray, "..."]:
    """How far a place relative to a shape's centre is outside the shape, along its edges; negative inside."""
    if KINDS[kind] == "disc":
        return np.hypot(x, y) - radius
    if KINDS[kind] == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius * _SQUARE
    # its sides are half the radius from the centre of mass
    return np.maximum(y, np.abs(x) * math.sqrt(0.75) - y / 2) - radius / 2


def draw_scenes(
    config: MovingShapesConfig, canvas: tuple[int, int], num_frames: int, rows: Int[ndarray, " n"]
) -> Scenes:
    """The scenes of some rows of the set: functions of (seed, row), the canvas and the length of a clip.

    Each row takes the first of its scenes in which shapes bounce as often as asked, and one hides a part of another
    (in the share of the rows that is asked for) or none ever comes near another (in the rest).

    Args:
        config: what is in the clips.
        canvas: height and width.
        num_frames: the clip's, within which all this holds.
        rows: numbers of clips, from 0 on.

    Raises:
        RinError: no scene is as asked.
    """
    at_a_time = max(1, _AT_A_TIME // (num_frames * config.num_shapes**2))
    parts = [
        _drawn_scenes(config, canvas, range(num_frames), rows[first : first + at_a_time])
        for first in range(0, max(1, len(rows)), at_a_time)
    ]
    names = ("kinds", "colours", "begin", "velocity")
    return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _drawn_scenes(
    config: MovingShapesConfig, canvas: tuple[int, int], frames: range, rows: Int[ndarray, " n"]
) -> Scenes:
    crowded = Chance(config.seed, 0, torch.from_numpy(rows)).true(Purpose.OCCLUSION, config.occlusion_rate).numpy()
    waiting = np.arange(len(rows))
    scenes: Scenes | None = None
    for attempt in range(_ATTEMPTS):
        drawn = _attempt(config, canvas, rows[waiting], attempt)
        scenes = drawn if scenes is None else scenes
        good = _as_asked(drawn, config, frames, crowded[waiting])
        for name in ("kinds", "colours", "begin", "velocity"):
            getattr(scenes, name)[waiting[good]] = getattr(drawn, name)[good]
        waiting = waiting[~good]
        if not len(waiting):
            return replace(scenes)  # what `scenes` has worked out of its first scenes is no longer true
    raise RinError(
        f"no moving shapes are as asked ({config.num_shapes} on {canvas[0]}x{canvas[1]}, {config.min_bounces} bounces "
        f"in {len(frames)} frames): take longer clips, faster or smaller shapes, or fewer bounces"
    )


def _as_asked(
    scenes: Scenes, config: MovingShapesConfig, frames: range, crowded: Bool[ndarray, " n"]
) -> Bool[ndarray, " n"]:
    """Which scenes bounce often enough and, if crowded, hide a part of a shape; of the others none may come near that.

    Where shapes are to keep apart, all but one scene in a hundred fail, most of them in every fourth frame: these
    frames are looked at first.
    """
    good = scenes.bounces(frames[-1:])[:, 0].sum(-1) >= config.min_bounces
    good[good] = crowded[good] | ~scenes.at(good).hides(frames[::4])[1]
    hides, may_hide = scenes.at(good).hides(frames)
    good[good] = np.where(crowded[good], hides, ~may_hide)
    return good


def _attempt(config: MovingShapesConfig, canvas: tuple[int, int], rows: Int[ndarray, " n"], attempt: int) -> Scenes:
    """A scene for each row, by chance alone."""
    chance, count = Chance(config.seed, attempt, torch.from_numpy(rows)), config.num_shapes
    words = chance.words(Purpose.SCENE, 5 * count + len(COLOURS)).numpy()
    number = (words >> 8).astype(np.float64) * 2.0**-24
    kind, speed, angle, x, y = (number[:, part * count : (part + 1) * count] for part in range(5))
    side = min(canvas)
    length = side * (config.speed[0] + speed * (config.speed[1] - config.speed[0]))
    velocity = length[..., None] * np.stack([np.cos(math.tau * angle), np.sin(math.tau * angle)], -1)
    scenes = Scenes(
        canvas=canvas,
        radius=side * config.radius,
        kinds=(kind * len(KINDS)).astype(np.int64),
        colours=np.argsort(number[:, 5 * count : 5 * count + len(COLOURS)], axis=1)[:, :count],
        begin=np.stack([x, y], -1),
        velocity=velocity,
    )
    lowest, highest = scenes.walls
    return replace(scenes, begin=lowest + scenes.begin * (highest - lowest))


@dataclass(frozen=True)
class _Drawn(Footage):
    scene: Scenes

    def decode(self, shape: Shape) -> Clip:
        return torch.from_numpy(self.scene.draw(range(shape[1]))[0])


def open_set(config: DataConfig, shape: Shape) -> Encoded:
    """The generated set, for clips of a shape (3, f, h, w).

    Raises:
        RinError: the shape is not one of colour clips, or no scene is as asked.
    """
    if len(shape) != 4 or shape[0] != 3:
        raise RinError(f"moving-shapes are clips in colour, and the model takes {'x'.join(map(str, shape))}")
    shapes = config.moving_shapes or MovingShapesConfig()
    scenes = draw_scenes(shapes, (shape[2], shape[3]), shape[1], np.arange(shapes.num_clips))
    return Encoded(
        read=lambda row: _Drawn(scenes.at([row])),
        name="clip {} of moving-shapes".format,
        rows=torch.arange(shapes.num_clips),
        labels=torch.full((shapes.num_clips,), -1),
        class_names=(),
        kind="clip",
    )
