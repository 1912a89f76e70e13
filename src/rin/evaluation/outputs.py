"""Samples written down: a grid, an animation, arrays, or a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rin.core.errors import RinError
from rin.core.files import check_writable, is_probe, written_whole
from rin.core.optional import pyav
from rin.core.shapes import Clips, Media
from rin.evaluation.pictures import (
    bordered,
    contact_sheet,
    grid,
    playing,
    save_animation,
    save_image,
    save_video,
    sheet_size,
)
from rin.evaluation.sampling import Sampled

_GRIDS, _ANIMATION, _VIDEO, _ARRAYS = (".png", ".webp", ".bmp"), ".gif", ".mp4", ".npz"

_MOST_PIXELS = {".webp": 16383, ".gif": 65535, ".mp4": 16384}
"""Of width and height, by format."""


def check_output(path: Path, shape: Sequence[int], num: int, num_frames: int, columns: int | None) -> None:
    """Makes sure, before the work, that samples can be written to `path`.

    Args:
        path: where to.
        shape: of the model: pictures (c h w) or clips (c f h w).
        num: samples.
        num_frames: of each clip, given ones among them.
        columns: samples in a row; about a square if None.

    Raises:
        RinError: the ending is none that we write such samples as, the format has no pictures of that size, or the
            place cannot be written or is a folder with something in it.
    """
    ending, are_clips = path.suffix.lower(), len(shape) == 4
    if ending and ending not in (*_GRIDS, _ANIMATION, _VIDEO, _ARRAYS):
        raise RinError(
            f"cannot write samples as {path.suffix}: take .png, .gif, .mp4 (clips), .npz, or a folder (no ending)"
        )
    if ending == _VIDEO:
        if not are_clips:
            raise RinError("this model draws pictures, and an .mp4 is for clips: take .png, .gif, .npz, or a folder")
        pyav("to write an MP4")
    if ending in _MOST_PIXELS:
        as_sheet = are_clips and ending in _GRIDS
        most = max(sheet_size(num * num_frames if as_sheet else num, shape, num_frames if as_sheet else columns))
        if most > _MOST_PIXELS[ending]:
            raise RinError(
                f"cannot write {path}: it would be {most} pixels wide or high, and {ending} has {_MOST_PIXELS[ending]} "
                "at most: take a lower --num, .npz, or a folder"
            )
    check_writable(path.parent if ending else path)
    if ending and path.is_dir():
        raise RinError(f"cannot write {path}: it is a folder")
    if not ending and any(not is_probe(file) for file in path.iterdir()):  # another process looks, too
        raise RinError(f"cannot write samples to {path}: there is something in it already, give a new folder")


def wants_frames(path: Path) -> bool:
    """Whether the output shows the denoising."""
    return path.suffix.lower() == _ANIMATION


def write_samples(
    sampled: Sampled, labels: Sequence[int] | None, class_names: Sequence[str], columns: int | None, path: Path
) -> None:
    """Writes samples in the way that the ending of `path` asks for.

    .png is a grid, .gif the denoising of that grid, .npz the arrays `images` (n h w c) and `labels`; no ending is a
    folder of pictures, with a folder a class where there are classes, which can be trained on again.

    Raises:
        RinError: the place cannot be written.
    """
    ending = path.suffix.lower()
    if ending in _GRIDS:
        save_image(grid(sampled.pictures, columns), path)
    elif ending == _ANIMATION:
        save_animation([grid(frame, columns) for frame in sampled.frames], path)
    elif ending == _ARRAYS:
        _save_arrays(sampled.pictures, labels, path, {})
    else:
        for place, picture in enumerate(sampled.pictures):
            folder = path if labels is None else path / _folder_name(labels[place], class_names)
            save_image(picture[None], folder / f"{place:06d}.png")


def write_clips(
    clips: Clips,
    num_given: int,
    labels: Sequence[int] | None,
    class_names: Sequence[str],
    columns: int | None,
    rate: float,
    path: Path,
) -> None:
    """Writes clips in the way that the ending of `path` asks for.

    .gif and .mp4 play all clips side by side, .png is a contact sheet with a row of frames a clip; in these a border
    tells given frames from drawn ones. .npz has the arrays `images` (n f h w c), `labels` and `num_given`; no ending is
    a folder of the frames, with a folder a clip, in a folder a class where there are classes.

    Args:
        clips: given and drawn frames (b c f h w).
        num_given: how many of the frames, the first ones, were given.
        labels: the class of each clip; None if they have none.
        class_names: the names of the classes.
        columns: clips in a row of .gif and .mp4; about a square if None.
        rate: frames a second of .gif and .mp4.
        path: where to.

    Raises:
        RinError: the place cannot be written.
    """
    ending = path.suffix.lower()
    if ending in _GRIDS:
        save_image(contact_sheet(bordered(clips, num_given)), path)
    elif ending == _ANIMATION:
        frame_ms = max(20, round(1000 / rate))  # browsers take no less
        save_animation(playing(bordered(clips, num_given), columns), path, frame_ms, last_ms=max(frame_ms, 1000))
    elif ending == _VIDEO:
        save_video(playing(bordered(clips, num_given), columns), path, rate)
    elif ending == _ARRAYS:
        _save_arrays(clips, labels, path, {"num_given": np.array(num_given)})
    else:
        for place, clip in enumerate(clips):
            folder = path if labels is None else path / _folder_name(labels[place], class_names)
            for number, frame in enumerate(clip.unbind(1)):
                save_image(frame[None], folder / f"{place:06d}" / f"{number:04d}.png")


def _save_arrays(media: Media, labels: Sequence[int] | None, path: Path, more: dict[str, np.ndarray]) -> None:
    arrays = {"images": media.movedim(1, -1).numpy(), "labels": np.array(labels or [], np.int64)} | more
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise RinError(f"cannot write {path}: {error}") from error


def _folder_name(label: int, class_names: Sequence[str]) -> str:
    name = class_names[label] if label < len(class_names) else str(label)
    return name.replace("/", "_").replace(os.sep, "_")
