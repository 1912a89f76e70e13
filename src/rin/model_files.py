"""`config.json` and `model.safetensors`, which may come from strangers: everything in them is checked when it is read.

What is wrong is one line that names it, before memory is taken for it. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rin.core.errors import RinError
from rin.core.files import check_file, written_whole
from rin.core.strict_json import read_json
from rin.core.values import NUMBERS, PICTURES, Values
from rin.diffusion import DiffusionConfig
from rin.experiment import FORMAT_VERSION, ExperimentConfig, from_dict, to_dict
from rin.nn import RIN, RINConfig
from rin.nn.size import check_size
from rin.nn.tokenizers import PatchTokenizer
from rin.older_configs import as_of_today

CONFIG, WEIGHTS = "config.json", "model.safetensors"

VALUES = "values"
"""Where `config.json` tells what the numbers of the data mean, if they are not 8 bits, 0 to 255."""

NETWORK = "network"
"""Where `config.json` names a network that is no RIN of its configuration."""

_GROUPS = {"model": dict, "diffusion": dict, "class_names": list}

_LONGEST_NAME = 1000
"""Characters of a class name."""

_WIDEST = 8
"""Bytes of a weight on disk at most."""

_HEADER = 2**27
"""Bytes of a safetensors file that are no weights, at most: more than the format allows."""


def models_that_come_along() -> dict[str, Path]:
    """The folders of the models that come with rin, by name: inside the package, or beside it in a clone."""
    package = Path(__file__).parent
    for weights in (package / "weights", package.parents[1] / "weights"):
        if weights.is_dir():
            return {folder.name: folder for folder in sorted(weights.iterdir()) if (folder / CONFIG).is_file()}
    return {}


def model_folder(source: str | Path) -> Path:
    """The folder of a run or of a saved model: as given, or that of a model that comes with rin, by its name."""
    folder = Path(os.path.expanduser(source))
    return folder if os.path.isdir(folder) else models_that_come_along().get(str(source), folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a run or a saved model, whose network and class names are such as there can be.

    Raises:
        RinError: there is none, or it is damaged, of a newer format, or asks for a network of absurd size.
    """
    path = folder / CONFIG
    try:
        stored = read_json(path)
        version = stored["format_version"]
        for name, kind in _GROUPS.items():
            if not isinstance(stored[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        if type(version) is not int or version < 1:
            raise ValueError(f"format_version is {version!r}"[:100])
    except FileNotFoundError:
        inside = sorted(str(path.parent) for path in folder.glob(f"*/{CONFIG}"))
        hint = f"; in it there are {', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''}" if inside else ""
        raise RinError(f"{folder} is neither a run nor a saved model: it has no {CONFIG}{hint}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RinError(
            f"{path} is no configuration of rin: {error if isinstance(error, ValueError) else repr(error)}"
        ) from error
    if version > FORMAT_VERSION:
        raise RinError(f"{path} has format {version}, this rin knows up to {FORMAT_VERSION}: install a newer rin")
    for group in ("model", "diffusion", "training"):
        if isinstance(stored.get(group), dict):
            stored[group] = as_of_today(group, stored[group], stored["model"])
    try:
        model = from_dict(RINConfig, stored["model"])
        check_size(model)
        check_class_names(stored["class_names"], model.num_classes)
    except RinError as error:
        raise RinError(f"{path}: {error}") from error
    return stored


def check_class_names(names: Sequence[object], num_classes: int) -> tuple[str, ...]:
    """The names of a model's classes, once they are such: texts, one a class or none at all, none of them twice.

    Raises:
        RinError: they are not.
    """
    if names and len(names) != num_classes:
        raise RinError(f"class_names are {len(names)} and the model has {num_classes} classes: give one each, or none")
    unique: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str):
            raise RinError(f"class_names hold {repr(name)[:40]}, which is no text: give a text for each class")
        if len(name) > _LONGEST_NAME or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise RinError(f"class name {name[:40]!r}: take text of at most {_LONGEST_NAME} characters")
        if name in unique:
            raise RinError(f"class name {name[:40]!r} is there twice: classes are told apart by their names")
        unique[name] = None
    return tuple(unique)


def write_config(path: Path, content: dict[str, Any]) -> None:
    """Writes a `config.json`, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)
    text = re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):x}", text)  # of paths that are not UTF-8
    with written_whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_experiment(folder: Path) -> ExperimentConfig | None:
    """The experiment of a run's folder; None if the folder holds none.

    Raises:
        RinError: its configuration is damaged or of a newer format.
    """
    if not os.path.exists(folder / CONFIG):  # which takes names that are too long for such as are not there
        return None
    stored = read_config(folder)
    if "training" not in stored:
        raise RinError(f"{folder} holds a saved model, and no run, which has a folder of its own")
    experiment = {name: stored[name] for name in stored if name not in _NOT_EXPERIMENT}
    return from_dict(ExperimentConfig, experiment, folder / CONFIG)


def read_model_config(folder: Path) -> tuple[RINConfig, DiffusionConfig]:
    """The network's and the diffusion's configuration of a run or a saved model.

    Raises:
        RinError: the folder is neither, or its configuration is damaged or of a newer format.
    """
    stored = read_config(folder)
    return from_dict(RINConfig, stored["model"]), from_dict(DiffusionConfig, stored["diffusion"], folder / CONFIG)


_NOT_EXPERIMENT = ("format_version", "class_names", "data_identity", NETWORK, VALUES)


def stored_model(
    model: RINConfig,
    diffusion: DiffusionConfig,
    class_names: tuple[str, ...],
    network: str | None = None,
    values: Values = PICTURES,
) -> dict[str, Any]:
    """What `config.json` says of a model.

    Args:
        model: the network's configuration.
        diffusion: its diffusion's.
        class_names: of its classes.
        network: the name of another network than a RIN, which cannot be made of the configuration alone.
        values: what the numbers of its data mean; not told where they are those of pictures.

    Raises:
        RinError: the class names are none that it can have.
    """
    return {
        "format_version": FORMAT_VERSION,
        "model": to_dict(model),
        "diffusion": to_dict(diffusion),
        "class_names": list(check_class_names(class_names, model.num_classes)),
        **({} if network is None else {NETWORK: network}),
        **({} if values == PICTURES else {VALUES: to_dict(values)}),
    }


def stored_values(stored: Mapping[str, Any], file: Path) -> Values:
    """What the numbers of a model's data mean, of which `config.json`, that file, says `stored`.

    Raises:
        RinError: they can mean no such thing.
    """
    values = from_dict(Values, stored.get(VALUES, {}), file)
    if not values.low < values.high or values.dtype not in NUMBERS:
        raise RinError(f"{file} has values from {values.low} to {values.high} of {values.dtype[:40]!r}")
    return values


def network_name(model: nn.Module) -> str | None:
    """How a network of one's own is called in `config.json`; None of a RIN with a tokenizer of ours."""
    if type(model) is RIN and isinstance(model.tokenizer, PatchTokenizer):
        return None
    kinds = [type(model), *([type(model.tokenizer)] if isinstance(model, RIN) else [])]
    return " with ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)


def check_is_rin(folder: Path, stored: dict[str, Any]) -> None:
    """Refuses to make a RIN in the place of another network.

    Raises:
        RinError: the folder's model is one.
    """
    if NETWORK in stored:
        raise RinError(
            f"{folder} holds a network of its own ({stored[NETWORK]}): give it, as in rin.load(folder, model=...)"
        )


def most_bytes(model: nn.Module) -> int:
    """More bytes than any file of a network's weights has."""
    return _WIDEST * sum(value.numel() for value in model.state_dict().values()) + _HEADER


def read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a saved model's file.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is damaged.
        ValueError: it holds far more than the network.
    """
    check_file(path)
    size = path.stat().st_size
    if size > most_bytes(model):
        raise ValueError(f"{path.name} has {size} bytes, and the network far fewer")
    return load_file(path)


def set_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives a network its weights, in whichever floating-point format they are stored; they become float32.

    Raises:
        ValueError: they are not the network's, are no floating-point numbers, or some are NaN or infinite.
    """
    weights, needed = dict(model.named_parameters()), model.state_dict()
    for name in weights.keys() - tensors.keys():
        raise ValueError(f"{name} is missing")
    for name, value in tensors.items():
        if name not in needed:
            raise ValueError(f"{name} is no weight of the network")
        if value.shape != needed[name].shape:
            raise ValueError(f"{name} has {tuple(value.shape)}, the network has {tuple(needed[name].shape)}")
        if name in weights and not value.is_floating_point():
            raise ValueError(f"{name} is stored as {str(value.dtype).removeprefix('torch.')}, and weights are floats")
    model.load_state_dict(tensors, strict=False)  # buffers, which RINs do not have, are not averaged
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite (NaN or infinity)")


def weights_digest(network: nn.Module) -> str:
    """A SHA-256 of all weights, by name."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
