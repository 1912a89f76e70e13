"""What a model is asked for while it is measured: its classes in turn, or the captions of its run's own data."""

import copy
import dataclasses
from pathlib import Path

import torch

from rin.core.errors import RinError
from rin.data import MediaSet
from rin.model_files import CONFIG, read_experiment
from rin.run_data import check_data, open_run_data
from rin.sampling.requests import spread_labels
from rin.trained_model import TrainedModel


def asked_for(trained: TrainedModel, run: Path, num: int) -> tuple[TrainedModel, list[int] | None]:
    """The labels of `num` pictures to be measured, and the model that knows what they stand for.

    Classes are spread evenly. Captions are those of the pictures that the run has learned from, evenly spaced.

    Args:
        trained: the model.
        run: its folder, which tells its data.
        num: how many.

    Returns:
        The model, and the labels; None of a model without a condition.

    Raises:
        RinError: the model draws by captions whose data are not at hand, or by embeddings, which no command has.
    """
    kind = trained.kind
    if kind.num_classes:
        return trained, spread_labels(range(kind.num_classes), num)
    if not kind.is_labelled:
        return trained, None
    if not kind.has_captions:
        raise RinError(
            "this model draws by embeddings, which are at hand in Python alone: draw there, and measure the pictures"
        )
    experiment = read_experiment(run) if (run / CONFIG).is_file() else None
    if experiment is None:
        raise RinError("this model is measured with the captions that its run has learned from: give the run")
    opened = open_run_data(
        dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, memory_gib=0.0))  # labels alone count
    )
    check_data(run, opened.identity)
    places = torch.linspace(0, len(opened.training) - 1, num).round().long()
    labels = torch.cat([opened.training.get(some)[1] for some in places.split(1000)])
    return reading(trained, opened.training), labels.tolist()


def reading(trained: TrainedModel, data: MediaSet) -> TrainedModel:
    """The model, whose labels are those of a set where it draws by captions."""
    captioned = copy.copy(trained)
    captioned.kind = trained.kind.reading(data.class_names)
    return captioned
