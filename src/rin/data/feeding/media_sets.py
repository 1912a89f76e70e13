"""Sets of decoded pictures or clips: kept in memory, or decoded when needed."""

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from rin.core.progress import progress_bar
from rin.core.shapes import Labels, Stored
from rin.data.decoding.deep_grey import ValueRange
from rin.data.decoding.pictures import BrokenMediaError, Footage, Shape, Source
from rin.data.feeding.workers import Asked, Made, made_ahead
from rin.data.files.broken import BrokenMedia
from rin.data.files.encoded import Encoded, decoded

_Source = Source | Footage | BrokenMediaError
"""What a picture or clip is decoded from, or why there is nothing to decode."""

_Decoded = tuple[Stored, dict[int, BrokenMediaError]]
"""Pictures or clips (b ...), and what is wrong with some of them, by their places."""

_SPAN, _SPAN_BYTES = 256, 2**22
"""What is decoded in a go at most."""


@runtime_checkable
class MediaSet(Protocol):
    """Pictures, or clips, of one shape in a fixed order, each with a class or none.

    A picture that cannot be read ends the run or, where such pictures are passed over, the next readable one of the
    set stands in for it, with its class: neither length nor order of a set depends on what can be read.
    """

    @property
    def shape(self) -> Shape:
        """Of every picture (c h w) or clip (c f h w)."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class; empty if there are no classes."""
        ...

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the pictures that others stand in for because they could not be read, as far as met."""
        ...

    @property
    def num_broken(self) -> int:
        """How many pictures others stand in for."""
        ...

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Sizes of the groups of neighbouring examples that are cheap to read together.

        For a stream that permutes groups, and rows within them; empty if any order is as cheap.
        """
        ...

    def __len__(self) -> int:
        """How many pictures there are."""
        ...

    def get(self, index: Int[Tensor, " b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, and their classes (b), -1 for none."""
        ...


class MediaInMemory:
    """Examples in one tensor.

    Args:
        pictures: all of them (b ...), 0 to 255 or floats in [-1, 1], on any device.
        labels: their classes, -1 for none, on the same device.
        class_names: the name of each class.
        broken: the names of those that others stand in for because they could not be read.
    """

    group_sizes: tuple[int, ...] = ()
    """None: any order is as cheap."""

    def __init__(
        self, pictures: Stored, labels: Labels, class_names: tuple[str, ...], broken: tuple[str, ...] = ()
    ) -> None:
        self.pictures = pictures
        self.labels = labels
        self.class_names = class_names
        self.broken, self.num_broken = broken, len(broken)

    @property
    def shape(self) -> Shape:
        """Of every example."""
        return tuple(self.pictures.shape[1:])

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> "MediaInMemory":
        """The same set with its pictures on a device."""
        return MediaInMemory(self.pictures.to(device), self.labels.to(device), self.class_names, self.broken)

    def get(self, index: Int[Tensor, " b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, and their classes (b), -1 for none."""
        index = index.to(self.pictures.device, non_blocking=True)
        return self.pictures[index], self.labels[index]


@dataclass(frozen=True)
class Decoder:
    """What makes pictures or clips of one shape, here or in a worker."""

    shape: Shape
    """Of each: (c h w) or (c f h w)."""

    value_range: ValueRange | None
    bits: int
    """Of pictures of more than 8 bits, and the bits that pictures are decoded to."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what is made: floats of 16 bits."""
        return torch.uint8 if self.bits == 8 else torch.float32

    def __call__(self, sources: Sequence[_Source]) -> _Decoded:
        """Those that can be read at their places (b ...), and what is wrong with the others by theirs."""
        pictures = torch.empty(len(sources), *self.shape, dtype=self.dtype)
        into = pictures.numpy()  # PyTorch would start threads of its own in a thread
        broken: dict[int, BrokenMediaError] = {}
        for number, source in enumerate(sources):
            try:
                if isinstance(source, BrokenMediaError):
                    raise source
                into[number] = decoded(source, self.shape, self.value_range, self.bits).numpy()
            except BrokenMediaError as error:
                broken[number] = error
        return pictures, broken


class MediaOnDemand:
    """Pictures that are decoded when they are asked for, in three steps: the second can be a worker's.

    Args:
        encoded: the pictures before decoding.
        shape: of each, once decoded: (c h w) or (c f h w).
        skip_broken: whether the next readable picture of the set, with its class, stands in for one that cannot be
            read; otherwise that one is an error.
    """

    def __init__(self, encoded: Encoded, shape: Shape, skip_broken: bool) -> None:
        self.shape = shape
        self.class_names = encoded.class_names
        groups, sizes = encoded.groups.unique_consecutive(return_counts=True)
        self.group_sizes: tuple[int, ...] = tuple(sizes.tolist())
        self._groups: list[int] = groups.tolist()
        self._encoded = encoded
        self._broken = BrokenMedia(encoded, skip_broken)
        self.worker = Decoder(shape, encoded.value_range, encoded.bits)

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the pictures that could not be read, as far as met."""
        return self._encoded.passed_over + self._broken.names

    @property
    def num_broken(self) -> int:
        """How many pictures could not be read, as far as met."""
        return len(self._encoded.passed_over) + len(self._broken)

    def __len__(self) -> int:
        return len(self._encoded)

    def expect(self, groups: Sequence[int]) -> None:
        """Begins to read groups that are asked for soon, as many of the first ones as there is memory for."""
        self._encoded.expect([self._groups[group] for group in groups])

    def get(self, index: Int[Tensor, " b"]) -> tuple[Stored, Labels]:
        """The pictures (b c ... h w) at some places of the set, and their classes (b), -1 for none.

        Raises:
            RinError: one of them cannot be read, or too many of the set where such pictures are passed over.
        """
        return self.finish(index, self.worker(self.request(index)))

    def request(self, index: Int[Tensor, " b"]) -> list[_Source]:
        """What the pictures at some places are decoded from."""
        return [self._source(place) for place in index.tolist()]

    def finish(self, index: Int[Tensor, " b"], made: _Decoded) -> tuple[Stored, Labels]:
        """The pictures and classes, with those that stand in for what is broken.

        Raises:
            RinError: as `get`.
        """
        pictures, broken = made
        places = index.clone()
        for number, error in broken.items():
            pictures.numpy()[number], places[number] = self._stand_in(int(index[number]), error)
        return pictures, self._encoded.labels[places]

    def _source(self, place: int) -> _Source:
        if place in self._broken:  # it stays so, even if it is mended meanwhile
            return BrokenMediaError("it is passed over")
        try:
            return self._encoded.read(int(self._encoded.rows[place]))
        except BrokenMediaError as error:
            return error

    def _stand_in(self, place: int, error: BrokenMediaError) -> tuple[Shaped[np.ndarray, "c *f h w"], int]:
        """The next readable picture after one that is not, and its place."""
        for following in range(place + 1, place + len(self) + 1):
            self._broken.meet(place, error)
            self._broken.refuse_too_many()
            place = following % len(self)
            (medium,), broken = self.worker([self._source(place)])
            if not broken:
                return medium.numpy(), place
            error = broken[0]
        raise self._broken.nothing_readable()


def open_media(
    encoded: Encoded, shape: Shape, skip_broken: bool, memory_gib: float, num_workers: int | None = None
) -> MediaSet:
    """A set in memory if it fits into `memory_gib` once decoded, and on demand otherwise or if it is streamed.

    Raises:
        RinError: a picture cannot be read; if such pictures are passed over, none can or too many cannot.
    """
    images = MediaOnDemand(encoded, shape, skip_broken)
    if len(encoded.groups) or len(encoded) * math.prod(shape) * images.worker.dtype.itemsize > memory_gib * 2**30:
        return images
    return _decode_all(images, num_workers)


def in_turn(images: MediaSet, wanted: Iterable[Asked], num_workers: int | None = None) -> Generator[Made]:
    """The examples of a set that are wanted, in that order; those that are not in memory are made ahead.

    Raises:
        RinError: one of them cannot be read, or a worker was killed.
    """
    if isinstance(images, MediaInMemory):
        yield from ((asked, images.get(asked.examples)) for asked in wanted)
    else:
        yield from made_ahead(images, wanted, num_workers)


def on_device(images: MediaSet, device: torch.device) -> MediaSet:
    """A set in memory, moved to a CUDA device if it takes no more than an eighth of what is free there."""
    if device.type != "cuda" or not isinstance(images, MediaInMemory):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.pictures.nbytes <= free / 8 else images


def _decode_all(images: MediaOnDemand, num_workers: int | None) -> MediaInMemory:
    """All pictures in memory, span by span."""
    pictures = torch.empty(len(images), *images.shape, dtype=images.worker.dtype)
    labels = torch.empty(len(images), dtype=torch.int64)
    span = max(1, min(_SPAN, _SPAN_BYTES // math.prod(images.shape)))
    spans = map(Asked, torch.arange(len(images)).split(span))
    with progress_bar("decoding", len(images)) as bar, closing(made_ahead(images, spans, num_workers)) as made:
        for asked, (of_span, classes) in made:
            pictures[asked.examples], labels[asked.examples] = of_span, classes
            bar.advance(len(classes))
    return MediaInMemory(pictures, labels, images.class_names, images.broken)
