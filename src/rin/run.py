"""A run, started or gone on with."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import torch

from rin.core.distributed import is_first, wait_for_all
from rin.core.errors import RinError
from rin.core.launch import processes
from rin.core.progress import LOGGER
from rin.data import OpenedData, how_cut, open_data
from rin.diffusion import Diffusion
from rin.experiment import ExperimentConfig, differences, to_dict
from rin.nn import RIN, RINConfig
from rin.trained import CONFIG, Trained, load, read_experiment, stored_model, write_config
from rin.training.status import only_process
from rin.training.trainer import Trainer


def train(experiment: ExperimentConfig, folder: str | Path) -> Trained:
    """Trains an experiment in a folder, or goes on with the run that the folder holds, to the end.

    Under a launcher such as torchrun every process calls it, and they work together.

    Returns:
        The trained model, with the averaged weights.

    Raises:
        RinError: the data cannot be read, the folder cannot be written, holds a run of another configuration or is
            being trained by another process; a process died; too many updates in a row were not finite.
        StoppedError: a signal asked the run to stop; it is saved.
    """
    folder = Path(folder)
    with processes():
        return _train(experiment, folder)


def _train(experiment: ExperimentConfig, folder: Path) -> Trained:
    data = open_run_data(experiment)
    if broken := data.training.num_broken + data.held_out.num_broken:
        LOGGER.warning("passed over because they cannot be read: %d", broken)
    experiment = settle(experiment, data)
    class_names = data.training.class_names if experiment.model.num_classes else ()
    if is_first():
        _make(folder)
    with only_process(folder) if is_first() else nullcontext():
        if is_first():
            _claim(folder, experiment, class_names)
        wait_for_all()
        torch.manual_seed(experiment.seed)
        model, process = RIN(experiment.model), Diffusion(experiment.diffusion)
        Trainer(experiment.training, model, process, data, folder, experiment.seed, experiment.data.flip).run()
        wait_for_all()
        return load(folder)


def open_run_data(experiment: ExperimentConfig) -> OpenedData:
    """The data of an experiment, decoded to the model's shape.

    Raises:
        RinError: it cannot be read, or the model is one of plain sets.
    """
    if len(experiment.model.shape) == 2:
        raise RinError(
            f"model.shape {experiment.model.shape}: training is there for images (c h w) and clips (c f h w)"
        )
    return open_data(experiment.data, clip_shape(experiment.model))


def clip_shape(config: RINConfig) -> tuple[int, ...]:
    """The shape of what a network learns from: of clips, the frames that are given and those to predict."""
    if len(config.shape) != 4:
        return config.shape
    channels, num_frames, height, width = config.shape
    return channels, config.num_context_frames + num_frames, height, width


def settle(experiment: ExperimentConfig, data: OpenedData) -> ExperimentConfig:
    """The experiment with what only the data knows: how many classes there are (none stays none), how clips are cut."""
    experiment = dataclasses.replace(
        experiment, data=dataclasses.replace(experiment.data, clips=how_cut(experiment.data))
    )
    if not experiment.model.num_classes:
        return experiment
    model = dataclasses.replace(experiment.model, num_classes=len(data.training.class_names))
    return dataclasses.replace(experiment, model=model)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RinError(f"cannot write the run to {folder}: {error}") from error


def _claim(folder: Path, experiment: ExperimentConfig, class_names: tuple[str, ...]) -> None:
    """Makes the folder this run's own, or makes sure that it already is."""
    before = read_experiment(folder)
    if before is not None and (changed := differences(before, experiment)):
        raise RinError(
            f"{folder} holds a run of another configuration ({'; '.join(changed)}): "
            "give the same options to go on with it, or another --out"
        )
    config = stored_model(experiment.model, experiment.diffusion, class_names) | to_dict(experiment)
    try:
        write_config(folder / CONFIG, config)
    except OSError as error:
        raise RinError(f"cannot write the run to {folder}: {error}") from error
