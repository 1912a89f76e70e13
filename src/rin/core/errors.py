"""Errors that tell a person what is wrong and what to do, in one line."""

import difflib
from collections.abc import Iterable


class RinError(ValueError):
    """A mistake or a mishap outside the code: its message is one line that names it and the way out.

    The command line prints the message alone and leaves with status 2; anything else that is raised is a bug.
    """


class StoppedError(Exception):
    """A run that was asked to stop by a signal, and did so with everything saved.

    The command line prints the message and leaves with 128 plus the signal's number, as a launcher expects.

    Args:
        message: one line.
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def unknown(what: str, name: str, known: Iterable[str]) -> RinError:
    """The error for a `name` that is none of the `known` ones, with the nearest of them.

    Args:
        what: what the name stands for, as in "preset".
        name: the name as it was given.
        known: the names there are.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are: {', '.join(names)}"
    return RinError(f"unknown {what} {name!r}: {hint}")
