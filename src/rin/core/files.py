"""Files that are written whole or not at all, and folders that one process alone writes to."""

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rin.core.errors import RinError
from rin.core.progress import LOGGER

UNFINISHED = ".unfinished"
"""How the name of a file or folder ends while it is being written."""

LOCK = ".lock"
"""The file in a folder that whoever writes to the folder has locked."""

_PROBE = ".rin-"
"""How the name of a file begins that is written to see whether one can be."""

_PATIENCE = 1.0
"""Seconds to ask for a lock: someone who only looks holds it for an instant, and a killed process for a moment more."""


def check_file(path: Path) -> None:
    """Refuses to open what is there and no file: a pipe has no end, a device neither.

    Raises:
        ValueError: it is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")


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


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file with the permissions that new files have here; safetensors' are the owner's alone.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(mode)


def check_writable(folder: Path) -> None:
    """Makes a folder, and makes sure that files can be written to it.

    Raises:
        RinError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"{_PROBE}{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RinError(f"cannot write to {folder}: {error.strerror or error}") from error


def check_writable_file(path: Path) -> None:
    """Makes a file's folder, and makes sure that the file can be written.

    Raises:
        RinError: it cannot.
    """
    check_writable(path.parent)
    if path.is_dir():
        raise RinError(f"cannot write {path}: it is a folder")


def is_probe(path: Path) -> bool:
    """Whether a file is there for an instant, for `check_writable` in some process."""
    return path.name.startswith(_PROBE)


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
    """Deletes a folder, if it is there; under another name first: one half deleted is never taken for a whole one."""
    if not folder.exists():
        return
    if not folder.name.endswith(UNFINISHED):
        doomed = folder.with_name(folder.name + UNFINISHED)
        shutil.rmtree(doomed, ignore_errors=True)
        folder = folder.rename(doomed)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, busy: str, unwritable: str) -> Generator[None]:
    """Holds a folder's lock: no other process that asks for it writes to the folder meanwhile.

    The system takes the lock from a process that ends, however it ends; the file stays. Where a file system has no
    locks, this does nothing.

    Args:
        folder: where the file for the lock is, or is made.
        busy: begins the message when another process holds the lock, as in "runs/a is being trained by".
        unwritable: begins the message when the file cannot be made.

    Raises:
        RinError: another process holds it, or the folder cannot be written.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RinError(f"{unwritable}: {error.strerror or error}") from error
    try:
        _take(descriptor, folder, busy)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, busy: str) -> None:
    asked_until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > asked_until:
                pid, _, host = os.pread(descriptor, 1000, 0).decode(errors="replace").strip().partition(" ")
                holder = f"process {pid} on {host}" if pid else "another process"
                raise RinError(f"{busy} {holder}: wait for it, or stop it first") from None
            time.sleep(_PATIENCE / 20)
        except OSError as error:
            LOGGER.debug("%s cannot be locked: %s", folder, error)
            return
    with contextlib.suppress(OSError):  # only the message above would miss it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
