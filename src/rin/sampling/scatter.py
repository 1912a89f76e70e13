"""Sets of points to look at: each a picture of its own, of points of 2 or 3 numbers."""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Pictures

SIDE = 96
"""Pixels of the picture of a set."""

_FINER = 4
"""Times as large as it is drawn first, for smooth points."""

_MARGIN, _RADIUS = 0.06, 0.012  # shares of the side
_NEAR, _FAR = np.array([16, 60, 130]), np.array([170, 195, 225])
_TURNED, _RAISED = math.radians(35), math.radians(25)


def scatter(sets: Float[Tensor, "b n numbers"]) -> Pictures:
    """A picture (b 3 side side) of each set, its points in [-1, 1]: x to the right, y up; z towards whoever looks.

    Points of 3 numbers are seen from above and from the side, and the farther ones are paler.

    Raises:
        RinError: the points have neither 2 nor 3 numbers.
    """
    if sets.shape[2] not in (2, 3):
        raise RinError(f"points of {sets.shape[2]} numbers cannot be shown, those of 2 and 3 can: take .npz")
    drawn = [_drawn(points) for points in sets.float().cpu().numpy()]
    return torch.from_numpy(np.stack(drawn)).movedim(3, 1)


def _drawn(points: np.ndarray) -> np.ndarray:
    points = _seen(points) if points.shape[1] == 3 else np.pad(points, ((0, 0), (0, 1)), constant_values=1.0)
    large = SIDE * _FINER
    image = Image.new("RGB", (large, large), (255, 255, 255))
    draw, radius = ImageDraw.Draw(image), _RADIUS * large
    for x, y, near in points[points[:, 2].argsort()].clip(-1.2, 1.2):
        across, down = ((0.5 + place / 2 * (1 - 2 * _MARGIN)) * large for place in (x, -y))
        colour = tuple((_FAR + (_NEAR - _FAR) * (near + 1) / 2).clip(0, 255).astype(int).tolist())
        draw.ellipse((across - radius, down - radius, across + radius, down + radius), fill=colour)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _seen(points: np.ndarray) -> np.ndarray:
    """Points turned about the upright axis and then tilted, made smaller so that a cube's corners stay inside."""
    x, y, z = points.T
    x, z = x * math.cos(_TURNED) + z * math.sin(_TURNED), z * math.cos(_TURNED) - x * math.sin(_TURNED)
    y, z = y * math.cos(_RAISED) - z * math.sin(_RAISED), z * math.cos(_RAISED) + y * math.sin(_RAISED)
    return np.stack([x, y, z], 1) / 1.4
