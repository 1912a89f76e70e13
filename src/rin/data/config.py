"""What to train on: the configuration of the data."""

from dataclasses import dataclass

from rin.core.errors import RinError


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures to train on, and how they are kept.

    Raises:
        RinError: a field has a value that means nothing.
    """

    path: str = "digits"
    """"digits" (built in), a set made by `rin prepare`, a folder of images, a parquet or tar file or a folder of them,
    or a Hub name "owner/name"."""

    split: str = "train"
    """The split to train on, of a set that has several: parquet or tar files, a prepared set, the Hub."""

    held_out_split: str = "test"
    """The split to measure on, if the set has it; "validation", for example."""

    num_held_out: int = 512
    """Held-out images at most; without a held-out split a tenth of the set at most, never trained on. 0 is none."""

    labels: bool = True
    """Whether to use the classes, where the set has any."""

    flip: bool = True
    """Whether training mirrors every other image, left to right, at random."""

    skip_broken: bool = False
    """Whether the next readable picture stands in for one that cannot be read; otherwise the first of them ends the
    run, by name. More than a tenth of the set end it anyway."""

    memory_gib: float = 4.0
    """Sets of at most this size, decoded, are kept in memory; pictures of larger ones are decoded when needed."""

    stream: bool = False
    """Whether to read parquet files, here or on the Hub, piece by piece while training, for sets that do not fit on
    the disk: nothing is kept, and the order is mixed piece by piece."""

    def __post_init__(self) -> None:
        if not self.path:
            raise RinError('path is empty: give "digits", a folder, a parquet or tar file, or a Hub name "owner/name"')
        for field, split in (("split", self.split), ("held_out_split", self.held_out_split)):
            if not split:
                raise RinError(f'{field} is empty: give the name of a split, such as "train" or "test"')
        if self.num_held_out < 0:
            raise RinError(f"num_held_out is {self.num_held_out}: give 0 to hold nothing out, or more")
        if not self.memory_gib >= 0:
            raise RinError(f"memory_gib is {self.memory_gib}: give 0 to decode every picture when needed, or more")
