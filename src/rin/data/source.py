"""Data sets of one's own: anything with a length and pairs (x, label) by number."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import Kind, is_image
from rin.core.seeds import permutation
from rin.core.shapes import Labels, Stored
from rin.core.values import PICTURES, Values
from rin.data.decoding import Shape, fitted, in_channels
from rin.data.deep_grey import ValueRange, in_eight_bits, is_deep_grey
from rin.data.encoded import HELD_OUT_SEED
from rin.data.identity import DataIdentity, digest_of
from rin.data.opening import OpenedData

_ROUNDING = 1e-3
"""Share of a range by which values may lie outside of it."""


@runtime_checkable
class MapStyle(Protocol):
    """A map-style data set, such as PyTorch's and torchvision's."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """The pair (x, label) of an example."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set of one's own, for `rin.train(experiment, out, data=...)`.

    An example is a pair (x, label). x is an image of Pillow's, which is cropped and resized to the model's shape, or a
    tensor or an array of that shape: (c h w), (c f h w) or (n c); of uint8 from 0 to 255, or floats in `value_range`.
    The label is a whole number, or None (or -1) for none. Examples are read in a thread beside training's, and again
    in each epoch: what a data set draws by chance is its own, and not repeated when a run goes on.
    """

    data: MapStyle
    """The data set."""

    class_names: tuple[str, ...] = ()
    """The names of the classes; if empty they are the numbers below the model's `num_classes`."""

    value_range: ValueRange | None = None
    """The least and the largest value of floats, which become -1 and 1; None for (-1, 1). Of grey images of more than
    8 bits: black and white; None for what each of them declares."""


class SourceSet:
    """Some examples of a source, at the shape of a model: a `MediaSet`.

    Args:
        source: the data set.
        kind: what the model draws.
        places: which examples.
    """

    def __init__(self, source: Source, kind: Kind, places: Int[Tensor, "b"]) -> None:
        self.source, self.kind, self.places = source, kind, places
        names = source.class_names or tuple(map(str, range(kind.num_classes)))
        self.class_names = names if kind.num_classes else ()

    @property
    def shape(self) -> Shape:
        """Of every example."""
        return self.kind.data_shape

    @property
    def broken(self) -> tuple[str, ...]:
        """None: an example that cannot be read is an error."""
        return ()

    @property
    def num_broken(self) -> int:
        """None."""
        return 0

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """None: any order is as cheap."""
        return ()

    def __len__(self) -> int:
        return len(self.places)

    def get(self, index: Int[Tensor, "b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, and their classes (b), -1 for none.

        Raises:
            RinError: an example is no such pair, of another shape, or has values or a label out of range.
        """
        pairs = [self._example(place) for place in self.places[index].tolist()]
        kinds = {x.dtype for x, _ in pairs}
        if len(kinds) > 1:
            raise RinError("some examples of the data are uint8 and some are floats: give all of one kind")
        return torch.stack([x for x, _ in pairs]), torch.tensor([label for _, label in pairs])

    def _example(self, place: int) -> tuple[Tensor, int]:
        pair = self.source.data[place]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise RinError(f"example {place} of the data is {type(pair).__name__}: give pairs (x, label)")
        return self._values(pair[0], place), self._label(pair[1], place)

    def _values(self, x: Any, place: int) -> Tensor:
        if isinstance(x, Image.Image) and is_image(self.shape):
            plain = in_eight_bits(x, self.source.value_range) if is_deep_grey(x) else x
            return fitted(in_channels(plain, self.shape[0]), self.shape)
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(np.ascontiguousarray(x))
        if not isinstance(x, Tensor) or not (x.dtype == torch.uint8 or x.is_floating_point()):
            what = f"a tensor of {str(x.dtype).removeprefix('torch.')}" if isinstance(x, Tensor) else type(x).__name__
            raise RinError(f"example {place} of the data is {what}: give uint8, floats, or images of Pillow's")
        if tuple(x.shape) != self.shape:
            raise RinError(f"example {place} of the data has shape {tuple(x.shape)}, the model's is {self.shape}")
        return x if x.dtype == torch.uint8 else self._in_range(x.float(), place)

    def _in_range(self, x: Tensor, place: int) -> Tensor:
        low, high = self.source.value_range or (-1.0, 1.0)
        least, most = (number.item() for number in torch.aminmax(x))
        slack = _ROUNDING * (high - low)
        if not (least >= low - slack and most <= high + slack):
            raise RinError(
                f"example {place} of the data has values from {least:.4g} to {most:.4g}, and value_range is "
                f"{low:g} to {high:g}: give the range of the whole set, as in rin.data.Source(data, value_range=(0, 1))"
            )
        return ((x - low) / (high - low) * 2 - 1).clamp(-1, 1)

    def _label(self, label: Any, place: int) -> int:
        if label is None:
            return -1
        if isinstance(label, (np.ndarray, np.generic, Tensor)) and label.ndim == 0:
            label = label.item()
        if type(label) is not int:
            raise RinError(f"example {place} of the data has the label {label!r}: give a whole number, or None")
        num_classes = len(self.class_names)
        if num_classes and not -1 <= label < num_classes:
            raise RinError(f"example {place} of the data has the label {label}: the classes are 0 to {num_classes - 1}")
        return label if num_classes else -1


def open_source(data: Source, held_out: Source | None, num_held_out: int, kind: Kind) -> OpenedData:
    """The sets of a run out of data sets of one's own.

    Args:
        data: to train on.
        held_out: to measure on; if None a tenth of `data` at most, which is then not trained on.
        num_held_out: examples of it at most.
        kind: what the model draws.

    Raises:
        RinError: there is nothing to train on, or the sets have other classes than the model or one another.
    """
    training, names = _places(data), data.class_names
    if names and kind.num_classes and len(names) != kind.num_classes:
        raise RinError(f"class_names are {len(names)} and the model has {kind.num_classes} classes: give one each")
    if held_out is None:
        mixed, count = permutation(HELD_OUT_SEED, 0, len(training)), min(num_held_out, len(training) // 10)
        measured, training = SourceSet(data, kind, mixed[:count]), mixed[count:].sort().values
    else:
        if held_out.class_names != names:
            raise RinError("held_out has other class_names than data: give the same")
        measured = SourceSet(held_out, kind, _places(held_out)[:num_held_out])
    if not len(training):
        raise RinError("the data have no examples to train on")
    trained = SourceSet(data, kind, training)
    low, high = data.value_range or (-1.0, 1.0)
    values = Values(low=low, high=high, dtype="float32") if data.value_range or kind.is_set else PICTURES
    return OpenedData(training=trained, held_out=measured, identity=_identity(trained, measured), values=values)


def _places(source: Source) -> Int[Tensor, "b"]:
    return torch.arange(len(source.data))


def _identity(training: SourceSet, held_out: SourceSet) -> DataIdentity:
    return DataIdentity(
        num_training=len(training),
        num_held_out=len(held_out),
        num_pictures=0,
        listing=digest_of(()),
        classes=hashlib.sha256(json.dumps(training.class_names).encode()).hexdigest(),
    )
