"""Image sequences: folders whose numbered pictures are the frames of a clip, as in clip_a/frame_0001.png."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from rin.core.errors import RinError
from rin.core.names import printable
from rin.data.decoding.pictures import BrokenMediaError, Clip, Footage, Shape, check_shape, decode, opened_picture
from rin.data.decoding.videos import Video
from rin.data.files.encoded import Encoded
from rin.data.files.folders import (
    PICTURE_SUFFIXES,
    classes_by_first_folder,
    contents_of,
    not_used_of_folders,
    passed_over,
)
from rin.data.files.identity import digest_of

_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
"""The name of a frame: what comes before its number, the number, and what comes after; the last number counts."""


@dataclass(frozen=True)
class Frames(Footage):
    """Frames that are picture files, each a frame of the clip, in this order."""

    paths: tuple[Path, ...]

    def looked_into(self) -> Video:
        """The sequence as a video of one frame a second; only the headers of its pictures are read.

        Raises:
            BrokenMediaError: a frame is missing, has no number, cannot be opened or has another size than the first.
        """
        _check_numbers(self.paths)
        first = None
        for path in self.paths:
            with _named(path), opened_picture(path) as picture:
                size = picture.size
            first = first or size
            if size != first:
                raise BrokenMediaError(
                    f"its frames have different sizes, {self.paths[0].name} {first[0]}x{first[1]} pixels and "
                    f"{path.name} {size[0]}x{size[1]}",
                    printable(path),
                )
        return Video(source=b"", begin=0.0, length=float(len(self.paths)), rate=1.0)

    def part(self, first: int, stride: int, num_frames: int) -> "Frames":
        """Some frames of these, each `stride` after the one before."""
        return Frames(self.paths[first : first + (num_frames - 1) * stride + 1 : stride])

    def decode(self, shape: Shape) -> Clip:
        """All of them at a shape (c, f, h, w), each as `rin.data.decode` has it.

        Raises:
            BrokenMediaError: one cannot be read, or they are not f.
        """
        check_shape(shape)
        channels, num_frames, height, width = shape
        if num_frames != len(self.paths):
            raise BrokenMediaError(f"it has {len(self.paths)} frames, not {num_frames}", "an image sequence")
        clip = torch.empty(*shape, dtype=torch.uint8)
        for number, path in enumerate(self.paths):
            with _named(path):  # through NumPy, since PyTorch would start threads of its own in every thread
                clip.numpy()[:, number] = decode(path, (channels, height, width)).numpy()
        return clip


@contextmanager
def _named(frame: Path) -> Generator[None]:
    """Has the reason of what is broken within name the frame: the set names only the clip."""
    try:
        yield
    except BrokenMediaError as error:
        raise BrokenMediaError(f"its frame {frame.name}: {error.reason}", error.name) from error


def _check_numbers(paths: Sequence[Path]) -> None:
    """Refuses names that are not those of the frames of one clip, each once and none left out.

    Raises:
        BrokenMediaError: they are not.
    """
    numbers = list[int]()
    names = dict[tuple[str, str], Path]()
    for path in paths:
        parts = _NUMBERED.fullmatch(path.name.removesuffix(path.suffix))
        if parts is None:
            raise BrokenMediaError(f"{path.name} has no number, as frames have (frame_0001.png)", printable(path))
        numbers.append(int(parts[2]))
        names.setdefault((parts[1], parts[3] + path.suffix.lower()), path)
    if len(names) > 1:
        first, second, *_ = names.values()
        raise BrokenMediaError(
            f"it holds frames of several names, {first.name} and {second.name}: give each clip a folder",
            printable(second),
        )
    for (before, number), (_, following) in pairwise(zip(paths, numbers, strict=True)):
        if following != number + 1:
            missing = f"frame {number + 1} is missing" if following > number else f"frame {number} is there twice"
            raise BrokenMediaError(f"{missing}, after {before.name}", printable(before))


def are_sequences(folder: Path, files: Sequence[Path]) -> bool:
    """Whether there are pictures among the files of a folder, all of them in folders within it."""
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    return bool(pictures) and all(picture.parent != folder for picture in pictures)


def open_sequences(folder: Path) -> Encoded:
    """The image sequences in a folder, each a folder of frames, in natural order (2 before 10), frames too.

    Where all of them lie in folders within the folder's, the names of the first of these are the classes, as of videos.

    Raises:
        RinError: the folder cannot be read, or what would be classes are splits.
    """
    contents = contents_of(folder)
    sequences = dict[Path, list[Path]]()
    for path in contents.files:
        if path.suffix.lower() in PICTURE_SUFFIXES:
            sequences.setdefault(path.parent, []).append(path)
    places = [sequence.relative_to(folder).parts for sequence in sequences]
    labels, names = classes_by_first_folder(folder, places)
    frames = [Frames(tuple(paths)) for paths in sequences.values()]
    folders = list(sequences)
    notes = [
        f"pictures are taken for the frames of clips, a folder each: {len(folders)} folders, "
        f"{printable(folders[0])} to begin with",
        *passed_over(contents, "picture"),
        *not_used_of_folders(folder, contents, places, "image sequence"),
    ]
    return Encoded(
        read=frames.__getitem__,
        name=lambda row: printable(folders[row]),
        rows=torch.arange(len(frames)),
        labels=labels,
        class_names=names,
        kind="video",
        listing=digest_of(path.relative_to(folder).as_posix() for paths in sequences.values() for path in paths),
        notes=tuple(notes),
    )


def check_cut_of_sequences(folder: Path, rate: float, captions: str) -> None:
    """Refuses options that mean nothing to image sequences.

    Raises:
        RinError: one is given.
    """
    if rate:
        raise RinError(
            f"clips.rate is {rate:g}, and the image sequences in {printable(folder)} tell no rate of their own: leave "
            "it out, and take every second or third frame with clips.stride"
        )
    if captions:
        raise RinError(f"data.captions is {captions!r}, and image sequences are read without them: leave it out")
