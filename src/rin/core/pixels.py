"""Between pictures and clips as files hold them, 0 to 255, and as models see them, in [-1, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Media


def to_floats(media: Media) -> Float[Tensor, "b c *f h w"]:
    """Pictures or clips in [-1, 1]: x / 127.5 - 1."""
    return media.float() / 127.5 - 1


def to_pictures(examples: Float[Tensor, "b c *f h w"]) -> Media:
    """Images or clips as files hold them, 0 to 255: cut to [-1, 1] and rounded to the nearest level.

    Raises:
        RinError: there are NaN among the numbers, which would be black; those on a GPU are not looked at.
    """
    if examples.device.type == "cpu" and examples.isnan().any():
        raise RinError("these samples are not numbers (NaN): the model's weights or its diffusion make none")
    return ((examples.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
