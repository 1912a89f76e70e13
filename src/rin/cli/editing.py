"""What `rin edit` and `rin inpaint` share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from rin.cli.arguments import SamplingArguments, quoted
from rin.cli.sample import check_prompt, denoising_of, parse_classes
from rin.core.distributed import is_first
from rin.core.errors import RinError
from rin.core.pixels import to_pictures
from rin.core.shapes import Examples
from rin.sampling.outputs import check_output, save
from rin.sampling.pictures import save_image
from rin.sampling.requests import spread_labels
from rin.trained_model import TrainedModel, load


@dataclass(frozen=True, kw_only=True)
class EditingArguments:
    """A picture changed."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, the name of a model that comes with rin, as in digits, or a Hub name
    owner/name."""

    picture: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")]
    """The picture, of the size and the channels that the model draws."""

    out: Path = Path("changed.png")
    """.png: the picture, of several a grid; .gif: how it comes about; .npz: arrays; without an ending: a folder of
    pictures."""

    classes: str | None = None
    """Classes by number or name, as in 3,5 or cat,dog; without any if absent, which a model can that has learned with
    label dropping."""

    prompt: str | None = None
    """A caption of the picture to be, for models that have learned from captions."""

    num: int | None = None
    """How many variants, spread evenly over the classes; if absent one a class, or one."""

    sampling: tyro.conf.OmitArgPrefixes[SamplingArguments] = field(default_factory=SamplingArguments)
    """How they are drawn."""


def change(chosen: EditingArguments, how: Callable[..., Examples], **options: Any) -> None:
    """Changes a picture and writes the result.

    Args:
        chosen: what is requested.
        how: `rin.edit` or `rin.inpaint`.
        **options: of it.
    """
    trained = load(chosen.run)
    kind, sampling = trained.kind, chosen.sampling
    if not kind.is_image:
        raise RinError(f"this model draws {kind.noun}: change them from Python, where they are tensors")
    if kind.condition_shape:
        raise RinError("this model draws from a picture beside: change pictures from Python, where it is the condition")
    labels = _labels(chosen, trained)
    num = len(labels) if labels is not None and chosen.num is None else 1 if chosen.num is None else chosen.num
    check_output(chosen.out, kind.shape, num, 1, None)
    denoising = denoising_of(chosen.out, trained, sampling)
    changed = how(
        trained, chosen.picture, labels=labels if chosen.prompt is None else chosen.prompt, num=num,
        callback=denoising, **options, **sampling.options,
    )  # fmt: skip
    moments = [] if denoising is None else denoising.moments(num)
    if is_first():
        if num == 1 and chosen.out.suffix and not moments and chosen.out.suffix != ".npz":
            save_image(to_pictures(changed), chosen.out)  # as large as it was: it can be changed again
        else:
            save(
                changed, chosen.out, labels=labels, class_names=trained.class_names, denoising=moments,
                values=trained.values,
            )  # fmt: skip
        print(f"{num} picture{'s' * (num > 1)} in {quoted(chosen.out)}")


def _labels(chosen: EditingArguments, trained: TrainedModel) -> list[int] | None:
    check_prompt(chosen.prompt, trained.kind)
    if chosen.num is not None and chosen.num < 1:
        raise RinError(f"--num {chosen.num}: take 1 or more")
    if chosen.classes is None:
        return None
    classes = parse_classes(chosen.classes, trained)
    return classes if chosen.num is None else spread_labels(classes, chosen.num)
