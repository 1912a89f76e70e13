"""What the numbers of data mean: which two of them models see as -1 and 1, and in which type files hold them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.core.pixels import check_numbers, to_pictures
from rin.core.shapes import Examples, Stored

_ROUNDING = 1e-3
"""Share of a range by which values may lie outside of it."""

_WHOLE_RANGES = ("uint8", "int8", "uint16", "int16")
"""The types whose whole range is what they mean, where nothing else is said."""


NUMBERS = ("bool", *_WHOLE_RANGES, "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
"""The types that data can have."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """The range and the type of the numbers of data."""

    low: float = 0.0
    """What models see as -1."""

    high: float = 255.0
    """What models see as 1."""

    dtype: str = "uint8"
    """NumPy's name of the type that files hold them in."""

    def to_model(self, x: Float[Tensor, "b ..."]) -> Examples:
        """Data in [-1, 1].

        Raises:
            RinError: a number is outside the range, or none; it names the first such example by its place in x.
        """
        slack = _ROUNDING * (self.high - self.low)
        inside = ((x >= self.low - slack) & (x <= self.high + slack)).flatten(1).all(1)  # false of NaN
        if not inside.all():
            place = int(inside.logical_not().nonzero()[0])
            raise OutOfRangeError(place, x[place], self)
        return ((x - self.low) / (self.high - self.low) * 2 - 1).clamp(-1, 1)

    def to_data(self, samples: Stored) -> np.ndarray:
        """Samples in [-1, 1] as files hold them: in the data's range and type, whole numbers rounded.

        Raises:
            RinError: there are NaN among them.
        """
        if self == PICTURES or samples.dtype == torch.uint8:
            return to_pictures(samples).cpu().numpy()
        check_numbers(samples)
        x = (samples.double().cpu().clamp(-1, 1).numpy() + 1) / 2 * (self.high - self.low) + self.low
        dtype = np.dtype(self.dtype)
        return x.astype(dtype) if dtype.kind == "f" else x.round().astype(dtype)


class OutOfRangeError(RinError):
    """A number that is outside the range which was said to be the data's."""

    def __init__(self, place: int, x: Tensor, values: Values) -> None:
        self.place = place
        self.found = f"has values from {x.min().item():.4g} to {x.max().item():.4g}"
        super().__init__(f"example {place} {self.found}, and the range is {values.low:g} to {values.high:g}")


PICTURES = Values()
"""8 bits, 0 to 255."""

FLOATS = Values(low=-1.0, high=1.0, dtype="float32")
"""As models see them."""


def values_of(
    dtype: np.dtype,
    value_range: tuple[float, float] | None,
    origin: str,
    way_out: str = "--data.value-range, as in --data.value-range -1 1",
) -> Values:
    """The values of an array: as given, or the whole range of whole numbers of 8 and 16 bits.

    Args:
        dtype: of the array.
        value_range: what becomes -1 and 1; None if nothing was said.
        origin: what a person calls the array.
        way_out: how its range is given.

    Raises:
        RinError: it holds no numbers, or its range cannot be known.
    """
    if dtype.name not in NUMBERS:
        raise RinError(f"{origin} holds {dtype}, which are no numbers: give whole numbers or floats")
    if value_range is not None:
        return Values(low=float(value_range[0]), high=float(value_range[1]), dtype=dtype.name)
    if dtype.kind == "b":
        return Values(low=0.0, high=1.0, dtype=dtype.name)
    if dtype.name not in _WHOLE_RANGES:
        raise RinError(f"{origin} holds {dtype.name}, whose least and largest value cannot be known: give {way_out}")
    info = np.iinfo(dtype)
    return Values(low=float(info.min), high=float(info.max), dtype=dtype.name)
