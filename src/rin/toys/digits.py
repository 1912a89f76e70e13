"""The built-in set: 1797 scans of handwritten digits, 8 by 8, that come with scikit-learn."""

from typing import Any

import numpy as np
import torch

from rin.core.errors import RinError
from rin.core.kind import is_set, is_video
from rin.data.config import DataConfig
from rin.data.decoding.pictures import Shape
from rin.data.files.encoded import Encoded


def open_set(config: DataConfig, shape: Shape) -> Encoded:  # noqa: ARG001 (every built-in set is opened so)
    """The scans, 0 (paper) to 255 (ink), with the classes "0" to "9".

    Raises:
        RinError: the shape is one of clips, or scikit-learn is not installed.
    """
    if is_video(shape):
        raise RinError("digits are pictures, and clips of several frames are wanted: give --data.path moving-shapes")
    if is_set(shape):
        raise RinError("digits are pictures, and sets of points are wanted: give --data.path points")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RinError('the digits come with scikit-learn: pip install "rin-diffusion[demo]"') from error
    digits: Any = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    # The plainest of image files, so that the digits take the way of every other picture.
    files = [b"P5 8 8 255\n" + scan.tobytes() for scan in pixels]
    return Encoded(
        read=files.__getitem__,
        name="digit {}".format,
        rows=torch.arange(len(files)),
        labels=torch.from_numpy(digits.target.astype(np.int64)),
        class_names=tuple(str(digit) for digit in range(10)),
    )
