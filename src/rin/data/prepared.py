"""A prepared set: pictures of one shape in memory-mapped shards, with nothing left to decode.

On disk it is a folder with `set.json` and, for each split, a folder of shards: `images-00000.npy` (uint8, n c h w) and
`labels-00000.npy` (int64, -1 for none), plain files that NumPy can map. While it is being made there is
`preparing.json` in place of `set.json`. Files have their names from numbers alone, and their first bytes must be the
very ones that their size in `set.json` asks for, so nothing in them is ever interpreted.
"""

import functools
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Labels, Pictures
from rin.data.decoding import Shape, check_shape, printable
from rin.data.encoded import Encoded

FORMAT_VERSION = 1
"""Of `set.json` and `preparing.json`; raised when old sets can no longer be read as they are."""

SET, BEGUN = "set.json", "preparing.json"

SPLIT_NAME = re.compile(r"\w[\w.-]*")
"""Names that a split's folder can have: none of them leads out of the set."""

_HEADER_BYTES = 128
_MAX_MAPPED = 1024
"""Shards that are mapped at a time, for a process can have some ten thousand maps only."""


class Shards:
    """The pictures of a split, in files that are mapped into memory when they are needed.

    Args:
        folder: the split's.
        shape: channels, height and width of every picture.
        counts: how many pictures each shard holds.

    Raises:
        RinError: a shard is not what it should be, or a label is no class's.
    """

    def __init__(self, folder: Path, shape: Shape, counts: Sequence[int]) -> None:
        self.folder, self.shape = folder, shape
        self._counts = list(counts)
        self._ends = np.cumsum(self._counts, dtype=np.int64)
        self._mapped = functools.lru_cache(maxsize=_MAX_MAPPED)(self._map)
        for number, count in enumerate(counts):
            check_shard(folder, number, shape, count)

    def __len__(self) -> int:
        return sum(self._counts)

    def gather(self, rows: Int[np.ndarray, "b"]) -> Pictures:
        """A copy of the pictures (b c h w) in some rows of the split."""
        pictures = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        into = pictures.numpy()  # as in image_sets: threads of PyTorch's have no place in a loader's thread
        shards = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            into[places] = self._mapped(shard)[rows[places] - (self._ends[shard] - self._counts[shard])]
        return pictures

    def labels(self) -> Int[np.ndarray, "b"]:
        """The class of every picture, -1 for none."""
        parts = [
            np.fromfile(labels_file(self.folder, shard), np.dtype("<i8"), count, offset=_HEADER_BYTES)
            for shard, count in enumerate(self._counts)
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _map(self, shard: int) -> Any:
        file, shape = images_file(self.folder, shard), (self._counts[shard], *self.shape)
        try:
            return np.asarray(np.memmap(file, np.uint8, "r", _HEADER_BYTES, shape))
        except (OSError, ValueError) as error:
            raise RinError(f"cannot read {printable(file)}, which was there at the start: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PreparedImages(Encoded):
    """A split of a prepared set, or a part of it; as an `Encoded`, its pictures are stored as plainly as can be."""

    shards: Shards
    """Where the pictures are."""

    @property
    def shape(self) -> Shape:
        """Channels, height and width of every picture."""
        return self.shards.shape

    @property
    def broken(self) -> tuple[str, ...]:
        """None: broken pictures were left out when the set was prepared, and its `set.json` names them."""
        return ()

    @property
    def num_broken(self) -> int:
        """None, as above."""
        return 0

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """None: any order is as cheap."""
        return ()

    def get(self, index: Int[Tensor, "b"]) -> tuple[Pictures, Labels]:
        """The pictures (b c h w) at some places of the set, and their classes (b), -1 for none."""
        places = index.numpy()
        return self.shards.gather(self.rows.numpy()[places]), torch.from_numpy(self.labels.numpy()[places])


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a prepared set, finished or not."""
    return (folder / SET).is_file() or (folder / BEGUN).is_file()


def read_set(folder: Path) -> dict[str, Any]:
    """What `set.json` says, looked through.

    Raises:
        RinError: the set is not finished, damaged or of a newer format.
    """
    if not (folder / SET).is_file():
        command = prepare_command(read_json(folder / BEGUN)["settings"], folder)
        raise RinError(f"the prepared set {printable(folder)} is not finished: go on with: {command}")
    stored = read_json(folder / SET)
    try:
        channels, height, width = _counts(stored["shape"])
        check_shape((channels, height, width))
        for name, split in stored["splits"].items():
            if not SPLIT_NAME.fullmatch(name):
                raise ValueError(f"no split has the name {name!r}")
            if not all(isinstance(text, str) for text in split["class_names"]):
                raise ValueError("class names are texts")
            _counts(split["shards"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_set(folder / SET, error) from error
    return stored


def open_split(folder: Path, stored: Mapping[str, Any], split: str) -> PreparedImages:
    """A split of a prepared set, of which `set.json` says `stored`.

    Raises:
        RinError: a shard is missing, truncated or something else, or holds classes that there are not.
    """
    channels, height, width = stored["shape"]
    class_names = tuple(stored["splits"][split]["class_names"])
    shards = Shards(folder / split, (channels, height, width), stored["splits"][split]["shards"])
    labels = shards.labels()
    if len(labels) and not (labels.min() >= -1 and labels.max() < len(class_names)):
        raise RinError(f"{printable(folder / split)} has labels that are none of its classes: prepare the set again")

    def read(row: int) -> bytes:
        file = io.BytesIO()
        pixels = shards.gather(np.array([row]))[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(file, "png", compress_level=0)
        return file.getvalue()

    return PreparedImages(
        read=read,
        name=f"{{}} of {printable(folder / split)}".format,
        rows=torch.arange(len(labels)),
        labels=torch.from_numpy(labels),
        class_names=class_names,
        shards=shards,
    )


def check_takes(images: PreparedImages, shape: Shape) -> None:
    """Refuses a model's shape that is not the set's.

    Raises:
        RinError: the shapes differ.
    """
    if images.shape == shape:
        return
    folder, (channels, height, width) = printable(images.shards.folder.parent), shape
    stored, wanted = ("x".join(map(str, one)) for one in (images.shape, shape))
    other_channels = f" --channels {channels}" if channels != images.shape[0] else ""
    raise RinError(
        f"{folder} holds pictures of {stored} and the model takes {wanted}: prepare a set with "
        f"--size {size_text(height, width)}{other_channels}, or give --model.shape {stored.replace('x', ' ')}"
    )


def size_text(height: int, width: int) -> str:
    """A size as `rin prepare` takes it: one number for a square."""
    return str(height) if height == width else f"{height}x{width}"


def prepare_command(settings: Mapping[str, Any], folder: Path) -> str:
    """The command that makes, or goes on with, a set of these settings."""
    words = ["rin", "prepare", str(settings.get("source")), printable(folder), "--size", str(settings.get("size"))]
    words += ["--channels", str(settings.get("channels"))] if settings.get("channels") != 3 else []
    words += ["--skip-broken"] if settings.get("skip_broken") else []
    words += [] if settings.get("labels") else ["--no-labels"]
    return shlex.join(words)


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
    _check_file(images_file(folder, number), npy_header("|u1", (count, *shape)), count * int(np.prod(shape)))
    _check_file(labels_file(folder, number), npy_header("<i8", (count,)), 8 * count)


def _check_file(file: Path, header: bytes, size: int) -> None:
    try:
        found = file.stat().st_size
        if found != len(header) + size:
            raise RinError(
                f"{printable(file)} has {found} bytes where {SET} asks for {len(header) + size}: it is truncated or "
                "another one; copy it again, or prepare the set again"
            )
        with file.open("rb") as opened:
            if opened.read(len(header)) != header:
                raise RinError(f"{printable(file)} is not the shard that {SET} asks for: prepare the set again")
    except OSError as error:
        reason = error.strerror or error
        raise RinError(f"cannot read {printable(file)}: {reason}; copy it again, or prepare the set again") from error


def read_json(path: Path) -> dict[str, Any]:
    """One of a set's JSON files.

    Raises:
        RinError: it is damaged or of a newer format.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored["format_version"]
        newer = version > FORMAT_VERSION
        if not isinstance(stored["settings"], dict):
            raise ValueError("settings are no settings")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_set(path, error) from error
    if newer:
        raise RinError(
            f"{printable(path)} has format {version}, this rin knows up to {FORMAT_VERSION}: install a newer rin"
        )
    return stored


def _no_set(path: Path, error: Exception) -> RinError:
    reason = error if isinstance(error, ValueError) else repr(error)
    return RinError(f"{printable(path)} is no prepared set's ({reason}): prepare the set again, or remove that file")


def _counts(values: Any) -> list[int]:
    """Numbers out of JSON that count something."""
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{values!r} are no counts"[:100])
    return values
