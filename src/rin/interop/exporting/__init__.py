"""A network for programs without rin: in ONNX with a sampler in numpy beside it, or as a program of PyTorch's."""

from rin.interop.exporting.files import Exported, Format, export

__all__ = ["Exported", "Format", "export"]
