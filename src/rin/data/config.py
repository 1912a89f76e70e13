"""What to train on: the configuration of the data."""

import math
from dataclasses import dataclass, field

from rin.core.configs import changeable, check_fields
from rin.core.errors import RinError
from rin.core.seeds import check_seed
from rin.data.decoding.videos import ClipsConfig
from rin.data.degrading import parse_degrade

BUILT_IN = {
    "digits": "rin.toys.digits",
    "moving-shapes": "rin.toys.moving_shapes",
    "points": "rin.toys.points",
    "captions": "rin.toys.captions",
}
"""The sets that need no path, and the modules that make them."""

_MOST_CLIPS = 100_000_000
"""Generated clips: their numbers alone take most of a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class MovingShapesConfig:
    """The generated set `moving-shapes`; lengths are shares of the canvas's smaller side.

    Raises:
        RinError: a field has a value that means nothing.
    """

    num_clips: int = 20_000
    """Clips in the set, the held-out ones among them."""

    num_shapes: int = 2
    """Shapes in a clip, each with a colour of its own; at most 6."""

    radius: float = 0.15
    """Of the circle around each shape."""

    speed: tuple[float, float] = (0.05, 0.1)
    """The least and the most that a shape moves from frame to frame."""

    occlusion_rate: float = 0.5
    """Share of the clips in which a shape hides a part of another; in the rest none ever does."""

    min_bounces: int = 2
    """Bounces off the walls in a clip at least, those of all shapes together."""

    seed: int = 0
    """Of everything in the clips."""

    def __post_init__(self) -> None:
        check_fields(self, "moving_shapes")
        if not 1 <= self.num_clips <= _MOST_CLIPS or not 1 <= self.num_shapes <= 6:
            raise RinError(
                f"moving_shapes: {self.num_clips} clips of {self.num_shapes} shapes: give 1 to {_MOST_CLIPS:,}, 1 to 6"
            )
        if not 0 < self.radius <= 0.25:
            raise RinError(f"moving_shapes.radius is {self.radius}: give a share of the canvas, 0.25 at most")
        if not (len(self.speed) == 2 and 0 < self.speed[0] <= self.speed[1] <= 0.5):
            raise RinError(
                f"moving_shapes.speed is {self.speed}: give the least and the most, 0.5 of the canvas at most"
            )
        if not 0 <= self.occlusion_rate <= 1 or (self.occlusion_rate and self.num_shapes == 1):
            raise RinError(f"moving_shapes.occlusion_rate is {self.occlusion_rate}: give 0 to 1, and 0 for one shape")
        if self.min_bounces < 0:
            raise RinError(f"moving_shapes.min_bounces is {self.min_bounces}: give 0 or more")
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures or clips to train on, and how they are kept.

    Raises:
        RinError: a field has a value that means nothing.
    """

    path: str = "digits"
    """"digits" (built in), a set made by `rin prepare`, a folder of images, a parquet or tar file or a folder of them,
    or a Hub name "owner/name". For models of clips "moving-shapes" (generated), a video, a folder of videos or of
    image sequences (clip_a/frame_0001.png), or any of the others with videos in it."""

    split: str = "train"
    """The split to train on, of a set that has several: parquet or tar files, a prepared set, the Hub."""

    held_out_split: str = "test"
    """The split to measure on, if the set has it; "validation", for example."""

    num_held_out: int = 512
    """Held-out images at most; without a held-out split a tenth of the set at most, never trained on. 0 is none."""

    labels: bool = True
    """Whether to use the classes, where the set has any."""

    column: str = ""
    """Which pictures or videos are used, where there are several to an example: a column of parquet files or a set on
    the Hub; in tars the end of the names without numbers, as in "jpg" or "mask.png". Empty takes the only one, or that
    of a table which has a usual name."""

    captions: str = ""
    """Where the captions are, for a model that draws by them: "txt" if they lie in KEY.txt beside KEY.jpg, in folders
    and tars; a column of parquet files or of a set on the Hub. Empty takes the names of the classes."""

    degrade: str = ""
    """What a model of images draws from: a clean picture made of each one that it learns. "downscale 4" is the mean of
    each 4 x 4 pixels, "grey" has no colour, "mask free-form" has a hole; "pair" is the second half of the channels of
    each example, of arrays and data sets of one's own. Empty for none."""

    condition: str = ""
    """Where the clean picture lies that each one is drawn from, if it is not made by `degrade`: a folder with pictures
    of the same names; of tars and tables the column, as in "input.png". Both are mirrored alike. Empty for none."""

    flip: bool = True
    """Whether training mirrors every other image, left to right, at random."""

    skip_broken: bool = changeable(False)
    """Whether the next readable picture stands in for one that cannot be read; otherwise the first of them ends the
    run, by name. More than a tenth of the set end it anyway."""

    value_range: tuple[float, float] | None = None
    """The least and the largest value of grey pictures of more than 8 bits, black and white, as in 0 4095 or -1024
    3071; if absent what each file declares by its tags, or else by its type. A picture with other values is refused."""

    bits: int = 8
    """Bits that pictures are decoded to, 8 or 16: of 16, what is drawn is written in 16 bits, too, and value_range is
    that of colours as well."""

    memory_gib: float = changeable(4.0)
    """Sets of at most this size, decoded, are kept in memory; pictures of larger ones are decoded when needed."""

    num_workers: int | None = changeable(None)
    """Processes that decode pictures that are not in memory; None is one a core, 0 a thread of training's own."""

    stream: bool = False
    """Whether to read parquet files, here or on the Hub, piece by piece while training, for sets that do not fit on
    the disk: nothing is kept, and the order is mixed piece by piece."""

    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """How videos are cut into clips."""

    moving_shapes: MovingShapesConfig | None = None
    """What is in the clips of "moving-shapes"; None for every other set, whatever is given."""

    pictures_path: str = ""
    """A second set, of pictures, that a model of clips learns from too, as clips of one frame; empty for none."""

    pictures_rate: float = 0.25
    """Share of the updates that are on those pictures, where there are any."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        generated = (self.moving_shapes or MovingShapesConfig()) if self.path == "moving-shapes" else None
        object.__setattr__(self, "moving_shapes", generated)  # other runs had it in their configurations once
        if not self.path:
            raise RinError('path is empty: give "digits", a folder, a parquet or tar file, or a Hub name "owner/name"')
        for option, split in (("split", self.split), ("held_out_split", self.held_out_split)):
            if not split:
                raise RinError(f'{option} is empty: give the name of a split, such as "train" or "test"')
        parse_degrade(self.degrade)
        if self.condition and (self.degrade or self.stream or self.bits != 8):
            raise RinError(
                f"condition is {self.condition!r}, which goes with pictures of 8 bits that are not streamed, and "
                "without degrade: leave out degrade, stream and bits"
            )
        if self.num_held_out < 0:
            raise RinError(f"num_held_out is {self.num_held_out}: give 0 to hold nothing out, or more")
        if not 0 <= self.pictures_rate < 1:
            raise RinError(f"pictures_rate is {self.pictures_rate}: give a share of the updates from 0 to below 1")
        if self.value_range is not None and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise RinError(f"value_range is {self.value_range}: give the least value and the largest, as in 0 4095")
        if self.bits not in (8, 16):
            raise RinError(f"bits is {self.bits}: give 8 or 16")
        if self.num_workers is not None and self.num_workers < 0:
            raise RinError(f"num_workers is {self.num_workers}: give 0 for no processes beside training's, or more")
        if not self.memory_gib >= 0:
            raise RinError(f"memory_gib is {self.memory_gib}: give 0 to decode every picture when needed, or more")

    @property
    def condition_by(self) -> str:
        """How the pictures that a model draws from come about: see `degrade`; "pair" where they are given."""
        return "pair" if self.condition else self.degrade
