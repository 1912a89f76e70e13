"""Many videos: looked into by many threads, and the set of the clips that are cut out of them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from rin.core.errors import RinError
from rin.core.progress import LOGGER, progress_bar
from rin.data.decoding.cutting import Cut, FirstClip, cut
from rin.data.decoding.pictures import BrokenMediaError, Footage, Source
from rin.data.decoding.videos import ClipsConfig, Video, look_into, overlap_of, span_of
from rin.data.files.broken import BrokenMedia
from rin.data.files.encoded import Encoded
from rin.data.files.identity import digest_of
from rin.data.files.sequences import Frames

_NUM_NAMED = 5
"""Videos shorter than a clip that are named."""


def all_clips(videos: Encoded, num_frames: int, config: ClipsConfig, skip_broken: bool) -> Encoded:
    """The clips of so many frames in all videos of a set, in its order, each of its video's class.

    Args:
        videos: whose rows give files or their bytes, or the frames of image sequences.
        num_frames: of a clip.
        config: how they are cut.
        skip_broken: whether videos that cannot be opened are passed over; otherwise the first of them is an error.

    Raises:
        RinError: a video cannot be opened, or too many cannot, or there is no clip in any of them.
    """
    looked_into, passed_over = _look_into_all(videos, skip_broken)
    counts = [0 if video is None else video.num_clips(num_frames, config) for video in looked_into]
    short = [place for place, video in enumerate(looked_into) if video is not None and not counts[place]]
    if len(videos) and not any(counts):
        raise RinError(
            f"no video is as long as a clip, {span_of(num_frames, config)} frames, {videos.name_at(0)} to begin with: "
            "take clips of fewer frames, a smaller clips.stride or a higher clips.rate"
        )
    _tell_of_short_ones(videos, short, span_of(num_frames, config))
    are_frames = bool(len(videos)) and isinstance(_read(videos, 0), Frames)
    ends = torch.tensor(counts, dtype=torch.int64).cumsum(0)
    of_video = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    places = of_video.tolist()

    def clip_at(row: int, source: Source) -> Cut:
        place = places[row]
        video = looked_into[place]
        assert video is not None  # it has a clip
        return cut(replace(video, source=source), row - int(ends[place]) + counts[place], num_frames, config)

    def read(row: int) -> Footage:
        source = _read(videos, places[row])
        if not isinstance(source, Frames):
            return clip_at(row, source)
        begun = clip_at(row, b"")
        return source.part(begun.first, begun.stride, num_frames)

    def name(row: int) -> str:
        begun, source = clip_at(row, b""), videos.name_at(places[row])
        return f"{source} from frame {begun.first + 1}" if are_frames else f"{source} at {begun.seconds:.2f} s"

    return Encoded(
        read=read,
        name=name,
        rows=torch.arange(len(of_video)),
        labels=videos.labels[of_video],
        class_names=videos.class_names,
        kind="clip",
        families=of_video,
        overlap=overlap_of(num_frames, config),
        passed_over=passed_over,
        listing=digest_of([videos.listing, *map(str, counts)]),
        notes=videos.notes,
    )


def first_clips(videos: Encoded, config: ClipsConfig) -> Encoded:
    """The first clip of each video of a set that is read while training: to look into all would read everything.

    A video that cannot be opened, or is shorter than a clip, is a broken clip.
    """
    return replace(videos, read=lambda row: FirstClip(source=_content(videos.read(row)), config=config), kind="clip")


def _look_into_all(videos: Encoded, skip_broken: bool) -> tuple[list[Video | None], tuple[str, ...]]:
    """All videos by their headers, without their sources, and the names of those that cannot be opened."""
    broken = BrokenMedia(videos, skip_broken)

    def look(place: int) -> Video | None:
        try:
            source = _read(videos, place)
            return source.looked_into() if isinstance(source, Frames) else replace(look_into(source), source=b"")
        except BrokenMediaError as error:
            broken.meet(place, error)
            return None
        finally:
            bar.advance()

    with (
        progress_bar("looking into videos", len(videos)) as bar,
        ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rin-look") as threads,
    ):
        looked_into = list(threads.map(look, range(len(videos))))
    if len(videos) and len(broken) == len(videos):
        raise broken.nothing_readable()
    broken.refuse_too_many()
    return looked_into, broken.names


def _read(videos: Encoded, place: int) -> Source | Frames:
    source = videos.read(int(videos.rows[place]))
    return source if isinstance(source, Frames) else _content(source)


def _content(source: Source | Footage) -> Source:
    assert not isinstance(source, Footage)  # videos are files
    return source


def _tell_of_short_ones(videos: Encoded, short: Sequence[int], span: int) -> None:
    if not short:
        return
    named = ", ".join(videos.name_at(place) for place in short[:_NUM_NAMED])
    more = f" and {len(short) - _NUM_NAMED} more" if len(short) > _NUM_NAMED else ""
    count = "1 video that is" if len(short) == 1 else f"{len(short)} videos that are"
    LOGGER.warning("left out %s shorter than a clip, %d frames: %s%s", count, span, named, more)
