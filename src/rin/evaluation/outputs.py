"""Samples written down: a grid, an animation, arrays, or a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rin.core.errors import RinError
from rin.core.files import written_whole
from rin.evaluation.pictures import grid, save_animation, save_image
from rin.evaluation.sampling import Sampled

_GRIDS, _ANIMATION, _ARRAYS = (".png", ".webp", ".bmp"), ".gif", ".npz"


def check_output(path: Path) -> None:
    """Makes sure, before the work, that samples can be written to `path`.

    Raises:
        RinError: the ending is none that we write, or the place cannot be written.
    """
    if path.suffix and path.suffix.lower() not in (*_GRIDS, _ANIMATION, _ARRAYS):
        raise RinError(f"cannot write samples as {path.suffix}: take .png, .gif, .npz, or a folder (no ending)")
    folder = path.parent if path.suffix else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".rin-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RinError(f"cannot write to {folder}: {error.strerror or error}") from error
    if path.suffix and path.is_dir():
        raise RinError(f"cannot write {path}: it is a folder")


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
        _save_arrays(sampled, labels, path)
    else:
        for place, picture in enumerate(sampled.pictures):
            folder = path if labels is None else path / _folder_name(labels[place], class_names)
            save_image(picture[None], folder / f"{place:06d}.png")


def _save_arrays(sampled: Sampled, labels: Sequence[int] | None, path: Path) -> None:
    images = sampled.pictures.permute(0, 2, 3, 1).numpy()
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=images, labels=np.array(labels if labels is not None else [], np.int64))
    except OSError as error:
        raise RinError(f"cannot write {path}: {error}") from error


def _folder_name(label: int, class_names: Sequence[str]) -> str:
    name = class_names[label] if label < len(class_names) else str(label)
    return name.replace("/", "_").replace(os.sep, "_")
