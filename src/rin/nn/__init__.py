"""The network: interface, latents, and the blocks between them."""

from rin.nn.initialisation import glorot_limit
from rin.nn.rin import RIN, RINConfig

__all__ = ["RIN", "RINConfig", "glorot_limit"]
