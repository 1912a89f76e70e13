"""A prepared set: pictures or clips of one shape in shards, with nothing left to decode.

On disk it is a folder with `set.json` and, for each split, a folder of shards. While it is being made there is
`preparing.json` in place of `set.json`; `.lock` is the preparing process's.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from rin.core import strict_json
from rin.core.errors import RinError
from rin.core.kind import is_image, is_video
from rin.core.names import printable
from rin.core.shapes import Labels, Media
from rin.data.decoding.pictures import Footage, Medium, Shape, check_shape, fitted, in_channels
from rin.data.decoding.videos import ClipsConfig, overlap_of
from rin.data.files.encoded import Encoded, NothingBroken
from rin.data.prepared.shards import Shards

FORMAT_VERSION = 1
"""Of `set.json` and `preparing.json`; raised when old sets can no longer be read as they are."""

SET, BEGUN = "set.json", "preparing.json"

SPLIT_NAME = re.compile(r"\w[\w.-]*")
"""Names that a split's folder can have: none of them leads out of the set."""

CLIPS_A_VIDEO = "clips_a_video"
"""Where `set.json` tells how many clips of a split, in its order, are of one video, how many of the next and so on."""

CUT_BY = tuple(field.name for field in fields(ClipsConfig))
"""How videos are cut, which a set's settings tell as "clips.rate" and so on."""

_MAX_COUNT = 2**31
"""More than any shard or picture of a set has of anything."""

_SETTINGS = {"source": str, "size": str, "channels": int}
"""What every set's settings tell, and what each of them is."""


@dataclass(frozen=True, kw_only=True)
class PreparedMedia(NothingBroken, Encoded):
    """A split of a prepared set, or a part of it; as an `Encoded`, its pictures are stored as plainly as can be.

    Broken pictures were left out when the set was prepared, and its `set.json` names them.
    """

    shards: Shards
    """Where the pictures are."""

    has_captions: bool = False
    """Whether the names of its classes are captions."""

    @property
    def shape(self) -> Shape:
        """Of every picture (c h w) or clip (c f h w)."""
        return self.shards.shape

    def get(self, index: Int[Tensor, " b"]) -> tuple[Media, Labels]:
        """The pictures (b c h w) at some places of the set, and their classes (b), -1 for none."""
        places = index.numpy()
        return self.shards.gather(self.rows.numpy()[places]), torch.from_numpy(self.labels.numpy()[places])


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a prepared set, finished or not."""
    return (folder / SET).is_file() or (folder / BEGUN).is_file()


def read_set(folder: Path) -> dict[str, Any]:
    """What `set.json` says, looked through.

    Raises:
        RinError: the set is not finished, damaged or of a newer format.
    """
    if not (folder / SET).is_file():
        command = prepare_command(read_json(folder / BEGUN)["settings"], folder)
        raise RinError(f"the prepared set {printable(folder)} is not finished: go on with: {command}")
    stored = read_json(folder / SET)
    try:
        shape = _counts(stored["shape"])
        if len(shape) not in (3, 4):
            raise ValueError(f"{shape} is the shape of no picture or clip")
        check_shape(tuple(shape))
        for name, split in stored["splits"].items():
            if not SPLIT_NAME.fullmatch(name):
                raise ValueError(f"no split has the name {name!r}")
            names = split["class_names"]
            if not isinstance(names, list) or not all(isinstance(text, str) for text in names):
                raise ValueError("class names are texts")
            _counts([*split["shards"], split["num_broken"]])
            if CLIPS_A_VIDEO in split and sum(_counts(split[CLIPS_A_VIDEO])) != sum(split["shards"]):
                raise ValueError(f"{CLIPS_A_VIDEO} are not as many clips as there are")
        cut_by(stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_set(folder / SET, error) from error
    return stored


def cut_by(stored: Mapping[str, Any]) -> ClipsConfig:
    """How the clips of a prepared set were cut out of videos, of which `set.json` says `stored`.

    Raises:
        RinError: in a way that there is none.
    """
    settings = stored["settings"]
    cut = {name: settings[f"clips.{name}"] for name in CUT_BY if f"clips.{name}" in settings}
    return ClipsConfig(**cut)


def open_split(folder: Path, stored: Mapping[str, Any], split: str) -> PreparedMedia:
    """A split of a prepared set, of which `set.json` says `stored`.

    Raises:
        RinError: a shard is missing, truncated or something else, or holds classes that there are not.
    """
    of_split = stored["splits"][split]
    class_names = tuple(of_split["class_names"])
    shards = Shards(folder / split, tuple(stored["shape"]), of_split["shards"])
    labels = shards.labels()
    if len(labels) and not (labels.min() >= -1 and labels.max() < len(class_names)):
        raise RinError(f"{printable(folder / split)} has labels that are none of its classes: prepare the set again")
    families = torch.tensor(of_split.get(CLIPS_A_VIDEO, []), dtype=torch.int64)

    return PreparedMedia(
        read=lambda row: _Stored(shards.gather(np.array([row]))[0]),
        name=f"{{}} of {printable(folder / split)}".format,
        rows=torch.arange(len(labels)),
        labels=torch.from_numpy(labels),
        class_names=class_names,
        shards=shards,
        kind="clip" if is_video(shards.shape) else "picture",
        families=torch.arange(len(families)).repeat_interleave(families),
        overlap=overlap_of(shards.shape[1], cut_by(stored)) if len(families) else 0,
        listing=str(stored["settings"].get("fingerprint", "")),
        has_captions=bool(stored["settings"].get("captions")),
    )


@dataclass(frozen=True)
class _Stored(Footage):
    """A picture or clip as a set holds it, which another size can be made from."""

    medium: Medium

    def decode(self, shape: Shape) -> Medium:
        channels, *frames, height, width = shape
        stored = self.medium.unbind(1) if frames else (self.medium,)
        pixels = [frame.permute(1, 2, 0).squeeze(2).numpy() for frame in stored]  # grey ones (h w), as Pillow has them
        images = [in_channels(Image.fromarray(each), channels) for each in pixels]
        made = [fitted(image, (channels, height, width)) for image in images]
        return torch.stack(made, 1) if frames else made[0]


def check_takes(media: PreparedMedia, shape: Shape) -> None:
    """Refuses a model's shape that is not the set's.

    Raises:
        RinError: the shapes differ.
    """
    if media.shape == shape:
        return
    folder, (channels, *frames, height, width) = printable(media.shards.folder.parent), shape
    options = f"--size {size_text(height, width)}" + (f" --frames {frames[0]}" if frames else "")
    options += f" --channels {channels}" if channels != media.shape[0] else ""
    if frames:
        way_out = "another --model.shape; the frames of that and model.num_context_frames are the set's together"
    else:
        way_out = f"--model.shape {' '.join(map(str, media.shape))}"
    raise RinError(
        f"{folder} holds {shape_text(media.shape)} and the model takes {shape_text(shape)}: prepare a set with "
        f"{options}, or give {way_out}"
    )


def check_frames(media: PreparedMedia, shape: Shape) -> None:
    """Refuses what another set cannot be made from: a clip of this set has other frames than those wanted.

    Raises:
        RinError: the numbers of frames differ.
    """
    if media.shape[1:-2] != shape[1:-2]:
        folder = printable(media.shards.folder.parent)
        raise RinError(
            f"{folder} holds {shape_text(media.shape)}, which {shape_text(shape)} cannot be made from: give what "
            "that set was prepared from"
        )


def shape_text(shape: Shape) -> str:
    """What a shape is one of, as in "pictures of 3x64x64" or "clips of 16 frames (3x16x64x64)"."""
    sizes = "x".join(map(str, shape))
    return f"pictures of {sizes}" if is_image(shape) else f"clips of {shape[1]} frames ({sizes})"


def size_text(height: int, width: int) -> str:
    """A size as `rin prepare` takes it: one number for a square."""
    return str(height) if height == width else f"{height}x{width}"


def prepare_command(settings: Mapping[str, Any], folder: Path) -> str:
    """The command that makes, or goes on with, a set of these settings."""
    words = ["rin", "prepare", settings["source"], printable(folder), "--size", settings["size"]]
    words += ["--channels", str(settings["channels"])] if settings["channels"] != 3 else []
    words += ["--frames", str(settings["frames"])] if settings.get("frames") else []
    usual = ClipsConfig()
    words += [
        word
        for name in CUT_BY
        for word in (f"--clips.{name}", str(settings.get(f"clips.{name}")))
        if settings.get(f"clips.{name}", getattr(usual, name)) != getattr(usual, name)
    ]
    words += ["--value-range", *map(str, settings["value_range"])] if settings.get("value_range") else []
    words += ["--captions", str(settings["captions"])] if settings.get("captions") else []
    words += ["--skip-broken"] if settings.get("skip_broken") else []
    words += [] if settings.get("labels") else ["--no-labels"]
    return shlex.join(words)


def read_json(path: Path) -> dict[str, Any]:
    """One of a set's JSON files.

    Raises:
        RinError: it is damaged or of a newer format.
    """
    try:
        stored = strict_json.read_json(path)
        version = stored["format_version"]
        newer, settings = version > FORMAT_VERSION, stored["settings"]
        if not newer and not all(isinstance(settings[name], kind) for name, kind in _SETTINGS.items()):
            raise ValueError("settings are no settings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_set(path, error) from error
    if newer:
        raise RinError(
            f"{printable(path)} has format {version}, this rin knows up to {FORMAT_VERSION}: install a newer rin"
        )
    return stored


def _no_set(path: Path, error: Exception) -> RinError:
    reason = error if isinstance(error, ValueError) else repr(error)
    return RinError(f"{printable(path)} is no prepared set's ({reason}): prepare the set again, or remove that file")


def _counts(values: Any) -> list[int]:
    """Numbers out of JSON that count something."""
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < _MAX_COUNT for value in values):
        raise ValueError(f"{values!r} are no counts"[:100])
    return values
