"""Measures of predicted moving-shapes: how far each shape is from where it must be, and whether it is still there.

Beside them stand two baselines that read the given frames with the same eyes: the places of the last given frame, and
constant velocity without bounces.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from rin.core.errors import RinError
from rin.toys.moving_shapes import Scenes
from rin.toys.shape_places import Found, find_shapes

_SCORED = 0.25
"""The share of a shape that others must leave visible for it to be scored in a frame."""

_VANISHED = 0.25
"""A shape vanished if less than this share of what should be visible of it is seen."""

_RECOLOURED = 0.5
"""It changed colour if there is at least this share of what should be visible of it in colours of no shape."""

_STRAIGHT = 0.1
"""Pixels that places may be off a straight line, for one velocity to be fitted to them."""

_AT_A_TIME = 2**21
"""Pixels that are worked on at once."""


class Mean(NamedTuple):
    """A mean over shapes and frames."""

    value: float
    """NaN where nothing is scored."""

    error: float
    """Its standard error, clips being what differs by chance; NaN for fewer than two clips."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How something goes on as frames go by."""

    by_frame: tuple[Mean, ...]
    overall: Mean

    before_bounce: Mean
    """Over the frames before each shape's first bounce beyond the given frames."""

    after_bounce: Mean
    """Over the frames from that bounce on."""


@dataclass(frozen=True, kw_only=True)
class ShapesMeasures:
    """How well the shapes of moving-shapes are predicted.

    A shape of which others hide more than three quarters in a frame is not scored in it.
    """

    num_clips: int
    num_shapes: int
    """In each clip."""

    num_context_frames: int
    """Given frames; what is measured begins behind them."""

    scored: int
    """Shapes in frames that were scored."""

    predicted: Course
    """Pixels between where each shape is and where it must be; the canvas's diagonal for one that vanished."""

    copied: Course
    """The same for the place in the last given frame."""

    linear: Course
    """The same for constant velocity, fitted to the last given places that are on a line; it may leave the canvas."""

    vanished: Course
    """The share of shapes of which less than a fourth of what should be visible is there in their own colour."""

    recoloured: Course
    """The share of shapes that vanished while half of what should be visible, or more, is there in a strange colour."""

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON's own types, a `Mean` as [value, error], what is not a number as None."""

        def plain(part: Any) -> Any:
            if isinstance(part, dict):
                return {name: plain(inner) for name, inner in part.items()}
            if isinstance(part, tuple):
                return [plain(inner) for inner in part]
            return None if isinstance(part, float) and math.isnan(part) else part

        return plain(asdict(self))

    def describe(self) -> str:
        """A table, a line a frame, and lines for all frames and for those before and after a bounce."""
        first, last = self.num_context_frames, self.num_context_frames + len(self.predicted.by_frame) - 1
        courses = (self.predicted, self.copied, self.linear, self.vanished, self.recoloured)
        lines = [(str(first + n), [course.by_frame[n] for course in courses]) for n in range(last - first + 1)]
        lines += [
            ("all", [course.overall for course in courses]),
            ("before the first bounce", [course.before_bounce for course in courses]),
            ("after it", [course.after_bounce for course in courses]),
        ]
        heading = f"{'frame':<24}{'predicted':>16}{'copied':>16}{'linear':>16}{'vanished':>12}{'recoloured':>12}"
        return "\n".join([
            f"{self.num_clips} clips of {self.num_shapes} shapes, frames {first} to {last} from {first} given ones: "
            f"pixels off (+- standard error over clips)",
            heading,
            *(
                f"{name:<24}" + "".join(map(_pixels, means[:3])) + "".join(map(_percent, means[3:]))
                for name, means in lines
            ),
        ])  # fmt: skip


def _pixels(mean: Mean) -> str:
    text = "-" if math.isnan(mean.value) else f"{mean.value:.2f}"
    return f"{text if math.isnan(mean.error) else f'{text} +- {mean.error:.2f}':>16}"


def _percent(mean: Mean) -> str:
    return f"{'-' if math.isnan(mean.value) else f'{mean.value:.1%}':>12}"


def measure_shapes(predicted: UInt8[Tensor, "n 3 f h w"], scenes: Scenes, num_context_frames: int) -> ShapesMeasures:
    """Measures the predicted frames of some clips of moving-shapes, whatever their number, in bounded memory.

    Args:
        predicted: the frames that follow the given ones, f of each scene.
        scenes: the clips, as `draw_scenes` gives them.
        num_context_frames: how many frames of each clip the network was given, from frame 0 on.

    Raises:
        RinError: frames that are not those of the scenes, or no given frame.
    """
    if num_context_frames < 1:
        raise RinError(f"{num_context_frames} given frames: moving shapes are measured on from 1 given frame or more")
    if (len(predicted), *predicted.shape[3:]) != (len(scenes), *scenes.canvas) or not predicted.numel():
        raise RinError(
            f"{len(predicted)} clips of {predicted.shape[2]} frames of {'x'.join(map(str, predicted.shape[3:]))} are "
            f"predicted for {len(scenes)} scenes on {'x'.join(map(str, scenes.canvas))}: give frames of these scenes"
        )
    given = range(num_context_frames)
    frames = range(num_context_frames, num_context_frames + predicted.shape[2])
    clips = max(1, _AT_A_TIME // (frames.stop * math.prod(scenes.canvas)))
    parts = [
        _compare(predicted[first : first + clips].cpu(), scenes.at(slice(first, first + clips)), given, frames)
        for first in range(0, len(scenes), clips)
    ]
    compared = _Compared(*map(np.concatenate, zip(*parts, strict=True)))

    def course(values: Float[ndarray, "n f k"] | Bool[ndarray, "n f k"]) -> Course:
        return _course(values.astype(np.float64), compared.scored, compared.bounced)

    return ShapesMeasures(
        num_clips=len(scenes),
        num_shapes=scenes.kinds.shape[1],
        num_context_frames=num_context_frames,
        scored=int(compared.scored.sum()),
        predicted=course(compared.predicted),
        copied=course(compared.copied),
        linear=course(compared.linear),
        vanished=course(compared.vanished),
        recoloured=course(compared.recoloured),
    )


class _Compared(NamedTuple):
    """Each shape in each frame: pixels off by who predicts, and what became of it."""

    predicted: Float[ndarray, "n f k"]
    copied: Float[ndarray, "n f k"]
    linear: Float[ndarray, "n f k"]
    vanished: Bool[ndarray, "n f k"]
    recoloured: Bool[ndarray, "n f k"]
    scored: Bool[ndarray, "n f k"]
    bounced: Bool[ndarray, "n f k"]


def _compare(predicted: UInt8[Tensor, "n 3 f h w"], scenes: Scenes, given: range, frames: range) -> _Compared:
    true, diagonal = scenes.positions(frames), math.hypot(*scenes.canvas)
    visible, whole = scenes.areas(frames)
    found = find_shapes(predicted, scenes)
    vanished = found.areas < _VANISHED * visible
    copied, linear = _baselines(find_shapes(torch.from_numpy(scenes.draw(given)), scenes), whole[:, :1], frames)

    def off(places: Float[ndarray, " n #f k 2"]) -> Float[ndarray, "n f k"]:
        return np.linalg.norm(places - true, axis=-1)

    return _Compared(
        predicted=np.where(vanished, diagonal, off(found.places)),
        copied=off(copied),
        linear=off(linear),
        vanished=vanished,
        recoloured=vanished & (found.foreign[..., None] >= _RECOLOURED * visible),
        scored=visible >= _SCORED * whole,
        bounced=scenes.bounces(frames) > scenes.bounces(given[-1:]),
    )


def _baselines(
    given: Found, whole: Float[ndarray, "n 1 k"], frames: range
) -> tuple[Float[ndarray, "n 1 k 2"], Float[ndarray, "n f k 2"]]:
    """The places that copying and constant velocity predict."""
    seen = given.areas >= _SCORED * whole
    last = given.places[:, -1]
    place, velocity, straight = last, np.zeros_like(last), np.ones(last.shape[:2], np.bool_)
    for first in reversed(range(seen.shape[1] - 1)):
        fitted, speed, off = _line(given.places[:, first:], seen[:, first:])
        straight = straight & (off <= _STRAIGHT)  # two places are always on a line
        use = (straight & (seen[:, first:].sum(1) > 1))[..., None]
        place, velocity = np.where(use, fitted, place), np.where(use, speed, velocity)
    later = np.arange(1, len(frames) + 1)[:, None, None]
    return last[:, None], place[:, None] + later * velocity[:, None]


def _line(
    places: Float[ndarray, "n f k 2"], seen: Bool[ndarray, "n f k"]
) -> tuple[Float[ndarray, "n k 2"], Float[ndarray, "n k 2"], Float[ndarray, "n k"]]:
    """Least squares: the place in the last frame, the velocity, and how far the seen place furthest off is."""
    count = np.maximum(seen.sum(1), 1)
    time = np.arange(1 - places.shape[1], 1)[:, None] * np.ones(seen.shape)
    weight = seen[..., None]
    middle, mean = (time * seen).sum(1) / count, (places * weight).sum(1) / count[..., None]
    time = (time - middle[:, None])[..., None]
    velocity = (weight * time * places).sum(1) / np.maximum((weight * time**2).sum(1), 1e-9)
    off = np.linalg.norm(places - mean[:, None] - time * velocity[:, None], axis=-1)
    return mean - middle[..., None] * velocity, velocity, (off * seen).max(1)


def _course(values: Float[ndarray, "n f k"], scored: Bool[ndarray, "n f k"], bounced: Bool[ndarray, "n f k"]) -> Course:
    return Course(
        by_frame=tuple(_mean(values[:, frame], scored[:, frame]) for frame in range(values.shape[1])),
        overall=_mean(values, scored),
        before_bounce=_mean(values, scored & ~bounced),
        after_bounce=_mean(values, scored & bounced),
    )


def _mean(values: Float[ndarray, "n ..."], scored: Bool[ndarray, "n ..."]) -> Mean:
    """The mean over what is scored, and its error as that of a ratio of two sums over clips."""
    axes = tuple(range(1, values.ndim))
    total, count = (values * scored).sum(axes), scored.sum(axes)
    clips = np.count_nonzero(count)
    if not clips:
        return Mean(math.nan, math.nan)
    value = total.sum() / count.sum()
    if clips == 1:
        return Mean(float(value), math.nan)
    spread = np.sum((total - value * count) ** 2) * clips / (clips - 1)
    return Mean(float(value), float(np.sqrt(spread) / count.sum()))
