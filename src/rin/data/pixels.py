"""Between pictures as files hold them, 0 to 255, and as models see them, in [-1, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.shapes import Pictures


def to_floats(pictures: Pictures) -> Float[Tensor, "b c h w"]:
    """Pictures in [-1, 1]: x / 127.5 - 1."""
    return pictures.float() / 127.5 - 1


def to_pictures(images: Float[Tensor, "b c h w"]) -> Pictures:
    """Images as pictures, 0 to 255: cut to [-1, 1] and rounded to the nearest level."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
