"""The folder of diffusers, written aside first."""

import tempfile
from pathlib import Path

from safetensors import SafetensorError

from rin.core.errors import RinError
from rin.core.files import check_writable, is_probe
from rin.core.optional import diffusers
from rin.model_files import network_name
from rin.trained_model import TrainedModel

INDEX = "model_index.json"
"""What diffusers looks for first; it is there when all else is."""


def save(trained: TrainedModel, folder: str | Path) -> None:
    """Writes a model of pictures as a folder of diffusers.

    It is opened by `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`, see
    `rin.interop.diffusers.pipeline.RINPipeline`.

    Args:
        trained: the model; it stays as it is.
        folder: a new one, or one with nothing in it.

    Raises:
        RinError: diffusers is not installed, the model is none of those that can be saved so, or the folder has
            something in it or cannot be written.
    """
    _check_model(trained)
    diffusers("to save for diffusers")
    from rin.interop.diffusers.pipeline import pipeline_of  # here, since diffusers takes seconds to import

    folder = Path(folder).expanduser()
    check_writable(folder)
    if any(not is_probe(file) for file in folder.iterdir()):
        raise RinError(f"cannot write to {folder}: there is something in it already, give a new folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".rin-export-", dir=folder) as temporary:
            pipeline_of(trained).save_pretrained(temporary)
            mode = Path(temporary, INDEX).stat().st_mode
            for weights in Path(temporary).rglob("*.safetensors"):
                weights.chmod(mode)  # safetensors makes them the owner's alone
            for written in sorted(Path(temporary).iterdir(), key=lambda part: part.name == INDEX):
                written.replace(folder / written.name)
    except (OSError, SafetensorError) as error:
        raise RinError(f"cannot write to {folder}: {error}") from error


def _check_model(trained: TrainedModel) -> None:
    """Refuses a model that the pipeline cannot draw with.

    Raises:
        RinError: it is such a one.
    """
    if (network := network_name(trained.model)) is not None:
        raise RinError(f"only a RIN with a tokenizer of rin's can be saved for diffusers, and this one is {network}")
    kind = trained.kind
    if not kind.is_image or kind.is_signal:
        raise RinError(f"only models of pictures can be saved for diffusers, and this one draws {kind.noun}")
    if kind.num_condition_tokens:
        raise RinError(
            "a model that reads embeddings cannot be saved for diffusers, since nothing beside it could make them: "
            "models with classes or captions can"
        )
