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

Where torch-fidelity is installed its networks of pictures go by their names: `inception-v3-compat`, the one of
published FIDs and Inception Scores, and DINOv2.
"""

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.core.kind import is_video
from rin.core.optional import torch_fidelity
from rin.core.shapes import Media
from rin.model_files import weights_digest

FIDELITY = {
    "inception-v3-compat": ["2048", "logits_unbiased"],
    "dinov2-vit-s-14": ["dinov2"],
    "dinov2-vit-b-14": ["dinov2"],
    "dinov2-vit-l-14": ["dinov2"],
    "dinov2-vit-g-14": ["dinov2"],
}
"""The networks of torch-fidelity, and what is taken of each: features and, of one that classifies, logits."""


class FeatureNetwork:
    """A network that turns clips or pictures into features.

    Args:
        name: what to call it, in messages.
        description: what someone needs to have the same network again; its `sha256` among it.
        device: what to compute on.
        features: uint8 clips (b c f h w) or pictures (b c h w) to features (b d).
        both: the same to features and a classifier's logits (b classes), if it is one.
    """

    def __init__(
        self,
        name: str,
        description: Mapping[str, str],
        device: torch.device,
        features: Callable[[Tensor], Any],
        both: Callable[[Tensor], tuple[Any, Any]] | None = None,
    ) -> None:
        self.description = description
        self._name, self._device, self._features, self._both = name, device, features, both

    @property
    def digest(self) -> str:
        """Tells networks apart."""
        return self.description["sha256"]

    def __call__(self, media: Media) -> Float[Tensor, "b d"]:
        """The features of some clips or pictures, in float64 on the CPU.

        Raises:
            RinError: the network fails at them, or gives what are not features (b d), or not finite ones.
        """
        return self._checked(self._run(self._features, media), "features", media)

    def with_logits(self, media: Media) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b classes"] | None]:
        """The features and, of a classifier, what it takes them for, as logits; both in float64 on the CPU.

        Raises:
            RinError: as for features.
        """
        if self._both is None:
            return self(media), None
        features, logits = self._run(self._both, media)
        return self._checked(features, "features", media), self._checked(logits, "logits", media)

    @torch.no_grad()
    def _run(self, function: Callable[[Tensor], Any], media: Media) -> Any:
        try:
            return function(media.to(self._device))
        except (RuntimeError, ValueError, torch.jit.Error) as error:
            shape = "x".join(map(str, media.shape))
            raise RinError(f"the feature network {self._name} fails at uint8 {shape}: {_last_line(error)}") from error

    def _checked(self, features: Any, what: str, media: Media) -> Float[Tensor, "b d"]:
        if not (isinstance(features, Tensor) and features.is_floating_point() and features.ndim == 2) or (
            len(features) != len(media)
        ):
            shown = (
                f"{features.dtype} {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            )
            kind = "clips" if is_video(media.shape[1:]) else "pictures"
            raise RinError(
                f"the feature network {self._name} gives {shown} for the {what} of {len(media)} {kind}: wrap it, for "
                "floats (b d)"
            )
        features = features.cpu().double()
        if not features.isfinite().all():
            raise RinError(f"the feature network {self._name} gives NaN or infinity: take one that fits")
        return features


def feature_network(name: str, device: torch.device) -> FeatureNetwork:
    """The network of a TorchScript file, or one of torch-fidelity's by its name, see `FIDELITY`.

    Raises:
        RinError: there is no such file and no such network, or it cannot be loaded.
    """
    path = Path(name)
    if name in FIDELITY and not path.exists():
        return fidelity_network(name, device)
    if not path.is_file():
        raise RinError(f"no feature network at {path}: give a TorchScript file, or one of {', '.join(FIDELITY)}")
    return scripted_network(path, device)


def scripted_network(path: Path, device: torch.device) -> FeatureNetwork:
    """The network of a TorchScript file; if it has a method `logits`, a classifier.

    TorchScript has an interpreter and a reader of its own, in C++: Python's pickle takes no part, and no Python in the
    file is run. What TorchScript itself can do, which includes reading and writing files, the file can do: take it from
    people you trust.

    Args:
        path: a file that `torch.jit.save` wrote.
        device: what to compute on.

    Raises:
        RinError: the file is not TorchScript.
    """
    try:
        with warnings.catch_warnings():
            # PyTorch would have files of torch.export instead, but the networks that people share are these
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(path, map_location=device).eval()
        with path.open("rb") as file:
            description = {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except (RuntimeError, ValueError, OSError, torch.jit.Error) as error:
        raise RinError(
            f"cannot read the feature network {path}: give a TorchScript file, as torch.jit.save writes it "
            f"({_last_line(error)})"
        ) from error

    def both(media: Tensor) -> tuple[Any, Any]:
        return network(media), network.logits(media)

    return FeatureNetwork(str(path), description, device, network, both if hasattr(network, "logits") else None)


def fidelity_network(name: str, device: torch.device) -> FeatureNetwork:
    """A network of torch-fidelity, with the resizing that belongs to it, for pictures in colour.

    torch-fidelity takes weights from the web the first time, and DINOv2's code with them; PyTorch keeps both in its
    cache (`TORCH_HOME`), where they may be put beforehand. Weights are read as weights: no other pickle is.

    Args:
        name: see `FIDELITY`.
        device: what to compute on.

    Raises:
        RinError: torch-fidelity is not installed, or cannot have the weights.
    """
    library = torch_fidelity(f"for {name}")
    try:
        with _weights_only():
            network = library.utils.create_feature_extractor(name, FIDELITY[name], cuda=False, verbose=False).to(device)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise RinError(f"torch-fidelity cannot load {name}: {_last_line(error)}") from error
    description = {"network": name, "torch_fidelity": library.__version__, "sha256": weights_digest(network)}
    return FeatureNetwork(
        name, description, device, lambda media: network(media)[0], network if len(FIDELITY[name]) > 1 else None
    )


@contextmanager
def _weights_only() -> Generator[None]:
    """Whoever loads a file through PyTorch loads tensors, and no other Python object."""
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        del os.environ[_WEIGHTS_ONLY]
        if before is not None:
            os.environ[_WEIGHTS_ONLY] = before


_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _last_line(error: Exception) -> str:
    """The sentence that says what went wrong, behind TorchScript's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__
