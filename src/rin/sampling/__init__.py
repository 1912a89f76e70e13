"""Sampling at scale, pictures changed, previews, and the files that samples are written to."""

from rin.sampling.editing import edit, inpaint, interpolate, invert
from rin.sampling.explaining import Routing, routing
from rin.sampling.likelihood import bits_per_dim
from rin.sampling.outputs import save, to_pil
from rin.sampling.pipeline import Pipeline

__all__ = [
    "Pipeline",
    "Routing",
    "bits_per_dim",
    "edit",
    "inpaint",
    "interpolate",
    "invert",
    "routing",
    "save",
    "to_pil",
]
