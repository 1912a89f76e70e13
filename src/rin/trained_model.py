"""A trained model: network, diffusion and labels together; it samples. Read from a run, a saved model or the Hub.

On disk a model is `config.json` (network, diffusion, class names, format version) and `model.safetensors` (averaged
weights). A run is `config.json` (the same, with data, training and seed), `log.jsonl`, `checkpoints/`, `samples/` and
TensorBoard's events. Nothing is ever unpickled.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rin.core import compute
from rin.core.errors import RinError, nearest
from rin.core.files import check_writable, is_probe, save_tensors, written_whole
from rin.core.progress import LOGGER
from rin.core.values import PICTURES, Values
from rin.data import DataConfig
from rin.data.decoding.videos import ClipsConfig
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
from rin.sharing import Origin, check_hub_name, check_logged_in, check_shareable, upload, write_card
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
        origin: the folder that it was opened from, which a model card is made of.
    """

    def __init__(
        self,
        model: nn.Module,
        diffusion: Diffusion,
        config: RINConfig,
        class_names: tuple[str, ...] = (),
        clips: ClipsConfig | None = None,
        values: Values = PICTURES,
        origin: Origin | None = None,
    ) -> None:
        super().__init__(model, diffusion, config.kind, class_names)
        self.model: nn.Module = model
        self.config = config
        self.clips = ClipsConfig() if clips is None else clips
        self.values = values
        self.origin = origin

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

    def save_with_card(
        self,
        folder: str | Path,
        repo_id: str,
        *,
        license: str | None = None,
        prompt: str | None = None,
        num: int | None = None,
    ) -> None:
        """Writes what `push_to_hub` sends: the model, a card README.md, and samples, if it draws by nothing but these.

        Args:
            folder: a new one, or one with nothing in it.
            repo_id: "owner/name", which the card calls it.
            license: of the weights, as the Hub writes it, such as "apache-2.0"; None says nothing.
            prompt: the caption of the samples, of a model that draws by captions; None draws none of such a model.
            num: samples, 0 for none; eight a class up to sixteen classes, else 64 pictures or 8 clips, if None.

        Raises:
            RinError: the name is none, the folder has something in it or cannot be written, or the model's text encoder
                is a folder of this machine.
        """
        check_hub_name(repo_id)
        check_shareable(self.kind, num, prompt)
        folder = Path(os.path.expanduser(folder))
        check_writable(folder)
        if any(not is_probe(file) for file in folder.iterdir()):
            raise RinError(f"cannot write to {folder}: there is something in it already, give a new folder")
        self.save(folder)
        write_card(
            self,
            self.model,
            self.config,
            self.values,
            self.origin,
            folder,
            repo_id,
            license=license,
            prompt=prompt,
            num=num,
        )

    # Named as in huggingface_hub's ModelHubMixin, and none: from_pretrained would be a second rin.load, its config.json
    # has the arguments of __init__, which are no JSON here, and its card is the same for every model of a class.
    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "A RIN, saved by rin",
        private: bool | None = None,
        token: str | None = None,
        license: str | None = None,
        prompt: str | None = None,
        num: int | None = None,
    ) -> str:
        """Sends the model to the Hugging Face Hub, with a card and samples; returns its address.

        Args:
            repo_id: "owner/name", which is made if there is none; files of the same names there are written over.
            commit_message: of the commit.
            private: whether only its owner may see it; None as the owner's account has it.
            token: of the account; None for the one that `hf auth login` has kept.
            license: as of `save_with_card`, with prompt and num.
            prompt: the caption of the samples.
            num: samples.

        Raises:
            RinError: as of `save_with_card`; the Hub refuses or cannot be reached; the model is to be private and is
                there already, for all to see.
        """
        check_hub_name(repo_id)
        check_shareable(self.kind, num, prompt)
        check_logged_in(repo_id, token)  # drawing can take long
        with tempfile.TemporaryDirectory() as folder:
            self.save_with_card(folder, repo_id, license=license, prompt=prompt, num=num)
            return upload(Path(folder), repo_id, commit_message=commit_message, private=private, token=token)


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
    diffusion = Diffusion(from_dict(DiffusionConfig, stored["diffusion"], folder / CONFIG))
    stored_data = stored["data"] if "data" in stored else {CLIPS: stored.get(CLIPS, {})}
    data = from_dict(DataConfig, stored_data, folder / CONFIG)
    saved = folder / WEIGHTS
    name = None if saved.exists() else checkpoint.AVERAGE
    if average_decay is not None:
        if name is None or "training" not in stored:
            raise RinError(f"{source} is a saved model, which has one average: leave average_decay out")
        name = _name_of_average(folder, stored, average_decay)
    num_updates = None
    try:
        if name is None:
            set_weights(model, read_weights(saved, model))
        else:
            weights, num_updates = _average(folder, name, model)
            set_weights(model, weights)
    except RinError:
        raise
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise RinError(f"the weights in {folder} are damaged or of another configuration: {error}") from error
    model = model.to(compute.device() if device is None else device).eval().requires_grad_(False)
    return TrainedModel(
        model, diffusion, config, tuple(stored["class_names"]), data.clips, stored_values(stored, folder / CONFIG),
        Origin(folder.absolute(), num_updates),
    )  # fmt: skip


def _name_of_average(folder: Path, stored: dict[str, Any], decay: float) -> str:
    training = from_dict(TrainingConfig, stored["training"], folder / CONFIG)
    if decay == training.average_decay:
        return checkpoint.AVERAGE
    if decay not in training.further_decays:
        kept = ", ".join(map(str, (training.average_decay, *training.further_decays)))
        raise RinError(f"{folder} has no average of decay {decay}, only {kept}: see training.further_decays")
    return checkpoint.average_of(decay)


def _average(folder: Path, name: str, model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """An average of a run's newest whole checkpoint, and its updates; damaged ones are named and passed over."""
    damaged: list[str] = []
    for newest in reversed(checkpoint.all_checkpoints(folder / checkpoint.FOLDER)):
        reason = checkpoint.damage(newest, only=name, most=most_bytes(model))
        if reason is None:
            for passed_over in damaged:
                LOGGER.warning("%s: taking the one before", passed_over)
            return checkpoint.read(newest, name), checkpoint.step_of(newest)
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
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except LocalEntryNotFoundError as error:  # no answer, which says nothing about the name
        reason = str(error.__cause__ or error).splitlines()[0]
        raise RinError(f"there is no folder {name}, and the Hub could not be reached ({reason})") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RinError(f"there is no folder {name}, and the Hub has no model of that name ({reason})") from error
