"""gamma(t): how much of the clean data's variance is left at time t, from 1 at t = 0 towards 0 at t = 1.

Written as the original writes them: `cosine`, `cosine@start,end,tau`, `sigmoid@start,end,tau`, `linear`
(paper appendix A; Chen, "On the importance of noise scheduling", arXiv 2301.10972). Ours, for sampling in few steps:
`karras`, `karras@start,end,rho`, whose steps are those of Karras et al. (arXiv 2206.00364, equation 5), and `log-snr`,
`log-snr@start,end`, whose steps are equal in the logarithm of gamma / (1 - gamma). Both run from `start` to `end` in
sigma = sqrt((1 - gamma) / gamma), the noise's deviation over that of clean data of deviation 1.
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

_SIGMAS = (0.002, 80.0)
"""Where `karras` and `log-snr` begin and end if not told (arXiv 2206.00364, table 1)."""


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


def karras(t: Times, start: float, end: float, rho: float) -> Times:
    """Sigma to the power of 1 / rho runs straight from `start` at t = 0 to `end` at t = 1."""
    low, high = start ** (1 / rho), end ** (1 / rho)
    return 1 / (1 + (low + t * (high - low)) ** (2 * rho))


def log_snr(t: Times, start: float, end: float) -> Times:
    """The logarithm of sigma, and of the SNR, runs straight from `start` at t = 0 to `end` at t = 1."""
    low, high = math.log(start), math.log(end)
    return torch.sigmoid(-2 * (low + t * (high - low)))


_PLAIN: dict[str, Schedule] = {
    "cosine": simple_cosine,
    "linear": linear,
    "karras": lambda t: karras(t, *_SIGMAS, rho=7.0),
    "log-snr": lambda t: log_snr(t, *_SIGMAS),
}
"""Those that can be named without numbers."""


@functools.cache
def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` names.

    Raises:
        RinError: no schedule has that name, or its numbers are missing, too many or make no schedule: gamma is not
            finite, or rises somewhere.
    """
    name, _, arguments = text.partition("@")
    if name not in _PLAIN and name != "sigmoid":
        raise unknown("schedule", text, ["cosine", "cosine@0,1,1", "sigmoid@-3,3,0.9", "linear", "karras", "log-snr"])
    if not arguments and name in _PLAIN:
        return _PLAIN[name]
    curve = _of_sigmas(text, name, arguments) if name in ("karras", "log-snr") else _stretch(text, name, arguments)
    _check_falls(text, curve(torch.linspace(0, 1, 1025, dtype=torch.float32, device="cpu")))
    return lambda t: curve(t).clamp(_SMALLEST, 1.0)


def _stretch(text: str, name: str, arguments: str) -> Schedule:
    """A stretch of a cosine or a sigmoid."""
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


def _of_sigmas(text: str, name: str, arguments: str) -> Schedule:
    """Steps from one sigma to another."""
    names, example = ("start, end and rho", "karras@0.002,80,7") if name == "karras" else (
        "start and end", "log-snr@0.002,80")  # fmt: skip
    try:
        start, end, *more = numbers = [float(number) for number in arguments.split(",")]
        (rho,) = more if name == "karras" else (*more, 1.0)
    except ValueError:
        raise RinError(f"schedule {text!r}: write {names}, as in {example}") from None
    if not (0 < start < end and rho > 0 and math.isfinite(sum(numbers))):
        raise RinError(
            f"schedule {text!r}: take 0 < start < end (sigma of the least and of the most noise), rho above 0"
        )
    return lambda t: karras(t, start, end, rho) if name == "karras" else log_snr(t, start, end)


def _check_falls(text: str, gamma: Times) -> None:
    """Refuses a schedule whose gamma is not finite, does not run from 1 to 0, or rises on the way."""
    if not ((gamma.diff() <= 1e-6).all() and abs(gamma[0] - 1) < 1e-3 and abs(gamma[-1]) < 1e-3):  # NaN is none of it
        raise RinError(
            f"schedule {text!r}: its gamma does not fall from 1 to 0; take a stretch of the curve that does, such as "
            "cosine@0,1,1, sigmoid@-3,3,0.9 or karras@0.002,80,7"
        )
