"""Pictures and clips on disk, on the Hub or built in, as an endless and repeatable stream of batches."""

from rin.data.config import DataConfig
from rin.data.decoding import decode
from rin.data.media_sets import MediaSet, on_device
from rin.data.opening import OpenedData, how_cut, open_data
from rin.data.pixels import to_floats, to_pictures
from rin.data.stream import Batch, Order, batches, joint_batches

__all__ = [
    "Batch",
    "DataConfig",
    "MediaSet",
    "OpenedData",
    "Order",
    "batches",
    "decode",
    "how_cut",
    "joint_batches",
    "on_device",
    "open_data",
    "to_floats",
    "to_pictures",
]
