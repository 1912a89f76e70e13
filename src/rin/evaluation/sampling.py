"""Many samples, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from rin.core.denoiser import Condition, check_labels
from rin.core.distributed import gather, rank, world_size
from rin.core.errors import RinError
from rin.core.progress import progress_bar
from rin.core.seeds import picture_seeds
from rin.core.shapes import Pictures
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
    **options: Unpack[SamplingOptions],
) -> Iterator[SamplingStep]:
    """Draws pictures `first` to `first + num` of a seed, step by step; each starts from its own noise.

    Args:
        model: the network, in evaluation mode.
        process: its diffusion.
        labels: the class of each; None asks for none.
        num: how many.
        seed: of the noise.
        first: the number of the first picture of that seed.
        **options: see `SamplingOptions`.

    Raises:
        RinError: a class that the model does not have, or options that it cannot follow.
    """
    check_labels(list(labels or []), model.config.num_classes)
    condition = None
    if labels is not None:
        condition = Condition(labels=torch.tensor(labels, device=next(model.parameters()).device))
    seeded: SamplingOptions = {"seeds": picture_seeds(seed, first, num), **options}
    return process.steps(model, (num, *model.config.shape), condition, **seeded)


def sample_pictures(
    model: RIN,
    process: Diffusion,
    labels: Sequence[int] | None,
    num: int,
    seed: int,
    batch_size: int,
    num_frames: int = 0,
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
        **options: see `SamplingOptions`.

    Raises:
        RinError: a number below 1, a class that the model does not have, or options that it cannot follow.
    """
    for what, number in (("samples", num), ("samples at a time", batch_size)):
        if number < 1:
            raise RinError(f"{number} {what}: take 1 or more")
    if labels is not None and len(labels) != num:
        raise RinError(f"{len(labels)} labels for {num} samples: give one a sample")
    num_steps = options.get("num_steps") or process.config.num_steps
    kept = {round(moment) for moment in torch.linspace(0, num_steps - 1, min(num_frames, num_steps)).tolist()}
    finished: list[Pictures] = []
    moments: list[list[Pictures]] = []
    share = -(-num // world_size())  # the same for all, who compute together where weights are sharded
    with progress_bar("sampling", -(-share // batch_size) * num_steps) as bar:
        for places in torch.arange(rank() * share, (rank() + 1) * share).split(batch_size):
            # compiled, the last batch is filled up to the shape of the others, which is compiled already
            count, drawn = len(places), min(batch_size, share) if options.get("compile") else len(places)
            first = int(places[0])
            asked = None if labels is None else [labels[min(first + n, num - 1)] for n in range(drawn)]
            frames: list[Pictures] = []
            step = None
            for number, step in enumerate(seeded_steps(model, process, asked, drawn, seed, first, **options)):
                if number in kept:
                    frames.append(to_pictures(step.x_t[:count].cpu()))
                bar.advance()
            assert step is not None
            finished.append(to_pictures(step.x_0[:count].cpu()))
            moments.append([*frames, finished[-1]] if num_frames else [])

    def of_all(parts: Iterable[Tensor]) -> Tensor:
        return gather(torch.cat(list(parts))).flatten(0, 1)[:num]

    return Sampled(of_all(finished), [of_all(batch) for batch in zip(*moments, strict=True)])


def spread_labels(classes: Sequence[int], num: int) -> list[int]:
    """`num` labels spread evenly over `classes`, in their order; the first classes get one more if need be.

    Raises:
        RinError: there are no classes.
    """
    if not classes:
        raise RinError("no classes to spread labels over: give one or more")
    share, more = divmod(num, len(classes))
    return [label for place, label in enumerate(classes) for _ in range(share + (place < more))]
