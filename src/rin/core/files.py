"""Files that are written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"
"""How the name of a file or folder ends while it is being written."""


@contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """A temporary path to write to, which becomes `path` at the end; after an error there is neither.

    What was at `path` before stays until then. The file is on the disk when it gets its name.
    """
    temporary = path.with_name(path.name + UNFINISHED)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Makes sure that a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Makes sure that a folder's list of names is on the disk, where the file system can."""
    with contextlib.suppress(OSError):
        flush(folder)


def discard(folder: Path) -> None:
    """Deletes a folder, under another name first, so that one half deleted is never taken for a whole one."""
    if not folder.name.endswith(UNFINISHED):
        doomed = folder.with_name(folder.name + UNFINISHED)
        shutil.rmtree(doomed, ignore_errors=True)
        folder = folder.rename(doomed)
    shutil.rmtree(folder, ignore_errors=True)
