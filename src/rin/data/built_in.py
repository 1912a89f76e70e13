"""The sets that need no path."""

import importlib

from rin.data.config import BUILT_IN, DataConfig
from rin.data.decoding import Shape
from rin.data.encoded import Encoded


def open_built_in(config: DataConfig, shape: Shape) -> Encoded:
    """The built-in set of a configuration, for pictures or clips of a shape.

    What makes it stands above this package, as a data set of one's own would, and is imported by its name here, where
    alone it is used.

    Raises:
        RinError: the set has none of that shape, or needs a package that is not installed.
    """
    return importlib.import_module(BUILT_IN[config.path]).open_set(config, shape)
