"""Libraries that are installed only where they are wanted."""

import importlib
import os
from typing import Any

from rin.core.errors import RinError


def pyav(purpose: str) -> Any:
    """PyAV, which reads and writes video files.

    Args:
        purpose: what it is needed for, as in "to read videos".

    Raises:
        RinError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise RinError(f'PyAV is needed {purpose}: pip install "rin-diffusion[video]"') from error
    return av


def pyplot(purpose: str) -> Any:
    """Pyplot of matplotlib.

    Args:
        purpose: what it is needed for, as in "to plot".

    Raises:
        RinError: it is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise RinError(f"matplotlib is needed {purpose}: pip install matplotlib") from error
    return pyplot


def torch_fidelity(purpose: str) -> Any:
    """torch-fidelity, which has the networks of published measures.

    Args:
        purpose: what it is needed for, as in "for inception-v3-compat".

    Raises:
        RinError: it is not installed, or the torchvision that it wants does not work.
    """
    try:
        return importlib.import_module("torch_fidelity")
    except (ImportError, RuntimeError) as error:  # a torchvision of another build of PyTorch raises the second
        raise RinError(
            f'torch-fidelity is needed {purpose}: pip install "rin-diffusion[fidelity]", or without a GPU as '
            f"docs/options.md has it under Extras ({error})"
        ) from error


def onnx_runtime(purpose: str) -> Any:
    """ONNX Runtime, which runs networks in ONNX, once the packages that write them are there too.

    Args:
        purpose: what it is needed for, as in "to export to ONNX".

    Raises:
        RinError: one of them is not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RinError(f'{name} is needed {purpose}: pip install "rin-diffusion[export]"') from error
    return importlib.import_module("onnxruntime")


def tifffile(purpose: str) -> Any:
    """Tifffile, which reads TIFF of all kinds.

    Args:
        purpose: what it is needed for, as in "for pictures of 5 channels".

    Raises:
        RinError: it is not installed.
    """
    return _installed("tifffile", purpose, extra="tiff")


def transformers(purpose: str) -> Any:
    """Transformers, which has text encoders.

    Args:
        purpose: what it is needed for, as in "for text encoders".

    Raises:
        RinError: it is not installed.
    """
    return _installed("transformers", purpose, extra="text")


def gradio(purpose: str) -> Any:
    """Gradio, which makes pages for a browser, with its reports on how it is used turned off.

    Args:
        purpose: what it is needed for, as in "for rin app".

    Raises:
        RinError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it is read when parts of a page are made, too
    return _installed("gradio", purpose, extra="app", has="Blocks")


def diffusers(purpose: str) -> Any:
    """The library diffusers.

    Args:
        purpose: what it is needed for, as in "to save for diffusers".

    Raises:
        RinError: it is not installed.
    """
    return _installed("diffusers", purpose, extra="diffusers", has="DiffusionPipeline")


def _installed(name: str, purpose: str, *, extra: str, has: str = "") -> Any:
    """A library by its name; `has` is in it and in no folder that is called the same.

    Raises:
        RinError: it is not installed; the message names the extra of ours that brings it.
    """
    try:
        library = importlib.import_module(name)
        if has and not hasattr(library, has):
            raise ImportError("what is found by that name is a folder")
    except ImportError as error:
        raise RinError(f'{name} is needed {purpose}: pip install "rin-diffusion[{extra}]" ({error})') from error
    return library
