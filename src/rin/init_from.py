"""Training that starts from the weights of another model."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from rin.core.errors import RinError
from rin.core.progress import LOGGER
from rin.data.encoded import listed
from rin.experiment import ExperimentConfig, differences
from rin.trained_model import load


def start_from(source: str, model: nn.Module, experiment: ExperimentConfig, class_names: Sequence[str]) -> None:
    """Gives a network the averaged weights of a trained one of the same configuration; dropout may be another.

    Args:
        source: a run, a saved model, or the name of one, see `rin.load`.
        model: what gets the weights.
        experiment: what is to be trained.
        class_names: of its data, in the order of their numbers.

    Raises:
        RinError: there is no such model, or its network, what it predicts or its classes are others.
    """
    begun = load(source, device="cpu")
    rates = {name: getattr(experiment.model, name) for name in ("dropout_rate", "depth_drop_rate")}
    diffusion = replace(experiment.diffusion, prediction=begun.diffusion.config.prediction)
    as_it_was = replace(experiment, model=replace(begun.config, **rates), diffusion=diffusion)
    if changed := differences(as_it_was, experiment):
        raise RinError(f"init_from {source}: its network is another ({'; '.join(changed)}): give the same options")
    if begun.class_names and list(begun.class_names) != list(class_names):
        raise RinError(
            f"init_from {source}: its classes are {listed(begun.class_names)}, and those of the data are "
            f"{listed(class_names)}: give data of the same classes"
        )
    model.load_state_dict(begun.model.state_dict())
    LOGGER.info("starting from the averaged weights of %s", source)
