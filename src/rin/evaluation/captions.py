"""Whether a run on the generated set "captions" draws what its sentences say."""

from pathlib import Path
from typing import Any

import torch

from rin.core.errors import RinError
from rin.core.pixels import to_pictures
from rin.experiment import ExperimentConfig
from rin.run_data import check_data, open_run_data
from rin.toys.captions import is_shown
from rin.trained_model import TrainedModel


def measured_captions(
    trained: TrainedModel, run: Path, experiment: ExperimentConfig, num: int, **options: Any
) -> dict[str, Any]:
    """The share of pictures that show what was asked for, as JSON has it.

    Args:
        trained: the run's model.
        run: its folder.
        experiment: what it was trained as.
        num: pictures of sentences that were trained on, and as many of such that were held out.
        **options: of `TrainedModel.sample`.

    Raises:
        RinError: its data cannot be read, or it holds nothing out.
    """
    data = open_run_data(experiment)
    check_data(run, data.identity)
    if not len(data.held_out):
        raise RinError(f"{run} holds no pictures out, whose sentences could be asked for: train with some held out")
    found: dict[str, Any] = {"num": num}
    for name, part in (("trained_on", data.training), ("held_out", data.held_out)):
        places = torch.linspace(0, len(part) - 1, num).round().long()
        pictures, labels = part.get(places)
        sentences = [part.class_names[label] for label in labels.tolist()]
        drawn = to_pictures(trained.sample(sentences, **options))
        found[name] = {
            "right": float(is_shown(drawn.numpy(), sentences).mean()),
            "right_of_real_ones": float(is_shown(to_pictures(pictures).numpy(), sentences).mean()),
            "sentences": len(set(sentences)),
        }
    return found


def describe_captions(found: dict[str, Any]) -> str:
    """The shares, a line each."""
    lines = [f"pictures that show what their sentence says, of {found['num']} each:"]
    for name, words in (("trained_on", "sentences trained on"), ("held_out", "sentences held out")):
        of_name = found[name]
        real = f"(of real ones {of_name['right_of_real_ones']:.1%})"
        lines.append(f"  {of_name['sentences']:>4} {words:<24}{of_name['right']:>8.1%}  {real}")
    return "\n".join(lines)
