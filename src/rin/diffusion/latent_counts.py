"""How many latents each step of sampling works with: the computation of an elastic network, chosen when it is used."""

import itertools
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from rin.core.errors import RinError

NumLatents = int | Sequence[tuple[float, int]] | Callable[[float], int]
"""One number for all steps; or pairs (t, m), where a step that begins at time t or below, and above the pair before,
works with m latents, as in [(0.5, 16), (1.0, 128)]; or a function from the time at which a step begins, 1 being noise,
to m."""


def latents_at(choice: NumLatents | None, t: float) -> int | None:
    """The latents of a step that begins at a time t; None is the network's own number.

    Raises:
        RinError: it is no number of latents.
    """
    if choice is None or isinstance(choice, int):
        return choice
    count: Any = choice(t) if callable(choice) else next(count for end, count in choice if t <= end)
    if type(count) is not int or count < 1:
        raise RinError(f"num_latents of t = {t:g} is {count!r}: give a whole number from 1 on")
    return count


def check_num_latents(choice: Any) -> None:
    """Refuses what says no number of latents for every time.

    Raises:
        RinError: it does not.
    """
    if choice is None or callable(choice) or (type(choice) is int and choice >= 1):
        return
    pairs = list(choice) if isinstance(choice, Sequence) and not isinstance(choice, str) else []
    fits = all(
        isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], Real) and type(pair[1]) is int
        for pair in pairs
    )
    times = [0, *(pair[0] for pair in pairs)] if fits else []
    rise = all(before < after for before, after in itertools.pairwise(times))  # no NaN does
    if not pairs or not fits or not rise or times[-1] != 1 or min(m for _, m in pairs) < 1:
        raise RinError(
            f"num_latents {choice!r}: give a whole number, or pairs of a time and a number whose times rise to 1, as "
            "in [(0.5, 16), (1.0, 128)]"
        )


def parse_num_latents(text: str | None) -> NumLatents | None:
    """A number as in 32, or pairs as in 0.5:16,1:128; None stays None.

    Raises:
        RinError: it is neither.
    """
    try:
        if text is None or ":" not in text:
            return None if text is None else int(text)
        pairs = [part.split(":") for part in text.split(",")]
        return [(float(end), int(count)) for end, count in pairs]
    except ValueError:
        raise RinError(
            f"num_latents {text!r}: write a number, as in 32, or times and numbers, as in 0.5:16,1:128"
        ) from None
