"""Weights and configurations of other implementations, models for diffusers, and networks for programs without rin."""

from rin.interop import diffusers, pix2seq
from rin.interop.exporting import export

__all__ = ["diffusers", "export", "pix2seq"]
