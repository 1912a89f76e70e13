"""Errors that tell a person what is wrong and what to do, in one line."""

import difflib
from collections.abc import Iterable

from rin.core.names import printable

_LONGEST = 2000
"""Characters of a message; beyond, its middle is left out: who wrote a file may have made a name of a million."""

_MOST_NAMES = 40
"""Names that a message lists."""


class RinError(ValueError):
    """A mistake or a mishap outside the code: its message is one line that names it and the way out.

    The command line prints the message alone and leaves with status 2; anything else that is raised is a bug. Names of
    files and classes are part of messages, so control characters in them are escaped, and what is endless is cut.

    Args:
        message: one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_cut(printable(_cut(message, _LONGEST)), _LONGEST))


class StoppedError(Exception):
    """A run that was asked to stop by a signal, and did so with everything saved.

    The command line prints the message and leaves with 128 plus the signal's number, as a launcher expects.

    Args:
        message: one line.
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(printable(message))
        self.signal = signal


def unknown(what: str, name: str, known: Iterable[str]) -> RinError:
    """The error for a `name` that is none of the `known` ones, with the nearest of them.

    Args:
        what: what the name stands for, as in "preset".
        name: the name as it was given.
        known: the names there are.
    """
    names, name = sorted(known), _cut(name, 200)
    meant = nearest(name, names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    hint = f"did you mean {meant!r}?" if meant is not None else f"there are: {', '.join(names[:_MOST_NAMES])}{more}"
    return RinError(f"unknown {what} {name!r}: {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`; None if none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def _cut(text: str, most: int) -> str:
    """A text without its middle if it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"
