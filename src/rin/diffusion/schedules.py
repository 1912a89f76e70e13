"""gamma(t): how much of the clean data's variance is left at time t, from 1 at t = 0 towards 0 at t = 1.

Written as the original writes them: `cosine`, `cosine@start,end,tau`, `sigmoid@start,end,tau`, `linear`
(paper appendix A; Chen, "On the importance of noise scheduling", arXiv 2301.10972).
"""

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
    first, last = (torch.cos(t.new_tensor(edge * math.pi / 2)) ** (2 * tau) for edge in (start, end))
    gamma = (torch.cos((t * (end - start) + start) * math.pi / 2) ** (2 * tau) - last) / (first - last)
    return gamma.clamp(_SMALLEST, 1.0)


def sigmoid(t: Times, start: float, end: float, tau: float) -> Times:
    """The stretch from `start` to `end` of a falling sigmoid of temperature `tau`, scaled to run from 1 to 0."""
    first, last = (torch.sigmoid(t.new_tensor(edge / tau)) for edge in (start, end))
    gamma = (last - torch.sigmoid((t * (end - start) + start) / tau)) / (last - first)
    return gamma.clamp(_SMALLEST, 1.0)


def linear(t: Times) -> Times:
    """1 - t."""
    return (1 - t).clamp(_SMALLEST, 1.0)


def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` names.

    Raises:
        RinError: no schedule has that name, or its numbers are missing, too many or make no schedule.
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
    return lambda t: curve(t, start, end, tau)
