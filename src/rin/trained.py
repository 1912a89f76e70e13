"""A trained model: network, diffusion and labels together; it samples. Read from a run, a saved model or the Hub.

On disk a model is `config.json` (network, diffusion, class names, format version) and `model.safetensors` (averaged
weights). A run is `config.json` (the same, with data, training and seed), `log.jsonl`, `checkpoints/`, `samples/` and
TensorBoard's events. Nothing is ever unpickled.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rin.core.compute import device
from rin.core.errors import RinError
from rin.core.files import written_whole
from rin.core.progress import LOGGER
from rin.data import DataConfig, to_floats, to_pictures
from rin.data.config import ClipsConfig
from rin.diffusion import Diffusion, DiffusionConfig, SamplingOptions, SamplingStep, last_of
from rin.evaluation.rollout import sample_clips
from rin.evaluation.sampling import seeded_steps
from rin.experiment import FORMAT_VERSION, ExperimentConfig, from_dict, to_dict
from rin.nn import RIN, RINConfig
from rin.training import checkpoint
from rin.training.config import TrainingConfig

CONFIG, WEIGHTS = "config.json", "model.safetensors"

CLIPS = "clips"
"""Where a saved model's configuration tells how clips are cut; a run's has it in its data."""


@dataclass(frozen=True)
class Trained:
    """A trained model: the network with its averaged weights, its diffusion and the names of its classes."""

    model: RIN
    """The network, in evaluation mode."""

    process: Diffusion
    """Its diffusion."""

    class_names: tuple[str, ...] = ()
    """The names of the classes; empty if there are none or they have no names."""

    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """How the clips that it has learned from were cut out of videos."""

    def sample(
        self, labels: Sequence[int] | None = None, num: int | None = None, seed: int = 0, first: int = 0,
        context: Float[Tensor, "b c f h w"] | None = None, **options: Unpack[SamplingOptions],
    ) -> Float[Tensor, "b ..."]:  # fmt: skip
        """Draws samples in [-1, 1].

        Picture p of a seed starts from the same noise whatever is drawn with it.

        Args:
            labels: the class of each sample; None for a model without classes, or to ask for none.
            num: how many, without labels; 1 if None.
            seed: of the noise.
            first: the number of the first picture of that seed.
            context: the frames that come before those to draw, in [-1, 1] (b c f h w), for a model that is given some.
            **options: see `SamplingOptions`.

        Raises:
            RinError: a class that the model does not have, or options that it cannot follow.
        """
        return last_of(self.steps(labels, num, seed, first, context, **options)).x_0

    def steps(
        self, labels: Sequence[int] | None = None, num: int | None = None, seed: int = 0, first: int = 0,
        context: Float[Tensor, "b c f h w"] | None = None, **options: Unpack[SamplingOptions],
    ) -> Iterator[SamplingStep]:  # fmt: skip
        """The same step by step, for those who want to watch."""
        told = labels if labels is not None else context
        count = len(told) if told is not None else num or 1
        return seeded_steps(self.model, self.process, labels, count, seed, first, context, **options)

    def predict(
        self, context: Float[Tensor, "b c given h w"], num_frames: int, labels: Sequence[int] | None = None,
        seed: int = 0, **options: Unpack[SamplingOptions],
    ) -> Float[Tensor, "b c drawn h w"]:  # fmt: skip
        """Draws the frames that come after given ones, block after block.

        Args:
            context: the given frames in [-1, 1], as many as the model takes or more (b c f h w); they are rounded to 8
                bits, as are the frames drawn that later ones go on from.
            num_frames: how many to draw, as many as wanted.
            labels: the class of each; None for a model without classes, or to ask for none.
            seed: of the noise.
            **options: see `SamplingOptions`.

        Returns:
            The frames drawn, in [-1, 1] (b c num_frames h w).

        Raises:
            RinError: the model goes on from no frames, too few are given or of another size, a class that it does not
                have, or options that it cannot follow.
        """
        num, given = len(context), to_pictures(context)
        drawn = sample_clips(self.model, self.process, labels, given, num, num_frames, seed, num, **options)
        return to_floats(drawn)

    def save(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` into a folder.

        Raises:
            RinError: the folder cannot be written.
        """
        folder = Path(folder)
        config = stored_model(self.model.config, self.process.config, self.class_names)
        if len(self.model.config.shape) == 4:
            config[CLIPS] = to_dict(self.clips)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
            with written_whole(folder / WEIGHTS) as temporary:
                save_file(weights, temporary)
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


def load(source: str | Path, average_decay: float | None = None) -> Trained:
    """Opens a run's folder (its newest checkpoint's average), a saved model's folder, or a model on the Hub.

    Args:
        source: the folder, or the name on the Hub.
        average_decay: which of a run's averages; None is the one of `training.average_decay`.

    Raises:
        RinError: there is none, it is damaged, of a newer format, or has no average of that decay.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(str(source))
    stored = _read_config(folder)
    model = RIN(from_dict(RINConfig, stored["model"]))
    process = Diffusion(from_dict(DiffusionConfig, stored["diffusion"]))
    data = from_dict(DataConfig, stored["data"] if "data" in stored else {CLIPS: stored.get(CLIPS, {})})
    saved = folder / WEIGHTS
    name = None if saved.exists() else checkpoint.AVERAGE
    if average_decay is not None:
        name = _name_of_average(source, stored, average_decay)
    try:
        model.load_state_dict(load_file(saved) if name is None else _average(folder, name))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RinError(f"the weights in {folder} are damaged or of another configuration: {reason}") from error
    return Trained(model.to(device()).eval().requires_grad_(False), process, tuple(stored["class_names"]), data.clips)


def read_experiment(folder: Path) -> ExperimentConfig | None:
    """The experiment of a run's folder; None if the folder holds none.

    Raises:
        RinError: its configuration is damaged or of a newer format.
    """
    if not (folder / CONFIG).exists():
        return None
    stored = _read_config(folder)
    if "training" not in stored:
        raise RinError(f"{folder} holds a saved model, and no run, which has a folder of its own")
    return from_dict(ExperimentConfig, {name: stored[name] for name in stored if name not in _NOT_EXPERIMENT})


def read_model_config(folder: Path) -> RINConfig:
    """The network's configuration of a run or a saved model.

    Raises:
        RinError: the folder is neither, or its configuration is damaged or of a newer format.
    """
    return from_dict(RINConfig, _read_config(folder)["model"])


_NOT_EXPERIMENT = ("format_version", "class_names")


def stored_model(model: RINConfig, diffusion: DiffusionConfig, class_names: tuple[str, ...]) -> dict[str, Any]:
    """What `config.json` says of a model."""
    return {
        "format_version": FORMAT_VERSION,
        "model": to_dict(model),
        "diffusion": to_dict(diffusion),
        "class_names": list(class_names),
    }


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = int(stored["format_version"])
        for name, kind in (("model", dict), ("diffusion", dict), ("class_names", list)):
            if not isinstance(stored[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")
    except FileNotFoundError:
        raise RinError(f"{folder} is neither a run nor a saved model: it has no {CONFIG}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RinError(f"{path} is no configuration of rin: {error!r}") from error
    if version > FORMAT_VERSION:
        raise RinError(f"{path} has format {version}, this rin knows up to {FORMAT_VERSION}: install a newer rin")
    return stored


def write_config(path: Path, content: dict[str, Any]) -> None:
    """Writes a `config.json`, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _name_of_average(source: str | Path, stored: dict[str, Any], decay: float) -> str:
    if "training" not in stored:
        raise RinError(f"{source} is a saved model, which has one average: leave average_decay out")
    training = from_dict(TrainingConfig, stored["training"])
    if decay == training.average_decay:
        return checkpoint.AVERAGE
    if decay not in training.further_decays:
        kept = ", ".join(map(str, (training.average_decay, *training.further_decays)))
        raise RinError(f"{source} has no average of decay {decay}, only {kept}: see training.further_decays")
    return checkpoint.average_of(decay)


def _average(folder: Path, name: str) -> dict[str, Tensor]:
    """An average of a run's newest checkpoint that is whole; damaged ones are named and passed over."""
    damaged: list[str] = []
    for newest in reversed(checkpoint.all_checkpoints(folder / checkpoint.FOLDER)):
        reason = checkpoint.damage(newest, only=name)
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
        raise RinError(f"there is no folder {name}: give a run, a saved model or a Hub name owner/name")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RinError(f"there is no folder {name}, and the Hub has no model of that name ({reason})") from error
