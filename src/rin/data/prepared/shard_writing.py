"""The files of a prepared set written: pictures or clips decoded in parallel, a shard at a time in memory."""

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from rin.core.errors import RinError
from rin.core.files import written_whole
from rin.core.names import printable
from rin.core.progress import Bar
from rin.core.strict_json import read_json
from rin.data.decoding.deep_grey import ValueRange
from rin.data.decoding.pictures import BrokenMediaError, Shape
from rin.data.decoding.videos import ClipsConfig
from rin.data.files.encoded import Encoded
from rin.data.prepared.reading import CLIPS_A_VIDEO
from rin.data.prepared.shards import check_shard, images_file, labels_file, npy_header

_SPAN_PICTURES, _SPAN_BYTES = 256, 2**20
"""What one thread decodes in a go."""

_NUM_NAMED = 100
"""Broken pictures of a split that `set.json` names."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to prepare, and how."""

    source: str
    """What `DataConfig.path` can be."""

    shape: Shape
    """Channels, height and width of the prepared pictures; channels, frames, height and width of clips."""

    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """How clips are cut out of videos."""

    labels: bool = True
    """Whether to keep the classes, where the source has any."""

    captions: str = ""
    """Where the captions are that take their place (`DataConfig.captions`); empty for none."""

    text_encoder: str = ""
    """What embeds the captions; empty for none."""

    num_tokens: int = 0
    """Tokens of an embedded caption."""

    value_range: ValueRange | None = None
    """The least and the largest value of grey pictures of more than 8 bits; None for what each of them declares."""

    skip_broken: bool = False
    """Whether to leave out pictures that cannot be read; otherwise the first of them is an error."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A stretch of a split, and the folder that its files are in."""

    encoded: Encoded
    """The split before it is decoded."""

    folder: Path
    """The split's."""

    number: int
    """Which shard of the split it is."""

    places: range
    """Which pictures of the split."""

    made_from: str
    """A digest of the pictures in that stretch, which changes as they do."""

    @property
    def files(self) -> tuple[Path, Path]:
        """Where pictures and classes are."""
        return images_file(self.folder, self.number), labels_file(self.folder, self.number)

    @property
    def record(self) -> Path:
        """Where it is written down that the shard is whole, and what is in it."""
        return self.folder / f"shard-{self.number:05d}.json"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What has been found in a shard."""

    num_pictures: int
    """Pictures that can be read."""

    broken: list[str]
    """The names of the others."""

    sums: list[int]
    """Of each channel's pixels, 0 to 255."""

    squares: list[int]
    """Sums of their squares."""

    made_from: str
    """The digest of what was read for it."""

    families: list[list[int]] = field(default_factory=list[list[int]])
    """The number of each video that clips were cut out of, and how many of them can be read; none of pictures."""


def find_shard(shard: Shard, shape: Shape) -> ShardRecord | None:
    """What is in a shard that an earlier process has written; None if it is not whole or of other pictures."""
    try:
        record = ShardRecord(**read_json(shard.record))
        check_shard(shard.folder, shard.number, shape, record.num_pictures)
    except (OSError, ValueError, TypeError):
        return None
    return record if record.made_from == shard.made_from else None


def write_shard(shard: Shard, preparation: Preparation, bar: Bar) -> ShardRecord:
    """Decodes a shard's pictures, all of them in memory, and writes its files.

    Raises:
        RinError: a picture cannot be read and such pictures are not left out, or the disk is full.
    """
    first, count = shard.places.start, len(shard.places)
    shard.encoded.expect(shard.encoded.groups[first : first + count].unique().tolist())
    pictures = np.empty((count, *preparation.shape), np.uint8)
    size = max(1, min(_SPAN_PICTURES, _SPAN_BYTES // math.prod(preparation.shape)))

    def decode_span(start: int) -> tuple[list[int], list[int], list[int], list[int]]:
        """Fills in a few pictures; the rows of those that can be read and of the others, and the former's sums."""
        readable: list[int] = []
        broken: list[int] = []
        for row in range(start, min(start + size, count)):
            try:
                pictures[row] = shard.encoded.decode(first + row, preparation.shape).numpy()
                readable.append(row)
            except BrokenMediaError as error:
                if not preparation.skip_broken:
                    way_out = f"the same command with --skip-broken goes on without such {shard.encoded.kind}s"
                    raise shard.encoded.refusal(first + row, error, way_out) from error
                broken.append(row)
            bar.advance()
        return readable, broken, *_sums(pictures[readable])

    with ThreadPoolExecutor(os.cpu_count(), "rin-prepare") as threads:
        spans = list(threads.map(decode_span, range(0, count, size)))
    rows = [row for readable, *_ in spans for row in readable]
    record = ShardRecord(
        num_pictures=len(rows),
        broken=[shard.encoded.name_at(first + row) for _, broken, *_ in spans for row in broken],
        sums=[sum(channel) for channel in zip(*(sums for _, _, sums, _ in spans), strict=True)],
        squares=[sum(channel) for channel in zip(*(squares for *_, squares in spans), strict=True)],
        made_from=shard.made_from,
        families=_counted(shard.encoded.families[first : first + count].numpy(), rows),
    )
    labels = shard.encoded.labels.numpy()[first : first + count][rows].astype("<i8")
    images_header = npy_header("|u1", (len(rows), *preparation.shape))
    _write(images_file(shard.folder, shard.number), [images_header, *(pictures[row].data for row in rows)])
    _write(labels_file(shard.folder, shard.number), [npy_header("<i8", (len(rows),)), labels.tobytes()])
    write_json(shard.record, asdict(record))
    return record


def _counted(families: Int[np.ndarray, " n"], rows: list[int]) -> list[list[int]]:
    """Each family of some rows and how many of them are of it, in their order; families lie together."""
    of_rows = families[rows].tolist() if len(families) else []
    return [[family, len(list(members))] for family, members in itertools.groupby(of_rows)]


def _sums(pictures: UInt8[np.ndarray, "b c *f h w"]) -> tuple[list[int], list[int]]:
    """The sums of each channel's pixels and of their squares, exact."""
    values, every_other = pictures.astype(np.int64), (0, *range(2, pictures.ndim))
    return values.sum(axis=every_other).tolist(), np.square(values).sum(axis=every_other).tolist()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        RinError: the disk is full or cannot be written.
    """
    _write(path, [json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"])


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file whole or not at all.

    Raises:
        RinError: the disk is full or cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as temporary, temporary.open("wb") as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        reason = error.strerror or error
        kept = "whole shards stay: make room, and the same command goes on"
        raise RinError(f"cannot write {printable(path)}: {reason}; {kept}") from error


def summary(shards: list[Shard], records: list[ShardRecord], encoded: Encoded, shape: Shape) -> dict[str, Any]:
    """What `set.json` says of a split, whose records are those of all its shards.

    Raises:
        RinError: none of its pictures can be read.
    """
    class_names = encoded.class_names
    channels, *sides = shape
    num_pictures = sum(record.num_pictures for record in records)
    broken = [*encoded.passed_over, *(name for record in records for name in record.broken)]
    if broken and not num_pictures:
        raise RinError(f"none of {len(broken)} {encoded.kind}s can be read, {broken[0]} to begin with")
    pictures_a_class = np.zeros(len(class_names), np.int64)
    for shard in shards:
        labels = np.load(labels_file(shard.folder, shard.number), allow_pickle=False)
        pictures_a_class += np.bincount(labels[labels >= 0], minlength=len(class_names))
    moments = [
        _moments(sum(r.sums[c] for r in records), sum(r.squares[c] for r in records), num_pictures * math.prod(sides))
        for c in range(channels)
    ]
    in_order = itertools.groupby((pair for record in records for pair in record.families), lambda pair: pair[0])
    clips_a_video = [sum(count for _, count in pairs) for _, pairs in in_order]
    return {
        "num_pictures": num_pictures,
        "num_broken": len(broken),
        "broken": broken[:_NUM_NAMED],
        "mean": [mean for mean, _ in moments],
        "deviation": [deviation for _, deviation in moments],
        "class_names": list(class_names),
        "pictures_a_class": pictures_a_class.tolist(),
        "shards": [record.num_pictures for record in records],
    } | ({CLIPS_A_VIDEO: clips_a_video} if clips_a_video else {})


def _moments(total: int, squares: int, count: int) -> tuple[float, float]:
    """Mean and population deviation of `count` whole numbers from their sum and that of their squares."""
    if not count:
        return 0.0, 0.0
    return total / count, math.sqrt((count * squares - total**2) / count**2)
