"""What a model is asked for while it is measured: its classes in turn, or the captions of its run's own data."""

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch

from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.model_files import read_experiment
from rin.run_data import check_data, open_run_data
from rin.sampling.requests import spread_labels
from rin.trained_model import TrainedModel

_AT_A_TIME = 1000
"""Examples that are read in a go."""


class DrawnBy(NamedTuple):
    """The labels of samples to be measured."""

    kind: Kind
    """The model's, which knows what the labels stand for."""

    labels: list[int] | None
    """One a sample; None of a model without a condition."""


def asked_for(kind: Kind, run: Path | None, num: int) -> DrawnBy:
    """What `num` pictures to be measured are drawn by.

    Classes are spread evenly. Captions are those of the pictures that the run has learned from, evenly spaced.

    Args:
        kind: the model's.
        run: the folder of its run, which tells its data; None if there is none.
        num: how many.

    Raises:
        RinError: a number below 2, captions that are not at hand, or a model that draws by embeddings.
    """
    if num < 2:
        raise RinError(f"--num {num}: measures need 2 pictures or more")
    if not has_labels_of_data(kind):
        return DrawnBy(kind, spread_labels(range(kind.num_classes), num) if kind.num_classes else None)
    why = "this model is measured with the captions that its run has learned from"
    experiment = None if run is None else read_experiment(run)
    if run is None or experiment is None:
        raise RinError(f"{why}: give the run")
    data = dataclasses.replace(experiment.data, memory_gib=0.0)  # a part of it is read, once
    try:
        opened = open_run_data(dataclasses.replace(experiment, data=data))
    except RinError as error:
        raise RinError(f"{why}: {error}") from error
    check_data(run, opened.identity)
    places = torch.linspace(0, len(opened.training) - 1, num).round().long()
    labels = torch.cat([opened.training.get(some)[1] for some in places.split(_AT_A_TIME)])
    return DrawnBy(kind.reading(opened.training.class_names), labels.tolist())


def has_labels_of_data(kind: Kind) -> bool:
    """Whether a model's labels stand for what a data set has, captions, and not for classes.

    Raises:
        RinError: it draws by embeddings that no text encoder makes.
    """
    if kind.num_condition_tokens and not kind.text_encoder:
        raise RinError(
            "this model draws by embeddings of your own, which no command has: draw from it in Python, and measure the "
            "samples"
        )
    return kind.has_captions


def of_kind(trained: TrainedModel, kind: Kind) -> TrainedModel:
    """The same model under a kind that knows its captions; the one that is given stays as it is."""
    captioned = copy.copy(trained)
    captioned.kind = kind
    return captioned
