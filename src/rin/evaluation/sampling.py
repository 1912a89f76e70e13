"""Many samples, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from rin.core.denoiser import Condition, check_labels
from rin.core.distributed import gather, rank, world_size
from rin.core.errors import RinError
from rin.core.progress import progress_bar
from rin.core.seeds import picture_seeds
from rin.core.shapes import Examples, Pictures
from rin.data import to_pictures
from rin.diffusion import Diffusion, SamplingOptions, SamplingStep
from rin.nn import RIN


class Sampled(NamedTuple):
    """Samples as pictures."""

    pictures: Pictures
    """The samples (b c h w)."""

    frames: list[Pictures]
    """All samples at some steps on the way, the last ones at the end; empty if not asked for."""


def seeded_steps(
    model: RIN,
    process: Diffusion,
    labels: Sequence[int] | None,
    num: int,
    seed: int,
    first: int,
    context: Examples | None = None,
    shape: Sequence[int] | None = None,
    **options: Unpack[SamplingOptions],
) -> Iterator[SamplingStep]:
    """Draws pictures or clips `first` to `first + num` of a seed, step by step; each starts from its own noise.

    Args:
        model: the network, in evaluation mode.
        process: its diffusion.
        labels: the class of each; None asks for none.
        num: how many.
        seed: of the noise.
        first: the number of the first picture of that seed.
        context: the frames that each goes on from, in [-1, 1] (b c f h w).
        shape: of each; the network's if None. One of clips draws pictures (c 1 h w), too, if it has learned from them.
        **options: see `SamplingOptions`.

    Raises:
        RinError: a class that the model does not have, or options that it cannot follow.
    """
    check_labels(list(labels or []), model.config.num_classes)
    asked = None if labels is None else torch.tensor(labels)
    condition = Condition(labels=asked, context=context).to(next(model.parameters()).device)
    seeded: SamplingOptions = {"seeds": picture_seeds(seed, first, num), **options}
    return process.steps(model, (num, *(shape or model.config.shape)), condition, **seeded)


def sample_pictures(
    model: RIN,
    process: Diffusion,
    labels: Sequence[int] | None,
    num: int,
    seed: int,
    batch_size: int,
    num_frames: int = 0,
    first: int = 0,
    **options: Unpack[SamplingOptions],
) -> Sampled:
    """Draws `num` samples, shared out over the processes; every process gets all of them.

    Picture p of a seed is the same at any batch size and number of processes, to within a grey level.

    Args:
        model: the network, in evaluation mode.
        process: its diffusion.
        labels: the class of each; None asks for none.
        num: how many.
        seed: of the noise.
        batch_size: how many at a time.
        num_frames: how many moments of the denoising to keep, spread over its steps; 0 for none.
        first: the number of the first picture of that seed.
        **options: see `SamplingOptions`.

    Raises:
        RinError: a number below 1, a class that the model does not have, or options that it cannot follow.
    """
    num_steps = options.get("num_steps") or process.config.num_steps
    kept = {round(moment) for moment in torch.linspace(0, num_steps - 1, min(num_frames, num_steps)).tolist()}
    finished: list[Pictures] = []
    moments: list[list[Pictures]] = []
    shares = share_out(num, batch_size, labels, fill=options.get("compile", False))
    with progress_bar("sampling", len(shares) * num_steps) as bar:
        for share in shares:
            frames: list[Pictures] = []
            step = None
            begin = first + share.first
            drawn = seeded_steps(model, process, share.labels, len(share.places), seed, begin, **options)
            for number, step in enumerate(drawn):
                if number in kept:
                    frames.append(to_pictures(step.x_t[: share.count].cpu()))
                bar.advance()
            assert step is not None
            finished.append(to_pictures(step.x_0[: share.count].cpu()))
            moments.append([*frames, finished[-1]] if num_frames else [])
    return Sampled(of_all(finished, num), [of_all(batch, num) for batch in zip(*moments, strict=True)])


@dataclass(frozen=True)
class Share:
    """Samples that a process draws at a time."""

    first: int
    """The number of the first one."""

    count: int
    """How many of those drawn are wanted: compiled, the last batch is filled up to the shape of the others."""

    places: list[int]
    """Which of the labels and contexts each one drawn has."""

    labels: list[int] | None
    """The class of each."""


def share_out(num: int, batch_size: int, labels: Sequence[int] | None, fill: bool) -> list[Share]:
    """This process's batches of `num` samples; as many for every process, who may have to compute together.

    Args:
        num: samples of all processes.
        batch_size: how many at a time.
        labels: the class of each sample; None asks for none.
        fill: fill up the last batch to the shape of the others.

    Raises:
        RinError: a number below 1, or not as many labels as samples.
    """
    for what, number in (("samples", num), ("samples at a time", batch_size)):
        if number < 1:
            raise RinError(f"{number} {what}: take 1 or more")
    if labels is not None and len(labels) != num:
        raise RinError(f"{len(labels)} labels for {num} samples: give one a sample")
    share = -(-num // world_size())
    shares: list[Share] = []
    for numbers in torch.arange(rank() * share, (rank() + 1) * share).split(batch_size):
        first, count = int(numbers[0]), len(numbers)
        places = [min(first + n, num - 1) for n in range(min(batch_size, share) if fill else count)]
        asked = None if labels is None else [labels[place] for place in places]
        shares.append(Share(first, count, places, asked))
    return shares


def of_all(parts: Sequence[Tensor], num: int) -> Tensor:
    """What all processes have drawn, in order."""
    return gather(torch.cat(list(parts))).flatten(0, 1)[:num]


def spread_labels(classes: Sequence[int], num: int) -> list[int]:
    """`num` labels spread evenly over `classes`, in their order; the first classes get one more if need be.

    Raises:
        RinError: there are no classes.
    """
    if not classes:
        raise RinError("no classes to spread labels over: give one or more")
    share, more = divmod(num, len(classes))
    return [label for place, label in enumerate(classes) for _ in range(share + (place < more))]
