"""What a run is refused for: what is asked of it, the data that it finds, and the run that its folder holds already."""

import dataclasses
from pathlib import Path

from torch import nn

from rin.core.errors import RinError
from rin.core.names import not_text
from rin.data import OpenedData, with_whole_paths
from rin.data.files.identity import changed_names, changes
from rin.experiment import ExperimentConfig, differences
from rin.nn.size import check_fits
from rin.run_data import BegunRun, no_longer
from rin.training.checks import check_condition

_PATHS = ("path", "pictures_path", "condition")
"""Where the data lies; it may move while a run goes on."""


def check_request(experiment: ExperimentConfig, folder: Path, model: nn.Module | None) -> None:
    """Refuses what cannot be trained, whatever the data are.

    Raises:
        RinError: the network does not fit this machine, options contradict one another, or the folder has no name that
            a file can be written to.
    """
    if model is None:
        check_fits(experiment.model)
    check_condition(experiment.model.kind, experiment.data.condition_by)
    if experiment.data.captions and not experiment.model.kind.has_captions:  # each text would be a class
        raise RinError(
            f"data.captions is {experiment.data.captions!r}, and the model draws by no captions: give it "
            "--model.caption-length, the bytes of the longest, and --model.num-classes 0, or leave the captions out"
        )
    if not_text(str(folder)):  # safetensors opens no such file
        raise RinError(f"cannot write a run to {folder}, which is not UTF-8: give another --out")
    if model is not None and experiment.init_from:
        raise RinError("init_from is for the RIN of the configuration: give a network of your own its weights yourself")
    if model is None and experiment.training.adapter_rank and not experiment.init_from:
        rank = experiment.training.adapter_rank
        raise RinError(f"training.adapter_rank {rank} adapts a trained model: say which by --init-from, or take 0")


def check_captions(experiment: ExperimentConfig, data: OpenedData) -> None:
    """Refuses data without captions for a model that draws by some, and the other way around.

    Raises:
        RinError: one has captions and the other not.
    """
    model, path = experiment.model, experiment.data.path
    if model.kind.has_captions and not data.training.class_names:
        raise RinError(
            f"the model draws by {model.classes_text}, and {path} has no captions to learn from: give data with some, "
            "see docs/captions.md"
        )
    if data.has_captions and not model.kind.has_captions and model.num_classes:
        raise RinError(
            f"{path} has captions, and the model draws by none: give it --model.caption-length, the bytes of the "
            "longest, and --model.num-classes 0, or take --data.no-labels"
        )


def check_same(
    folder: Path,
    before: BegunRun | None,
    experiment: ExperimentConfig,
    class_names: tuple[str, ...],
    data: OpenedData,
    data_moved: bool,
    network: str | None,
) -> None:
    """Makes sure that the run in a folder, if there is one, is of this experiment and on these data.

    Raises:
        RinError: it is not.
    """
    if before is None:
        return
    if before.network != network:
        names = [name or "a RIN of its configuration" for name in (before.network, network)]
        raise RinError(f"{folder} holds a run of {names[0]}, and this is {names[1]}: give the same, or another --out")
    begun = before.experiment
    if before.identity is None:  # it kept paths as they were given, and may need to say now what is black and white
        older = dataclasses.replace(begun.data, value_range=begun.data.value_range or experiment.data.value_range)
        begun = dataclasses.replace(begun, data=with_whole_paths(older))
    if data_moved:
        paths = {name: getattr(experiment.data, name) for name in _PATHS}
        begun = dataclasses.replace(begun, data=dataclasses.replace(begun.data, **paths))
    names = changed_names(before.class_names, class_names)
    if changed := differences(begun, experiment):
        moved = any(option.startswith(tuple(f"data.{name} " for name in _PATHS)) for option in changed)
        raise RinError(
            f"{folder} holds a run of another configuration ({'; '.join([*changed, *names])}): give the same options "
            f"to go on with it{', add --data-moved if its set has moved,' if moved else ','} or another --out"
        )
    if not names and before.identity is not None and data.identity is not None:
        names = changes(before.identity, data.identity, with_classes=experiment.model.kind.is_labelled)
    if names:
        raise no_longer(experiment.data.path, folder, names, ", or another --out")
