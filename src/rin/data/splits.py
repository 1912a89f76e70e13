"""A configuration's source: which kind it is, and its splits, each to be opened by a call."""

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rin.core.errors import RinError
from rin.core.kind import is_set, is_video
from rin.core.names import printable
from rin.data.config import BUILT_IN, DataConfig
from rin.data.decoding.deep_pictures import depth_of
from rin.data.decoding.pictures import BrokenMediaError, Footage, Shape, Source, check_shape
from rin.data.decoding.videos import ClipsConfig
from rin.data.files.arrays import are_arrays, open_arrays
from rin.data.files.encoded import Encoded, FileKind
from rin.data.files.folders import PICTURE_SUFFIXES, SUFFIXES, VIDEO_SUFFIXES, contents_of, of_other_kinds, open_folder
from rin.data.files.sequences import are_sequences, check_cut_of_sequences, open_sequences
from rin.data.files.streaming import streamed_splits
from rin.data.files.tables import open_dataset, open_hub, open_parquet, parquet_splits
from rin.data.files.tars import open_tars
from rin.data.files.video_sets import all_clips, first_clips
from rin.data.prepared.reading import cut_by, is_prepared, open_split, read_set

_COMPRESSED_TAR = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst|lzma))$")
_TAKES_CLIPS = "clips of several frames are wanted"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def open_splits(config: DataConfig, shape: Shape) -> dict[str, Callable[[], Encoded]]:
    """The splits of a set, each to be opened by a call; a set without splits is the one to train on.

    The shape is that of the pictures (c h w) or clips (c f h w) that are wanted. Clips are cut out of videos, all that
    there are in each; where parquet files are streamed, one row gives the first clip of its video, for to know how
    many there are would take to read everything.

    Raises:
        RinError: there is no such set, or it cannot be read.
    """
    path = Path(os.path.expanduser(config.path))
    is_prepared_set = os.path.isdir(path) and is_prepared(path)
    is_ready_made = config.path in BUILT_IN or is_prepared_set
    if config.bits != 8 and (is_ready_made or is_video(shape) or are_arrays(config.path) or config.pictures_path):
        raise RinError(
            f"data.bits is for pictures that are decoded: arrays keep their own, and prepared sets, clips and what is "
            f"built in have 8: leave it out for {printable(config.path)}"
        )
    if are_arrays(config.path):
        return open_arrays(config, shape)
    if is_set(shape) and config.path not in BUILT_IN:
        raise RinError(
            f"model.shape {tuple(shape)}: {printable(config.path)} holds no sets of vectors: give an .npy or .npz file "
            "of them (b n c), or a data set of your own, rin.train(experiment, folder, data=...)"
        )
    if not is_set(shape):
        check_shape(shape, any_channels=True)
    if config.value_range and not config.pictures_path and (is_ready_made or is_video(shape)):
        raise RinError(
            f"data.value_range is for pictures that are decoded, and {printable(config.path)} has 8 bits: leave it out"
        )
    if config.column and is_ready_made:
        raise _no_columns(config)
    if config.captions and (is_ready_made or config.stream):
        what = "a streamed set is read without them" if config.stream else f"{printable(config.path)} has its own"
        raise RinError(f"data.captions is {config.captions!r}, and {what}: leave it out")
    if config.path in BUILT_IN:
        # what makes them stands above this package, as a data set of one's own would, and is imported by name
        return {config.split: lambda: importlib.import_module(BUILT_IN[config.path]).open_set(config, shape)}
    if is_prepared_set:
        stored = read_set(path)
        how_cut(config)  # nothing can be cut in another way any more
        return {split: partial(open_split, path, stored, split) for split in stored["splits"]}
    kind = "video" if is_video(shape) else "picture"
    if config.stream:
        splits = streamed_splits(config.path, config.split, kind, config.column)
    elif os.path.isdir(path):
        splits = _splits_of_folder(path, config, kind)
    elif os.path.isfile(path):
        splits = _splits_of_file(path, config, kind)
    elif _HUB_NAME.fullmatch(config.path):
        hub = open_hub(config.path)
        splits = {
            split: partial(open_dataset, hub[split], f"{config.path} ({split})", kind, config.column, config.captions)
            for split in hub
        }
    else:
        known = '"digits" is built in, and sets on the Hub have names like "owner/name"'
        raise RinError(f"no such folder, file or known set {printable(config.path)!r}: {known}")
    return (
        {split: partial(_clips, opened, config, shape) for split, opened in splits.items()}
        if kind == "video"
        else {split: partial(_of_range, opened, config) for split, opened in splits.items()}
    )


def how_cut(config: DataConfig) -> ClipsConfig:
    """How clips are cut out of videos: as configured; those of a prepared set as they were when it was made.

    Raises:
        RinError: the set's were cut in another way than the configuration asks for.
    """
    path = Path(os.path.expanduser(config.path))
    if config.path in BUILT_IN or not (os.path.isdir(path) and is_prepared(path)):
        return config.clips
    cut, usual = cut_by(read_set(path)), ClipsConfig()
    if config.clips not in (usual, cut):
        differences = [
            f"clips.{name} {value} is asked for and was {getattr(cut, name)}"
            for name, value in vars(config.clips).items()
            if value != getattr(cut, name)
        ]
        raise RinError(
            f"{printable(path)} was cut when it was prepared ({'; '.join(differences)}): leave the options out, or "
            "prepare another set with them"
        )
    return cut


def _of_range(open_pictures: Callable[[], Encoded], config: DataConfig) -> Encoded:
    """The pictures with the range of their values, and a note of what is black and white by the first of them."""
    pictures = replace(open_pictures(), value_range=config.value_range, bits=config.bits)
    if not len(pictures) or len(pictures.groups):  # to look at one would read a whole group
        return pictures
    try:
        first = pictures.read(int(pictures.rows[0]))
        note = "" if isinstance(first, Footage) else _note_of(first, pictures.name_at(0), config)
    except BrokenMediaError:  # it is named when it is decoded
        return pictures
    return replace(pictures, notes=(*pictures.notes, note)) if note else pictures


def _note_of(first: Source, name: str, config: DataConfig) -> str:
    """What becomes of the bits of a set by its first picture; empty if there is nothing to tell.

    Raises:
        BrokenMediaError: it cannot be opened.
    """
    is_grey, is_deep = depth_of(first)
    if config.bits == 16 and not is_deep:
        return f"data.bits is 16, and {name} has no more than 8"
    if config.bits == 8 and config.value_range and not is_grey:
        return f"data.value_range is for grey pictures of more than 8 bits, and {name} is none"
    if config.bits == 8 and is_deep and not is_grey:
        return f"colours of more than 8 bits are read in 8, those of {name} to begin with: --data.bits 16 keeps them"
    if is_deep and not config.value_range:
        return (
            f"{'grey ' if is_grey else ''}pictures of more than 8 bits are black to white as each declares, 16 bits "
            "from 0 to 65535: give --data.value-range (rin prepare: --value-range) if theirs is another"
        )
    return ""


def _clips(open_videos: Callable[[], Encoded], config: DataConfig, shape: Shape) -> Encoded:
    videos = open_videos()
    if config.stream:
        return first_clips(videos, config.clips)
    return all_clips(videos, shape[1], config.clips, config.skip_broken)


def _splits_of_file(path: Path, config: DataConfig, kind: FileKind) -> dict[str, Callable[[], Encoded]]:
    ending = path.suffix.lower()
    if ending == ".parquet":
        return {config.split: partial(open_parquet, [path], config.memory_gib, kind, config.column, config.captions)}
    if ending == ".tar" and kind == "picture":
        return {config.split: partial(open_tars, [path], config.labels, config.column, config.captions)}
    if ending == ".tar":
        raise _no_videos_in_tars(path)
    if ending in VIDEO_SUFFIXES and kind == "video":
        if config.column:
            raise _no_columns(config)
        return {config.split: partial(open_folder, path, kind, config.captions)}
    if kind == "video":
        raise RinError(f"{printable(path)} is no video by its name: give one, a folder of videos, or a .parquet file")
    raise RinError(f"{printable(path)} is a single file: give a folder of images, a .parquet or a plain .tar file")


def _splits_of_folder(folder: Path, config: DataConfig, kind: FileKind) -> dict[str, Callable[[], Encoded]]:
    files = contents_of(folder).files
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
    if tars or parquet:
        return _splits_of_tables(folder, files, config, kind)
    if config.column:
        raise _no_columns(config)
    if not has_any and kind == "video" and are_sequences(folder, files):
        check_cut_of_sequences(folder, config.clips.rate, config.captions)
        return {config.split: partial(open_sequences, folder)}
    if not has_any:
        _refuse_the_other_kind(folder, files, kind)
    return {config.split: partial(open_folder, folder, kind, config.captions)}


def _splits_of_tables(
    folder: Path, files: list[Path], config: DataConfig, kind: FileKind
) -> dict[str, Callable[[], Encoded]]:
    """The splits of a folder of tars or parquet files; what else is in it is not used."""
    ending = ".tar" if any(file.suffix.lower() == ".tar" for file in files) else ".parquet"
    tables = [file for file in files if file.suffix.lower() == ending]
    others = [file for file in files if file.suffix.lower() != ending]
    notes = (of_other_kinds(others, f"which are not {ending}"),) if others else ()

    def opened(of_split: list[Path]) -> Encoded:
        if ending == ".tar":
            encoded = open_tars(of_split, config.labels, config.column, config.captions)
        else:
            encoded = open_parquet(of_split, config.memory_gib, kind, config.column, config.captions)
        return replace(encoded, notes=(*notes, *encoded.notes))

    return {split: partial(opened, of_split) for split, of_split in parquet_splits(folder, tables).items()}


class NoColumnsError(RinError):
    """A column is asked for, of what has none."""


def _no_columns(config: DataConfig) -> NoColumnsError:
    return NoColumnsError(
        f"data.column is {config.column!r}, and {printable(config.path)} has no columns, as tables and tars have: "
        "leave it out"
    )


def _refuse_the_other_kind(folder: Path, files: list[Path], kind: FileKind) -> None:
    endings = {file.suffix.lower() for file in files}
    if kind == "picture" and endings & VIDEO_SUFFIXES:
        raise RinError(
            f"{printable(folder)} holds videos, and pictures are wanted: give a folder of pictures, or channels, "
            "frames, height and width to --model.shape (rin prepare: --frames)"
        )
    if kind == "video" and endings & PICTURE_SUFFIXES:
        raise RinError(
            f"{printable(folder)} holds pictures and no videos, and {_TAKES_CLIPS}: give a "
            "folder of videos, or one with a folder of numbered pictures for each clip, clip_a/frame_0001.png"
        )


def _no_videos_in_tars(path: Path) -> RinError:
    return RinError(
        f"{printable(path)} would be read for pictures only, as every tar is, and {_TAKES_CLIPS}: unpack it and give "
        "the folder of videos"
    )
