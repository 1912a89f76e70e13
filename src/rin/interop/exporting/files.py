"""The files of an exported network: written, compared with PyTorch, and only then given their names."""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rin.core.errors import RinError
from rin.core.files import check_writable
from rin.core.optional import onnx_runtime
from rin.core.values import PICTURES, Values
from rin.diffusion import Diffusion
from rin.interop.exporting.network import OUTPUTS, OnePass, latents_shape

Format = Literal["onnx", "torch"]
"""ONNX, or a program of torch.export."""

_ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}

_SAMPLER = Path(__file__).with_name("sample.py")
"""Copied beside a network in ONNX."""

_SAMPLER_RULES = ("ddim", "dpmpp-2m")
"""What it knows; it draws by the first one in the place of others."""

_MOST_IN_ONE_FILE = 2_000_000_000
"""Bytes of weights in one ONNX file, whose format ends at 2 GiB; more lie in a file of their own beside it."""

_TOLERANCE = 1e-3
"""How far from PyTorch an answer may be, as a share of the largest number, or of 1; float32 is 100 times as exact."""

_BATCHES = (1, 4)
"""Examples at once in the comparison; none of them is what the network was exported with."""

Pass = Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
"""Runs an exported network: inputs by name to prediction and latents."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What `export` has written and seen."""

    files: tuple[Path, ...]
    """The network first."""

    difference: float
    """The largest difference between an answer of the exported network and PyTorch's."""

    largest: float
    """The largest number in PyTorch's answers."""


def export(
    model: nn.Module,
    diffusion: Diffusion,
    path: str | Path,
    to: Format = "onnx",
    *,
    class_names: Sequence[str] = (),
    values: Values = PICTURES,
) -> Exported:
    """Writes one pass of a network, latents in and out, for programs without rin, and compares it with PyTorch.

    Beside the network lies a `.json` of its name with what a sampler needs, and beside one in ONNX `sample.py`, which
    draws with it by numpy and onnxruntime.

    Args:
        model: a RIN; it stays as it is.
        diffusion: its diffusion.
        path: the file, or a folder (no ending) in which it is called `model`.
        to: onnx, or torch for a program of torch.export (`.pt2`).
        class_names: names of its classes.
        values: what the numbers of its data mean.

    Raises:
        RinError: packages are missing, the ending is that of another format, the place cannot be written or has another
            `sample.py`, the model is one that cannot be exported, or its answers are not PyTorch's.
    """
    target = _target(Path(path).expanduser(), to)
    runtime = onnx_runtime("to export to ONNX") if to == "onnx" else None
    one_pass = OnePass(model)
    sampler = target.with_name(_SAMPLER.name)
    if runtime and sampler.exists() and sampler.read_bytes() != _SAMPLER.read_bytes():
        raise RinError(f"{sampler} is there and not what would be written: move it away, or give a new folder")
    check_writable(target.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".rin-export-", dir=target.parent) as temporary:
            whole = Path(temporary) / target.name
            run = _write_torch(one_pass, whole) if runtime is None else _write_onnx(one_pass, whole, runtime)
            difference, largest = _compare(one_pass, run)
            content = _for_samplers(one_pass, diffusion, class_names, values)
            whole.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
            if runtime:
                shutil.copyfile(_SAMPLER, whole.with_name(_SAMPLER.name))
            written = sorted(Path(temporary).iterdir(), key=lambda file: file.name != target.name)
            files = tuple(file.replace(target.with_name(file.name)) for file in written)
    except OSError as error:
        raise RinError(f"cannot write {target}: {error.strerror or error}") from error
    return Exported(files=files, difference=difference, largest=largest)


def _target(path: Path, to: Format) -> Path:
    """The network's file."""
    if not path.suffix or path.is_dir():
        return path / f"model{_ENDINGS[to]}"
    if path.suffix != _ENDINGS[to]:
        others = [name for name, ending in _ENDINGS.items() if ending == path.suffix]
        meant = f" (which is --to {others[0]})" if others else ""
        raise RinError(f"cannot export to {to} as {path.suffix}{meant}: take {_ENDINGS[to]}, or a folder (no ending)")
    return path


def _write_onnx(one_pass: OnePass, path: Path, runtime: Any) -> Pass:
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of torchvision, which nothing here needs
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # PyTorch's own, of PyTorch
            names = list(one_pass.inputs(1))
            program = torch.onnx.export(
                one_pass.program(), dynamo=True, verbose=False, input_names=names, output_names=OUTPUTS,
                dynamic_shapes={name: {0: "batch" if name == names[0] else torch.export.Dim.DYNAMIC} for name in names},
            )  # fmt: skip
    finally:
        logger.setLevel(level)
    assert program is not None
    _tidy(program.model)
    size = sum(4 * weight.numel() for weight in one_pass.parameters())
    program.save(path, external_data=size > _MOST_IN_ONE_FILE)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(given: Mapping[str, Tensor]) -> list[Tensor]:
        answer = session.run(None, {name: value.numpy() for name, value in given.items()})
        return [torch.from_numpy(part) for part in answer]

    return run


def _tidy(model: Any) -> None:
    """Takes out what is told of each operator and of the program that it came from, which is as long as the network."""
    for part in (model.graph, *model.graph.all_nodes()):
        part.metadata_props.clear()


def _write_torch(one_pass: OnePass, path: Path) -> Pass:
    torch.export.save(one_pass.program(), path)
    network = torch.export.load(path).module()

    def run(given: Mapping[str, Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            return network(**given)

    return run


def _compare(one_pass: OnePass, run: Pass) -> tuple[float, float]:
    """The largest difference from PyTorch, and the largest number.

    Raises:
        RinError: the difference is more than rounding.
    """
    difference = largest = 0.0
    for batch in _BATCHES:
        given = one_pass.inputs(batch)
        for found, wanted in zip(run(given), one_pass(**given), strict=True):
            difference = max(difference, (found - wanted).abs().nan_to_num(torch.inf).max().item())
            largest = max(largest, wanted.abs().max().item())
    if not difference <= _TOLERANCE * max(largest, 1.0):
        raise RinError(
            f"the exported network's answers differ from PyTorch's by up to {difference:.2g}, and are as large as "
            f"{largest:.2g}: take the versions of onnx, onnxscript and onnxruntime in constraints.txt"
        )
    return difference, largest


def _for_samplers(
    one_pass: OnePass, diffusion: Diffusion, class_names: Sequence[str], values: Values
) -> dict[str, Any]:
    """What a sampler needs to know."""
    model, process = one_pass.network.config, diffusion.config
    return {
        "shape": model.shape,
        "latents": latents_shape(model),
        "num_classes": model.num_classes,
        "class_names": list(class_names),
        "caption_length": model.caption_length,
        "context": model.kind.context_shape or None,
        "prediction": process.prediction,
        "input_scale": process.input_scale,
        "normalise_input": process.normalise_input,
        "label_drop_rate": process.label_drop_rate,
        "guidance_latents": process.guidance_latents,
        "guidance": process.guidance,
        "guidance_interval": process.guidance_interval,
        "schedule": process.sampling_schedule,
        "sampler": process.sampler if process.sampler in _SAMPLER_RULES else _SAMPLER_RULES[0],
        "num_steps": process.num_steps,
        "values": asdict(values),
    }
