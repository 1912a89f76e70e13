"""Clips cut out of a video by their time, and decoded.

A clip's frames are those shown at evenly spaced times, so a video whose frames are of unequal length comes out at a
constant speed, and one of constant rate, read at its own rate, gives exactly its frames, each once.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from rin.data.decoding.pictures import (
    BrokenMediaError,
    Clip,
    Footage,
    Picture,
    Shape,
    Source,
    check_shape,
    fitted,
    in_channels,
)
from rin.data.decoding.videos import EARLY, ClipsConfig, Video, look_into, opened, reason_of, span_of

Frame = Any
"""An `av.VideoFrame`, of a package that is imported only when it is used."""

_SLACK = 0.1
"""The share of a frame that a video may end too early and still be whole."""

_BACK = (0.0, 2.0, 10.0, None)
"""Seconds before a clip at which decoding begins, each tried where the one before was too late; None is the start."""

_TURNS = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}
"""What turns a frame upright, by the signs of where its display matrix takes a step to the right and one down."""

_SIDEWAYS = {
    *(Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270),
    *(Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90),
}
"""The turns that exchange width and height."""


class _Shown(NamedTuple):
    """A decoded frame and when it is shown."""

    frame: Frame
    begin: float  # seconds
    end: float


@dataclass(frozen=True, kw_only=True)
class Cut(Footage):
    """A clip of a video, to be decoded."""

    video: Video
    """What it is cut out of."""

    first: int
    """Its first frame, counted from the video's beginning at `rate`."""

    stride: int
    """Frames from one of its frames to the next."""

    rate: float
    """Frames a second that the video is read at."""

    @property
    def seconds(self) -> float:
        """When it begins, from the video's beginning."""
        return self.first / self.rate

    def decode(self, shape: Shape) -> Clip:
        """The clip at a shape (c, f, h, w).

        Its frames are turned upright and shown with the pixels' own proportions; apart from that, they are made grey or
        coloured, cropped to the centre and resized as pictures are.

        Raises:
            BrokenMediaError: it cannot be read, or ends before the clip does.
        """
        check_shape(shape)
        channels, num_frames, height, width = shape
        times = [self.video.begin + (self.first + self.stride * number) / self.rate for number in range(num_frames)]
        clip = torch.empty(*shape, dtype=torch.uint8)
        convert = _Converter(self.video, (channels, height, width))
        with closing(_decoded_from(self.video, times[0])) as frames:
            for number, frame in enumerate(_shown_at(times, frames, self.video.rate)):
                # through NumPy, since PyTorch would start threads of its own in every thread
                clip.numpy()[:, number] = convert(frame).numpy()
        return clip


@dataclass(frozen=True, kw_only=True)
class FirstClip(Footage):
    """The first clip of a video that nobody has looked into yet."""

    source: Source
    """The file, or what is in it."""

    config: ClipsConfig
    """How clips are cut out of it."""

    def decode(self, shape: Shape) -> Clip:
        """The clip at a shape (c, f, h, w).

        Raises:
            BrokenMediaError: it cannot be read, or is shorter than a clip.
        """
        video = look_into(self.source)
        if not video.num_clips(shape[1], self.config):
            raise video.too_short(shape[1], self.config)
        return cut(video, 0, shape[1], self.config).decode(shape)


def cut(video: Video, number: int, num_frames: int, config: ClipsConfig) -> Cut:
    """One of the clips of a video, from 0 to `video.num_clips(num_frames, config) - 1`."""
    first = config.start + number * (config.every or span_of(num_frames, config))
    return Cut(video=video, first=first, stride=config.stride, rate=config.rate or video.rate)


def _shown_at(times: Sequence[float], frames: Iterator[_Shown], rate: float) -> Generator[Frame]:
    """The frame that is shown at each of some times, which are in order.

    Raises:
        BrokenMediaError: the frames end before the times do.
    """
    here, following, longest = next(frames, None), next(frames, None), 0.0
    for number, time in enumerate(times):
        while here is not None and following is not None and following.begin <= time + EARLY / rate:
            longest = max(longest, following.begin - here.begin)
            here, following = following, next(frames, None)
        if here is None or (following is None and time > max(here.end, here.begin + longest) - _SLACK / rate):
            raise BrokenMediaError(f"it ends after {number} of {len(times)} frames: truncated", "a video")
        yield here.frame


def _decoded_from(video: Video, time: float) -> Generator[_Shown]:
    """The frames of a video from the one shown at a time on, or from an earlier one."""
    for back in _BACK:
        begin = None if back is None or time - back <= video.begin else time - back
        with closing(_decoded(video, begin)) as frames:
            first = next(frames, None)
            if begin is None or (first is not None and first.begin <= time + EARLY / video.rate):
                if first is not None:
                    yield first
                yield from frames
                return


def _decoded(video: Video, begin: float | None) -> Generator[_Shown]:
    """The frames of a video from about a time on, or all of them; none if the format has no way to get there.

    What cannot be decoded before the first frame is passed over: a recording may begin amid frames that
    build on others.
    """
    from av.error import FFmpegError

    with opened(video.source) as (container, stream):
        tick, end, is_begun = float(stream.time_base or 1), video.begin, False
        if begin is not None:
            try:
                container.seek(math.floor(begin / tick), stream=stream)
            except FFmpegError:
                return
        for packet in container.demux(stream):
            try:
                frames = [] if packet.is_corrupt else packet.decode()
            except FFmpegError:
                if is_begun:
                    raise
                continue
            for frame in frames:
                is_begun = True
                start = end if frame.pts is None else frame.pts * tick
                end = start + ((frame.duration or 0) * tick or 1 / video.rate)
                yield _Shown(frame, start, end)


class _Converter:
    """Turns the frames of a video into pictures of a shape (c, h, w); a frame that comes twice is turned once."""

    def __init__(self, video: Video, shape: Shape) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        self._exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        self._video, self._shape = video, shape
        self._last: tuple[Frame, Picture] | None = None

    def __call__(self, frame: Frame) -> Picture:
        if self._last is None or self._last[0] is not frame:
            self._last = frame, self._convert(frame)
        return self._last[1]

    def _convert(self, frame: Frame) -> Picture:
        has_opacity = any(component.is_alpha for component in frame.format.components)
        try:
            coloured = self._reformatter.reformat(
                frame, format="rgba" if has_opacity else "rgb24", interpolation=self._exact
            )
        except Exception as error:  # libav raises almost anything
            raise BrokenMediaError(reason_of(error), "a video") from error
        picture = Image.fromarray(coloured.to_ndarray())
        turn, aspect = _turn(frame), self._video.pixel_aspect
        if turn is not None:
            picture, aspect = picture.transpose(turn), 1 / aspect if turn in _SIDEWAYS else aspect
        return fitted(in_channels(picture, self._shape[0]), self._shape, aspect)


def _turn(frame: Frame) -> Image.Transpose | None:
    """What turns a frame upright; None if it is."""
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return None
    steps = np.frombuffer(bytes(stored), np.int32).astype(np.int64)[[0, 1, 3, 4]]
    along, across = np.abs(steps[[0, 3]]).sum(), np.abs(steps[[1, 2]]).sum()
    steps[[1, 2] if along >= across else [0, 3]] = 0  # oblique ones are turned to the nearest right angle
    return _TURNS.get(tuple(np.sign(steps).tolist()))
