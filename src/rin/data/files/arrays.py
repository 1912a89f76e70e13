"""Arrays of NumPy's as data sets: .npy and .npz files, and folders of .npy columns, read in place.

A folder, or each split's folder in it, has `x.npy`, and may have `labels.npy` and `class_names.txt`, a name a line, or
`captions.txt`, a caption a line. An .npz has `images` or `x`, and may have `labels` and `class_names`, or `captions`;
with splits `train_images`, `val_images`, `test_images` and the same of the others, as MedMNIST's files have them.
Captions are classes, by their text: as many as there are different ones.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import is_image, is_signal, is_video
from rin.core.names import printable
from rin.core.npz import Claim, read_npz
from rin.core.shapes import Labels, Stored
from rin.core.values import PICTURES, OutOfRangeError, Values, values_of
from rin.data.config import DataConfig
from rin.data.decoding.pictures import Shape
from rin.data.files.encoded import Encoded, NothingBroken, numbered_classes, numbered_texts

X, LABELS, NAMES, CAPTIONS = "x.npy", "labels.npy", "class_names.txt", "captions.txt"

_SPLITS = ("train", "val", "test")
_NUMBERS = "biuf"
_NPZ = {
    f"{split}{name}": kinds
    for split in ("", *(f"{split}_" for split in _SPLITS))
    for name, kinds in (
        ("images", _NUMBERS),
        ("x", _NUMBERS),
        ("labels", "iu"),
        ("class_names", "U"),
        ("captions", "U"),
    )
}
"""The arrays of an .npz that are looked at, and the kinds of numbers that they may have."""


@dataclass(frozen=True, kw_only=True)
class ArrayMedia(NothingBroken, Encoded):
    """Examples of an array: images, clips or sets of vectors, in any type of number."""

    array: np.ndarray
    """All examples of the source (b ...), in the layout of the model's shape."""

    values: Values
    """What its numbers mean."""

    origin: str
    """What a person calls the array."""

    @property
    def shape(self) -> Shape:
        """Of every example."""
        return self.array.shape[1:]

    def get(self, index: Int[Tensor, " b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, 0 to 255 or in [-1, 1], and their classes (b), -1 for none.

        Raises:
            RinError: an example has a value outside the range.
        """
        rows = self.rows[index]
        taken = np.ascontiguousarray(self.array[rows.numpy()])
        if self.values == PICTURES:
            return torch.from_numpy(taken), self.labels[index]
        try:
            return self.values.to_model(torch.from_numpy(taken.astype(np.float32))), self.labels[index]
        except OutOfRangeError as error:
            raise RinError(
                f"example {int(rows[error.place])} of {self.origin} {error.found}, and its range is "
                f"{self.values.low:g} to {self.values.high:g}: give --data.value-range of the whole set"
            ) from None


def array_media(
    array: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], values: Values, origin: str, **more: Any
) -> ArrayMedia:
    """All examples of an array as a set.

    Args:
        array: the examples (b ...), in the layout of the model's shape.
        labels: their classes (b), -1 for none.
        class_names: the name of each class.
        values: what the numbers mean.
        origin: what a person calls the array.
        **more: further fields of `Encoded`.
    """

    def read(row: int) -> NoReturn:
        raise RinError(f"{origin} holds arrays, example {row} among them, which are read as they are: train on it")

    return ArrayMedia(
        read=read,
        name=f"{{}} of {origin}".format,
        rows=torch.arange(len(array)),
        labels=torch.from_numpy(labels),
        class_names=class_names,
        kind="clip" if is_video(array.shape[1:]) else "picture",
        array=array,
        values=values,
        origin=origin,
        **more,
    )


def are_arrays(path: str) -> bool:
    """Whether a path is an .npy or .npz file, or a folder of such columns."""
    where = Path(os.path.expanduser(path))
    if where.suffix.lower() in (".npy", ".npz"):
        return os.path.isfile(where)
    return os.path.isdir(where) and bool(_columns(where, ""))


def open_arrays(config: DataConfig, shape: Shape) -> dict[str, Callable[[], Encoded]]:
    """The splits of a set of arrays, each to be opened by a call; a set without splits is the one to train on.

    Raises:
        RinError: an array cannot be read, is of another shape than the model, or its range is not known.
    """
    for option, given in (
        ("data.column", config.column),
        ("data.captions", config.captions),
        ("data.stream", config.stream),
    ):
        if given:
            raise RinError(f"{option} is for tables, and {printable(config.path)} holds arrays: leave it out")
    path = Path(os.path.expanduser(config.path))
    if path.suffix.lower() == ".npz":
        return _splits_of_npz(path, config, shape)
    if path.is_file():
        return {config.split: partial(_opened, _mapped(path), None, (), path, config, shape)}
    folders = _columns(path, config.split)
    every = numbered_texts([text for folder in folders.values() for text in _lines(folder / CAPTIONS)])
    return {name: partial(_opened_folder, folder, every, config, shape) for name, folder in folders.items()}


def _columns(folder: Path, split: str) -> dict[str, Path]:
    """The folders of columns in a folder, by split; itself if it has no splits."""
    if (folder / X).is_file():
        return {split: folder}
    return {inner.name: inner for inner in sorted(folder.iterdir()) if (inner / X).is_file()}


def _opened_folder(folder: Path, every: dict[str, int], config: DataConfig, shape: Shape) -> ArrayMedia:
    labels = _mapped(folder / LABELS) if (folder / LABELS).is_file() else None
    names = tuple(_lines(folder / NAMES))
    if labels is None and (captions := _lines(folder / CAPTIONS)):
        labels, names = np.array([every[text] for text in captions]), tuple(every)
    return _opened(_mapped(folder / X), labels, names, folder / X, config, shape)


def _lines(path: Path) -> list[str]:
    """The lines of a text file; none if there is no such file."""
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise RinError(f"cannot read {printable(path)}: {error}") from error


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RinError(f"cannot read the array {printable(path)}: {reason[0]}") from error


def _splits_of_npz(path: Path, config: DataConfig, shape: Shape) -> dict[str, Callable[[], Encoded]]:
    def check(claims: Mapping[str, Claim]) -> None:
        if not any(name.endswith(("images", "x")) for name in claims):
            raise ValueError("it has no array `images` or `x`, and none of a split, as in `train_images`")

    arrays = read_npz(path, _NPZ, check, f"cannot read {printable(path)}")
    every = numbered_texts(text for name in arrays if name.endswith("captions") for text in arrays[name].tolist())
    splits: dict[str, Callable[[], Encoded]] = {}
    for prefix, split in (("", config.split), *((f"{name}_", name) for name in _SPLITS)):
        x = arrays.get(f"{prefix}images", arrays.get(f"{prefix}x"))
        if x is not None:
            names = arrays.get(f"{prefix}class_names", arrays.get("class_names", np.array([], "U1")))
            labels = arrays.get(f"{prefix}labels")
            labels = None if labels is None or not labels.size else labels  # our own files without labels have none
            captions, names = arrays.get(f"{prefix}captions"), tuple(names.tolist())
            if labels is None and captions is not None:
                labels, names = np.array([every[text] for text in captions.flatten().tolist()], int), tuple(every)
            splits[split] = partial(_opened, x, labels, names, path, config, shape)
    return splits


def _opened(
    x: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...], path: Path, config: DataConfig, shape: Shape
) -> ArrayMedia:
    origin = printable(path)
    array = _laid_out(x, shape, origin)
    values = values_of(array.dtype, config.value_range, origin)
    if labels is None:
        labels, names = np.full(len(array), -1), ()
    labels = labels.reshape(-1) if labels.size == len(array) else labels  # MedMNIST's are (n, 1)
    if labels.shape != (len(array),) or labels.dtype.kind not in "iu" or (labels.size and labels.min() < -1):
        raise RinError(
            f"the labels of {origin} are {labels.dtype} {labels.shape} for {len(array)} examples: give a whole number "
            "from 0 on for each, -1 for none"
        )
    labels = labels.astype(np.int64)
    count = int(labels.max(initial=-1)) + 1
    if names and len(names) < count:
        raise RinError(f"{origin} has {len(names)} names of classes and labels up to {count - 1}: give a name each")
    listing = f"{path.name} {path.stat().st_size} {array.shape} {array.dtype}"
    return array_media(array, labels, names or numbered_classes(count, origin), values, origin, listing=listing)


def _laid_out(x: np.ndarray, shape: Shape, origin: str) -> np.ndarray:
    """The array with its axes in the order of a model's shape; channels may be last, or left out if there is one."""
    if is_signal(shape) and x.ndim in (2, 3):  # (b n), (b c n) or (b n c)
        x = np.expand_dims(x, 1 if x.shape[1:] == (shape[2], shape[0]) and shape[0] != shape[2] else -2)
    inner = x.shape[1:]
    if x.ndim > 1 and inner == tuple(shape):
        return x
    if is_image(shape) or is_video(shape):
        if inner == (*shape[1:], shape[0]):
            return np.moveaxis(x, -1, 1)
        if shape[0] == 1 and inner == tuple(shape[1:]):
            return x[:, None]
    raise RinError(
        f"{origin} holds examples of {inner}, and the model takes {tuple(shape)}: give --model.shape "
        f"{' '.join(map(str, inner))}, with channels first where there are some"
    )
