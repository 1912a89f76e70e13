"""`rin sample`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from rin.cli.arguments import SamplingArguments, parse, quoted
from rin.core.denoiser import check_labels
from rin.core.distributed import is_first
from rin.core.errors import RinError, unknown
from rin.core.kind import Kind
from rin.core.launch import processes
from rin.core.pixels import to_floats
from rin.core.progress import LOGGER
from rin.core.shapes import Examples
from rin.data.files.folders import picture_files
from rin.evaluation.sweeping import CHOSEN, SWEEP, best_within
from rin.evaluation.videos import check_pictures, held_out_frames, last_frames
from rin.model_files import model_folder
from rin.sampling.denoising import Denoising
from rin.sampling.drawing import num_blocks
from rin.sampling.given import conditions_of
from rin.sampling.outputs import check_output, save, shows_denoising
from rin.sampling.requests import spread_labels
from rin.trained_model import TrainedModel, load


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """Draws samples from a run, a saved model or a model on the Hub."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, the name of a model that comes with rin, as in digits, or a Hub name
    owner/name."""

    out: Path = Path("samples.png")
    """.png: a grid; .gif: its denoising; .npz: arrays; without an ending: a folder of pictures. Of clips: .gif and .mp4
    play them, .png is a contact sheet, a folder has their frames."""

    condition: Path | None = None
    """A picture, or a folder of pictures, to draw from, for models that have learned to: of the size and the channels
    that they take; each picture of a folder in turn, in natural order."""

    context: Path | None = None
    """A video that clips go on from, at its end, each of them its own future; if absent, models that go on from given
    frames take those of the run's held-out clips."""

    frames: int | None = None
    """Frames to draw, for clips: as many as wanted, block after block, where the model goes on from given frames; the
    model's own if absent. 1 draws pictures, for models that have learned from pictures too."""

    fps: float = 8.0
    """Frames a second of .gif and .mp4."""

    classes: str | None = None
    """Classes by number or name, as in 0-9 or 3,5 or cat,dog; all if the model has any."""

    prompt: str | None = None
    """A caption of what to draw, for models that have learned from captions."""

    budget: float | None = None
    """Share of the operations that samples take without this option, as in 0.5: draws in the best way within it that
    rin sweep has measured of this model, and says which."""

    num: int | None = None
    """How many, spread evenly over the classes; if absent 64 pictures or 8 clips, or one from each of --condition."""

    sampling: tyro.conf.OmitArgPrefixes[SamplingArguments] = field(default_factory=SamplingArguments)
    """How they are drawn."""


def sample(arguments: list[str]) -> None:
    """Draws samples and writes them."""
    chosen = parse(SampleArguments, arguments, "rin sample")
    with processes():
        _sample(chosen)


def _sample(chosen: SampleArguments) -> None:
    if not 0.1 <= chosen.fps <= 240:
        raise RinError(f"--fps {chosen.fps}: take 0.1 to 240")
    trained = load(chosen.run)
    sampling = chosen.sampling if chosen.budget is None else _within(chosen.budget, chosen, trained)
    kind = trained.kind
    files = None if chosen.condition is None else picture_files(chosen.condition)
    conditions = conditions_of(files, kind)
    usual = (8 if kind.is_video else 64) if conditions is None else len(conditions)
    num = usual if chosen.num is None else chosen.num
    if num < 1:
        raise RinError(f"--num {num}: take 1 or more")
    if conditions is not None and num % len(conditions):
        raise RinError(f"--num {num}: take a multiple of {len(conditions)}, the pictures of --condition")
    classes = parse_classes(chosen.classes, trained)
    if conditions is not None and chosen.classes is None:
        classes = []  # nobody knows of which class they are
    labels = spread_labels(classes, num) if classes else None
    check_prompt(chosen.prompt, kind)
    columns = num // len(classes) if len(classes) > 1 and num % len(classes) == 0 else None  # one row a class
    num_frames = _num_frames(chosen, kind)
    check_output(chosen.out, kind.shape, num, kind.num_context_frames + num_frames, columns)
    context = _context(chosen, trained, num, labels)
    denoising = denoising_of(chosen.out, trained, sampling)
    samples = trained.sample(
        labels if chosen.prompt is None else chosen.prompt,
        num,
        condition=None if conditions is None else conditions.repeat_interleave(num // len(conditions), dim=0),
        context=context,
        num_frames=num_frames,
        callback=denoising,
        **sampling.options,
    )
    moments = [] if denoising is None else denoising.moments(num)
    if is_first():
        save(
            samples if context is None else torch.cat([context, samples], dim=2), chosen.out,
            labels=labels, class_names=trained.class_names, columns=columns, denoising=moments,
            num_context=0 if context is None else context.shape[2], fps=chosen.fps, values=trained.values,
        )  # fmt: skip
        print(f"{num} {'clip' if kind.is_video else 'sample'}{'s' * (num > 1)} in {quoted(chosen.out)}")


def _within(budget: float, chosen: SampleArguments, trained: TrainedModel) -> SamplingArguments:
    """The sampling that is asked for, in the best way within a budget that has been measured."""
    for name in CHOSEN:
        if getattr(chosen.sampling, name) is not None:
            raise RinError(f"--budget chooses --{name.replace('_', '-')}: give one of them")
    way = best_within(model_folder(chosen.run) / SWEEP, trained, budget, chosen.sampling.guidance)
    LOGGER.info("%s, %d steps", way.words, way.num_steps)
    options = way.options | {"num_latents": way.num_latents}  # in words, as they are asked for
    return replace(chosen.sampling, **{name: options[name] for name in ("guidance", *CHOSEN)})


def _num_frames(chosen: SampleArguments, kind: Kind) -> int:
    if not kind.is_video:
        for name, given in (("--context", chosen.context), ("--frames", chosen.frames)):
            if given is not None:
                raise RinError(f"{name} is for models of clips, and this one draws {kind.noun}: leave it out")
        return 1
    num_frames = kind.num_frames if chosen.frames is None else chosen.frames
    num_blocks(kind, num_frames)  # refuses what cannot be drawn
    if num_frames == 1 < kind.num_frames and not kind.num_context_frames:
        check_pictures(model_folder(chosen.run), kind.num_frames)
    return num_frames


def _context(chosen: SampleArguments, trained: TrainedModel, num: int, labels: list[int] | None) -> Examples | None:
    """The frames that clips go on from: those of a video, or of the run's held-out clips."""
    if chosen.context is not None:
        return to_floats(last_frames(chosen.context, trained).expand(num, -1, -1, -1, -1))
    if trained.kind.num_context_frames:
        return to_floats(held_out_frames(trained, model_folder(chosen.run), num, labels))
    return None


def check_prompt(prompt: str | None, kind: Kind) -> None:
    """Refuses a caption for a model that reads none.

    Raises:
        RinError: it does not.
    """
    if prompt is not None and not kind.has_captions:
        raise RinError("--prompt is for models that have learned from captions, and this one has not: leave it out")


def denoising_of(out: Path, trained: TrainedModel, sampling: SamplingArguments) -> Denoising | None:
    """What keeps the denoising for a file that shows it; None for any other."""
    if not shows_denoising(out, trained.kind.shape):
        return None
    return Denoising(trained.diffusion.config.num_steps if sampling.num_steps is None else sampling.num_steps)


def parse_classes(text: str | None, trained: TrainedModel) -> list[int]:
    """The classes that a text like "0-9", "3,5" or "cat,dog" asks for; all for None.

    Raises:
        RinError: there is no such class, or the model draws by captions.
    """
    num_classes = trained.kind.num_classes
    if text is None:
        return list(range(num_classes))
    if trained.kind.has_captions:
        raise RinError(f"--classes {text}: this model draws by a text and has no classes: give --prompt in its place")
    named = {name: number for number, name in enumerate(trained.class_names)}
    classes: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if part in named:
            classes.append(named[part])
        elif first.isdecimal() and (last.isdecimal() if dash else True):
            ends = [int(end) if len(end) < 20 else num_classes for end in (first, last or first)]
            if not 0 <= ends[1] - ends[0] < max(num_classes, 1):
                raise RinError(f"--classes {text}: {part} is no part of {num_classes} classes, the lower number first")
            # a number that is a name is that class, alone and in a range
            classes.extend(named.get(str(number), number) for number in range(ends[0], ends[1] + 1))
        elif trained.class_names:
            raise unknown("class", part, trained.class_names)
        else:
            raise RinError(f"--classes {text}: write numbers, as in 0-9 or 3,5")
    check_labels(classes, num_classes)
    if not classes:
        raise RinError(f"--classes {text}: no class is left")
    return classes
