"""A trained model: network, diffusion and labels together; it samples. Read from a run, a saved model or the Hub.

On disk a model is `config.json` (network, diffusion, class names, format version) and `model.safetensors` (averaged
weights). A run is `config.json` (the same, with data, training and seed), `log.jsonl`, `checkpoints/`, `samples/` and
TensorBoard's events. Nothing is ever unpickled.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rin.core import compute
from rin.core.errors import RinError, nearest
from rin.core.files import save_tensors, written_whole
from rin.core.progress import LOGGER
from rin.core.values import PICTURES, Values
from rin.data import DataConfig
from rin.data.config import ClipsConfig
from rin.diffusion import Diffusion, DiffusionConfig
from rin.experiment import from_dict, to_dict
from rin.model_files import (
    CONFIG,
    WEIGHTS,
    check_is_rin,
    model_folder,
    models_that_come_along,
    most_bytes,
    network_name,
    read_config,
    read_weights,
    set_weights,
    stored_model,
    stored_values,
    write_config,
)
from rin.nn import RIN, RINConfig
from rin.nn.size import check_fits
from rin.sampling.pipeline import Pipeline
from rin.training import checkpoint
from rin.training.config import TrainingConfig

CLIPS = "clips"
"""Where a saved model's configuration tells how clips are cut; a run's has it in its data."""


class TrainedModel(Pipeline):
    """A trained network with its averaged weights, its diffusion and the names of its classes: it samples.

    Args:
        model: the network, in evaluation mode.
        diffusion: its diffusion.
        config: of the network; of another network than a RIN, what it stands in the place of.
        class_names: the names of the classes; empty if there are none or they have no names.
        clips: how the clips that it has learned from were cut out of videos.
        values: what the numbers of the data that it has learned from mean; `values.to_data(samples)` has samples so.
    """

    def __init__(
        self,
        model: nn.Module,
        diffusion: Diffusion,
        config: RINConfig,
        class_names: tuple[str, ...] = (),
        clips: ClipsConfig | None = None,
        values: Values = PICTURES,
    ) -> None:
        super().__init__(model, diffusion, config.kind, class_names)
        self.model: nn.Module = model
        self.config = config
        self.clips = ClipsConfig() if clips is None else clips
        self.values = values

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes `config.json` and `model.safetensors` into a folder.

        Args:
            folder: a new one, or that of a model to write over.
            dtype: of the weights on disk, such as torch.float16 for half the size; as they are if None. `rin.load`
                makes them float32 again, rounded.

        Raises:
            RinError: the folder cannot be written.
        """
        folder = Path(os.path.expanduser(folder))
        network = network_name(self.model)
        config = stored_model(self.config, self.diffusion.config, self.class_names, network, self.values)
        if self.kind.is_video:
            config[CLIPS] = to_dict(self.clips)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            weights = {name: value.to(dtype) for name, value in self.model.state_dict().items()}
            with written_whole(folder / WEIGHTS) as temporary:
                save_tensors(weights, temporary)
            write_config(folder / CONFIG, config)
        except (OSError, SafetensorError) as error:
            raise RinError(f"cannot write the model to {folder}: {error}") from error

    def push_to_hub(self, name: str, private: bool = False) -> str:
        """Uploads the model to the Hugging Face Hub as `name` ("owner/name"); returns its address.

        Raises:
            RinError: the Hub refuses or cannot be reached.
        """
        import tempfile

        import huggingface_hub

        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            try:
                api = huggingface_hub.HfApi()
                url = api.create_repo(name, private=private, exist_ok=True)
                api.upload_folder(repo_id=name, folder_path=folder, commit_message="A RIN, saved by rin")
            except (OSError, ValueError) as error:
                raise RinError(f"cannot push to {name} on the Hub: {error}") from error
        return str(url)


def load(
    source: str | Path,
    average_decay: float | None = None,
    model: nn.Module | None = None,
    device: torch.device | str | None = None,
) -> TrainedModel:
    """Opens a run (its newest checkpoint's average), a saved model, one that comes with rin, or one on the Hub.

    Args:
        source: the folder, or the name: of a model that comes with rin, such as digits, or owner/name on the Hub.
        average_decay: which of a run's averages; None is the one of `training.average_decay`.
        model: the network that was trained, where it is no RIN of the stored configuration; it gets the weights.
        device: where it is to compute; CUDA, else Apple's Metal, else the CPU if None.

    Raises:
        RinError: there is none, it is damaged, of a newer format, of another network, or has no average of that decay.
    """
    folder = model_folder(source)
    if not os.path.isdir(folder):
        folder = _download(str(source))
    stored = read_config(folder)
    config = from_dict(RINConfig, stored["model"])
    if model is None:
        check_is_rin(folder, stored)
        check_fits(config)
        model = RIN(config)
    diffusion = Diffusion(from_dict(DiffusionConfig, stored["diffusion"]))
    data = from_dict(DataConfig, stored["data"] if "data" in stored else {CLIPS: stored.get(CLIPS, {})})
    saved = folder / WEIGHTS
    name = None if saved.exists() else checkpoint.AVERAGE
    if average_decay is not None:
        if name is None or "training" not in stored:
            raise RinError(f"{source} is a saved model, which has one average: leave average_decay out")
        name = _name_of_average(source, stored, average_decay)
    try:
        set_weights(model, read_weights(saved, model) if name is None else _average(folder, name, model))
    except RinError:
        raise
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise RinError(f"the weights in {folder} are damaged or of another configuration: {error}") from error
    model = model.to(compute.device() if device is None else device).eval().requires_grad_(False)
    return TrainedModel(model, diffusion, config, tuple(stored["class_names"]), data.clips, stored_values(stored))


def _name_of_average(source: str | Path, stored: dict[str, Any], decay: float) -> str:
    training = from_dict(TrainingConfig, stored["training"])
    if decay == training.average_decay:
        return checkpoint.AVERAGE
    if decay not in training.further_decays:
        kept = ", ".join(map(str, (training.average_decay, *training.further_decays)))
        raise RinError(f"{source} has no average of decay {decay}, only {kept}: see training.further_decays")
    return checkpoint.average_of(decay)


def _average(folder: Path, name: str, model: nn.Module) -> dict[str, Tensor]:
    """An average of a run's newest checkpoint that is whole; damaged ones are named and passed over."""
    damaged: list[str] = []
    for newest in reversed(checkpoint.all_checkpoints(folder / checkpoint.FOLDER)):
        reason = checkpoint.damage(newest, only=name, most=most_bytes(model))
        if reason is None:
            for passed_over in damaged:
                LOGGER.warning("%s: taking the one before", passed_over)
            return checkpoint.read(newest, name)
        damaged.append(f"checkpoint {newest} is damaged ({reason})")
    if damaged:
        raise RinError(f"{folder} has no checkpoint that is whole: {damaged[0]}")
    raise RinError(f"{folder} has no checkpoint yet: train it for --training.checkpoint-every steps or more")


def _download(name: str) -> Path:
    """The folder of a model on the Hub."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        ours = models_that_come_along()
        meant = nearest(name, ours)
        hint = f"did you mean {meant!r}? Or " if meant is not None else ""
        names = f", or one that comes with rin: {', '.join(ours)}" if ours and meant is None else ""
        raise RinError(f"there is no folder {name}: {hint}give a run, a saved model or a Hub name owner/name{names}")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RinError(f"there is no folder {name}, and the Hub has no model of that name ({reason})") from error
