"""Pictures that people give to be changed, and masks, in the forms that they have them: checked, and in one form."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.core.names import printable
from rin.core.pixels import to_floats
from rin.core.shapes import Examples
from rin.data.decoding.pictures import open_upright
from rin.diffusion.checks import check_data

PictureLike = str | os.PathLike[str] | Image.Image | Tensor
"""A picture's file, a Pillow image, or a tensor in [-1, 1]: a picture (c h w), clip or set, or a batch of them."""

MaskLike = str | os.PathLike[str] | Image.Image | Tensor
"""The file of a mask or a Pillow image, white where it is true, or a tensor of truths: one a pixel (h w), or of the
shape of the picture or of the batch, where one channel or one picture may stand for all."""

_MODES = {"1": "L", "L": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA", "La": "RGBA", "RGBa": "RGBA"}
"""What pictures of a mode are turned into, without a loss."""

_WHITE = 128
"""From this level on a mask is white."""


ConditionLike = PictureLike | Sequence[PictureLike]
"""A condition picture, or several, as files, Pillow images or tensors; a tensor may be a batch of them (b c h w)."""


def conditions_of(condition: ConditionLike | None, kind: Kind) -> Examples | None:
    """The condition pictures that samples are drawn from, in [-1, 1] (b c h w); None of a model that takes none.

    In the hole of a picture with a hole there is nothing: what a file or a tensor has there is put out.

    Args:
        condition: see `ConditionLike`.
        kind: of the model.

    Raises:
        RinError: one is missing or not wanted, cannot be read, or is of another size or channels.
    """
    if not kind.condition_shape:
        if condition is not None:
            raise RinError("this model draws from no picture: leave the condition out")
        return None
    if condition is None:
        channels, height, width = kind.condition_shape
        raise RinError(
            f"this model draws from a picture of {width}x{height} pixels and {_channels(channels)}: give one, "
            "on the command line by --condition"
        )
    is_one = isinstance(condition, str | os.PathLike | Image.Image | Tensor)
    several = [condition] if is_one else list(condition)
    if not several:
        raise RinError("no condition pictures are given: give one or more")
    wanted = Kind(shape=kind.condition_shape)
    pictures = torch.cat([examples_of(each, wanted, "condition", "takes") for each in several])
    if not kind.has_hole:
        return pictures
    known = pictures[:, -1:] > 0
    return torch.cat([torch.where(known, pictures[:, :-1], -1.0), torch.where(known, 1.0, -1.0)], dim=1)


def examples_of(picture: PictureLike, kind: Kind, name: str = "picture", verb: str = "draws") -> Examples:
    """What is given as examples in [-1, 1] (b ...), one of them where it is no batch.

    Args:
        picture: see `PictureLike`.
        kind: of the model.
        name: what a person calls it.
        verb: what the model does with such pictures.

    Raises:
        RinError: it cannot be read, or is no picture of the model's size and channels.
    """
    if isinstance(picture, Tensor):
        batch = picture[None] if picture.ndim == len(kind.shape) else picture
        check_data(name, batch)
        if tuple(batch.shape[1:]) != kind.shape:
            raise RinError(f"{name} of shape {tuple(picture.shape)}: this model {verb} {kind.noun} {kind.shape}")
        return batch.float().cpu()
    image, name = _opened(picture, kind, name)
    mode = "RGBA" if image.mode == "P" and image.has_transparency_data else "RGB" if image.mode == "P" else image.mode
    wanted_mode = "LA" if mode == "LA" and kind.shape[0] == 2 else _MODES.get(mode)
    if wanted_mode is None:
        raise RinError(f"{name} is of Pillow's mode {mode}, not of 8 bits: give it as a tensor in [-1, 1]")
    pixels = np.asarray(image.convert(wanted_mode))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels, height, width = kind.shape
    if pixels.shape != (height, width, channels):
        given = f"{pixels.shape[1]}x{pixels.shape[0]} pixels and {_channels(pixels.shape[2])}"
        raise RinError(
            f"{name} has {given}, and this model {verb} {width}x{height} and {_channels(channels)}: bring it to that "
            "first"
        )
    return to_floats(torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None])


def truths_of(mask: MaskLike, kind: Kind, num: int) -> Bool[Tensor, "b ..."]:
    """Where examples are redrawn, of the shape of `num` of them.

    Args:
        mask: see `MaskLike`.
        kind: of the model.
        num: examples.

    Raises:
        RinError: it cannot be read, has another size, or is empty.
    """
    if isinstance(mask, Tensor):
        redrawn, name = _spread(mask, kind, num), "the mask"
    else:
        image, name = _opened(mask, kind, "mask")
        _, height, width = kind.shape
        if image.size != (width, height):
            raise RinError(f"{name} has {image.width}x{image.height} pixels, and the picture {width}x{height}")
        levels = torch.from_numpy(np.array(image.convert("L")))
        redrawn = (levels >= _WHITE).expand(num, *kind.shape)
    if not redrawn.flatten(1).any(dim=1).all():
        raise RinError(f"{name} is empty, and nothing would be redrawn: make white (true) what is to be new")
    return redrawn


def _spread(mask: Tensor, kind: Kind, num: int) -> Bool[Tensor, "b ..."]:
    if mask.dtype != torch.bool:
        raise RinError(f"a mask of {str(mask.dtype).removeprefix('torch.')}: give truths (bool), true where it is new")
    of_points = kind.shape[:1] if kind.is_set else kind.shape[1:]
    whole = mask.cpu()
    if mask.shape == of_points:
        whole = mask.cpu().unsqueeze(-1 if kind.is_set else 0)
    try:
        return whole.expand(num, *kind.shape)
    except RuntimeError:
        shapes = f"{tuple(of_points)}, {kind.shape} or {(num, *kind.shape)}"
        raise RinError(f"a mask of shape {tuple(mask.shape)}: give one of {shapes}") from None


def _opened(given: object, kind: Kind, name: str) -> tuple[Image.Image, str]:
    """A picture, and what to call it."""
    if not kind.is_image:
        raise RinError(f"this model draws {kind.noun}, which are no pictures: give a tensor in [-1, 1]")
    if isinstance(given, Image.Image):
        return given, f"the {name}"
    if not isinstance(given, str | os.PathLike):
        raise RinError(f"{name} of {type(given).__name__}: give a file, a Pillow image, or a tensor in [-1, 1]")
    path = Path(given).expanduser()
    return open_upright(path), printable(path)


def _channels(count: int) -> str:
    names = {
        1: "1 channel (grey)",
        2: "2 channels (grey and opacity)",
        3: "3 channels (colour)",
        4: "4 channels (colour and opacity)",
    }
    return names.get(count, f"{count} channels")
