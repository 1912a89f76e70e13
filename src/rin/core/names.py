"""Names that come from outside: fit to be printed, to be the names of files, and to mean the same from every folder."""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, line breaks, what turns the direction of writing or is not seen at all, and bytes of file names
that are no text. Joiners (U+200C, U+200D) are part of words and of pictographs, as tags are of flags."""

_NOT_IN_FILE_NAMES = re.compile(r'[/\\:*?"<>|]|' + _UNPRINTABLE.pattern)
"""What some system does not take in the name of a file, or takes for more than a name."""

_HIDDEN_OR_DROPPED = re.compile(r"^\.+|[. ]+$|^ +")
"""Dots in front hide a file, or lead out of the folder; dots at the end and spaces around are dropped by Windows."""

_DEVICE = re.compile(r"(con|prn|aux|nul|con(in|out)\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
"""What Windows takes for a device, with any ending."""

_MOST_BYTES = 120
"""Of a file's name in UTF-8; encrypted file systems take 143."""


def whole_path(name: str) -> str:
    """A model's folder from the root on, the same from every other folder; a name on the Hub as it is."""
    folder = os.path.expanduser(name)
    return os.path.realpath(folder) if os.path.isdir(folder) else name


def printable(text: str | Path) -> str:
    """A text or a path as it can be printed, on one line: what would steer a terminal, or is no text, is escaped."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), os.fspath(text))


def not_text(name: str) -> bool:
    """Whether the name of a file has bytes that are no text in UTF-8."""
    return re.search("[\ud800-\udfff]", name) is not None


def file_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names for a file or folder each, all in one folder: safe on every file system, and none like another.

    Most names are their own. What cannot be in a file's name becomes "_", so that "." and ".." name no folder that is
    there, and long names are cut. Names that would be one, also where "a" is "A", get their place behind them.
    """
    made: list[str] = []
    taken: set[str] = set()
    for place, name in enumerate(names):
        plain = _file_name(name)
        unique = plain
        while _alike(unique) in taken:
            unique = f"{plain}_{place}" if unique == plain else f"{unique}_"
        taken.add(_alike(unique))
        made.append(unique)
    return tuple(made)


def _alike(name: str) -> str:
    """The same for names that are one on some system: in any case, however composed, with joiners or without."""
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    return folded.replace("\u200c", "").replace("\u200d", "")


def _file_name(name: str) -> str:
    name = _NOT_IN_FILE_NAMES.sub("_", name)
    name = name.encode()[:_MOST_BYTES].decode(errors="ignore")
    name = _HIDDEN_OR_DROPPED.sub(lambda match: "_" * len(match[0]), name)
    return f"_{name}" if _DEVICE.match(name) else name or "_"
