"""Sets of points and signals to look at, each a picture of its own."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import is_set, is_signal
from rin.core.shapes import Examples, Pictures

SIDE = 96
"""Pixels of the picture of a set, and the height of that of a signal."""

_LONG = 2
"""The width of a signal's picture over its height."""

_LINES = ((16, 60, 130), (200, 80, 0), (0, 120, 90), (150, 40, 130))
"""The colours of a signal's channels, in turn."""

_FINER = 4
"""Times as large as it is drawn first, for smooth points."""

_MARGIN, _RADIUS = 0.06, 0.012  # shares of the side
_NEAR, _FAR = np.array([16, 60, 130]), np.array([170, 195, 225])
_TURNED, _RAISED = math.radians(35), math.radians(25)


def is_plotted(shape: Sequence[int]) -> bool:
    """Whether samples of a shape are no pictures themselves."""
    return is_set(shape) or is_signal(shape)


def plot_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of the picture of a set or a signal (3 h w)."""
    return (3, SIDE, SIDE * _LONG if is_signal(shape) else SIDE)


def plots(samples: Examples) -> Pictures:
    """A picture of each set (b n c), see `scatter`, or signal (b c 1 n), see `lines`."""
    return lines(samples) if is_signal(samples.shape[1:]) else scatter(samples)


def lines(signals: Float[Tensor, "b channels 1 n"]) -> Pictures:
    """A picture (b 3 side long) of each signal in [-1, 1], its channels one over another in colours."""
    large, long = SIDE * _FINER, SIDE * _FINER * _LONG
    drawn: list[np.ndarray] = []
    for signal in signals.float().cpu().numpy()[:, :, 0]:
        image = Image.new("RGB", (long, large), (255, 255, 255))
        draw = ImageDraw.Draw(image)
        draw.line([(0, large / 2), (long, large / 2)], fill=(220, 220, 220), width=_FINER)
        across = np.linspace(0, long - 1, signal.shape[1])
        for number, channel in reversed(list(enumerate(signal))):
            down = (0.5 - channel.clip(-1.2, 1.2) / 2 * (1 - 2 * _MARGIN)) * large
            draw.line(
                list(zip(across.tolist(), down.tolist(), strict=True)), _LINES[number % len(_LINES)], _FINER * 3 // 2
            )
        drawn.append(np.asarray(image.resize((SIDE * _LONG, SIDE), Image.Resampling.BOX)))
    return torch.from_numpy(np.stack(drawn)).movedim(3, 1)


def scatter(sets: Float[Tensor, "b n numbers"], colours: UInt8[Tensor, "n 3"] | None = None) -> Pictures:
    """A picture (b 3 side side) of each set, its points in [-1, 1]: x to the right, y up; z towards whoever looks.

    Points of 3 numbers are seen from above and from the side, and the farther ones are paler, if no colours are given.

    Raises:
        RinError: the points have neither 2 nor 3 numbers.
    """
    if sets.shape[2] not in (2, 3):
        raise RinError(f"points of {sets.shape[2]} numbers cannot be shown, those of 2 and 3 can: take .npz")
    inks = None if colours is None else colours.tolist()
    drawn = [_drawn(points, inks) for points in sets.float().cpu().numpy()]
    return torch.from_numpy(np.stack(drawn)).movedim(3, 1)


def _drawn(points: np.ndarray, inks: list[list[int]] | None) -> np.ndarray:
    points = _seen(points) if points.shape[1] == 3 else np.pad(points, ((0, 0), (0, 1)), constant_values=1.0)
    large = SIDE * _FINER
    image = Image.new("RGB", (large, large), (255, 255, 255))
    draw, radius = ImageDraw.Draw(image), _RADIUS * large
    for number in points[:, 2].argsort(kind="stable"):
        x, y, near = points[number].clip(-1.2, 1.2)
        across, down = ((0.5 + place / 2 * (1 - 2 * _MARGIN)) * large for place in (x, -y))
        ink = (_FAR + (_NEAR - _FAR) * (near + 1) / 2).clip(0, 255).astype(int).tolist()
        colour = tuple(ink if inks is None else inks[number])
        draw.ellipse((across - radius, down - radius, across + radius, down + radius), fill=colour)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _seen(points: np.ndarray) -> np.ndarray:
    """Points turned about the upright axis and then tilted, made smaller so that a cube's corners stay inside."""
    x, y, z = points.T
    x, z = x * math.cos(_TURNED) + z * math.sin(_TURNED), z * math.cos(_TURNED) - x * math.sin(_TURNED)
    y, z = y * math.cos(_RAISED) - z * math.sin(_RAISED), z * math.cos(_RAISED) + y * math.sin(_RAISED)
    return np.stack([x, y, z], 1) / 1.4
