"""`rin prepare`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rin.cli.arguments import parse, quoted
from rin.core.errors import RinError
from rin.data.decoding.videos import ClipsConfig
from rin.data.preparing import Preparation, prepare_set


@dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    """Turns pictures or videos into one set of plain arrays, decoded, cropped at the centre and resized for good.

    All splits of the source are prepared, in parallel. A command that was stopped, in whatever way, goes on when it is
    given again, and ends with the same bytes. Train on the set with --data.path OUT.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A folder of images, a parquet or .tar file or a folder of them, a Hub name owner/name, or digits; for clips a
    folder of videos, parquet files or a Hub name with videos, or moving-shapes."""

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The set's folder: a new one, or one to go on with."""

    size: Annotated[str, tyro.conf.arg(metavar="N|HEIGHTxWIDTH")]
    """Of the prepared pictures or clips, in pixels: 64, or 48x64."""

    frames: int = 0
    """Of each clip that is cut out of a video: those to give and to predict together; 0 prepares pictures."""

    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """How clips are cut out of videos; of videos in parquet files here the first clip is taken and no other."""

    channels: Literal[1, 3, 4] = 3
    """1 is grey, 3 colour, 4 colour and opacity."""

    value_range: tuple[float, float] | None = None
    """The least and the largest value of grey pictures of more than 8 bits, black and white, as in 0 4095; if absent
    what each file declares by its tags, or else by its type."""

    skip_broken: bool = False
    """Leave out what cannot be read, which set.json names; otherwise the first picture or video of that kind ends the
    command."""

    labels: bool = True
    """Keep the classes, where the source has any."""

    captions: str = ""
    """Keep captions in the place of classes: "txt" if they lie in KEY.txt beside KEY.jpg, in folders and tars; a column
    of parquet files or of a set on the Hub."""

    text_encoder: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """Embed the captions, once, by a text encoder of the transformers library: a folder, or a name on the Hub."""

    num_tokens: int = 32
    """Tokens of an embedded caption; what is beyond them is left out."""


def prepare(arguments: list[str]) -> None:
    """Prepares a set, or goes on with one."""
    chosen = parse(PrepareArguments, arguments, "rin prepare")
    for argument, text in (("SOURCE", chosen.source), ("OUT", chosen.out)):
        if not text:
            raise RinError(
                f"{argument} is empty: give SOURCE and OUT, as in rin prepare path/to/pictures sets/mine --size 64"
            )
    if chosen.frames < 0:
        raise RinError(f"--frames is {chosen.frames}: give the frames of a clip, or 0 to prepare pictures")
    if chosen.text_encoder and not chosen.captions:
        raise RinError("--text-encoder embeds captions: say where they are, as in --captions txt")
    if chosen.num_tokens < 1:
        raise RinError(f"--num-tokens is {chosen.num_tokens}: give 1 or more")
    frames = (chosen.frames,) if chosen.frames else ()
    preparation = Preparation(
        source=chosen.source,
        shape=(chosen.channels, *frames, *parse_size(chosen.size)),
        clips=chosen.clips,
        labels=chosen.labels,
        value_range=chosen.value_range,
        skip_broken=chosen.skip_broken,
        captions=chosen.captions,
        text_encoder=chosen.text_encoder,
        num_tokens=chosen.num_tokens,
    )
    prepared = prepare_set(preparation, Path(chosen.out))
    splits = ", ".join(f"{split} {count}" for split, count in prepared.num_pictures.items())
    ones = "one" if prepared.num_broken == 1 else "ones"
    broken = f"; {prepared.num_broken} broken {ones} left out, see set.json" if prepared.num_broken else ""
    total = sum(prepared.num_pictures.values())
    shape = " ".join(map(str, preparation.shape))
    out = quoted(chosen.out)
    # whole clips, whatever the preset gives: others may have fewer frames; and mixing is for images
    whole = " --model.num-context-frames 0 --model.mixing-size 0" if frames else ""
    train = f"rin train PRESET --data.path {out} --model.shape {shape}{whole}"
    if prepared.longest_caption and not chosen.text_encoder:
        train += f" --model.num-classes 0 --model.caption-length {prepared.longest_caption}"
    already = "already " if prepared.was_finished else ""
    kind = "clips" if frames else "pictures"
    note = "; to predict them from their first n frames, take n context frames and n frames less" if frames else ""
    print(f"{total} {kind} ({splits}{broken}) are {already}in {out}{note}; train on them with: {train}")


def parse_size(text: str) -> tuple[int, int]:
    """Height and width out of a text like "64" or "48x64".

    Raises:
        RinError: it is no size.
    """
    size = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text, re.ASCII)
    if size is None:
        raise RinError(f"--size {text}: write one number for a square, as in 64, or HEIGHTxWIDTH, as in 48x64")
    return int(size[1]), int(size[2] or size[1])
