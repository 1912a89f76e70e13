"""Arguments to dataclasses, with every mistake in one line."""

import contextlib
import io
import re
from typing import TypeVar

import tyro

from rin.core.errors import RinError

Arguments = TypeVar("Arguments")


_RULE = "[─-]{20,}"


def parse(kind: type[Arguments], arguments: list[str], prog: str, default: Arguments | None = None) -> Arguments:
    """The arguments as an instance of `kind`, whose fields and docstrings make the options and their help.

    Raises:
        RinError: the arguments are off; tyro's box, put into one line.
        SystemExit: help was asked for and has been printed.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(kind, args=arguments, prog=prog)
            return tyro.cli(kind, args=arguments, prog=prog, default=default, config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise RinError(_one_line(complaint.getvalue(), prog)) from None


def _one_line(box: str, prog: str) -> str:
    """The message of one of tyro's boxes, with the first option that it thinks was meant."""
    framed = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    lines = framed or box.splitlines()[2:]  # without a frame, where the terminal has no UTF-8, below a title and a rule
    message, *rest = (" ".join(part.split()) for part in re.split(_RULE, " ".join(lines)) if part.strip())
    refused = re.match(r"Error parsing experiment[\w.]*: ", message)  # by a configuration, in words of its own
    if refused:
        return message[refused.end() :]
    meant = re.search(r"--[\w.-]+", rest[0]) if message.startswith("Unrecognized") and len(rest) > 1 else None
    hint = f"did you mean {meant.group()}? " if meant else ""
    return f"{message.rstrip('.')}; {hint}{prog} --help lists all"
