"""Pictures changed with a trained model, without further training."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.core.shapes import Examples
from rin.diffusion import Given
from rin.diffusion.checks import check_time, whole_number
from rin.sampling.given import MaskLike, PictureLike, examples_of, truths_of
from rin.sampling.pipeline import Pipeline
from rin.sampling.requests import LabelsLike

NUM_ROUNDS = 8
"""How often `inpaint` takes each step; see docs/editing.md."""

THERE_AND_BACK: dict[str, Any] = {"sampler": "dpmpp-2m", "schedule": "karras"}
"""Of `invert` and `interpolate`, unless told: of second order and with short steps by clean data, it leads back to the
picture in few steps (docs/editing.md)."""


def edit(
    trained: Pipeline,
    picture: PictureLike,
    labels: LabelsLike | None = None,
    num: int | None = None,
    *,
    t: float = 0.5,
    **options: Any,
) -> Float[Tensor, "num ..."]:
    """Noises a picture to time t, and samples back from there: what is coarse stays (SDEdit, arXiv 2108.01073).

    All steps are taken between t and 0. At t = 1 it is `trained.sample` with the same seed.

    Args:
        trained: the model, as `rin.load` opens it.
        picture: see `PictureLike`; clips and sets are tensors.
        labels: what it is to become: as of `Pipeline.sample`.
        num: how many variants of one picture, each of noise of its own; as many as there are labels, or one, if None.
        t: time on the schedule of sampling, above 0 and up to 1: the more, the less of the picture is left.
        **options: seed, num_steps, sampler, guidance and what else `Pipeline.sample` takes.

    Returns:
        As of `Pipeline.sample`, in [-1, 1].

    Raises:
        RinError: a picture that cannot be read, or of another size or channels; t outside its range; what
            `Pipeline.sample` refuses.
    """
    check_time(t)
    return trained.sample(labels, num, given=Given(x_0=examples_of(picture, trained.kind), t=t), **options)


def inpaint(
    trained: Pipeline,
    picture: PictureLike,
    mask: MaskLike,
    labels: LabelsLike | None = None,
    num: int | None = None,
    *,
    num_rounds: int = NUM_ROUNDS,
    **options: Any,
) -> Float[Tensor, "num ..."]:
    """Draws a part of a picture anew so that it goes with the rest, which stays as it is (RePaint, arXiv 2201.09865).

    After each step the known part is put back, with fresh noise of the step's level. Then the step is undone, by
    noise on all of the picture, and taken again, `num_rounds` times in all: so the new part comes to agree with the
    known one.

    Args:
        trained: the model, as `rin.load` opens it.
        picture: see `PictureLike`; clips and sets are tensors.
        mask: see `MaskLike`: white, or true, is redrawn.
        labels: what the whole shows: as of `Pipeline.sample`.
        num: how many variants of one picture, each of noise of its own; as many as there are labels, or one, if None.
        num_rounds: how often each step is taken, the last one too: 1 puts the known part back alone.
        **options: seed, num_steps, sampler, guidance and what else `Pipeline.sample` takes.

    Returns:
        As of `Pipeline.sample`, in [-1, 1].

    Raises:
        RinError: a picture or a mask that cannot be read, or of another size or channels; a mask that is empty; what
            `Pipeline.sample` refuses.
    """
    num_rounds = whole_number("num_rounds", num_rounds, least=1)
    x_0 = examples_of(picture, trained.kind)
    redrawn = truths_of(mask, trained.kind, len(x_0))
    return trained.sample(labels, num, given=Given(x_0=x_0, redrawn=redrawn, num_rounds=num_rounds), **options)


def invert(
    trained: Pipeline, picture: PictureLike, labels: LabelsLike | None = None, **options: Any
) -> Float[Tensor, "num ..."]:
    """The noise that a picture is drawn from, by a sampler without chance gone backwards (DDIM inversion).

    `trained.sample(labels, given=rin.Given(noise=noise), sampler="dpmpp-2m", schedule="karras")` draws the picture
    again, nearly: the more steps, the nearer. By another label it draws what that makes of the same noise.

    Args:
        trained: the model, as `rin.load` opens it.
        picture: see `PictureLike`; clips and sets are tensors.
        labels: what it shows: as of `Pipeline.sample`.
        **options: num_steps, sampler (ddim; or heun or dpmpp-2m, on the way to noise both Heun's method, which
            evaluates the network twice a step; if not told, dpmpp-2m), schedule (if not told, karras) and what else
            `Pipeline.sample` takes.

    Returns:
        Noise of deviation about 1, on the CPU.

    Raises:
        RinError: a picture that cannot be read, or of another size or channels; a sampler that draws fresh noise; what
            `Pipeline.sample` refuses.
    """
    given = Given(x_0=examples_of(picture, trained.kind), to_noise=True)
    return trained.sample(labels, given=given, **(THERE_AND_BACK | options))


def interpolate(
    trained: Pipeline,
    first: PictureLike,
    second: PictureLike,
    labels: LabelsLike | None = None,
    num: int = 8,
    **options: Any,
) -> Float[Tensor, "num ..."]:
    """Pictures on the way from one to another, drawn from noise on the way from the noise of one to that of the other.

    Args:
        trained: the model, as `rin.load` opens it.
        first: see `PictureLike`; clips and sets are tensors.
        second: the other one.
        labels: what both show, and all between: as of `Pipeline.sample`.
        num: pictures, 2 or more; the first and the last are the two as `invert` finds them again.
        **options: as of `invert`.

    Returns:
        As of `Pipeline.sample`, in [-1, 1].

    Raises:
        RinError: a picture that cannot be read, or of another size or channels, or more than one on a side; what
            `invert` refuses.
    """
    num, kind = whole_number("num", num, least=2), trained.kind
    ends = [examples_of(picture, kind, name) for picture, name in ((first, "first"), (second, "second"))]
    if any(len(end) > 1 for end in ends):
        raise RinError("a batch of pictures: interpolate goes from one picture to one other")
    options = THERE_AND_BACK | options
    noise = invert(trained, torch.cat(ends), labels, **options)
    between = spherical(noise[:1], noise[1:], torch.linspace(0, 1, num))
    return trained.sample(labels, num, given=Given(noise=between), **options)


def spherical(first: Examples, second: Examples, shares: Float[Tensor, " num"]) -> Float[Tensor, "num ..."]:
    """Noise on the great circle from one to another, whose length goes from that of one to that of the other.

    Args:
        first: one (1 ...).
        second: the other (1 ...).
        shares: how far to go, from 0 to 1.
    """
    directions = [torch.nn.functional.normalize(end.double().flatten(), dim=0) for end in (first, second)]
    angle = (directions[0] @ directions[1]).clamp(-1, 1).acos()
    shares = shares.double().reshape(-1, *[1] * (first.ndim - 1))
    if angle.sin() < 1e-6:  # one direction, or opposite ones: there is no circle to follow
        return ((1 - shares) * first + shares * second).float()
    of_first, of_second = ((share * angle).sin() / angle.sin() for share in (1 - shares, shares))
    return (of_first * first + of_second * second).float()
