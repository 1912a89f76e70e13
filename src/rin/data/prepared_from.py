"""What a set is prepared from: the pictures or clips of all splits, and what tells them from any others."""

import hashlib
import json
import os
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rin.core.errors import RinError
from rin.core.kind import is_video
from rin.core.names import printable
from rin.core.progress import LOGGER
from rin.data.config import BUILT_IN, DataConfig
from rin.data.decoding.cutting import Cut
from rin.data.files.encoded import Encoded, notes_of
from rin.data.files.folders import SUFFIXES, contents_of
from rin.data.files.sequences import Frames
from rin.data.prepared.reading import CUT_BY, SPLIT_NAME, PreparedMedia, check_frames, size_text
from rin.data.prepared.shard_writing import Preparation
from rin.data.splits import how_cut, open_splits

_MANY_IN_ONE = {".parquet", ".tar", ".npy"}
"""How the names of files that hold many pictures or clips end."""


_MOST_CAPTIONS = 48 * 2**20
"""Bytes of all captions, or names of classes: `set.json` must stay below what `rin.core.strict_json` reads."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The pictures or clips that a set is made from."""

    splits: Mapping[str, Encoded]
    """All of them, by split."""

    settings: dict[str, Any]
    """All that decides what a set of them holds, as JSON has it, but for the size of its shards."""

    folder: Path | None
    """Where they are, without links; None if that is no folder."""

    files: Mapping[Path, str]
    """What tells each file from others, if each is a picture or a video; empty otherwise."""

    def digest(self, name: str, places: range) -> str:
        """What a stretch of a split is made from, as a text.

        It has classes, and names and sizes of the pictures or videos, or of all files if they hold many of them each;
        and where in its video each clip begins, and how it is cut.
        """
        encoded = self.splits[name]
        stretch = slice(places.start, places.stop)
        digest = hashlib.sha256(encoded.labels[stretch].numpy().astype("<i8").tobytes())
        if "frames" in self.settings:
            cut_by = {name: value for name, value in self.settings.items() if name.startswith(("frames", "clips."))}
            digest.update(json.dumps(cut_by).encode())
        if not self.files:
            digest.update(self.settings["fingerprint"].encode())
        for row in encoded.rows[stretch].tolist() if self.files else ():
            source = encoded.read(row)
            if isinstance(source, Cut):
                digest.update(json.dumps([source.first, source.stride, source.rate]).encode())
                source = source.video.source
            if isinstance(source, Frames):
                digest.update("".join(self.files.get(path, "") for path in source.paths).encode())
            if isinstance(source, Path):
                digest.update(self.files.get(source, "").encode())
            elif isinstance(source, bytes):
                digest.update(source)
        return digest.hexdigest()


def open_source(preparation: Preparation) -> Source:
    """Opens all splits of a source.

    Raises:
        RinError: it cannot be read, or holds no pictures or videos, whichever are wanted.
    """
    path = Path(os.path.expanduser(preparation.source))
    _, *frames, height, width = preparation.shape
    suffixes = SUFFIXES["video" if frames else "picture"]
    files = _files(preparation.source, suffixes)
    if frames and not files:  # image sequences
        suffixes = SUFFIXES["picture"]
        files = _files(preparation.source, suffixes)
    config = _config(preparation, files)
    splits = _open_splits(preparation, config)
    settings: dict[str, Any] = {
        "source": printable(path.resolve()) if files else preparation.source,
        "size": size_text(height, width),
        "channels": preparation.shape[0],
        "labels": preparation.labels,
        "skip_broken": preparation.skip_broken,
    }
    if preparation.captions:
        settings["captions"] = preparation.captions
    if preparation.value_range is not None:
        settings["value_range"] = list(preparation.value_range)
    if frames:
        settings["frames"] = frames[0]
        settings |= {f"clips.{name}": getattr(how_cut(config), name) for name in CUT_BY}
    settings["fingerprint"] = _fingerprint(files, splits, config)
    return Source(
        splits=splits,
        settings=settings,
        folder=path.resolve() if files and path.is_dir() else None,
        files=files if all(file.suffix.lower() in suffixes for file in files) else {},
    )


def _config(preparation: Preparation, files: Mapping[Path, str]) -> DataConfig:
    endings = {file.suffix.lower() for file in files}
    return DataConfig(
        path=preparation.source,
        labels=preparation.labels,
        skip_broken=preparation.skip_broken,
        captions=preparation.captions,
        # whole parquet files would be held in memory, but a stream knows no captions
        stream=".parquet" in endings and ".tar" not in endings and not preparation.captions,
        clips=preparation.clips,
        value_range=preparation.value_range,
    )


def _open_splits(preparation: Preparation, config: DataConfig) -> dict[str, Encoded]:
    splits = {name: opened() for name, opened in open_splits(config, preparation.shape).items()}
    for name, encoded in splits.items():
        if not SPLIT_NAME.fullmatch(name):
            raise RinError(f"{preparation.source} has a split {name!r}, which cannot be a folder's name: rename it")
        if isinstance(encoded, PreparedMedia):
            check_frames(encoded, preparation.shape)
    kind = "clip" if is_video(preparation.shape) else "picture"
    if not any(len(encoded) for encoded in splits.values()):
        raise RinError(f"{preparation.source} holds no {kind}s: give another source")
    sizes = [len(name.encode()) + 16 for encoded in splits.values() for name in encoded.class_names]  # each on a line
    if sum(sizes) > _MOST_CAPTIONS:
        raise RinError(
            f"{preparation.source} has {len(sizes)} captions of {sum(sizes) >> 20} MiB, and a set keeps "
            f"{_MOST_CAPTIONS >> 20} MiB of them at most: prepare it in parts, or leave out --captions"
        )
    if not preparation.labels:
        splits = {name: encoded.without_classes() for name, encoded in splits.items()}
    for note in notes_of(list(splits.values()), "caption" if preparation.captions else "class"):
        LOGGER.warning("%s", note)
    return splits


def _fingerprint(files: Mapping[Path, str], splits: Mapping[str, Encoded], config: DataConfig) -> str:
    """A digest of all classes and of the names and sizes of the source's files, or how it is generated."""
    digest = hashlib.sha256()
    if config.moving_shapes is not None:
        digest.update(json.dumps(asdict(config.moving_shapes)).encode())
    for name, encoded in splits.items():
        digest.update(json.dumps([name, len(encoded), encoded.class_names]).encode())
        digest.update(encoded.labels.numpy().astype("<i8").tobytes())
    for name_and_size in files.values():
        digest.update(name_and_size.encode())
    return digest.hexdigest()


def _files(source: str, suffixes: Set[str]) -> dict[Path, str]:
    """The files of a source that hold what is wanted, each with its name in there and its bytes, as JSON.

    There are none if the source is built in or elsewhere.
    """
    path = Path(os.path.expanduser(source))
    if source in BUILT_IN or not path.exists():
        return {}
    every = contents_of(path).files if path.is_dir() else [path]
    files = [file for file in every if file.suffix.lower() in suffixes | _MANY_IN_ONE]
    sizes = [file.stat().st_size if file.exists() else None for file in files]
    return {
        file: json.dumps([printable(file.relative_to(path)), size]) for file, size in zip(files, sizes, strict=True)
    }
