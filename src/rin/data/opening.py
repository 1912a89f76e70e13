"""From a configuration to the two sets of a run: the one to train on and the one held out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rin.core.errors import RinError
from rin.data.config import DataConfig
from rin.data.decoding import Shape, check_shape, printable
from rin.data.digits import open_digits
from rin.data.encoded import Encoded, cut_held_out, sample_held_out
from rin.data.folders import PICTURE_SUFFIXES, files_in, open_folder
from rin.data.image_sets import ImageSet, open_images
from rin.data.prepared import PreparedImages, check_takes, is_prepared, open_split, read_set
from rin.data.streaming import streamed_splits
from rin.data.tables import open_dataset, open_hub, open_parquet, parquet_splits
from rin.data.tars import open_tars

_COMPRESSED_TAR = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst|lzma))$")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class OpenedData:
    """The sets of a run, which share no picture."""

    training: ImageSet
    """The pictures to train on."""

    held_out: ImageSet
    """The pictures to measure on; none if the set is too small or none are asked for."""


def open_data(config: DataConfig, shape: Shape) -> OpenedData:
    """Opens the pictures of a configuration, at the shape (c, h, w) of a model.

    "digits" is the built-in set; the folder ./digits is given as that. A folder that `rin prepare` made is read as it
    is; one with parquet files or tars in it is a set in those, any other a folder of images.

    Raises:
        RinError: there is no such set or split, nothing in it, a picture cannot be read (unless such pictures are
            skipped), or the shape is not possible.
    """
    check_shape(shape)
    training, held_out = _training_and_held_out(config)
    if not config.labels:
        training, held_out = training.without_classes(), held_out.without_classes()
    training, held_out = _of_the_same_classes(training, held_out)
    if len(training) == 0:
        raise RinError(f"{config.path} holds no pictures to train on: give another --data.path or --data.split")
    return OpenedData(
        training=_at_shape(training, shape, config),
        held_out=_at_shape(held_out, shape, config),
    )


def _at_shape(split: Encoded, shape: Shape, config: DataConfig) -> ImageSet:
    """The pictures of a split at the shape of a model, which those of a prepared one must have."""
    if isinstance(split, PreparedImages):
        check_takes(split, shape)
        return split
    return open_images(split, shape, config.skip_broken, config.memory_gib)


def _training_and_held_out(config: DataConfig) -> tuple[Encoded, Encoded]:
    splits = open_splits(config)
    if config.split not in splits:
        raise RinError(f"{config.path} has no split {config.split!r}: --data.split is one of {', '.join(splits)}")
    training = splits[config.split]()
    if config.num_held_out == 0 or config.held_out_split not in splits or config.held_out_split == config.split:
        return cut_held_out(training, config.num_held_out)
    return training, sample_held_out(splits[config.held_out_split](), config.num_held_out)


def open_splits(config: DataConfig) -> dict[str, Callable[[], Encoded]]:
    """The splits of a set, each to be opened by a call; a set without splits is the one to train on.

    Raises:
        RinError: there is no such set, or it cannot be read.
    """
    path = Path(config.path).expanduser()
    if config.path == "digits":
        return {config.split: open_digits}
    if path.is_dir() and is_prepared(path):
        stored = read_set(path)
        return {split: partial(open_split, path, stored, split) for split in stored["splits"]}
    if config.stream:
        return streamed_splits(config.path, config.split)
    if path.is_dir():
        return _splits_of_folder(path, config)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return {config.split: partial(open_parquet, [path], config.memory_gib)}
        if path.suffix.lower() == ".tar":
            return {config.split: partial(open_tars, [path], config.labels)}
        raise RinError(f"{printable(path)} is a single file: give a folder of images, a .parquet or a plain .tar file")
    if _HUB_NAME.fullmatch(config.path):
        hub = open_hub(config.path)
        return {split: partial(open_dataset, hub[split], f"{config.path} ({split})") for split in hub}
    known = '"digits" is built in, and sets on the Hub have names like "owner/name"'
    raise RinError(f"no such folder, file or known set {printable(config.path)!r}: {known}")


def _splits_of_folder(folder: Path, config: DataConfig) -> dict[str, Callable[[], Encoded]]:
    files = files_in(folder)
    parquet = [file for file in files if file.suffix.lower() == ".parquet"]
    tars = [file for file in files if file.suffix.lower() == ".tar"]
    compressed = [file for file in files if _COMPRESSED_TAR.search(file.name.lower())]
    has_pictures = any(file.suffix.lower() in PICTURE_SUFFIXES for file in files)
    if tars and (parquet or has_pictures):
        others = "parquet files" if parquet else "pictures"
        raise RinError(f"{printable(folder)} holds both .tar files and {others}: give a folder with one kind in it")
    if compressed and (tars or not (parquet or has_pictures)):
        raise RinError(f"{printable(compressed[0])} is compressed: unpack it, or make a plain .tar of it")
    if tars:
        splits = parquet_splits(folder, tars)
        return {split: partial(open_tars, files, config.labels) for split, files in splits.items()}
    if parquet:
        splits = parquet_splits(folder, parquet)
        return {split: partial(open_parquet, files, config.memory_gib) for split, files in splits.items()}
    return {config.split: partial(open_folder, folder)}


def _of_the_same_classes(training: Encoded, held_out: Encoded) -> tuple[Encoded, Encoded]:
    """Both sets with the names of all classes, where one of them knows fewer because it has no picture of the last.

    Raises:
        RinError: the same class has different names.
    """
    fewer, more = sorted((training.class_names, held_out.class_names), key=len)
    if fewer != more[: len(fewer)]:
        raise RinError("the held-out split has other classes than the training split: --data.num-held-out 0 or another")
    return replace(training, class_names=more), replace(held_out, class_names=more)
