"""How near pictures that a run draws from others are to the held-out pictures that these belong to."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from rin.core.errors import RinError
from rin.core.pixels import to_floats, to_pictures
from rin.core.shapes import Pictures
from rin.data.degrading import downscaled, held_out_degraded, parse_degrade
from rin.evaluation.asked import has_labels_of_data, of_kind
from rin.experiment import ExperimentConfig
from rin.run_data import held_out_of
from rin.trained_model import TrainedModel


def measured_restored(
    trained: TrainedModel, run: Path, experiment: ExperimentConfig, num: int | None, **options: Any
) -> dict[str, Any]:
    """The PSNR of drawn pictures, as JSON has it; of smaller ones beside that of bicubic enlargement.

    Args:
        trained: the run's model.
        run: its folder.
        experiment: what it was trained as.
        num: held-out pictures, one drawn for each; all if None.
        **options: of `TrainedModel.sample`.

    Raises:
        RinError: its data has no pictures to draw from or cannot be read, or it holds out too few.
    """
    degradation = parse_degrade(experiment.data.condition_by)
    if degradation is None:
        raise RinError(f"{run} was trained without data.degrade and data.condition: there is nothing to draw from")
    held_out = held_out_of(run, experiment)
    num = len(held_out) if num is None else num
    if not 0 < num <= len(held_out):
        raise RinError(f"--num {num}: {run} holds out {len(held_out)} pictures: take 1 to as many")
    places = torch.arange(num)
    stored, labels = held_out.get(places)
    pictures = to_pictures(stored).cpu()
    low = held_out_degraded(pictures, experiment.data.condition_by, places)
    assert low is not None  # it is checked
    asked = labels.tolist() if trained.kind.num_classes else None
    if has_labels_of_data(trained.kind):
        trained, asked = of_kind(trained, trained.kind.reading(held_out.class_names)), labels.tolist()
    drawn = to_pictures(trained.sample(asked, condition=to_floats(low), **options))
    pictures = pictures[:, : trained.kind.shape[0]]
    found = {"num": num, "degrade": experiment.data.condition_by, "psnr": psnr(drawn, pictures).mean().item()}
    if degradation.factor == 1:
        return found
    away = (downscaled(drawn, degradation.factor).float() - low.float()).abs()
    return found | {
        "psnr_of_bicubic": psnr(bicubic(low, degradation.factor), pictures).mean().item(),
        "levels_away_from_condition": away.mean().item(),
    }


def psnr(pictures: Pictures, originals: Pictures) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each picture (b) in dB, over its pixels and channels; infinite of equal ones."""
    squares = (pictures.double() - originals.double()).square().flatten(1).mean(dim=1)
    return (10 * torch.log10(255**2 / squares)).float()


def bicubic(pictures: Pictures, factor: int) -> UInt8[Tensor, "b c down across"]:
    """Pictures enlarged by Pillow's bicubic filter (a = -0.5)."""
    size = [side * factor for side in pictures.shape[-2:]]
    enlarged = F.interpolate(pictures.float(), size, mode="bicubic", antialias=True)  # without, a is -0.75
    return enlarged.round().clamp(0, 255).to(torch.uint8)


def describe_restored(found: dict[str, Any]) -> str:
    """The measures, a line each."""
    lines = [
        f"of {found['num']} held-out pictures ({found['degrade']}), in the mean:",
        f"  PSNR of drawn pictures       {found['psnr']:6.2f} dB",
    ]
    if "psnr_of_bicubic" in found:
        lines += [
            f"  PSNR of bicubic enlargement  {found['psnr_of_bicubic']:6.2f} dB",
            f"  drawn, made smaller again, {found['levels_away_from_condition']:.2f} levels of 255 away",
        ]
    return "\n".join(lines)
