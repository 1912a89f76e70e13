"""gamma(t): how much of the clean data's variance is left at time t, from 1 at t = 0 towards 0 at t = 1.

Written as the original writes them: `cosine`, `cosine@start,end,tau`, `sigmoid@start,end,tau`, `linear`
(paper appendix A; Chen, "On the importance of noise scheduling", arXiv 2301.10972).
"""

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError, unknown

Times = Float[Tensor, "..."]
Schedule = Callable[[Times], Times]
"""t in [0, 1] to gamma in [0, 1]."""

_SMALLEST = 1e-9


def simple_cosine(t: Times) -> Times:
    """cos^2(t pi / 2), shifted a little so that it stays inside (0, 1)."""
    return torch.cos((t + 0.0002) / (1 + 0.00025) * math.pi / 2) ** 2


def cosine(t: Times, start: float, end: float, tau: float) -> Times:
    """The stretch from `start` to `end` of a cosine to the power of 2 `tau`, scaled to run from 1 to 0."""
    first, last = (_power(torch.cos(t.new_tensor(edge * math.pi / 2)), 2 * tau) for edge in (start, end))
    return (_power(torch.cos((t * (end - start) + start) * math.pi / 2), 2 * tau) - last) / (first - last)


def _power(cosine: Times, exponent: float) -> Times:
    """A cosine to a power; rounding leaves that of a right angle a little below 0, which has whole powers alone."""
    return (cosine if exponent.is_integer() else cosine.where(cosine.abs() > 1e-6, 0)) ** exponent


def sigmoid(t: Times, start: float, end: float, tau: float) -> Times:
    """The stretch from `start` to `end` of a falling sigmoid of temperature `tau`, scaled to run from 1 to 0."""
    first, last = (torch.sigmoid(t.new_tensor(edge / tau)) for edge in (start, end))
    return (last - torch.sigmoid((t * (end - start) + start) / tau)) / (last - first)


def linear(t: Times) -> Times:
    """1 - t."""
    return (1 - t).clamp(_SMALLEST, 1.0)


@functools.cache
def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` names.

    Raises:
        RinError: no schedule has that name, or its numbers are missing, too many or make no schedule: gamma is not
            finite, or rises somewhere.
    """
    name, _, arguments = text.partition("@")
    if name not in ("cosine", "sigmoid", "linear"):
        raise unknown("schedule", text, ["cosine", "cosine@0,1,1", "sigmoid@-3,3,0.9", "linear"])
    if not arguments and name in ("cosine", "linear"):
        return simple_cosine if name == "cosine" else linear
    try:
        start, end, tau = (float(number) for number in arguments.split(","))
    except ValueError:
        raise RinError(f"schedule {text!r}: write start, end and tau, as in sigmoid@-3,3,0.9") from None
    if name == "linear" or start == end or not (tau > 0 and math.isfinite(start + end + tau)):
        raise RinError(
            f"schedule {text!r}: linear takes no numbers; else start and end must differ, and tau be above 0"
        )
    curve = cosine if name == "cosine" else sigmoid
    times = torch.linspace(0, 1, 1025, dtype=torch.float32, device="cpu")
    _check_falls(text, curve(times, start, end, tau))
    return lambda t: curve(t, start, end, tau).clamp(_SMALLEST, 1.0)


def _check_falls(text: str, gamma: Times) -> None:
    """Refuses a schedule whose gamma is not finite, does not run from 1 to 0, or rises on the way."""
    if not ((gamma.diff() <= 1e-6).all() and abs(gamma[0] - 1) < 1e-3 and abs(gamma[-1]) < 1e-3):  # NaN is none of it
        raise RinError(
            f"schedule {text!r}: its gamma does not fall from 1 to 0; take a stretch of the curve that does, such as "
            "cosine@0,1,1 or sigmoid@-3,3,0.9"
        )
