"""The shards of a prepared set's split: pictures and classes in files that are read where they lie.

`images-00000.npy` (uint8, n c h w, or n c f h w for clips) and `labels-00000.npy` (int64, -1 for none) are plain files
that NumPy can map. They have their names from numbers alone, and their first bytes must be the very ones that their
size in `set.json` asks for, so nothing in them is ever interpreted.

They are read by position and not mapped: a map of a file that is truncated later ends the process at its next look,
without a word, and each map holds a descriptor, of which a process may have too few for a large set.
"""

import functools
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from rin.core.errors import RinError
from rin.core.names import printable
from rin.core.shapes import Media
from rin.data.decoding.pictures import Shape

_HEADER_BYTES = 128

_MAX_OPEN = 64
"""Files that a split keeps open: few beside the 256 that some systems let a process have."""

_NEIGHBOURS, _NEIGHBOUR_BYTES = 256, 2**26
"""What is read in a go at most; systems take 1024 places and 2 GiB."""


class _OpenFile:
    """A descriptor, which is closed when nobody holds it any more: no thread's, while another one drops the file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class Shards:
    """The pictures of a split, read from their files when they are needed, by any number of threads.

    Args:
        folder: the split's.
        shape: of every picture (c h w) or clip (c f h w).
        counts: how many pictures each shard holds.

    Raises:
        RinError: a shard is not what it should be.
    """

    def __init__(self, folder: Path, shape: Shape, counts: Sequence[int]) -> None:
        self.folder, self.shape = folder, shape
        self._counts = list(counts)
        self._ends = np.cumsum(self._counts, dtype=np.int64)
        self._opened = functools.lru_cache(maxsize=_MAX_OPEN)(
            lambda shard: _OpenFile(os.open(images_file(folder, shard), os.O_RDONLY))
        )
        for number, count in enumerate(counts):
            check_shard(folder, number, shape, count)

    def gather(self, rows: Int[np.ndarray, " b"]) -> Media:
        """A copy of the pictures or clips (b c ... h w) in some rows of the split.

        Raises:
            RinError: a shard cannot be read any more.
        """
        pictures = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        into = pictures.numpy()  # as in media_sets: threads of PyTorch's have no place in a loader's thread
        order = np.argsort(rows, kind="stable")
        shards = np.searchsorted(self._ends, rows[order], side="right")
        is_apart = (np.diff(rows[order]) != 1) | (np.diff(shards) != 0)
        in_shard = (rows[order] - self._ends[shards] + np.asarray(self._counts)[shards]).tolist()
        places, apart = order.tolist(), [0, *(np.flatnonzero(is_apart) + 1).tolist(), len(rows)]
        most = max(1, min(_NEIGHBOURS, _NEIGHBOUR_BYTES // math.prod(self.shape)))
        for begin, end in itertools.pairwise(apart):
            for start in range(begin, end, most):
                buffers = [into[place].data for place in places[start : min(start + most, end)]]
                self._read(int(shards[start]), in_shard[start], buffers)
        return pictures

    def labels(self) -> Int[np.ndarray, " b"]:
        """The class of every picture, -1 for none.

        Raises:
            RinError: a shard cannot be read any more.
        """
        parts = [self._labels_of(shard, count) for shard, count in enumerate(self._counts)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _labels_of(self, shard: int, count: int) -> Int[np.ndarray, " n"]:
        file = labels_file(self.folder, shard)
        try:
            labels = np.fromfile(file, np.dtype("<i8"), count, offset=_HEADER_BYTES)
        except OSError as error:
            raise _gone(file, error.strerror or str(error)) from error
        if len(labels) != count:
            raise _gone(file, "it has been truncated")
        return labels

    def _read(self, shard: int, row: int, buffers: list[memoryview]) -> None:
        """Fills buffers with neighbouring pictures of a shard."""
        size = math.prod(self.shape)
        try:
            opened = self._opened(shard)  # held while it is read, for another thread may have it dropped
            count = os.preadv(opened.descriptor, buffers, _HEADER_BYTES + row * size)
        except OSError as error:
            raise _gone(images_file(self.folder, shard), error.strerror or str(error)) from error
        if count != size * len(buffers):
            raise _gone(images_file(self.folder, shard), "it has been truncated")


def _gone(file: Path, reason: str) -> RinError:
    way_out = "copy it again, or prepare the set again"
    return RinError(f"cannot read {printable(file)}, which was whole at the start: {reason}; {way_out}")


def images_file(folder: Path, shard: int) -> Path:
    """The pictures of a shard of a split."""
    return folder / f"images-{shard:05d}.npy"


def labels_file(folder: Path, shard: int) -> Path:
    """The classes of a shard of a split."""
    return folder / f"labels-{shard:05d}.npy"


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The first 128 bytes of a .npy file (format 1.0) of an array of a kind ("|u1", "<i8") and shape."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    magic = b"\x93NUMPY\x01\x00"
    length = _HEADER_BYTES - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def check_shard(folder: Path, number: int, shape: Shape, count: int) -> None:
    """Makes sure that both files of a shard are what they should be, by their sizes and first bytes.

    Raises:
        RinError: one of them is not.
    """
    _check_file(images_file(folder, number), npy_header("|u1", (count, *shape)), count * math.prod(shape))
    _check_file(labels_file(folder, number), npy_header("<i8", (count,)), 8 * count)


def _check_file(file: Path, header: bytes, size: int) -> None:
    try:
        found = file.stat().st_size
        if found != len(header) + size:
            raise RinError(
                f"{printable(file)} has {found} bytes where set.json asks for {len(header) + size}: it is truncated or "
                "another one; copy it again, or prepare the set again"
            )
        with file.open("rb") as opened:
            if opened.read(len(header)) != header:
                raise RinError(f"{printable(file)} is not the shard that set.json asks for: prepare the set again")
    except OSError as error:
        reason = error.strerror or error
        raise RinError(f"cannot read {printable(file)}: {reason}; copy it again, or prepare the set again") from error
