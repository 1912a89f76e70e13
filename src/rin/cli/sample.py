"""`rin sample`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from rin.cli.arguments import SamplingArguments, parse
from rin.core.compute import device
from rin.core.denoiser import check_labels
from rin.core.distributed import is_first
from rin.core.errors import RinError, unknown
from rin.core.launch import processes
from rin.diffusion import SamplingOptions
from rin.evaluation.outputs import check_output, wants_frames, write_clips, write_samples
from rin.evaluation.rollout import num_blocks, sample_clips
from rin.evaluation.sampling import sample_pictures, spread_labels
from rin.prediction import held_out_frames, last_frames
from rin.trained import Trained, load

_FRAMES = 60


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """Draws samples from a run, a saved model or a model on the Hub."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, or a Hub name owner/name."""

    out: Path = Path("samples.png")
    """.png: a grid; .gif: its denoising; .npz: arrays; without an ending: a folder of pictures. Of clips: .gif and .mp4
    play them, .png is a contact sheet, a folder has their frames."""

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

    num: int | None = None
    """How many, spread evenly over the classes; if absent 64 pictures or 8 clips."""

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
    clips = len(trained.model.config.shape) == 4
    num = (8 if clips else 64) if chosen.num is None else chosen.num
    if num < 1:
        raise RinError(f"--num {num}: take 1 or more")
    classes = parse_classes(chosen.classes, trained)
    labels = spread_labels(classes, num) if classes else None
    where = device()
    options = chosen.sampling.options(where)
    one_row_a_class = len(classes) > 1 and num % len(classes) == 0
    columns = num // len(classes) if one_row_a_class else None
    draw = _clips if clips else _pictures
    draw(chosen, trained, labels, num, columns, options)
    if is_first():
        print(f"{num} {'clip' if clips else 'sample'}{'s' * (num > 1)} in {chosen.out}")


def _pictures(
    chosen: SampleArguments,
    trained: Trained,
    labels: list[int] | None,
    num: int,
    columns: int | None,
    options: SamplingOptions,
) -> None:
    for name, given in (("--context", chosen.context), ("--frames", chosen.frames)):
        if given is not None:
            raise RinError(f"{name} is for models of clips, and this one draws pictures: leave it out")
    check_output(chosen.out, trained.model.config.shape, num, 1, columns)
    moments = _FRAMES if wants_frames(chosen.out) else 0
    seed, batch_size = chosen.sampling.seed, chosen.sampling.batch_size
    sampled = sample_pictures(trained.model, trained.process, labels, num, seed, batch_size, moments, **options)
    if is_first():
        write_samples(sampled, labels, trained.class_names, columns, chosen.out)


def _clips(
    chosen: SampleArguments,
    trained: Trained,
    labels: list[int] | None,
    num: int,
    columns: int | None,
    options: SamplingOptions,
) -> None:
    config = trained.model.config
    num_frames = config.shape[1] if chosen.frames is None else chosen.frames
    num_blocks(config, num_frames)  # refuses what cannot be drawn
    check_output(chosen.out, config.shape, num, config.num_context_frames + num_frames, columns)
    context = None
    if chosen.context is not None:
        context = last_frames(chosen.context, trained).expand(num, -1, -1, -1, -1)
    elif config.num_context_frames:
        context = held_out_frames(trained, Path(chosen.run), num, labels)
    seed, batch_size = chosen.sampling.seed, chosen.sampling.batch_size
    drawn = sample_clips(trained.model, trained.process, labels, context, num, num_frames, seed, batch_size, **options)
    if is_first():
        clips = drawn if context is None else torch.cat([context, drawn], dim=2)
        given = 0 if context is None else context.shape[2]
        write_clips(clips, given, labels, trained.class_names, columns, chosen.fps, chosen.out)


def parse_classes(text: str | None, trained: Trained) -> list[int]:
    """The classes that a text like "0-9", "3,5" or "cat,dog" asks for; all for None.

    Raises:
        RinError: there is no such class.
    """
    num_classes = trained.model.config.num_classes
    if text is None:
        return list(range(num_classes))
    classes: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if part in trained.class_names:
            classes.append(trained.class_names.index(part))
        elif first.isdecimal() and (last.isdecimal() if dash else True):
            classes.extend(range(int(first), int(last if dash else first) + 1))
        elif trained.class_names:
            raise unknown("class", part, trained.class_names)
        else:
            raise RinError(f"--classes {text}: write numbers, as in 0-9 or 3,5")
    check_labels(classes, num_classes)
    if not classes:
        raise RinError(f"--classes {text}: no class is left")
    return classes
