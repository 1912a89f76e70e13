"""The generated set "points": outlines of plane shapes, each as a set of points in no order."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from rin.core.errors import RinError
from rin.core.kind import is_set
from rin.core.values import FLOATS
from rin.data.config import DataConfig
from rin.data.decoding.pictures import Shape
from rin.data.files.arrays import array_media
from rin.data.files.encoded import Encoded

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
"""The classes."""

NUM_SETS = 20_000

_SEED = 0
_SIZES = (0.4, 0.7)
"""Radius of the circle around a shape, before it is stretched."""

_STRETCH = 1.4
"""Width over height, or height over width, at most."""

_SHIFT, _JITTER = 0.15, 0.01
"""How far a shape's centre is from the middle at most; the deviation of a point from the outline."""

_ROUND = 96
"""Corners that stand for a curve."""


def outline(name: str) -> Float[ndarray, "corners 2"]:
    """The corners of a shape's outline, in order, within a circle of radius 1 around the origin."""
    if name in ("circle", "heart"):
        angle = np.arange(_ROUND) * (math.tau / _ROUND)
        if name == "circle":
            return np.stack([np.cos(angle), np.sin(angle)], 1)
        across = 16 * np.sin(angle) ** 3
        up = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        return np.stack([across, up + 2.5], 1) / 18.25
    if name == "cross":
        thin, long = 0.3, math.sqrt(1 - 0.3**2)
        arm = np.array([[thin, thin], [long, thin], [long, -thin]])
        turn = np.array([[0, -1], [1, 0]])  # a quarter, clockwise in this order of arms
        return np.concatenate([arm @ np.linalg.matrix_power(turn, number) for number in range(4)])
    corners, inner = {"square": (4, None), "triangle": (3, None), "star": (10, 0.45)}[name]
    angle = (math.pi / 4 if name == "square" else math.pi / 2) + np.arange(corners) * (math.tau / corners)
    radius = np.where(np.arange(corners) % 2, inner or 1.0, 1.0)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def draw_points(num: int, points: int, seed: int = _SEED) -> tuple[Float[ndarray, "b n 2"], Int[ndarray, " b"]]:
    """Sets of points within [-1, 1], and which of `SHAPES` each is.

    Points lie at random places of the outline, every length of it alike likely; each shape is stretched, turned and
    moved by chance.

    Args:
        num: sets.
        points: of each.
        seed: of the chance.
    """
    chance = np.random.default_rng(seed)
    kinds = chance.integers(0, len(SHAPES), num)
    places, noise = chance.random((num, points)), chance.normal(0, _JITTER, (num, points, 2))
    x = np.empty((num, points, 2))
    for kind, name in enumerate(SHAPES):
        of_kind = kinds == kind
        x[of_kind] = _along(outline(name), places[of_kind])
    size = chance.uniform(*_SIZES, (num, 1, 1))
    stretch = np.exp(chance.uniform(-1, 1, (num, 1, 1)) * math.log(_STRETCH) / 2)
    x *= size * np.concatenate([stretch, 1 / stretch], 2)
    turn = chance.uniform(0, math.tau, num)
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.einsum("bnc,bcd->bnd", x, np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1))
    return (turned + chance.uniform(-_SHIFT, _SHIFT, (num, 1, 2)) + noise).clip(-1, 1), kinds


def _along(corners: Float[ndarray, "corners 2"], places: Float[ndarray, "b n"]) -> Float[ndarray, "b n 2"]:
    """Points at some shares of the length of a closed outline."""
    sides = np.roll(corners, -1, 0) - corners
    ends = np.linalg.norm(sides, axis=1).cumsum()
    whole = places * ends[-1]
    side = np.searchsorted(ends, whole, side="right").clip(max=len(corners) - 1)
    starts = np.concatenate([[0.0], ends[:-1]])
    share = (whole - starts[side]) / (ends[side] - starts[side])
    return corners[side] + share[..., None] * sides[side]


def open_set(config: DataConfig, shape: Shape) -> Encoded:
    """The generated set, for sets of a shape (n, 2).

    Raises:
        RinError: the shape is another.
    """
    if not is_set(shape) or shape[1] != 2:
        raise RinError(f"points are sets of plane points (n 2), and the model takes {'x'.join(map(str, shape))}")
    x, kinds = draw_points(NUM_SETS, shape[0])
    return array_media(x.astype(np.float32), kinds, SHAPES, FLOATS, config.path)
