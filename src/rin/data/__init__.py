"""Pictures and clips on disk, on the Hub or built in, as an endless and repeatable stream of batches."""

from rin.core.pixels import to_floats, to_pictures
from rin.data.config import DataConfig
from rin.data.decoding.pictures import decode
from rin.data.degrading import held_out_degraded
from rin.data.feeding.media_sets import MediaSet, on_device
from rin.data.feeding.opened_data import OpenedData
from rin.data.feeding.stream import Batch, Order, batches, joint_batches
from rin.data.opening import open_data, with_whole_paths
from rin.data.source import Source, open_source
from rin.data.splits import how_cut

__all__ = [
    "Batch",
    "DataConfig",
    "MediaSet",
    "OpenedData",
    "Order",
    "Source",
    "batches",
    "decode",
    "held_out_degraded",
    "how_cut",
    "joint_batches",
    "on_device",
    "open_data",
    "open_source",
    "to_floats",
    "to_pictures",
    "with_whole_paths",
]
