"""From a configuration to the two sets of a run: the one to train on and the one held out."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from rin.core.errors import RinError
from rin.core.names import printable
from rin.core.values import PICTURES, Values
from rin.data.config import BUILT_IN, DataConfig
from rin.data.decoding.deep_pictures import values_at_16_bits
from rin.data.decoding.pictures import Shape
from rin.data.feeding.media_sets import MediaInMemory, MediaSet, open_media
from rin.data.feeding.opened_data import OpenedData
from rin.data.files.arrays import ArrayMedia
from rin.data.files.encoded import (
    Encoded,
    cut_held_out,
    listed,
    notes_of,
    of_all_captions,
    of_the_same_classes,
    sample_held_out,
)
from rin.data.files.identity import DataIdentity, identity_of
from rin.data.files.pairs import conditions_config, paired_splits
from rin.data.prepared.embedding import read_embeddings
from rin.data.prepared.reading import PreparedMedia, check_takes
from rin.data.splits import NoColumnsError, open_splits


def open_data(config: DataConfig, shape: Shape) -> OpenedData:
    """Opens the pictures of a configuration, at the shape of a model: (c h w), or (c f h w) for clips.

    "digits" is the built-in set; the folder ./digits is given as that. A folder that `rin prepare` made is read as it
    is; one with parquet files or tars in it is a set in those, any other a folder of images.

    Raises:
        RinError: there is no such set or split, nothing in it, a picture cannot be read (unless such pictures are
            skipped), or the shape is not possible.
    """
    training, held_out, pictures = opened = _opened(config, shape)
    if config.degrade == "pair" and not isinstance(training, ArrayMedia):
        raise RinError(
            f"data.degrade is 'pair', for arrays of twice the channels, and {printable(config.path)} holds "
            f"{training.kind}s: say where those are that they are drawn from, by --data.condition"
        )
    if len(training) == 0:
        raise RinError(f"{config.path} holds no {training.kind}s to train on: give another --data.path or --data.split")
    return OpenedData(
        training=_at_shape(training, shape, config),
        held_out=_at_shape(held_out, shape, config),
        pictures=None if pictures is None else _at_shape(pictures, (shape[0], *shape[2:]), config),
        pictures_rate=config.pictures_rate if pictures else 0.0,
        identity=identity_of(*opened),
        values=_values_of(training, config),
        notes=notes_of(
            [encoded for encoded in opened if encoded is not None],
            "caption" if _has_captions(training, config) else "class",
        ),
        degrade=config.condition_by,
        num_workers=config.num_workers,
        has_captions=_has_captions(training, config),
        embedded=read_embeddings(Path(os.path.expanduser(config.path)), training.class_names),
    )


def _has_captions(training: Encoded, config: DataConfig) -> bool:
    """Whether the names of the classes are captions, a set's own or those that are asked for."""
    return bool(config.captions) or (isinstance(training, PreparedMedia) and training.has_captions)


def _values_of(training: Encoded, config: DataConfig) -> Values:
    if isinstance(training, ArrayMedia):
        return training.values
    return PICTURES if config.bits == 8 else values_at_16_bits(config.value_range)


def with_whole_paths(config: DataConfig) -> DataConfig:
    """The configuration with the paths of files and folders from the root on, the same from every other folder."""
    condition = config.condition
    if os.path.isdir(os.path.expanduser(condition)):  # and no column, which a file may be called as well
        condition = _whole(condition)
    return replace(config, path=_whole(config.path), pictures_path=_whole(config.pictures_path), condition=condition)


def _whole(path: str) -> str:
    local = os.path.expanduser(path)
    is_local = path and path not in BUILT_IN and os.path.exists(local)  # others are on the Hub, or elsewhere
    return os.path.realpath(local) if is_local else path


def open_held_out(config: DataConfig, shape: Shape) -> tuple[MediaSet, DataIdentity]:
    """The held-out part of `open_data` and the identity alone: what is trained on is not decoded.

    Raises:
        RinError: as there.
    """
    opened = _opened(config, shape)
    return _at_shape(opened[1], shape, config), identity_of(*opened)


def _opened(config: DataConfig, shape: Shape) -> tuple[Encoded, Encoded, Encoded | None]:
    """What is trained on, what is held out, of the same classes, and pictures beside, before anything is decoded."""
    training, held_out = _training_and_held_out(config, shape)
    if not config.labels:
        training, held_out = training.without_classes(), held_out.without_classes()
    same = of_all_captions if _has_captions(training, config) else of_the_same_classes
    training, held_out = same(training, held_out)
    pictures = _pictures_beside(config, shape, training.class_names) if config.pictures_path else None
    return training, held_out, pictures


def _pictures_beside(config: DataConfig, shape: Shape, class_names: tuple[str, ...]) -> Encoded:
    """The pictures that are learned from beside clips, of their classes if these are the clips' by name."""
    if len(shape) != 4:
        raise RinError("data.pictures_path is for models of clips, which learn from pictures too: give --data.path")
    of_pictures = replace(config, path=config.pictures_path, num_held_out=0, pictures_path="", column="", captions="")
    channels, _, height, width = shape
    splits = open_splits(of_pictures, (channels, height, width))
    pictures = splits[config.split if config.split in splits else next(iter(splits))]()
    if pictures.class_names != class_names:
        pictures = pictures.without_classes()
    return pictures


def _at_shape(split: Encoded, shape: Shape, config: DataConfig) -> MediaSet:
    """The pictures of a split at the shape of a model, which those of a prepared one must have."""
    if isinstance(split, ArrayMedia):
        return _kept_in_memory(split, config.memory_gib)
    if isinstance(split, PreparedMedia):
        check_takes(split, shape)
        return split
    return open_media(split, shape, config.skip_broken, config.memory_gib, config.num_workers)


def _kept_in_memory(media: ArrayMedia, memory_gib: float) -> ArrayMedia | MediaInMemory:
    """The examples in memory if they fit into `memory_gib` as the model takes them; read in place otherwise."""
    bytes_each = media.array[:1].size * (1 if media.values == PICTURES else 4)
    if len(media) * bytes_each > memory_gib * 2**30:
        return media
    x, labels = media.get(torch.arange(len(media)))
    return MediaInMemory(x, labels, media.class_names)


def _open_splits(config: DataConfig, shape: Shape) -> dict[str, Callable[[], Encoded]]:
    """All splits of a set, in pairs if its pictures are drawn from others."""
    if not config.condition:
        return open_splits(config, shape)
    each, other = (shape[0] // 2, *shape[1:]), conditions_config(config)
    targets = open_splits(replace(config, condition=""), each)
    try:
        return paired_splits(targets, open_splits(other, each), config, other)
    except NoColumnsError as error:
        raise RinError(
            f"data.condition is {config.condition!r}, which is no folder, and {printable(config.path)} has no columns, "
            "as tables and tars have: give a folder with pictures of the same names"
        ) from error


def _training_and_held_out(config: DataConfig, shape: Shape) -> tuple[Encoded, Encoded]:
    splits = _open_splits(config, shape)
    if config.split not in splits:
        raise RinError(f"{config.path} has no split {config.split!r}: --data.split is one of {', '.join(splits)}")
    training, used = splits[config.split](), {config.split}
    if config.num_held_out == 0 or config.held_out_split not in splits or config.held_out_split == config.split:
        training, held_out = cut_held_out(training, config.num_held_out)
    else:
        held_out = sample_held_out(splits[config.held_out_split](), config.num_held_out)
        used.add(config.held_out_split)
    if others := [printable(split) for split in splits if split not in used]:
        training = replace(training, notes=(*training.notes, f"splits that are not used: {listed(others)}"))
    return training, held_out
