"""From a configuration to the two sets of a run: the one to train on and the one held out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rin.core.errors import RinError
from rin.data.config import BUILT_IN, ClipsConfig, DataConfig
from rin.data.decoding import Shape, check_shape, printable
from rin.data.digits import open_digits
from rin.data.encoded import Encoded, FileKind, cut_held_out, sample_held_out
from rin.data.folders import PICTURE_SUFFIXES, SUFFIXES, VIDEO_SUFFIXES, files_in, open_folder
from rin.data.media_sets import MediaSet, open_media
from rin.data.moving_shapes import open_moving_shapes
from rin.data.prepared import PreparedMedia, check_takes, cut_by, is_prepared, open_split, read_set
from rin.data.streaming import streamed_splits
from rin.data.tables import open_dataset, open_hub, open_parquet, parquet_splits
from rin.data.tars import open_tars
from rin.data.video_sets import all_clips, first_clips

_COMPRESSED_TAR = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst|lzma))$")
_TAKES_CLIPS = "clips of several frames are wanted"
_TAKES_PICTURES = "pictures are wanted"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class OpenedData:
    """The sets of a run, which share no picture."""

    training: MediaSet
    """The pictures to train on."""

    held_out: MediaSet
    """The pictures to measure on; none if the set is too small or none are asked for."""

    pictures: MediaSet | None = None
    """What a model of clips also learns from, as clips of one frame."""

    pictures_rate: float = 0.0
    """The share of the updates that are on these."""


def open_data(config: DataConfig, shape: Shape) -> OpenedData:
    """Opens the pictures of a configuration, at the shape of a model: (c h w), or (c f h w) for clips.

    "digits" is the built-in set; the folder ./digits is given as that. A folder that `rin prepare` made is read as it
    is; one with parquet files or tars in it is a set in those, any other a folder of images.

    Raises:
        RinError: there is no such set or split, nothing in it, a picture cannot be read (unless such pictures are
            skipped), or the shape is not possible.
    """
    training, held_out = _both(config, shape)
    if len(training) == 0:
        raise RinError(f"{config.path} holds no {training.kind}s to train on: give another --data.path or --data.split")
    pictures = _pictures_beside(config, shape, training.class_names) if config.pictures_path else None
    return OpenedData(
        training=_at_shape(training, shape, config),
        held_out=_at_shape(held_out, shape, config),
        pictures=pictures,
        pictures_rate=config.pictures_rate if pictures else 0.0,
    )


def open_held_out(config: DataConfig, shape: Shape) -> MediaSet:
    """The held-out part of `open_data` alone: what is trained on is not decoded.

    Raises:
        RinError: as there.
    """
    return _at_shape(_both(config, shape)[1], shape, config)


def _both(config: DataConfig, shape: Shape) -> tuple[Encoded, Encoded]:
    """What is trained on and what is held out, of the same classes, before anything is decoded."""
    check_shape(shape)
    training, held_out = _training_and_held_out(config, shape)
    if not config.labels:
        training, held_out = training.without_classes(), held_out.without_classes()
    return _of_the_same_classes(training, held_out)


def _pictures_beside(config: DataConfig, shape: Shape, class_names: tuple[str, ...]) -> MediaSet:
    """The pictures that are learned from beside clips, of their classes if these are the clips' by name."""
    if len(shape) != 4:
        raise RinError("data.pictures_path is for models of clips, which learn from pictures too: give --data.path")
    of_pictures = replace(config, path=config.pictures_path, num_held_out=0, pictures_path="")
    channels, _, height, width = shape
    splits = open_splits(of_pictures, (channels, height, width))
    pictures = splits[config.split if config.split in splits else next(iter(splits))]()
    if pictures.class_names != class_names:
        pictures = pictures.without_classes()
    return _at_shape(pictures, (channels, height, width), config)


def _at_shape(split: Encoded, shape: Shape, config: DataConfig) -> MediaSet:
    """The pictures of a split at the shape of a model, which those of a prepared one must have."""
    if isinstance(split, PreparedMedia):
        check_takes(split, shape)
        return split
    return open_media(split, shape, config.skip_broken, config.memory_gib)


def _training_and_held_out(config: DataConfig, shape: Shape) -> tuple[Encoded, Encoded]:
    splits = open_splits(config, shape)
    if config.split not in splits:
        raise RinError(f"{config.path} has no split {config.split!r}: --data.split is one of {', '.join(splits)}")
    training = splits[config.split]()
    if config.num_held_out == 0 or config.held_out_split not in splits or config.held_out_split == config.split:
        return cut_held_out(training, config.num_held_out)
    return training, sample_held_out(splits[config.held_out_split](), config.num_held_out)


def open_splits(config: DataConfig, shape: Shape) -> dict[str, Callable[[], Encoded]]:
    """The splits of a set, each to be opened by a call; a set without splits is the one to train on.

    The shape is that of the pictures (c h w) or clips (c f h w) that are wanted. Clips are cut out of videos, all that
    there are in each; where parquet files are streamed, one row gives the first clip of its video, for to know how
    many there are would take to read everything.

    Raises:
        RinError: there is no such set, or it cannot be read.
    """
    path = Path(config.path).expanduser()
    if config.path == "digits":
        if len(shape) == 4:
            raise RinError(f"digits are pictures, and {_TAKES_CLIPS}: give --data.path moving-shapes, for example")
        return {config.split: open_digits}
    if config.path == "moving-shapes":
        return {config.split: partial(open_moving_shapes, config.moving_shapes, shape)}
    if path.is_dir() and is_prepared(path):
        stored = read_set(path)
        how_cut(config)  # nothing can be cut in another way any more
        return {split: partial(open_split, path, stored, split) for split in stored["splits"]}
    kind = "video" if len(shape) == 4 else "picture"
    if config.stream:
        splits = streamed_splits(config.path, config.split, kind)
    elif path.is_dir():
        splits = _splits_of_folder(path, config, kind)
    elif path.is_file():
        splits = _splits_of_file(path, config, kind)
    elif _HUB_NAME.fullmatch(config.path):
        hub = open_hub(config.path)
        splits = {split: partial(open_dataset, hub[split], f"{config.path} ({split})", kind) for split in hub}
    else:
        known = '"digits" is built in, and sets on the Hub have names like "owner/name"'
        raise RinError(f"no such folder, file or known set {printable(config.path)!r}: {known}")
    return (
        {split: partial(_clips, opened, config, shape) for split, opened in splits.items()}
        if kind == "video"
        else splits
    )


def how_cut(config: DataConfig) -> ClipsConfig:
    """How clips are cut out of videos: as configured; those of a prepared set as they were when it was made.

    Raises:
        RinError: the set's were cut in another way than the configuration asks for.
    """
    path = Path(config.path).expanduser()
    if config.path in BUILT_IN or not (path.is_dir() and is_prepared(path)):
        return config.clips
    found, usual = cut_by(read_set(path)), ClipsConfig()
    if config.clips not in (usual, found):
        asked = [
            f"clips.{name} {value} is asked for and was {getattr(found, name)}"
            for name, value in vars(config.clips).items()
            if value != getattr(found, name)
        ]
        raise RinError(
            f"{printable(path)} was cut when it was prepared ({'; '.join(asked)}): leave the options out, or prepare "
            "another set with them"
        )
    return found


def _clips(open_videos: Callable[[], Encoded], config: DataConfig, shape: Shape) -> Encoded:
    videos = open_videos()
    if config.stream:
        return first_clips(videos, config.clips)
    return all_clips(videos, shape[1], config.clips, config.skip_broken)


def _splits_of_file(path: Path, config: DataConfig, kind: FileKind) -> dict[str, Callable[[], Encoded]]:
    ending = path.suffix.lower()
    if ending == ".parquet":
        return {config.split: partial(open_parquet, [path], config.memory_gib, kind)}
    if ending == ".tar" and kind == "picture":
        return {config.split: partial(open_tars, [path], config.labels)}
    if ending == ".tar":
        raise _no_videos_in_tars(path)
    if kind == "video":
        raise RinError(f"{printable(path)} is a single file: give a folder of videos, or a .parquet file")
    raise RinError(f"{printable(path)} is a single file: give a folder of images, a .parquet or a plain .tar file")


def _splits_of_folder(folder: Path, config: DataConfig, kind: FileKind) -> dict[str, Callable[[], Encoded]]:
    files = files_in(folder)
    parquet = [file for file in files if file.suffix.lower() == ".parquet"]
    tars = [file for file in files if file.suffix.lower() == ".tar"]
    compressed = [file for file in files if _COMPRESSED_TAR.search(file.name.lower())]
    has_any = any(file.suffix.lower() in SUFFIXES[kind] for file in files)
    if tars and kind == "video" and not (parquet or has_any):
        raise _no_videos_in_tars(folder)
    if tars and (parquet or has_any):
        others = "parquet files" if parquet else f"{kind}s"
        raise RinError(f"{printable(folder)} holds both .tar files and {others}: give a folder with one kind in it")
    if compressed and (tars or not (parquet or has_any)):
        raise RinError(f"{printable(compressed[0])} is compressed: unpack it, or make a plain .tar of it")
    if tars:
        splits = parquet_splits(folder, tars)
        return {split: partial(open_tars, files, config.labels) for split, files in splits.items()}
    if parquet:
        splits = parquet_splits(folder, parquet)
        return {split: partial(open_parquet, files, config.memory_gib, kind) for split, files in splits.items()}
    if not has_any:
        _refuse_the_other_kind(folder, files, kind)
    return {config.split: partial(open_folder, folder, kind)}


def _refuse_the_other_kind(folder: Path, files: list[Path], kind: FileKind) -> None:
    endings = {file.suffix.lower() for file in files}
    if kind == "picture" and endings & VIDEO_SUFFIXES:
        raise RinError(
            f"{printable(folder)} holds videos, and {_TAKES_PICTURES}: give a folder of pictures, or channels, frames, "
            "height and width to --model.shape (rin prepare: --frames)"
        )
    if kind == "video" and endings & PICTURE_SUFFIXES:
        raise RinError(f"{printable(folder)} holds pictures and no videos, and {_TAKES_CLIPS}: give a folder of videos")


def _no_videos_in_tars(path: Path) -> RinError:
    return RinError(
        f"{printable(path)} would be read for pictures only, as every tar is, and {_TAKES_CLIPS}: unpack it and give "
        "the folder of videos"
    )


def _of_the_same_classes(training: Encoded, held_out: Encoded) -> tuple[Encoded, Encoded]:
    """Both sets with the names of all classes, where one of them knows fewer because it has no picture of the last.

    Raises:
        RinError: the same class has different names.
    """
    fewer, more = sorted((training.class_names, held_out.class_names), key=len)
    if fewer != more[: len(fewer)]:
        raise RinError("the held-out split has other classes than the training split: --data.num-held-out 0 or another")
    return replace(training, class_names=more), replace(held_out, class_names=more)
