"""The generated set "captions": pictures of two shapes, with a sentence that says what they are and how they lie.

Whether a picture shows what a sentence says can be told by looking at its colours alone, see `is_shown`.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rin.core.errors import RinError
from rin.core.kind import is_image
from rin.core.values import PICTURES
from rin.data.config import DataConfig
from rin.data.decoding.pictures import Shape
from rin.data.files.arrays import array_media
from rin.data.files.encoded import Encoded
from rin.toys.moving_shapes import COLOURS, GROUND, KINDS, covered

COLOUR_NAMES = ("red", "green", "blue", "cyan", "magenta", "yellow")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Where the first shape lies, seen from the second: x to the right, y down."""

A_SCENE = 50
"""Pictures of each scene."""

_SEED = 0
_RADIUS = 0.17
"""Of the circle around a shape, over the side of the picture."""

_NEAR, _FAR = (0.2, 0.32), (0.68, 0.8)
"""Where the first and the second shape may be along the axis of their relation, over the side."""

_APART = 0.1
"""How far apart, over the side, shapes have to be along that axis to be shown so."""

_STRAY = 0.1
"""Share of a shape's area in any other colour from which on a picture shows more than two shapes."""


class Scene(NamedTuple):
    """What a sentence says: two shapes, as (colour, kind), and how the first lies to the second."""

    first: tuple[int, int]
    relation: str
    second: tuple[int, int]

    def sentence(self) -> str:
        """As in "a red square left of a blue disc"."""
        first, second = (f"a {COLOUR_NAMES[colour]} {KINDS[kind]}" for colour, kind in (self.first, self.second))
        return f"{first} {self.relation} {second}"

    def turned(self) -> "Scene":
        """The same scene said the other way round."""
        x, y = RELATIONS[self.relation]
        (opposite,) = (name for name, direction in RELATIONS.items() if direction == (-x, -y))
        return Scene(self.second, opposite, self.first)


def scenes() -> list[Scene]:
    """Every scene of two shapes of different colours once, said from the left or from above."""
    shapes = list(product(range(len(COLOURS)), range(len(KINDS))))
    pairs = [(one, other) for one in shapes for other in shapes if one[0] != other[0]]
    return [Scene(one, relation, other) for one, other in pairs for relation in ("left of", "above")]


def draw_scenes(every: Sequence[Scene], shape: Shape, chance: np.random.Generator) -> UInt8[ndarray, "b 3 h w"]:
    """A picture of each scene, its shapes at places by chance; each lies alone, 0 to 255."""
    _, height, width = shape
    side, count = min(height, width), len(every)
    along = np.stack([chance.uniform(*_NEAR, count), chance.uniform(*_FAR, count)], 1)
    across = chance.uniform(_NEAR[0], _FAR[1], (count, 2))
    directions = np.array([RELATIONS[scene.relation] for scene in every])
    along = np.where(directions.sum(1, keepdims=True) < 0, along, along[:, ::-1])
    is_flat = directions[:, :1] != 0
    x, y = np.where(is_flat, along, across) * width, np.where(is_flat, across, along) * height
    down, right = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    pixels = np.empty((count, 3, height, width), np.float32)
    pixels[:] = np.array(GROUND, np.float32)[:, None, None]
    for place, scene in enumerate(every):
        for number, (colour, kind) in enumerate((scene.first, scene.second)):
            cover = covered(kind, right - x[place, number], down - y[place, number], _RADIUS * side)
            pixels[place] += cover * (np.array(COLOURS[colour], np.float32)[:, None, None] - pixels[place])
    return np.rint(pixels).astype(np.uint8)


def is_shown(pictures: UInt8[ndarray, "b 3 h w"], sentences: Sequence[str]) -> Bool[ndarray, " b"]:
    """Whether each picture shows what a sentence of the set says: both shapes, so placed, and no third one.

    Each pixel is of the nearest colour; a shape's kind is told by its area, where it lies by its middle.

    Raises:
        RinError: a sentence is none of the set's.
    """
    known = {said.sentence(): said for scene in scenes() for said in (scene, scene.turned())}
    strange = [sentence for sentence in sentences if sentence not in known]
    if strange:
        raise RinError(f"{strange[0]!r} is no sentence of captions, such as {next(iter(known))!r}")
    return np.array(
        [_is_shown(picture, known[sentence]) for picture, sentence in zip(pictures, sentences, strict=True)], bool
    )


def _is_shown(picture: UInt8[ndarray, "3 h w"], scene: Scene) -> bool:
    _, height, width = picture.shape
    side = min(height, width)
    palette = np.array([*COLOURS, GROUND], np.float32)
    apart = np.square(picture.astype(np.float32)[None] - palette[:, :, None, None]).sum(1)
    nearest = apart.argmin(0)
    middles: list[np.ndarray] = []
    for colour, kind in (scene.first, scene.second):
        places = np.argwhere(nearest == colour)
        if not len(places):
            return False
        cover = _cover(picture, colour) * np.isin(nearest, (colour, len(COLOURS)))
        if _kind_of(float(cover.sum()) / (_RADIUS * side) ** 2) != kind:
            return False
        middles.append(places.mean(0)[::-1] / side)
    others = [colour for colour in range(len(COLOURS)) if colour not in (scene.first[0], scene.second[0])]
    if np.isin(nearest, others).sum() > _STRAY * _AREAS[2] * (_RADIUS * side) ** 2:
        return False
    return bool(((middles[0] - middles[1]) * RELATIONS[scene.relation]).sum() > _APART)


def _cover(picture: UInt8[ndarray, "3 h w"], colour: int) -> Float[ndarray, "h w"]:
    """The share of each pixel that a colour covers on the ground; a small one is none."""
    ground = np.array(GROUND, np.float32)
    towards = np.array(COLOURS[colour], np.float32) - ground
    share = np.tensordot(towards, picture - ground[:, None, None], 1) / np.square(towards).sum()
    across = picture - ground[:, None, None] - share * towards[:, None, None]
    is_other = np.sqrt(np.square(across).sum(0)) > _OFF * np.linalg.norm(towards)
    return np.where((share < _FAINT) | is_other, 0, share.clip(max=1))


_FAINT, _OFF = 0.2, 0.3
"""Shares of a colour, over the ground, below which it is not seen, and of another one beside it from which on it is."""

_AREAS = (np.pi, 2.0, 1.299)
"""Of each kind, over its circle's radius squared."""


def _kind_of(area: float) -> int | None:
    """The kind of a shape of some area, over its circle's radius squared; None if none is near."""
    nearest = int(np.abs(np.log(np.array(_AREAS) / area)).argmin())
    return nearest if 0.75 < area / _AREAS[nearest] < 1.3 else None


def open_set(config: DataConfig, shape: Shape) -> Encoded:
    """The generated set, for pictures of a shape (3 h w); the sentences are the classes, scenes the families.

    So what is held out is whole scenes: sentences that are never trained on, of shapes and places that are.

    Raises:
        RinError: the shape is another.
    """
    if not is_image(shape) or shape[0] != 3 or min(shape[1:]) < 16:
        raise RinError(f"captions are pictures in colour from 16x16 on, and the model takes {tuple(shape)}")
    chance, every = np.random.default_rng(_SEED), scenes()
    said = [chance.choice([0, 1]) for _ in range(len(every) * A_SCENE)]
    of_picture = [scene for scene in every for _ in range(A_SCENE)]
    pictures = draw_scenes(of_picture, shape, chance)
    sentences = [sentence for scene in every for sentence in (scene.sentence(), scene.turned().sentence())]
    families = np.repeat(np.arange(len(every)), A_SCENE)
    labels = families * 2 + np.array(said)
    names = tuple(sentences)
    return array_media(pictures, labels, names, PICTURES, config.path, families=torch.from_numpy(families))
