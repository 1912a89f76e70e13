"""A run, started or gone on with."""

import copy
import dataclasses
import os
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from rin.core.compute import device, multiplies_bfloat16
from rin.core.distributed import is_first, wait_for_all
from rin.core.errors import RinError
from rin.core.launch import processes
from rin.core.names import whole_path
from rin.core.progress import LOGGER
from rin.data import OpenedData, Source, how_cut, open_source, with_whole_paths
from rin.data.files.encoded import listed
from rin.data.source import MapStyle
from rin.diffusion import Diffusion
from rin.experiment import ExperimentConfig, differences, to_dict
from rin.init_from import INIT_FROM, TakenOver, read_taken_over, start_from
from rin.model_files import CONFIG, network_name, stored_model, write_config
from rin.nn import RIN
from rin.older_configs import with_defaults_of
from rin.run_checks import check_captions, check_request, check_same
from rin.run_data import IDENTITY, BegunRun, begun_run, open_run_data, with_condition
from rin.trained_model import TrainedModel, load
from rin.training import checkpoint
from rin.training.adapters import described, merged_at_the_end
from rin.training.status_file import only_process
from rin.training.trainer import Trainer

GIVEN = "given in Python"
"""The path of a data set that is no file."""


def train(
    experiment: ExperimentConfig,
    folder: str | Path,
    data_moved: bool = False,
    *,
    data: Source | MapStyle | None = None,
    held_out: Source | MapStyle | None = None,
    model: nn.Module | None = None,
) -> TrainedModel:
    """Trains an experiment in a folder, or goes on with the run that the folder holds, to the end.

    Under a launcher such as torchrun every process calls it, and they work together.

    Args:
        experiment: what to train, and how.
        folder: of the run.
        data_moved: whether the set of the run that the folder holds now lies at `experiment.data.path`.
        data: a data set of one's own in place of the one at `experiment.data.path`: a `rin.data.Source`, or any
            map-style data set of pairs (x, label).
        held_out: one to measure on; None takes a tenth of `data` at most.
        model: another network in place of the RIN of `experiment.model`, which still says the shape and the classes of
            the data: a RIN with a tokenizer of its own, or any module that keeps the `rin.Denoiser` protocol.

    Returns:
        The trained model, with the averaged weights.

    Raises:
        RinError: the data cannot be read, the folder cannot be written, holds a run of another configuration, of
            another network or on other data, or is being trained by another process; a process died; too many updates
            in a row were not finite.
        StoppedError: a signal asked the run to stop; it is saved.
    """
    folder = Path(os.path.expanduser(folder))
    if data is None:
        if held_out is not None:
            raise RinError("held_out goes with data: give both, or data alone")
    else:
        experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, path=GIVEN))
    provided = None if data is None else (_source(data), None if held_out is None else _source(held_out))
    with processes():
        return _train(experiment, folder, data_moved, provided, model)


def _source(data: Source | MapStyle) -> Source:
    return data if isinstance(data, Source) else Source(data)


def _train(
    experiment: ExperimentConfig,
    folder: Path,
    data_moved: bool,
    provided: tuple[Source, Source | None] | None,
    model: nn.Module | None,
) -> TrainedModel:
    experiment = with_condition(experiment, None if provided is None else provided[0])
    check_request(experiment, folder, model)
    before = begun_run(folder)
    requested = dataclasses.replace(
        experiment, data=with_whole_paths(experiment.data), init_from=whole_path(experiment.init_from)
    )
    asked = requested
    if before is not None:
        requested = with_defaults_of(before.experiment, requested)
    data = _opened(requested, before, provided)
    experiment = settle(requested, data)
    check_captions(experiment, data)
    class_names = data.training.class_names if experiment.model.num_classes else ()
    network = None if model is None else network_name(model)
    if is_first():
        _make(folder)
    with only_process(folder) if is_first() else nullcontext():
        if is_first():
            check_same(folder, begun_run(folder), experiment, class_names, data, data_moved, network)
        wait_for_all()
        torch.manual_seed(experiment.seed)
        trained = RIN(experiment.model) if model is None else model
        starts = checkpoint.latest(folder / checkpoint.FOLDER) is None
        taken_over = _taken_over(folder, experiment, trained, class_names, starts)
        with merged_at_the_end(trained):
            trainer = Trainer(
                experiment.training, experiment.model.kind, trained, Diffusion(experiment.diffusion), data, folder,
                experiment.seed, experiment.data.flip, () if taken_over is None else taken_over.changed(),
            )  # fmt: skip
            trainer.resume()
            if is_first():  # nothing is written before everything has been checked
                _write(folder, experiment, class_names, data, network, taken_over)
                _tell(data, experiment, requested)
                if kept := differences(requested, asked):
                    LOGGER.info("the run goes on as it began, where the defaults have changed: %s", "; ".join(kept))
                _tell_frozen(trainer, taken_over, is_untrained=starts and model is None)
            trainer.run()
        wait_for_all()
        return load(folder, model=None if model is None else copy.deepcopy(model))


def _opened(
    experiment: ExperimentConfig, before: BegunRun | None, provided: tuple[Source, Source | None] | None
) -> OpenedData:
    """The data that are asked for, or provided in their place."""
    if provided is None:
        data = open_run_data(_as_begun(experiment, before))
    else:
        data = open_source(*provided, experiment.data.num_held_out, experiment.model.kind)
        workers, degrade = experiment.data.num_workers, experiment.data.condition_by
        data = dataclasses.replace(data, num_workers=workers, degrade=degrade)
    if broken := data.training.num_broken + data.held_out.num_broken:
        LOGGER.warning("passed over because they cannot be read: %d", broken)
    return data


def _taken_over(
    folder: Path, experiment: ExperimentConfig, model: nn.Module, class_names: tuple[str, ...], starts: bool
) -> TakenOver | None:
    """Starts a new run from the weights of another model, if it asks for one; what was taken over from it."""
    if experiment.init_from and starts:
        return start_from(experiment.init_from, model, experiment, class_names)
    if experiment.init_from and experiment.training.adapter_rank:  # what was new then is trained whole still
        return read_taken_over(folder)
    return None


def _as_begun(experiment: ExperimentConfig, before: BegunRun | None) -> ExperimentConfig:
    """The experiment without labels if its run was begun so, perhaps when fewer columns were taken for some."""
    if before is None or before.experiment.model.kind.is_labelled:
        return experiment
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, labels=False))


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
        raise RinError(f"cannot write the run to {folder}: {error.strerror or error}") from error


def _write(
    folder: Path,
    experiment: ExperimentConfig,
    class_names: tuple[str, ...],
    data: OpenedData,
    network: str | None,
    taken_over: TakenOver | None,
) -> None:
    """Makes the folder this run's own, or says of the run there what it says of a new one."""
    config = stored_model(experiment.model, experiment.diffusion, class_names, network, data.values)
    config |= to_dict(experiment)
    if data.identity is not None:
        config[IDENTITY] = to_dict(data.identity)
    try:
        write_config(folder / CONFIG, config)
        if taken_over is not None:
            write_config(folder / INIT_FROM, dataclasses.asdict(taken_over))
    except OSError as error:
        raise RinError(f"cannot write the run to {folder}: {error.strerror or error}") from error


def _tell_frozen(trainer: Trainer, taken_over: TakenOver | None, is_untrained: bool) -> None:
    """Says which weights are not trained, and warns of such that no training has ever made."""
    if trainer.adapters:
        LOGGER.info("%s", described(trainer.model, trainer.config.adapter_rank, trainer.adapters))
    if not trainer.frozen:
        return
    LOGGER.info(
        "frozen: %d of %d tensors (%s)",
        len(trainer.frozen),
        len(list(trainer.average.model.parameters())),
        listed(trainer.frozen),
    )
    anew = [name for name in trainer.frozen if taken_over is None or name in taken_over.changed()]
    if is_untrained and anew:
        what = "drawn at random" if taken_over is None else "not taken over as they were"
        LOGGER.warning("frozen though %s: %s", what, listed(anew))


def _tell(data: OpenedData, experiment: ExperimentConfig, requested: ExperimentConfig) -> None:
    """Says what was found, and what was not used and why."""
    names, kind = data.training.class_names, experiment.model.kind.noun
    what = "captions" if experiment.model.kind.has_captions else "classes"
    classes = f"{len(names)} {what} ({listed(names)})" if names else f"no {what}"
    beside = f", {len(data.pictures)} pictures beside them" if data.pictures is not None else ""
    LOGGER.info(
        "found in %s: %d %s to train on, %d held out%s, %s",
        *(experiment.data.path, len(data.training), kind, len(data.held_out), beside, classes),
    )
    if experiment.training.precision == "auto" and device().type == "cpu" and multiplies_bfloat16(device()):
        LOGGER.info("matrix products in bfloat16, which is faster here; in float32 with --training.precision float32")
    for note in data.notes:
        LOGGER.warning("%s", note)
    if requested.model.num_classes and requested.data.labels and not names:
        LOGGER.warning("so the model has none either, though model.num_classes is %d", requested.model.num_classes)
    elif names and not experiment.model.kind.is_labelled:
        LOGGER.warning("these classes are not used: model.num_classes is 0")
