"""Between pictures and clips as files hold them, 0 to 255, and as models see them, in [-1, 1]."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Examples, Stored


def to_floats(media: Stored) -> Examples:
    """Pictures, clips or sets in [-1, 1]: x / 127.5 - 1 of 8 bits, floats as they are."""
    return media if media.is_floating_point() else media.float() / 127.5 - 1


def to_pictures(examples: Stored) -> UInt8[Tensor, "b ..."]:
    """Images or clips as files hold them, 0 to 255: cut to [-1, 1] and rounded to the nearest level, if they are not.

    Raises:
        RinError: there are NaN among the numbers, which would be black; those on a GPU are not looked at.
    """
    if examples.dtype == torch.uint8:
        return examples
    if examples.device.type == "cpu":
        check_numbers(examples)
    return ((examples.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def check_numbers(samples: Examples) -> None:
    """Refuses samples with NaN among them.

    Raises:
        RinError: there are some.
    """
    if samples.isnan().any():
        raise RinError("these samples are not numbers (NaN): the model's weights or its diffusion make none")
