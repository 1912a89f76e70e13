"""Arrays out of .npz files, which may come from anyone: what an array claims to be is checked before it is read."""

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rin.core.errors import RinError
from rin.core.files import check_file
from rin.core.memory import memory_here

_HIGHEST_RATIO = 1100
"""Bytes that one compressed byte gives at most; DEFLATE's limit is 1032."""

_OF_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, MemoryError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)
"""What zipfile and NumPy raise of damaged bytes."""


class Claim(NamedTuple):
    """What an array in a file is by its header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """What it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(
    path: Path, kinds: Mapping[str, str], check: Callable[[Mapping[str, Claim]], None], refusal: str
) -> dict[str, np.ndarray]:
    """Arrays of an .npz; what else is in it is not looked at, and nothing is unpickled.

    Args:
        path: where it is.
        kinds: the arrays, and NumPy's letters of the kinds of numbers that each may have; those that are not there are
            left out.
        check: refuses what the arrays claim to be, by a ValueError, before any is read.
        refusal: begins the message, as in "cannot read pictures from a.npz".

    Raises:
        RinError: it is no such file, or its arrays are of other kinds, not what they claim, or larger than the memory.
    """
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if len(members) < len(archive.namelist()):
                raise ValueError("it has a name twice")
            claims = {name: _claim(archive, members[name], kinds[name]) for name in kinds if name in members}
            check(claims)
            total, most = sum(claim.bytes for claim in claims.values()), memory_here()
            if total > most:
                raise ValueError(f"it would take {total / 2**30:.3g} GiB, and there are {most / 2**30:.3g}")
            return {name: _read(archive, members[name]) for name in claims}
    except RinError:
        raise
    except _OF_DAMAGE as error:
        raise RinError(f"{refusal}: {_reason(error)}") from error


def _claim(archive: zipfile.ZipFile, member: str, kinds: str) -> Claim:
    """What an array is by its header, which the size of the member has to bear out."""
    entry = archive.getinfo(member)
    with closing(archive.open(entry)) as file:
        claim = Claim(*_header(file))
        size = file.tell() + claim.bytes
    if claim.dtype.kind not in kinds or (claim.dtype.kind in "iuf" and claim.dtype.itemsize > 8):
        raise ValueError(f"{member.removesuffix('.npy')} is stored as {claim.dtype}")
    if size != entry.file_size or size > _HIGHEST_RATIO * entry.compress_size:
        raise ValueError(f"{member} claims {claim.shape} of {claim.dtype}, which are not there")
    return claim


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array has format {version}")
    shape, _, dtype = read(file)
    return shape, dtype


def _read(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with closing(archive.open(member)) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)  # PyTorch takes this machine's order of bytes alone


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (zipfile.BadZipFile, zlib.error)):
        return f"it is damaged, or no .npz ({error})"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
