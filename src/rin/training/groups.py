"""Weights by name: which of them stay as they are, and which learn at a rate of their own."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from math import isfinite

from torch import nn

from rin.core.errors import RinError, unknown

_MOST = 1_000_000


def parse_rate(text: str) -> tuple[str, float]:
    """The pattern and the factor of a text such as tokenizer=0.1.

    Raises:
        RinError: it is none, or the factor is not above 0.
    """
    pattern, _, factor = text.rpartition("=")
    try:
        number = float(factor)
    except ValueError:
        number = float("nan")
    if not pattern or not isfinite(number) or number < 0 or number > _MOST:
        raise RinError(f"training.rates {text!r}: write a pattern and a factor above 0, as in tokenizer=0.1")
    if not number:
        raise RinError(f"training.rates {text!r}: what is not to learn is frozen, by --training.freeze {pattern}")
    return pattern, number


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern names a weight, or a module that it is part of.

    Args:
        pattern: as of `fnmatch`: * is anything, dots included, ? is one character, [ab] one of some.
        name: of a weight, such as blocks.0.read.attention.query.weight: blocks.0 and blocks.* match it, too.
    """
    return any(fnmatchcase(part, pattern) for part in _parts(name))


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Takes the weights that patterns name out of training: no gradient, no optimiser state, no decay.

    Args:
        model: before it is distributed or an optimiser is made.
        patterns: see `matches`.

    Returns:
        Their names.

    Raises:
        RinError: a pattern matches nothing, or nothing would be left to train.
    """
    weights = dict(model.named_parameters())
    for pattern in patterns:
        _check("freeze", pattern, weights)
    frozen = [name for name in weights if any(matches(pattern, name) for pattern in patterns)]
    for name in frozen:
        weights[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in weights.values()):
        raise RinError(f"nothing is left to train: training.freeze is {' '.join(patterns)!r}")
    return frozen


def rate_factors(names: Iterable[str], rates: Sequence[str]) -> dict[str, float]:
    """What the learning rate of each weight is multiplied by: the factor of the last pattern that matches it, or 1.

    Args:
        names: of the model's weights.
        rates: see `parse_rate`.

    Raises:
        RinError: a pattern matches nothing.
    """
    names, parsed = list(names), [parse_rate(text) for text in rates]
    for pattern, _ in parsed:
        _check("rates", pattern, names)
    return {
        name: next((factor for pattern, factor in reversed(parsed) if matches(pattern, name)), 1.0) for name in names
    }


def _parts(name: str) -> list[str]:
    """A weight's name, and those of the modules that it is part of, the outermost first."""
    words = name.split(".")
    return [".".join(words[: count + 1]) for count in range(len(words))]


def _check(option: str, pattern: str, names: Iterable[str]) -> None:
    known = list(dict.fromkeys(part for name in names for part in _parts(name)))
    if not any(fnmatchcase(part, pattern) for part in known):
        raise unknown(f"weight or module in training.{option}", pattern, known)
