"""`rin export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rin.cli.arguments import parse, quoted
from rin.interop.diffusers import save
from rin.interop.exporting import export as write
from rin.trained_model import load


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Writes a model's network for programs without rin, and a sampler in numpy beside it; or a model for diffusers."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, the name of a model that comes with rin, as in digits, or a Hub name
    owner/name."""

    to: Literal["onnx", "torch", "diffusers"] = "onnx"
    """onnx, for onnxruntime and others, with sample.py beside it; torch, for torch.export.load; or diffusers, for
    DiffusionPipeline.from_pretrained where rin is installed, too."""

    out: Path = Path("exported")
    """The network's file, .onnx or .pt2, or a folder (no ending) for it and what lies beside it; of diffusers a new
    folder."""


def export(arguments: list[str]) -> None:
    """Writes the files, and says how well an exported network answers as PyTorch does."""
    chosen = parse(ExportArguments, arguments, "rin export")
    trained = load(chosen.run, device="cpu")
    if chosen.to == "diffusers":
        save(trained, chosen.out)
        print(f"{quoted(chosen.out)}: DiffusionPipeline.from_pretrained opens it with trust_remote_code=True")
        return
    done = write(
        trained.model, trained.diffusion, chosen.out, chosen.to, class_names=trained.class_names, values=trained.values
    )
    files = ", ".join([quoted(done.files[0]), *(quoted(file.name) for file in done.files[1:])])
    print(f"{files}: within {done.difference:.1e} of PyTorch's answers, which are up to {done.largest:.1f}")
