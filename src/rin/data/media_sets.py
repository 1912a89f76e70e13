"""Sets of decoded pictures or clips: kept in memory, or decoded when needed."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.progress import progress_bar
from rin.core.shapes import Labels, Media, Stored
from rin.data.broken import BrokenMedia
from rin.data.decoding import BrokenMediaError, Medium, Shape
from rin.data.encoded import Encoded

_SPAN, _SPAN_BYTES = 256, 2**20
"""What one thread decodes in a go at most."""

_SMALL_FILE = 4096
"""Bytes of a picture below which decoding is mostly Python, where many threads are slower than one."""


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

    def get(self, index: Int[Tensor, "b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, and their classes (b), -1 for none."""
        ...


class NothingBroken:
    """What a `MediaSet` says in which all can be read, at once and in any order."""

    @property
    def broken(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def num_broken(self) -> int:
        """None."""
        return 0

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """None: any order is as cheap."""
        return ()


class MediaInMemory:
    """Examples in one tensor.

    Args:
        pictures: all of them (b ...), 0 to 255 or floats in [-1, 1], on any device.
        labels: their classes, -1 for none, on the same device.
        class_names: the name of each class.
        broken: the names of those that others stand in for because they could not be read.
    """

    def __init__(
        self, pictures: Stored, labels: Labels, class_names: tuple[str, ...], broken: tuple[str, ...] = ()
    ) -> None:
        self.pictures = pictures
        self.labels = labels
        self.class_names = class_names
        self.broken = broken

    @property
    def shape(self) -> Shape:
        """Of every example."""
        return tuple(self.pictures.shape[1:])

    @property
    def num_broken(self) -> int:
        """How many pictures others stand in for because they could not be read."""
        return len(self.broken)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """None: any order is as cheap."""
        return ()

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> "MediaInMemory":
        """The same set with its pictures on a device."""
        return MediaInMemory(self.pictures.to(device), self.labels.to(device), self.class_names, self.broken)

    def get(self, index: Int[Tensor, "b"]) -> tuple[Stored, Labels]:
        """The examples (b ...) at some places of the set, and their classes (b), -1 for none."""
        index = index.to(self.pictures.device, non_blocking=True)
        return self.pictures[index], self.labels[index]


class MediaOnDemand:
    """Pictures that are decoded by a pool of threads when they are asked for.

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
        self._threads = ThreadPoolExecutor(num_threads(encoded), thread_name_prefix="rin-decode")

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

    def get(self, index: Int[Tensor, "b"]) -> tuple[Media, Labels]:
        """The pictures (b c ... h w) at some places of the set, and their classes (b), -1 for none.

        Raises:
            RinError: one of them cannot be read, or too many of the set where such pictures are passed over.
        """
        decoded = list(self._threads.map(self._decode, index.tolist()))
        pictures = torch.empty(len(decoded), *self.shape, dtype=torch.uint8)
        for number, (picture, _) in enumerate(decoded):
            pictures.numpy()[number] = picture.numpy()  # as in _decode_all, without threads of PyTorch's
        places = torch.tensor([place for _, place in decoded], dtype=torch.int64)
        return pictures, self._encoded.labels[places]

    def _decode(self, number: int) -> tuple[Medium, int]:
        """The picture at the wanted place or the next readable one, and its place."""
        for step in range(len(self)):
            place = (number + step) % len(self)
            if place in self._broken:
                continue
            try:
                return self._encoded.decode(place, self.shape), place
            except BrokenMediaError as error:
                self._broken.meet(place, error)
                self._broken.refuse_too_many()
        raise self._broken.nothing_readable()


def open_media(encoded: Encoded, shape: Shape, skip_broken: bool, memory_gib: float) -> MediaSet:
    """A set in memory if it fits into `memory_gib` once decoded, and on demand otherwise or if it is streamed.

    Raises:
        RinError: a picture cannot be read; if such pictures are passed over, none can or too many cannot.
    """
    if len(encoded.groups) or len(encoded) * math.prod(shape) > memory_gib * 2**30:
        return MediaOnDemand(encoded, shape, skip_broken)
    return _decode_all(encoded, shape, skip_broken)


def on_device(images: MediaSet, device: torch.device) -> MediaSet:
    """A set in memory, moved to a CUDA device if it takes no more than an eighth of what is free there."""
    if device.type != "cuda" or not isinstance(images, MediaInMemory):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.pictures.nbytes <= free / 8 else images


def _decode_all(encoded: Encoded, shape: Shape, skip_broken: bool) -> MediaInMemory:
    pictures = torch.empty(len(encoded), *shape, dtype=torch.uint8)
    broken = BrokenMedia(encoded, skip_broken)

    span = max(1, min(_SPAN, _SPAN_BYTES // math.prod(shape)))

    def decode_span(start: int) -> None:
        for place in range(start, min(start + span, len(encoded))):
            try:
                # Through NumPy, since PyTorch would start threads of its own in every thread here.
                pictures.numpy()[place] = encoded.decode(place, shape).numpy()
            except BrokenMediaError as error:
                broken.meet(place, error)
            bar.advance()

    with (
        progress_bar("decoding", len(encoded)) as bar,
        ThreadPoolExecutor(num_threads(encoded), thread_name_prefix="rin-decode") as threads,
    ):
        for _ in threads.map(decode_span, range(0, len(encoded), span)):
            pass
    if not len(broken):
        return MediaInMemory(pictures, encoded.labels, encoded.class_names, encoded.passed_over)
    shown = _stand_ins(len(encoded), broken)
    return MediaInMemory(
        pictures[shown], encoded.labels[shown], encoded.class_names, encoded.passed_over + broken.names
    )


def _stand_ins(count: int, broken: BrokenMedia) -> Int[Tensor, "count"]:
    """Which picture is shown at each place: its own or, where that is broken, the next readable one, round the end.

    Raises:
        RinError: none is readable, or too many are not.
    """
    if len(broken) == count:
        raise broken.nothing_readable()
    broken.refuse_too_many()
    following = next(place for place in range(count) if place not in broken)
    stand_ins: list[int] = []
    for place in reversed(range(count)):
        following = following if place in broken else place
        stand_ins.append(following)
    return torch.tensor(stand_ins[::-1], dtype=torch.int64)


def num_threads(encoded: Encoded) -> int | None:
    """Threads to decode with, judged by the first picture: one if it is small and in memory, else one a core."""
    if len(encoded.groups):  # looking at one picture would read a whole group
        return os.cpu_count()
    try:
        first = encoded.read(int(encoded.rows[0])) if len(encoded) else b""
    except BrokenMediaError:
        return os.cpu_count()
    return 1 if isinstance(first, bytes) and len(first) < _SMALL_FILE else os.cpu_count()
