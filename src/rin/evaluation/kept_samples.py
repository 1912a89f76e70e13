"""Samples kept in a folder of .npz files, to be measured again or gone on with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rin.core.errors import RinError
from rin.core.files import check_writable, written_whole
from rin.core.npz import Claim, read_npz
from rin.core.shapes import Pictures
from rin.core.strict_json import read_json

_DRAWN = "drawn.json"
"""Tells in a folder of kept samples what they are."""

Labelled = tuple[Pictures, list[int] | None]
"""Some pictures, and the classes that were asked for, if any were."""


def part_of(folder: Path, start: int) -> Path:
    """The file of the pictures from a number on."""
    return folder / f"images-{start:08d}.npz"


def claim(folder: Path, description: dict[str, Any]) -> None:
    """Makes a folder that of these samples, or makes sure that it already is.

    Raises:
        RinError: it holds something else, or cannot be written.
    """
    check_writable(folder)
    path = folder / _DRAWN
    if not path.exists():
        if any(folder.iterdir()):
            raise RinError(f"{folder} is not empty and holds no kept samples: give a new folder")
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        return
    try:
        before = read_json(path)
        changed = [
            f"{name} was {before.get(name)} and is {description[name]}"
            for name in description
            if before.get(name) != description[name]
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise RinError(f"{path} tells of no kept samples: {error}") from error
    if changed:
        raise RinError(f"{folder} holds other samples ({'; '.join(changed)}): give another folder")


def read_part(path: Path) -> Labelled:
    """The pictures of an .npz file, `images` or `arr_0` (n h w c) in 8 bits, and their `labels`, if it has any.

    Raises:
        RinError: it cannot be read, or holds something else.
    """
    kinds = {"images": "u", "arr_0": "u", "labels": "iu"}
    arrays = read_npz(path, kinds, _check_pictures, f"cannot read pictures from {path}")
    images, labels = arrays.get("images", arrays.get("arr_0")), arrays.get("labels", np.empty(0)).tolist()
    assert images is not None  # it is checked
    if labels and min(labels) < 0:
        raise RinError(f"{path} has the label {min(labels)}: give each picture a class from 0 on, or leave labels out")
    return torch.from_numpy(images).movedim(-1, 1), labels or None


def _check_pictures(claims: Mapping[str, Claim]) -> None:
    images = claims.get("images", claims.get("arr_0"))
    if images is None:
        raise ValueError("it has neither images nor arr_0")
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[3] not in (1, 3, 4):
        raise ValueError(f"it holds {images.dtype} {images.shape}: pictures are uint8 (n h w c)")
    if 0 in images.shape[1:]:
        raise ValueError(f"its pictures have {images.shape[1:3]} pixels")
    labels = claims["labels"].shape if "labels" in claims else (0,)
    if labels not in ((0,), images.shape[:1]):
        raise ValueError(f"labels have {labels} for {images.shape[0]} pictures: give one a picture, or none at all")
