"""Recurrent Interface Networks: train, sample and evaluate diffusion models of images, video and sets of vectors.

The public names are those of `rin.public`; everything else is an implementation detail.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rin.public import *  # noqa: F403
    from rin.public import __all__ as __all__


def __getattr__(name: str) -> Any:
    """Imports the public names when the first is asked for: PyTorch takes seconds, and `rin --help` needs none."""
    if name == "__all__" or not name.startswith("_"):
        public = import_module("rin.public")
        globals().update({name: getattr(public, name) for name in ["__all__", *public.__all__]})
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
