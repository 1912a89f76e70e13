"""Weights and configurations of other implementations."""

from rin.interop import pix2seq

__all__ = ["pix2seq"]
