"""Networks of the user's through which sets of pictures or clips are compared.

A network is a TorchScript file: uint8 pictures (b c h w) or clips (b c f h w), 0 to 255, go in and features (b d) come
out; rescaling and resizing are its own business. If it has a method `logits`, that gives a classifier's logits of the
same. The I3D network that published FVDs use, `i3d_torchscript.pt`, gives logits unless it is told otherwise, and has
to be wrapped for that:

    class Features(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return self.network(clips.float(), rescale=True, resize=True, return_features=True)

    torch.jit.script(Features(torch.jit.load("i3d_torchscript.pt"))).save("features.pt")
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Media


class FeatureNetwork:
    """A network of the user's that turns clips or pictures into features.

    TorchScript has an interpreter and a reader of its own, in C++: Python's pickle takes no part, and no Python in the
    file is run. What TorchScript itself can do, which includes reading and writing files, the file can do: take it from
    people you trust.

    Args:
        path: a file that `torch.jit.save` wrote.
        device: what to compute on.

    Raises:
        RinError: the file is not there, or is not TorchScript.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        if not path.is_file():
            raise RinError(f"no feature network at {path}: give a TorchScript file")
        try:
            with warnings.catch_warnings():
                # PyTorch would have files of torch.export instead, but the networks that people share are these
                warnings.simplefilter("ignore", DeprecationWarning)
                self._network = torch.jit.load(path, map_location=device).eval()
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (RuntimeError, ValueError, OSError, torch.jit.Error) as error:
            raise RinError(
                f"cannot read the feature network {path}: give a TorchScript file, as torch.jit.save writes it "
                f"({_last_line(error)})"
            ) from error

    @property
    def has_logits(self) -> bool:
        """Whether it is a classifier, too."""
        return hasattr(self._network, "logits")

    def __call__(self, media: Media) -> Float[Tensor, "b d"]:
        """The features of some clips or pictures, in float64 on the CPU.

        Raises:
            RinError: the network fails at them, or gives what are not features (b d), or not finite ones.
        """
        return self._run(self._network, "features", media)

    def logits(self, media: Media) -> Float[Tensor, "b classes"]:
        """What it takes some clips or pictures for, as logits in float64 on the CPU.

        Raises:
            RinError: it is no classifier, or as for features.
        """
        if not self.has_logits:
            raise RinError(f"the feature network {self._path} has no method `logits`: it is no classifier")
        return self._run(self._network.logits, "logits", media)

    @torch.no_grad()
    def _run(self, function: Callable[[Tensor], Any], what: str, media: Media) -> Float[Tensor, "b d"]:
        try:
            given = function(media.to(self._device))
        except (RuntimeError, torch.jit.Error) as error:
            shape = "x".join(map(str, media.shape))
            raise RinError(f"the feature network {self._path} fails at uint8 {shape}: {_last_line(error)}") from error
        if not (isinstance(given, Tensor) and given.is_floating_point() and given.ndim == 2) or (
            len(given) != len(media)
        ):
            shown = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            kind = "clips" if media.ndim == 5 else "pictures"
            raise RinError(
                f"the feature network {self._path} gives {shown} for the {what} of {len(media)} {kind}: wrap it, for "
                "floats (b d)"
            )
        given = given.cpu().double()
        if not given.isfinite().all():
            raise RinError(f"the feature network {self._path} gives NaN or infinity: take one that fits")
        return given


def _last_line(error: Exception) -> str:
    """The sentence that says what went wrong, behind TorchScript's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__
