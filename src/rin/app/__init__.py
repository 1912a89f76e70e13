"""A page in the browser, on this machine: draw from a model, see what its latents read, look at its run."""

from rin.app.drawing import Choices, Drawn, drawn
from rin.app.opened import Opened
from rin.app.serving import check_address, serve

__all__ = ["Choices", "Drawn", "Opened", "check_address", "drawn", "serve"]
