"""Sampling at scale, previews, and the files that samples are written to."""

from rin.sampling.outputs import save, to_pil
from rin.sampling.pipeline import Pipeline

__all__ = ["Pipeline", "save", "to_pil"]
