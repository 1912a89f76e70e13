"""Samples written to files: a grid, an animation, a video, arrays, or a folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt16
from PIL import Image
from torch import Tensor

from rin.core.errors import RinError
from rin.core.files import check_writable, check_writable_file, is_probe, written_whole
from rin.core.kind import is_set, is_video
from rin.core.names import file_names
from rin.core.optional import pyav
from rin.core.pixels import to_pictures
from rin.core.shapes import Clips, Examples, Media
from rin.core.values import FLOATS, PICTURES, Values
from rin.diffusion.checks import check_data
from rin.sampling.pictures import (
    bordered,
    contact_sheet,
    grid,
    playing,
    save_animation,
    save_deep_image,
    save_image,
    save_video,
    sheet_size,
    to_image,
)
from rin.sampling.plots import is_plotted, plot_shape, plots

_GRIDS, _ANIMATION, _VIDEO, _ARRAYS = (".png", ".webp", ".bmp"), ".gif", ".mp4", ".npz"

_MOST_PIXELS = {".webp": 16383, ".gif": 65535, ".mp4": 16384}
"""Of width and height, by format."""


def check_output(path: Path, shape: Sequence[int], num: int, num_frames: int, columns: int | None) -> None:
    """Makes sure, before the work, that samples can be written to `path`.

    Args:
        path: where to.
        shape: of the model: pictures (c h w), signals (c 1 n), clips (c f h w) or sets (n c).
        num: samples.
        num_frames: of each clip, given ones among them.
        columns: samples in a row; about a square if None.

    Raises:
        RinError: the ending is none that we write such samples as, the format has no pictures of that size, or the
            place cannot be written or is a folder with something in it.
    """
    ending, are_clips = path.suffix.lower(), is_video(shape)
    if is_plotted(shape):
        _check_ending_of_plots(path, shape)
        shape = plot_shape(shape)
    _check_ending(path, are_clips)
    if ending in _MOST_PIXELS:
        as_sheet = are_clips and ending in _GRIDS
        most = max(sheet_size(num * num_frames if as_sheet else num, shape, num_frames if as_sheet else columns))
        if most > _MOST_PIXELS[ending]:
            raise RinError(
                f"cannot write {path}: it would be {most} pixels wide or high, and {ending} has {_MOST_PIXELS[ending]} "
                "at most: take a lower --num, .npz, or a folder"
            )
    if ending:
        check_writable_file(path)
        return
    check_writable(path)
    if any(not is_probe(file) for file in path.iterdir()):  # another process looks, too
        raise RinError(f"cannot write samples to {path}: there is something in it already, give a new folder")


def shows_denoising(path: Path, shape: Sequence[int]) -> bool:
    """Whether the output shows how samples of a shape come about."""
    return path.suffix.lower() == _ANIMATION and not (is_video(shape) or is_plotted(shape))


def save(
    samples: Examples | Media,
    path: str | Path,
    *,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    columns: int | None = None,
    denoising: Sequence[Examples | Media] = (),
    num_context: int = 0,
    fps: float = 8.0,
    values: Values | None = None,
) -> None:
    """Writes images, clips, sets of points or signals in the way that the ending of `path` says.

    | ending | images | clips | sets, signals |
    |---|---|---|---|
    | .png, .webp, .bmp | a grid | a contact sheet: a row of frames a clip | a grid of plots |
    | .gif | the grid's denoising | all clips, playing side by side | |
    | .mp4 | | the same | |
    | .npz | `images` (n h w c), `labels` | the same (n f h w c), `num_given` | `x` (n points c), (n c length) |
    | none | a folder of .png | a folder of .png a clip | |

    Folders have one more a class, where there are labels: they can be trained on again. Where clips are shown, a border
    tells context frames from drawn ones.

    Args:
        samples: in [-1, 1], or 0 to 255 as uint8: images (b c h w) or clips (b c f h w); sets (b n c) or
            signals (b c 1 n) in [-1, 1].
        path: where to.
        labels: the class of each sample; None if they have none.
        class_names: the names of the classes.
        columns: samples in a row of a grid; about a square if None.
        denoising: all samples at some steps on the way, for a .gif of images.
        num_context: how many of a clip's frames, the first ones, are context.
        fps: frames a second of .gif and .mp4.
        values: what the numbers of the data mean, in which an .npz has them, and a folder of images where they are
            unsigned of 16 bits; if None 8 bits, and of sets floats in [-1, 1]. All else is in 8 bits.

    Raises:
        RinError: the samples are neither, the ending is none of these, or the place cannot be written.
    """
    path = Path(path).expanduser()
    ending = path.suffix.lower()
    if is_plotted(samples.shape[1:]):
        _check_ending_of_plots(path, samples.shape[1:])
        if ending == _ARRAYS:
            x = (values or FLOATS).to_data(samples)
            _save_arrays({"x": x if is_set(x.shape[1:]) else x[:, :, 0]}, labels, path)
        else:
            save_image(grid(plots(samples), columns), path)
        return
    media, are_clips = _in_8_bits(samples), is_video(samples.shape[1:])
    _check_ending(path, are_clips)
    if ending == _ARRAYS:
        given = {"num_given": np.array(num_context)} if are_clips else {}
        _save_arrays({"images": np.moveaxis((values or PICTURES).to_data(samples), 1, -1)} | given, labels, path)
    elif not ending:
        is_deep = (values or PICTURES).dtype == "uint16" and not are_clips
        _save_folder((values or PICTURES).to_data(samples) if is_deep else media, labels, class_names, path)
    elif are_clips:
        _save_clips(bordered(media, num_context), columns, fps, path)
    elif ending == _ANIMATION:
        if not denoising:
            raise RinError("a .gif of images shows their denoising: give its steps (denoising=...), or take .png")
        save_animation([grid(_in_8_bits(step), columns) for step in denoising], path)
    else:
        save_image(grid(media, columns), path)


def to_pil(samples: Examples | Media) -> list[Image.Image] | list[list[Image.Image]]:
    """Images (b c h w) as Pillow has them; of clips (b c f h w) a list of frames each.

    Args:
        samples: in [-1, 1], or 0 to 255 as uint8.

    Raises:
        RinError: they are neither images nor clips.
    """
    media = _in_8_bits(samples)
    if is_video(media.shape[1:]):
        return [[to_image(frame[None]) for frame in clip.unbind(1)] for clip in media]
    return [to_image(picture[None]) for picture in media]


def _in_8_bits(samples: object) -> Media:
    if not isinstance(samples, Tensor) or samples.ndim not in (4, 5):
        what = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise RinError(f"samples of {what}: give images (b c h w) or clips (b c f h w)")
    if samples.dtype == torch.uint8:
        return samples.cpu()
    check_data("samples", samples)
    return to_pictures(samples).cpu()


def _check_ending(path: Path, are_clips: bool) -> None:
    ending = path.suffix.lower()
    if ending and ending not in (*_GRIDS, _ANIMATION, _VIDEO, _ARRAYS):
        raise RinError(
            f"cannot write samples as {path.suffix}: take .png, .gif, .mp4 (clips), .npz, or a folder (no ending)"
        )
    if ending == _VIDEO:
        if not are_clips:
            raise RinError("this model draws pictures, and an .mp4 is for clips: take .png, .gif, .npz, or a folder")
        pyav("to write an MP4")


def _check_ending_of_plots(path: Path, shape: Sequence[int]) -> None:
    if path.suffix.lower() not in (*_GRIDS, _ARRAYS):
        what = "sets of points" if is_set(shape) else "signals"
        raise RinError(f"cannot write {what} as {path.suffix or 'a folder'}: take .npz, or .png for a look")
    if is_set(shape) and path.suffix.lower() != _ARRAYS and shape[-1] not in (2, 3):
        raise RinError(f"cannot show points of {shape[-1]} numbers: take .npz")


def _save_clips(clips: Clips, columns: int | None, fps: float, path: Path) -> None:
    ending = path.suffix.lower()
    if ending in _GRIDS:
        save_image(contact_sheet(clips), path)
    elif ending == _ANIMATION:
        frame_ms = max(20, round(1000 / fps))  # browsers take no less
        save_animation(playing(clips, columns), path, frame_ms, last_ms=max(frame_ms, 1000))
    else:
        save_video(playing(clips, columns), path, fps)


def _save_folder(
    media: Media | UInt16[np.ndarray, "b c h w"], labels: Sequence[int] | None, class_names: Sequence[str], path: Path
) -> None:
    for place, (folder, sample) in enumerate(zip(_folders(labels, len(media), class_names, path), media, strict=True)):
        if isinstance(sample, np.ndarray):
            save_deep_image(sample, folder / f"{place:06d}.png")
            continue
        if not is_video(sample.shape):
            save_image(sample[None], folder / f"{place:06d}.png")
            continue
        for number, frame in enumerate(sample.unbind(1)):
            save_image(frame[None], folder / f"{place:06d}" / f"{number:04d}.png")


def _save_arrays(arrays: dict[str, np.ndarray], labels: Sequence[int] | None, path: Path) -> None:
    arrays = arrays | {"labels": np.array(labels or [], np.int64)}
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise RinError(f"cannot write {path}: {error}") from error


def _folders(labels: Sequence[int] | None, num: int, class_names: Sequence[str], path: Path) -> list[Path]:
    """The folder of each of `num` samples: one a class where there are classes, by its name, or else its number."""
    if labels is None:
        return [path] * num
    numbers = map(str, range(len(class_names), max(labels, default=0) + 1))
    of_class = file_names([*class_names, *numbers])
    return [path / of_class[label] for label in labels]
