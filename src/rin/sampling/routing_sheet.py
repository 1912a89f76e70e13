"""Pictures of what the latents read: a sheet of clean estimates, and over them where each latent looks."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import Kind, is_image, is_set, is_video
from rin.core.pixels import to_pictures
from rin.nn.tokenizers import ImageTokenizer, Tokenizer, VideoTokenizer
from rin.sampling.explaining import Routing
from rin.sampling.pictures import Sheet, grid
from rin.sampling.plots import scatter

_SIDE = 96
"""Pixels that a picture is enlarged to at least."""

_HEAT = np.array([(24, 24, 40), (110, 30, 110), (220, 70, 60), (255, 170, 50), (255, 250, 190)], dtype=np.float64)
"""The colours from the least of a map to its most."""

_PALE = 0.35
"""How much of a picture is seen below a map."""

Map = Float[Tensor, " tokens"]
Panel = UInt8[Tensor, "3 down across"]


def why_not_shown(kind: Kind) -> str:
    """Why there are no pictures of data: they are signals, or sets of points of other than 2 or 3 numbers.

    Empty if there are.
    """
    if kind.is_signal or (kind.is_set and kind.shape[1] not in (2, 3)):
        return f"there are no pictures of {kind.noun} to lay their reading over: rin.routing has the numbers"
    return ""


def concentration(read: Float[Tensor, "latents tokens"]) -> Float[Tensor, " latents"]:
    """How concentrated a latent's reading is: log n less the entropy of its weights, 0 where it reads all n alike."""
    return (read * (read * read.shape[-1]).clamp(min=1e-30).log()).sum(-1)


def most_concentrated(steps: Sequence[Routing], sample: int, num: int) -> list[int]:
    """The latents whose reading in the last block, mean over the steps, is the most concentrated, most first.

    Where steps have different numbers of latents, they are learned ones that all have: the others change their places.
    """
    fewest, most = (least_or_most(step.read.shape[2] for step in steps) for least_or_most in (min, max))
    shared = fewest if fewest == most else fewest - steps[0].num_condition
    mean = torch.stack([concentration(step.read[-1, sample, :shared]) for step in steps]).mean(0)
    return mean.argsort(descending=True)[:num].tolist()


def sheet(steps: Sequence[Routing], tokenizer: Tokenizer, sample: int = 0, num_latents: int = 8) -> Sheet:
    """One picture: a column a step, the noisiest first; of clips a column a frame, of the last of the steps.

    The first row shows the clean estimate, the second how much of all reading each place gets, and each further one
    what a latent reads in the last block, most concentrated first. Bright is most, of each map.

    Raises:
        RinError: data of which there are no pictures.
    """
    latents = most_concentrated(steps, sample, num_latents)
    shown = steps[-1:] if is_video(steps[-1].x_0.shape[1:]) else steps
    columns = [column for step in shown for column in _columns(step, tokenizer, sample, latents)]
    rows = [torch.stack(row) for row in zip(*columns, strict=True)]
    return grid(torch.cat(rows), columns=len(columns))


def moments(steps: Sequence[Routing], tokenizer: Tokenizer, sample: int = 0, num_latents: int = 8) -> list[Sheet]:
    """For an animation: of each step the clean estimate, the reading of all latents, and that of some.

    Row by row, about a square; of clips one below the other, a column a frame.
    """
    latents = most_concentrated(steps, sample, num_latents)
    sheets = list[Sheet]()
    for step in steps:
        columns = _columns(step, tokenizer, sample, latents)
        panels = torch.stack([panel for row in zip(*columns, strict=True) for panel in row])
        sheets.append(grid(panels, len(columns) if len(columns) > 1 else None))
    return sheets


def _columns(step: Routing, tokenizer: Tokenizer, sample: int, latents: Sequence[int]) -> list[list[Panel]]:
    """The panels of a step, from above: estimate, reading of all, reading of each latent. A column a frame of clips."""
    maps = [step.computation[sample], *step.read[-1, sample, list(latents)]]
    x_0 = step.x_0[sample]
    if is_set(x_0.shape):
        return [[scatter(x_0[None])[0], *(scatter(x_0[None], _heat(weights))[0] for weights in maps)]]
    places = [_by_pixel(weights, tokenizer, x_0.shape) for weights in maps]
    frames = to_pictures(x_0[None] if is_video(x_0.shape) else x_0[None, :, None])[0]
    return [
        [_enlarged(frame), *(_enlarged(_overlaid(frame, heat[number])) for heat in places)]
        for number, frame in enumerate(frames.unbind(1))
    ]


def _by_pixel(weights: Map, tokenizer: Tokenizer, shape: Sequence[int]) -> Float[Tensor, "frames h w"]:
    """The weights of the tokens of one example, context's left out, each at all pixels of its patch."""
    if is_image(shape) and isinstance(tokenizer, ImageTokenizer):
        patch, frames = (1, *tokenizer.patch_size), 1
    elif is_video(shape) and isinstance(tokenizer, VideoTokenizer):
        patch, frames = (tokenizer.temporal_patch_size, tokenizer.patch_size, tokenizer.patch_size), shape[1]
    else:
        raise RinError("there are no pictures of such data to lay its reading over: rin.routing has the numbers")
    down, across = (side // size for side, size in zip(shape[-2:], patch[1:], strict=True))
    by_patch = weights[: tokenizer.num_tokens(shape)].unflatten(0, (-1, down, across))
    for axis, size in enumerate(patch):
        by_patch = by_patch.repeat_interleave(size, dim=axis)
    return by_patch[:frames]


def _heat(weights: Tensor) -> UInt8[Tensor, "... 3"]:
    """Colours of weights, from the least to the most of them."""
    least, most = weights.min(), weights.max()
    share = ((weights - least) / (most - least).clamp(min=1e-12)).numpy()
    knots = np.linspace(0, 1, len(_HEAT))
    return torch.from_numpy(np.stack([np.interp(share, knots, colour) for colour in _HEAT.T], -1).astype(np.uint8))


def _overlaid(picture: UInt8[Tensor, "c h w"], weights: Float[Tensor, "h w"]) -> Panel:
    """A map over a picture made grey."""
    grey = picture[:3].float().mean(0, keepdim=True)
    return (_PALE * grey + (1 - _PALE) * _heat(weights).movedim(-1, 0).float()).to(torch.uint8)


def _enlarged(picture: UInt8[Tensor, "c h w"]) -> Panel:
    colours = picture[:3] if picture.shape[0] >= 3 else picture[:1].expand(3, -1, -1)
    factor = max(1, -(-_SIDE // min(colours.shape[1:])))
    return colours.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
