"""One video, by its header: how long it is, and how many clips there are in it, by how they are cut."""

import io
import itertools
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rin.core.configs import check_fields
from rin.core.errors import RinError
from rin.core.names import printable
from rin.core.optional import pyav
from rin.data.decoding.pictures import BrokenMediaError, Piece, Source

Container = Any
"""An `av.container.InputContainer`; like the following ones, of a package that is imported only when it is used."""

Stream = Any
"""An `av.VideoStream`."""

_GUESSED = {"asf", "mpeg", "mpegts", "gif"}
"""Formats in whose headers there is no length of the video itself; libav tells a guess in its place."""

_FROM_ZERO = {"matroska,webm", "flv"}
"""Formats that tell when the last frame ends, and not how long the video is."""

_FIRST_PACKETS = 32
"""The first frame shown is among so many first ones of the file."""

_LONGEST = 1e6
"""Seconds: eleven days."""

EARLY = 0.25
"""The share of a frame that it is taken for shown before its time, since formats round times, to milliseconds say."""

_HIGHEST_RATE = 1000
"""Frames a second, of fast cameras; far more would give clips of one frame shown again and again."""


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """How videos are cut into clips of a model's length.

    Raises:
        RinError: a field has a value that means nothing.
    """

    rate: float = 0.0
    """Frames a second that videos are read at, each frame the one that is shown at that time; 0 is a video's own
    average rate, as its file tells it."""

    stride: int = 1
    """A clip takes one of so many of these frames."""

    start: int = 0
    """Frames of a video that come before its first clip."""

    every: int = 0
    """Frames from the beginning of one clip of a video to that of the next; 0 is a clip's own length."""

    def __post_init__(self) -> None:
        check_fields(self, "clips")
        if not 0 <= self.rate <= _HIGHEST_RATE:
            raise RinError(
                f"clips.rate is {self.rate}: give frames a second, {_HIGHEST_RATE} at most, or 0 for each video's own"
            )
        if self.stride < 1:
            raise RinError(f"clips.stride is {self.stride}: give 1 to take every frame, or more")
        for name in ("start", "every"):
            if getattr(self, name) < 0:
                raise RinError(f"clips.{name} is {getattr(self, name)}: give 0 or more frames")


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video, as far as its header tells."""

    source: Source
    """The file, or what is in it."""

    begin: float
    """When its first frame is shown, in seconds of its own clock, which need not begin at 0."""

    length: float
    """Seconds from there to the end of its last frame."""

    rate: float
    """Frames a second, in the mean."""

    pixel_aspect: float = 1.0
    """How many times as wide as high its pixels are shown."""

    def num_clips(self, num_frames: int, config: ClipsConfig) -> int:
        """How many clips of so many frames are cut out of it."""
        rest = self.num_frames(config) - config.start - span_of(num_frames, config)
        return 0 if rest < 0 else rest // (config.every or span_of(num_frames, config)) + 1

    def num_frames(self, config: ClipsConfig) -> int:
        """How many frames it has at the rate that videos are read at."""
        return max(0, math.ceil((self.length - EARLY / self.rate) * (config.rate or self.rate)))

    def too_short(self, num_frames: int, config: ClipsConfig) -> BrokenMediaError:
        """The error of a video that gives no clip."""
        count = max(0, self.num_frames(config) - config.start)
        return BrokenMediaError(
            f"it is shorter than a clip, which spans {span_of(num_frames, config)} frames, and has {count}"
        )


def span_of(num_frames: int, config: ClipsConfig) -> int:
    """Frames from a clip's first to its last, both included."""
    return (num_frames - 1) * config.stride + 1


def overlap_of(num_frames: int, config: ClipsConfig) -> int:
    """How many of the clips that follow a clip of a video share a part of it."""
    return (span_of(num_frames, config) - 1) // config.every if config.every else 0


def look_into(source: Source) -> Video:
    """A video by its header; nothing is decoded, and all packets are read only if the header tells no length.

    The frames of a GIF last as long as it says, and a tenth of a second where it says 0, as browsers have it.

    Raises:
        BrokenMediaError: it cannot be opened, or has no video stream.
        RinError: PyAV is not installed.
    """
    with opened(source) as (container, stream):
        tick = float(stream.time_base or 1)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        length = _declared_length(container, stream)
        packets = _spans_of_packets(container, stream)
        spans = list(packets if length is None or not rate else itertools.islice(packets, _FIRST_PACKETS))
        if not spans:
            raise BrokenMediaError("there is no frame in it")
        begin = min(start for start, _ in spans) * tick
        last, duration = max(spans)
        if container.format.name == "gif" and duration:  # its frames last whole hundredths of a second, each its own
            rate = len(spans) / (last * tick + duration * tick - begin)
        if not rate:
            rate = (len(spans) - 1) / (last * tick - begin) if last * tick > begin else 1.0
        if length is None:
            length = last * tick + (duration * tick or 1 / rate) - begin
        elif container.format.name in _FROM_ZERO:
            length -= begin
        if not length < _LONGEST:
            raise BrokenMediaError("its header tells a length that no video has")
        aspect = float(stream.sample_aspect_ratio or 0) or 1.0
        return Video(source=source, begin=begin, length=length, rate=rate, pixel_aspect=aspect)


def _declared_length(container: Container, stream: Stream) -> float | None:
    """Seconds that the video has by its header, or its end where the format tells that; None if it does not say."""
    if container.format.name in _GUESSED:
        return None
    if container.format.name not in _FROM_ZERO:
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    if tagged := stream.metadata.get("DURATION"):
        try:
            hours, minutes, seconds = map(float, tagged.split(":"))
            return 3600 * hours + 60 * minutes + seconds
        except ValueError:
            return None
    # that of the container may be an audio stream's
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def _spans_of_packets(container: Container, stream: Stream) -> Iterator[tuple[int, int]]:
    """When the frames are shown and for how long (0 if that is not known), in ticks and in the order of the file."""
    for packet in container.demux(stream):
        if packet.pts is not None and not packet.is_discard and not packet.is_corrupt:
            yield packet.pts, packet.duration or 0


@contextmanager
def opened(source: Source) -> Generator[tuple[Container, Stream]]:
    """A video file and its stream of frames, decoded by one thread: whoever decodes many clips has threads.

    Raises:
        BrokenMediaError: it cannot be opened or has none, or libav raises within the context.
        RinError: PyAV is not installed.
    """
    av = pyav("to read videos")
    from av.stream import Disposition

    source = source.read() if isinstance(source, Piece) else source
    name = printable(source) if isinstance(source, Path) else "a video in memory"
    file: Any = f"file:{source}" if isinstance(source, Path) else io.BytesIO(source)
    try:
        # what looks like a video may be a list of addresses, which nobody has asked to be fetched
        with av.open(file, metadata_errors="replace", options={"protocol_whitelist": "file"}) as container:
            if not len(container.streams):
                raise BrokenMediaError("there is nothing in it: truncated", name)
            covers = Disposition.attached_pic
            stream: Any = next((one for one in container.streams.video if not one.disposition & covers), None)
            if stream is None:
                raise BrokenMediaError("it has no video stream", name)
            if stream.codec_context is None:
                raise BrokenMediaError("there is no decoder for it", name)
            stream.thread_count, stream.thread_type = 1, "NONE"
            yield container, stream
    except RinError:
        raise
    except Exception as error:  # damaged bytes make libav raise almost anything
        raise BrokenMediaError(reason_of(error), name) from error


def reason_of(error: Exception) -> str:
    """What an error of libav's says, without its number."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
