"""Data sets of one's own: anything with a length and examples by number."""

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import Kind, is_image
from rin.core.progress import LOGGER
from rin.core.seeds import permutation
from rin.core.shapes import Labels, Stored
from rin.core.texts import EmbeddedCaptions
from rin.core.values import NUMBERS, PICTURES, OutOfRangeError, Values, values_of
from rin.data.decoding.deep_grey import ValueRange, in_eight_bits, is_deep_grey
from rin.data.decoding.pictures import Shape, fitted, in_channels
from rin.data.feeding.opened_data import OpenedData
from rin.data.files.encoded import HELD_OUT_SEED, NothingBroken, listed
from rin.data.files.identity import DataIdentity, digest_of

_LARGEST_SENT = 64 * 2**20
"""Bytes of a data set of one's own that workers are sent; one that is larger is in memory, and needs none."""

_ROWS_AT_ONCE = 1024
"""Of embeddings that are looked through."""

_X, _LABEL = ("x", "image", "img", "pixel_values"), ("label", "labels")
"""The names of an example's parts, where it is a mapping."""


@runtime_checkable
class MapStyle(Protocol):
    """A map-style data set, such as PyTorch's and torchvision's."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """An example: see `Source`."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set of one's own, for `rin.train(experiment, out, data=...)`.

    An example is a pair (x, label), x alone, or a mapping with `x` (or `image`, `img`, `pixel_values`) and perhaps
    `label`: so are the rows of `datasets`, of PyTorch's TensorDataset and of torchvision's sets, and those of an array.
    x is an image of Pillow's, which is cropped and resized to the model's shape, or a tensor or an array of that shape:
    (c h w), (c f h w) or (n c), of any type of number, the same for all. The label is a whole number, or None (or -1)
    for none; where there are `embeddings`, it is the row of these. Examples are read beside training, by workers if
    they can be sent the data set, and again in each epoch: what a data set draws by chance is its own, and not repeated
    when a run goes on.
    """

    data: MapStyle
    """The data set."""

    class_names: tuple[str, ...] = ()
    """The names of the classes; if empty those that the data set tells (`features` of `datasets`, `classes` of
    torchvision), or else the numbers below the model's `num_classes`."""

    value_range: ValueRange | None = None
    """The least and the largest value, which become -1 and 1: floats and wider whole numbers have to say theirs; whole
    numbers of 8 and 16 bits have their whole range if None, and uint8 always. Of grey images of more than 8 bits: black
    and white; None for what each of them declares."""

    embeddings: npt.NDArray[Any] | Tensor | None = None
    """What a model is to draw by in place of classes (rows k dim), floats: of a text, for example, k tokens. An array
    in a file (`numpy.load(path, mmap_mode="r")`) stays there."""

    embedding_mask: npt.NDArray[Any] | Tensor | None = None
    """Which of these tokens count (rows k), booleans; all if None."""

    @cached_property
    def embedded(self) -> EmbeddedCaptions | None:
        """The embeddings, looked through once, and which of their tokens count; None if there are none.

        Raises:
            RinError: they are of other shapes than (rows k dim) and (rows k), no floats, or not finite where they
                count.
        """
        if self.embeddings is None:
            return None
        embeddings, mask = (_plain(each) for each in (self.embeddings, self.embedding_mask))
        assert embeddings is not None
        if embeddings.ndim != 3 or not embeddings.size or embeddings.dtype.kind != "f":
            raise RinError(f"embeddings are {embeddings.dtype} {embeddings.shape}: give floats (rows k dim)")
        mask = np.ones(embeddings.shape[:2], bool) if mask is None else mask
        if mask.shape != embeddings.shape[:2] or mask.dtype != bool:
            raise RinError(f"embedding_mask is {mask.dtype} {mask.shape}: give booleans {embeddings.shape[:2]}")
        for start in range(0, len(embeddings), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            finite = np.isfinite(embeddings[rows]).all(2) | ~mask[rows]
            if not finite.all():
                raise RinError(
                    f"row {start + int(finite.all(1).argmin())} of the embeddings is not finite: give numbers"
                )
        if self.names and len(self.names) != len(embeddings):
            raise RinError(
                f"class_names are {len(self.names)}, and embeddings have {len(embeddings)} rows: leave them out"
            )
        return EmbeddedCaptions(embeddings, mask)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, as given or as the data set tells them; empty if neither."""
        features: Any = getattr(self.data, "features", None)
        of_features = [getattr(features[name], "names", None) for name in _LABEL if name in (features or ())]
        for told in (self.class_names, *of_features, getattr(self.data, "classes", None)):
            if isinstance(told, (list, tuple)) and told and all(isinstance(name, str) for name in told):
                return tuple(told)
        return ()


class SourceSet(NothingBroken):
    """Some examples of a source, at the shape of a model: a `MediaSet`, in which one that cannot be read is an error.

    Args:
        source: the data set.
        kind: what the model draws.
        places: which examples.
    """

    def __init__(self, source: Source, kind: Kind, places: Int[Tensor, " b"]) -> None:
        # without what workers need no copy of
        self.source = replace(source, embeddings=None, embedding_mask=None)
        self.kind, self.places = kind, places
        num_rows = 0 if source.embeddings is None else len(source.embeddings)
        names = source.names or tuple(map(str, range(num_rows or kind.num_classes)))
        self.class_names = names if kind.is_labelled else ()

    @property
    def shape(self) -> Shape:
        """Of every example."""
        return self.kind.data_shape

    def __len__(self) -> int:
        return len(self.places)

    def get(self, index: Int[Tensor, " b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, and their classes (b), -1 for none.

        Raises:
            RinError: an example is none, of another shape or type, or has values or a label out of range.
        """
        places = self.places[index].tolist()
        pairs = [self._example(place) for place in places]
        types = {x.dtype.name for x, _ in pairs}
        if len(types) > 1:
            raise RinError(f"some examples of the data are {' and some '.join(sorted(types))}: give all of one type")
        x, labels = np.stack([x for x, _ in pairs]), torch.tensor([label for _, label in pairs])
        values = self._values_of(x.dtype)
        if values == PICTURES:
            return torch.from_numpy(x), labels
        try:
            return values.to_model(torch.from_numpy(x.astype(np.float32))), labels
        except OutOfRangeError as error:
            raise RinError(
                f"example {places[error.place]} of the data {error.found}, and value_range is {values.low:g} to "
                f"{values.high:g}: give the range of the whole set, as in rin.data.Source(data, value_range=(0, 1))"
            ) from None

    @cached_property
    def worker(self) -> "Callable[[Int[Tensor, ' b']], tuple[Stored, Labels]] | None":
        """What workers make examples by; None, with a line why, if the data set is to be read by this process."""
        reason = why_not_sent(self.source)
        if reason:
            LOGGER.info("examples of the data set are read by a thread of this process: %s", reason)
        return None if reason else self.get

    def request(self, index: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """What a worker has to know of some examples: their places."""
        return index

    def finish(self, index: Int[Tensor, " b"], made: tuple[Stored, Labels]) -> tuple[Stored, Labels]:
        """What a worker has made, which is all there is to do."""
        del index
        return made

    def values(self) -> Values:
        """What the numbers of the examples mean, by the first of them.

        Raises:
            RinError: it is no example, or the range of its numbers is not known.
        """
        x, _ = self._example(int(self.places[0]))
        return self._values_of(x.dtype)

    def _values_of(self, dtype: np.dtype) -> Values:
        if dtype == np.uint8:
            return PICTURES
        way_out = "rin.data.Source(data, value_range=(LOW, HIGH)), as in (0, 1)"
        return values_of(dtype, self.source.value_range, "the data set", way_out)

    def _example(self, place: int) -> tuple[np.ndarray, int]:
        x, label = _parts(self.source.data[place], place)
        return self._numbers(x, place), self._label(label, place)

    def _numbers(self, x: Any, place: int) -> np.ndarray:
        if isinstance(x, Image.Image) and is_image(self.shape):
            plain = in_eight_bits(x, self.source.value_range) if is_deep_grey(x) else x
            return fitted(in_channels(plain, self.shape[0]), self.shape).numpy()
        if isinstance(x, Tensor):
            x = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
        if not isinstance(x, np.ndarray) or x.dtype.name not in NUMBERS:
            what = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
            raise RinError(f"example {place} of the data is {what}: give numbers, or images of Pillow's")
        if x.shape != self.shape:
            raise RinError(f"example {place} of the data has shape {x.shape}, the model's is {self.shape}")
        return x

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


def _parts(example: Any, place: int) -> tuple[Any, Any]:
    """An example's x and label; None for no label."""
    if isinstance(example, Mapping):
        (x, *more), labels = (
            [example[name] for name in names if name in example] or [None] for names in (_X, _LABEL)
        )  # fmt: skip
        if x is None or more:
            raise RinError(f"example {place} of the data has {listed(list(map(str, example)))}: give x, and label")
        return x, labels[0]
    if isinstance(example, (tuple, list)):
        if not 1 <= len(example) <= 2:
            raise RinError(
                f"example {place} of the data is a {type(example).__name__} of {len(example)}: give (x, label)"
            )
        return example[0], example[1] if len(example) > 1 else None
    return example, None


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
    embedded = data.embedded
    if held_out is not None and held_out.embeddings is not data.embeddings:
        raise RinError("held_out has other embeddings than data: give the same, whose rows both have as labels")
    training, names = _places(data), data.names
    if names and not data.class_names and kind.num_classes:
        kind = replace(kind, num_classes=len(names))
    if names and kind.num_classes and len(names) != kind.num_classes:
        raise RinError(f"class_names are {len(names)} and the model has {kind.num_classes} classes: give one each")
    if held_out is None:
        mixed, count = permutation(HELD_OUT_SEED, 0, len(training)), min(num_held_out, len(training) // 10)
        measured, training = SourceSet(data, kind, mixed[:count]), mixed[count:].sort().values
    else:
        if held_out.names != names:
            raise RinError("held_out has other class_names than data: give the same")
        measured = SourceSet(held_out, kind, _places(held_out)[:num_held_out])
    if not len(training):
        raise RinError("the data have no examples to train on")
    trained = SourceSet(data, kind, training)
    identity = _identity(trained, measured)
    return OpenedData(
        training=trained, held_out=measured, identity=identity, values=trained.values(), embedded=embedded
    )


def _plain(values: Any) -> np.ndarray | None:
    if isinstance(values, Tensor):
        return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
    return values if values is None or isinstance(values, np.ndarray) else np.asarray(values)


def _places(source: Source) -> Int[Tensor, " b"]:
    return torch.arange(len(source.data))


def _identity(training: SourceSet, held_out: SourceSet) -> DataIdentity:
    return DataIdentity(
        num_training=len(training),
        num_held_out=len(held_out),
        num_pictures=0,
        listing=digest_of(()),
        classes=hashlib.sha256(json.dumps(training.class_names).encode()).hexdigest(),
    )


def why_not_sent(thing: Any) -> str:
    """Why a thing is not sent to workers, each of which would hold it once more; empty if it is."""
    kept = _Counted()
    try:
        pickle.Pickler(kept, protocol=pickle.HIGHEST_PROTOCOL).dump(thing)
    except _TooLargeError:
        return f"it is more than {_LARGEST_SENT >> 20} MiB"
    except Exception as error:  # pickling raises what it likes
        return f"it cannot be pickled ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return "a part of it is defined in the script itself, and not in a module" if kept.names_script else ""


class _TooLargeError(Exception):
    """A pickle has outgrown what is sent."""


class _Counted:
    """A file that keeps no more of a pickle than is to be known of it."""

    def __init__(self) -> None:
        self.size, self.names_script = 0, False

    def write(self, part: bytes | pickle.PickleBuffer) -> None:
        self.size += memoryview(part).nbytes
        if self.size > _LARGEST_SENT:
            raise _TooLargeError
        self.names_script |= b"__main__" in bytes(part)
