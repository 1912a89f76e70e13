"""What a run was begun as, and the data that it learns from: opened, and held to be the same."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from rin.core.errors import RinError
from rin.core.names import whole_path
from rin.core.strict_json import read_json
from rin.core.text_encoders import encoder_width
from rin.data import MediaSet, OpenedData, Source, open_data
from rin.data.degrading import parse_degrade
from rin.data.files.identity import DataIdentity, changes
from rin.data.opening import open_held_out
from rin.data.prepared.embedding import Embeddings, embeddings_in
from rin.experiment import ExperimentConfig, from_dict
from rin.model_files import CONFIG, NETWORK, read_config, read_experiment
from rin.nn import RINConfig
from rin.older_configs import no_more_and_on
from rin.training.checks import check_embeddings

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
    if gone := no_more_and_on(read_json(folder / CONFIG)):
        raise RinError(
            f"{folder} was begun with {gone[0]}, which is no more, and cannot go on: draw from it, or start from its "
            "weights by --init-from in another --out"
        )
    identity = from_dict(DataIdentity, stored[IDENTITY], folder / CONFIG) if IDENTITY in stored else None
    return BegunRun(experiment, stored["class_names"], identity, stored.get(NETWORK))


def with_condition(experiment: ExperimentConfig, source: Source | None = None) -> ExperimentConfig:
    """The experiment whose model takes what its data give as a condition: pictures, embeddings or encoded captions.

    Args:
        experiment: as it was asked for.
        source: the data set that was given in place of its data, if one was.

    Raises:
        RinError: its pictures cannot be degraded so, or its model takes condition pictures or embeddings of another
            shape; there is no such text encoder.
    """
    return _with_pictures(replace(experiment, model=_with_embeddings(experiment, source)))


def _with_embeddings(experiment: ExperimentConfig, source: Source | None) -> RINConfig:
    """The model that takes the embeddings of its data, or of its text encoder, in place of classes."""
    model, told = experiment.model, None
    if not experiment.data.labels:
        return model
    if source is not None:
        embedded = source.embedded
        if embedded is not None and model.text_encoder:
            raise RinError("the data has embeddings, and model.text_encoder would make others: give one of them")
        told = None if embedded is None else Embeddings("", *embedded.embeddings.shape[1:])
    elif not (model.text_encoder or model.caption_length):
        told = embeddings_in(Path(os.path.expanduser(experiment.data.path)))
    if told is None and model.text_encoder:
        encoder = whole_path(model.text_encoder)
        told = Embeddings(encoder, model.num_condition_tokens, encoder_width(encoder))
    if told is None or model.caption_length:
        check_embeddings(model.kind, has_any=False)
        return model
    asked = (model.num_condition_tokens, model.condition_dim)
    if any(size not in (0, given) for size, given in zip(asked, told[1:], strict=True)):
        raise RinError(
            f"model.num_condition_tokens and model.condition_dim are {asked}, and the embeddings are {told[1:]}: "
            "leave these options out"
        )
    return replace(
        model, num_classes=0, text_encoder=told.encoder, num_condition_tokens=told.num_tokens, condition_dim=told.width
    )


def _with_pictures(experiment: ExperimentConfig) -> ExperimentConfig:
    degradation, model = parse_degrade(experiment.data.condition_by), experiment.model
    if degradation is None:
        return experiment
    made = degradation.shape(model.shape)
    if model.condition_shape not in ((), made):
        raise RinError(
            f"model.condition_shape is {model.condition_shape}, and the data has pictures of {made} to draw from "
            f"({experiment.data.condition_by}): leave model.condition_shape out"
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
