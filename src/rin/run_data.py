"""What a run was begun as, and the data that it learns from: opened, and held to be the same."""

from dataclasses import dataclass, replace
from pathlib import Path

from rin.core.errors import RinError
from rin.data import MediaSet, OpenedData, open_data
from rin.data.degrading import parse_degrade
from rin.data.identity import DataIdentity, changes
from rin.data.opening import open_held_out
from rin.experiment import ExperimentConfig, from_dict
from rin.model_files import NETWORK, read_config, read_experiment

IDENTITY = "data_identity"
"""Where the `config.json` of a run tells what it learns from; runs from before there was that tell class names only."""


@dataclass(frozen=True)
class BegunRun:
    """What a run's folder says that it is."""

    experiment: ExperimentConfig
    class_names: list[str]
    identity: DataIdentity | None
    network: str | None


def begun_run(folder: Path) -> BegunRun | None:
    """What the run in a folder was begun as; None if there is none."""
    experiment = read_experiment(folder)
    if experiment is None:
        return None
    stored = read_config(folder)
    identity = from_dict(DataIdentity, stored[IDENTITY]) if IDENTITY in stored else None
    return BegunRun(experiment, stored["class_names"], identity, stored.get(NETWORK))


def with_condition(experiment: ExperimentConfig) -> ExperimentConfig:
    """The experiment whose model takes the condition pictures that its data make, if any.

    Raises:
        RinError: its pictures cannot be degraded so, or its model takes condition pictures of another shape.
    """
    degradation, model = parse_degrade(experiment.data.degrade), experiment.model
    if degradation is None:
        return experiment
    made = degradation.shape(model.shape)
    if model.condition_shape not in ((), made):
        raise RinError(
            f"model.condition_shape is {model.condition_shape}, and data.degrade {experiment.data.degrade!r} makes "
            f"{made}: leave model.condition_shape out"
        )
    return replace(experiment, model=replace(model, condition_shape=made))


def open_run_data(experiment: ExperimentConfig) -> OpenedData:
    """The data of an experiment, decoded to the model's shape.

    Raises:
        RinError: it cannot be read.
    """
    return open_data(experiment.data, experiment.model.kind.data_shape)


def held_out_of(run: Path, experiment: ExperimentConfig) -> MediaSet:
    """What a run holds out, decoded to the shape of what its model learns from; nothing else is decoded.

    Raises:
        RinError: it cannot be read, or the set is not what the run has learned from any more.
    """
    held_out, identity = open_held_out(experiment.data, experiment.model.kind.data_shape)
    check_data(run, identity)
    return held_out


def check_data(run: Path, identity: DataIdentity | None) -> None:
    """Makes sure that a set is still what a run has learned from, as far as that is known.

    Raises:
        RinError: it is not.
    """
    before = begun_run(run)
    if before is None or before.identity is None or identity is None:
        return
    if changed := changes(before.identity, identity, with_classes=before.experiment.model.kind.is_labelled):
        raise no_longer(before.experiment.data.path, run, changed)


def no_longer(path: str, run: Path, changed: list[str], way_out: str = "") -> RinError:
    """What to say of a set that is another than that of a run."""
    return RinError(
        f"{path} is no longer what the run in {run} learns from ({'; '.join(changed)}): give the set as it was{way_out}"
    )
