"""Weights and configurations of other implementations, and networks for programs without rin."""

from rin.interop import pix2seq
from rin.interop.exporting import export

__all__ = ["export", "pix2seq"]
