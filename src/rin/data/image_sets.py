"""Sets of decoded pictures: kept in memory, or decoded when needed."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Labels, Pictures
from rin.data.decoding import BrokenPictureError, Picture, Shape
from rin.data.encoded import Encoded

_SPAN = 256
"""Pictures that one thread decodes in a go."""

_SMALL_FILE = 4096
"""Bytes of a picture below which decoding is mostly Python, where many threads are slower than one."""


@runtime_checkable
class ImageSet(Protocol):
    """Pictures of one shape in a fixed order, each with a class or none."""

    @property
    def shape(self) -> Shape:
        """Channels, height and width of every picture."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class; empty if there are no classes."""
        ...

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the pictures passed over because they could not be read, as far as met."""
        ...

    @property
    def num_broken(self) -> int:
        """How many pictures were passed over."""
        ...

    def __len__(self) -> int:
        """How many pictures there are."""
        ...

    def get(self, index: Int[Tensor, "b"]) -> tuple[Pictures, Labels]:
        """The pictures (b c h w) at some places of the set, and their classes (b), -1 for none."""
        ...


class ImagesInMemory:
    """Pictures in one tensor.

    Args:
        pictures: all of them (b c h w), on any device.
        labels: their classes, -1 for none, on the same device.
        class_names: the name of each class.
        broken: the names of those that are missing because they could not be read.
    """

    def __init__(
        self, pictures: Pictures, labels: Labels, class_names: tuple[str, ...], broken: tuple[str, ...] = ()
    ) -> None:
        self.pictures = pictures
        self.labels = labels
        self.class_names = class_names
        self.broken = broken

    @property
    def shape(self) -> Shape:
        """Channels, height and width of every picture."""
        _, channels, height, width = self.pictures.shape
        return channels, height, width

    @property
    def num_broken(self) -> int:
        """How many pictures are missing because they could not be read."""
        return len(self.broken)

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> "ImagesInMemory":
        """The same set with its pictures on a device."""
        return ImagesInMemory(self.pictures.to(device), self.labels.to(device), self.class_names, self.broken)

    def get(self, index: Int[Tensor, "b"]) -> tuple[Pictures, Labels]:
        """The pictures (b c h w) at some places of the set, and their classes (b), -1 for none."""
        index = index.to(self.pictures.device, non_blocking=True)
        return self.pictures[index], self.labels[index]


class ImagesOnDemand:
    """Pictures that are decoded by a pool of threads when they are asked for.

    Args:
        encoded: the pictures before decoding.
        shape: channels, height and width to decode to.
        skip_broken: whether the next readable picture of the set, with its class, stands in for one that cannot be
            read; otherwise that one is an error.
    """

    def __init__(self, encoded: Encoded, shape: Shape, skip_broken: bool) -> None:
        self.shape = shape
        self.class_names = encoded.class_names
        self._encoded = encoded
        self._skip_broken = skip_broken
        self._broken: set[int] = set()
        self._threads = ThreadPoolExecutor(_num_threads(encoded), thread_name_prefix="rin-decode")

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the pictures that could not be read, as far as met."""
        return tuple(self._encoded.name_at(place) for place in sorted(self._broken))

    @property
    def num_broken(self) -> int:
        """How many pictures could not be read, as far as met."""
        return len(self._broken)

    def __len__(self) -> int:
        return len(self._encoded)

    def get(self, index: Int[Tensor, "b"]) -> tuple[Pictures, Labels]:
        """The pictures (b c h w) at some places of the set, and their classes (b), -1 for none.

        Raises:
            RinError: one of them cannot be read, or none of the set where such pictures are skipped.
        """
        decoded = list(self._threads.map(self._decode, index.tolist()))
        pictures = torch.empty(len(decoded), *self.shape, dtype=torch.uint8)
        for number, (picture, _) in enumerate(decoded):
            pictures.numpy()[number] = picture.numpy()  # as in _decode_all, without threads of PyTorch's
        places = torch.tensor([place for _, place in decoded], dtype=torch.int64)
        return pictures, self._encoded.labels[places]

    def _decode(self, wanted: int) -> tuple[Picture, int]:
        """The picture at the wanted place or the next readable one, and its place."""
        for step in range(len(self)):
            place = (wanted + step) % len(self)
            if place in self._broken:
                continue
            try:
                return self._encoded.decode(place, self.shape), place
            except BrokenPictureError as error:
                if not self._skip_broken:
                    raise self._encoded.refusal(place, error) from error
                self._broken.add(place)
        raise _nothing_readable(self._encoded)


def open_images(encoded: Encoded, shape: Shape, skip_broken: bool, memory_gib: float) -> ImageSet:
    """A set in memory if it fits into `memory_gib` once decoded, and on demand otherwise.

    Raises:
        RinError: a picture cannot be read; if such pictures are skipped, none can.
    """
    channels, height, width = shape
    if len(encoded) * channels * height * width > memory_gib * 2**30:
        return ImagesOnDemand(encoded, shape, skip_broken)
    return _decode_all(encoded, shape, skip_broken)


def on_device(images: ImageSet, device: torch.device) -> ImageSet:
    """A set in memory, moved to a CUDA device if it takes no more than an eighth of what is free there."""
    if device.type != "cuda" or not isinstance(images, ImagesInMemory):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.pictures.nbytes <= free / 8 else images


def _decode_all(encoded: Encoded, shape: Shape, skip_broken: bool) -> ImagesInMemory:
    pictures = torch.empty(len(encoded), *shape, dtype=torch.uint8)
    spans = [range(start, min(start + _SPAN, len(encoded))) for start in range(0, len(encoded), _SPAN)]

    def decode_span(places: Sequence[int]) -> list[int]:
        """Fills in the pictures at these places; the places of broken ones."""
        broken: list[int] = []
        for place in places:
            try:
                # Through NumPy, since PyTorch would start threads of its own in every thread here.
                pictures.numpy()[place] = encoded.decode(place, shape).numpy()
            except BrokenPictureError as error:
                if not skip_broken:
                    raise encoded.refusal(place, error) from error
                broken.append(place)
        return broken

    with ThreadPoolExecutor(_num_threads(encoded), thread_name_prefix="rin-decode") as threads:
        broken = [place for places in threads.map(decode_span, spans) for place in places]
    if not broken:
        return ImagesInMemory(pictures, encoded.labels, encoded.class_names)
    readable = torch.ones(len(encoded), dtype=torch.bool)
    readable[broken] = False
    if not readable.any():
        raise _nothing_readable(encoded)
    names = tuple(encoded.name_at(place) for place in broken)
    return ImagesInMemory(pictures[readable], encoded.labels[readable], encoded.class_names, names)


def _num_threads(encoded: Encoded) -> int | None:
    """Threads to decode with, judged by the first picture: one if it is small and in memory, else one a core."""
    try:
        first = encoded.read(int(encoded.rows[0])) if len(encoded) else b""
    except BrokenPictureError:
        return os.cpu_count()
    return 1 if isinstance(first, bytes) and len(first) < _SMALL_FILE else os.cpu_count()


def _nothing_readable(encoded: Encoded) -> RinError:
    return RinError(f"none of {len(encoded)} pictures can be read, {encoded.name_at(0)} to begin with")
