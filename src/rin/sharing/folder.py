"""The card of a model and its picture, written into the folder that is shared."""

import os
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.core.values import Values
from rin.diffusion.checks import whole_number
from rin.model_files import network_name, weights_digest
from rin.nn import RINConfig
from rin.sampling.outputs import save
from rin.sampling.pipeline import Pipeline
from rin.sampling.requests import spread_labels
from rin.sharing.card import CARD, ModelCard
from rin.sharing.facts import Origin, RunFacts, network_in_words, what_it_draws
from rin.sharing.measured import what_was_measured

_A_CLASS, _MOST_CLASSES, _PICTURES, _CLIPS = 8, 16, 64, 8
"""Samples of each class where they are few, and samples in all else."""


def check_shareable(kind: Kind, num: int | None, prompt: str | None) -> None:
    """Refuses, before anything is written, a model that nobody else could open, and samples that it cannot draw.

    Raises:
        RinError: its text encoder is a folder of this machine, a prompt is given to a model that reads none, or `num`
            is below 0.
    """
    if num is not None:
        whole_number("num", num, least=0)
    if prompt is not None and not kind.has_captions:
        raise RinError("a prompt is for models that have learned from captions, and this one has not: leave it out")
    encoder = kind.text_encoder
    if encoder and (os.path.isabs(encoder) or os.path.exists(encoder)):
        raise RinError(
            f"the model reads captions through {encoder}, a folder of this machine that others do not have: put the "
            "encoder's name on the Hub into config.json, as text_encoder of model"
        )


def write_card(
    pipeline: Pipeline,
    model: nn.Module,
    config: RINConfig,
    values: Values,
    origin: Origin | None,
    folder: Path,
    name: str,
    *,
    license: str | None,
    prompt: str | None,
    num: int | None,
) -> None:
    """Writes README.md and, of a model that draws without further files, samples.png or .gif.

    Args:
        pipeline: what is shared.
        model: its network.
        config: of that.
        values: what the numbers of its data mean.
        origin: where it was opened; None for a model made in Python, of whose training nothing is known.
        folder: where the model's own files are.
        name: on the Hub.
        license: of the weights, as the Hub writes it; None says nothing.
        prompt: the caption of the samples, of a model that draws by captions.
        num: samples; eight a class up to sixteen classes, else 64 pictures or 8 clips, if None.

    Raises:
        RinError: the folder cannot be written.
    """
    network, facts = network_name(model), RunFacts(origin)
    drawing = _draw(pipeline, values, folder, name, prompt, num) if network is None else None
    sections = {
        "Network.": network_in_words(config, pipeline.diffusion.config, network),
        "Data.": facts.data(),
        "Training.": facts.training(),
    }
    if origin is not None and (measured := what_was_measured(origin.folder, weights_digest(model), name)):
        sections["Measured"] = f"by\n\n{measured}"
    sections["Use."] = _use(pipeline.kind, name, network, license)
    card = ModelCard(
        name=name.partition("/")[2],
        draws=what_it_draws(pipeline.kind, pipeline.class_names),
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        picture="" if drawing is None else drawing[0],
        drawing="" if drawing is None else drawing[1],
        sections=sections,
        metadata=_metadata(pipeline.kind, facts.hub_data, license),
    )
    try:
        (folder / CARD).write_text(card.text(), encoding="utf-8")
    except OSError as error:
        raise RinError(f"cannot write {folder / CARD}: {error.strerror or error}") from error


def _draw(
    pipeline: Pipeline, values: Values, folder: Path, name: str, prompt: str | None, num: int | None
) -> tuple[str, str] | None:
    """The file of samples, and the command of rin that draws the same; None where that needs more than the model."""
    kind = pipeline.kind
    needs_more = kind.context_shape or (prompt is None and (kind.has_captions or kind.num_condition_tokens))
    if needs_more or num == 0:
        return None
    classes = kind.num_classes
    if num is None:
        num = _A_CLASS * classes if 0 < classes <= _MOST_CLASSES else _CLIPS if kind.is_video else _PICTURES
    file = "samples.gif" if kind.is_video else "samples.png"
    labels = spread_labels(range(classes), num) if classes else None
    samples = pipeline.sample(labels if prompt is None else prompt, num, seed=0)
    columns = num // classes if classes > 1 and num % classes == 0 else None  # one row a class, as rin sample does it
    save(samples, folder / file, labels=labels, class_names=pipeline.class_names, columns=columns, values=values)
    asked = [] if prompt is None else ["--prompt", prompt]
    return file, shlex.join(["rin", "sample", name, *asked, "--num", str(num), "--seed", "0", "--out", file])


def _use(kind: Kind, name: str, network: str | None, license: str | None) -> str:
    """How the model is drawn with, by whoever has rin."""
    needs = {
        "--prompt TEXT": kind.has_captions,
        "--context CLIP.mp4": kind.num_context_frames,
        "--condition PICTURE.png": kind.condition_shape,
    }
    options = "".join(f" {option}" for option, is_needed in needs.items() if is_needed)
    out = "samples.gif" if kind.is_video else "samples.png"
    by_command = f"`rin sample {name}{options} --out {out}`, or in Python " if network is None else "In Python "
    given = "" if network is None else ", model=..."
    licence = f" Licence of the weights: {license}." if license else ""
    return (
        f"Saved by rin {version('rin-diffusion')} (the package rin-diffusion). {by_command}"
        f'`rin.load("{name}"{given})`, whose `sample` draws.{licence}'
    )


def _metadata(kind: Kind, hub_data: str | None, license: str | None) -> dict[str, Any]:
    """What the Hub reads; of its tasks only one that is this model's."""
    tasks = {
        "text-to-image": kind.is_image and kind.has_captions,
        "image-to-image": kind.is_image and bool(kind.condition_shape),
        "text-to-video": kind.is_video and kind.has_captions,
        "unconditional-image-generation": kind.is_image and not kind.is_labelled,
    }
    fitting = [task for task, fits in tasks.items() if fits and not kind.is_signal]
    return {
        "library_name": "rin",
        "tags": ["diffusion", "recurrent-interface-network"],
        **({"pipeline_tag": fitting[0]} if fitting else {}),
        **({"datasets": [hub_data]} if hub_data else {}),
        **({"license": license} if license else {}),
    }
