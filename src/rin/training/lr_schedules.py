"""Learning rates by update."""

import math

from rin.core.errors import RinError, unknown


def learning_rate(
    step: int, *, base: float, schedule: str, warmup_steps: int, num_steps: int, end_factor: float = 0.0
) -> float:
    """The rate of an update, counted from 0; under warm-up the first is 0.

    Args:
        step: number of the update.
        base: rate after the warm-up.
        schedule: constant, linear, cosine, or cosine@share for the first `share` of a cosine's descent.
        warmup_steps: updates of linear warm-up.
        num_steps: updates in all.
        end_factor: what linear and cosine end at, over `base`.

    Raises:
        RinError: there is no such schedule.
    """
    name, share = parse_lr_schedule(schedule)
    if step < warmup_steps:
        return base * step / warmup_steps
    if name == "constant":
        return base
    length = (num_steps - warmup_steps) / share
    progress = min((step - warmup_steps) / length, 1.0) if length > 0 else 1.0
    left = 1 - progress if name == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return base * ((1 - end_factor) * left + end_factor)


def parse_lr_schedule(schedule: str) -> tuple[str, float]:
    """The name of a schedule and the share of it that is taken.

    Raises:
        RinError: there is no such schedule.
    """
    name, _, text = schedule.partition("@")
    if name not in ("constant", "linear", "cosine") or (text and name != "cosine"):
        raise unknown("learning-rate schedule", schedule, ["constant", "linear", "cosine", "cosine@0.8"])
    try:
        share = float(text) if text else 1.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise RinError(f"learning-rate schedule {schedule!r}: write a share above 0 and up to 1, as in cosine@0.8")
    return name, share
