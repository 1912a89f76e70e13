"""Samples drawn batch after batch, and clips block after block, shared out over the processes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Int
from torch import Tensor

from rin.core.compute import device_of
from rin.core.denoiser import Denoiser
from rin.core.distributed import gather, rank, world_size
from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.core.pixels import to_floats, to_pictures
from rin.core.progress import Bar, progress_bar
from rin.core.shapes import Clips, Examples, Stored
from rin.diffusion import Diffusion, Given, SamplingOptions, SamplingStep

Callback = Callable[[int, Examples], None]
"""Called after each step of each batch with the number of the step, from 0, and the clean estimates (b ...)."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to draw."""

    seeds: Int[Tensor, " num"]
    """Of the noise, one a sample."""

    labels: Sequence[int] | None = None
    """The class of each sample; None draws unconditionally."""

    context: Stored | None = None
    """The frames that each clip goes on from, as many as the model takes or more (num c given h w); of images their
    condition pictures (num c h w)."""

    given: Given | None = None
    """Data that the samples are made of, one each; clips are then of the model's own length."""

    num_frames: int = 1
    """Of each clip."""

    @property
    def num(self) -> int:
        """How many samples, of all processes."""
        return len(self.seeds)


def draw(
    model: Denoiser,
    diffusion: Diffusion,
    kind: Kind,
    request: Request,
    batch_size: int,
    callback: Callback | None = None,
    **options: Unpack[SamplingOptions],
) -> Examples:
    """Draws samples; every process gets all of them, on the CPU.

    A sample is the same, but for rounding, at any batch size and number of processes.

    A clip of more frames than the model draws at once is drawn block after block, each given the last frames of what
    there is. Clips are rounded to 8 bits, as files have them, so that what follows does not depend on whether a clip
    was written down in between.

    Args:
        model: the network.
        diffusion: its diffusion.
        kind: what it draws.
        request: what to draw.
        batch_size: samples at a time.
        callback: see `Callback`.
        **options: see `SamplingOptions`.

    Returns:
        The samples in [-1, 1] (num ...); of clips the frames drawn (num c num_frames h w). Of given data that is taken
        to noise, the noise.
    """
    shares = share_out(request.num, batch_size, fill=options.get("compile", False))
    num_steps = options.get("num_steps") or diffusion.config.num_steps
    blocks = num_blocks(kind, request.num_frames)
    with progress_bar("sampling", len(shares) * blocks * num_steps) as bar:
        one = _Drawing(model, diffusion, kind, request, callback, options, bar)
        if request.given is not None and request.given.to_noise:
            return of_all([one.noise(share) for share in shares], request.num)
        parts = [one.clips(share, blocks) if kind.is_video else one.examples(share) for share in shares]
    drawn = of_all(parts, request.num)
    return to_floats(drawn) if kind.is_video else drawn


def of_all(parts: Sequence[Tensor], num: int) -> Tensor:
    """The first `num` of what all processes have drawn, batch by batch, in order."""
    return gather(torch.cat(list(parts))).flatten(0, 1)[:num]


@dataclass(frozen=True)
class Share:
    """Samples that a process draws at a time."""

    count: int
    """How many of those drawn are wanted: compiled, the last batch is filled up to the shape of the others."""

    places: list[int]
    """Which of the samples they are."""


def share_out(num: int, batch_size: int, fill: bool) -> list[Share]:
    """This process's batches of `num` samples; as many for every process, who may have to compute together.

    Args:
        num: samples of all processes.
        batch_size: how many at a time.
        fill: fill up the last batch to the shape of the others.
    """
    share = -(-num // world_size())
    shares: list[Share] = []
    for numbers in torch.arange(rank() * share, (rank() + 1) * share).split(batch_size):
        first, count = int(numbers[0]), len(numbers)
        places = [min(first + n, num - 1) for n in range(min(batch_size, share) if fill else count)]
        shares.append(Share(count, places))
    return shares


def num_blocks(kind: Kind, num_frames: int) -> int:
    """How many blocks a model draws `num_frames` frames in.

    Raises:
        RinError: there are none, it draws no clips, or no more than one block since it goes on from no frames.
    """
    if num_frames < 1:
        raise RinError(f"{num_frames} frames: take 1 or more")
    if not kind.is_video and num_frames > 1:
        raise RinError("this model draws no clips: leave the frames out")
    blocks = -(-num_frames // kind.num_frames)
    if blocks > 1 and not kind.num_context_frames:
        raise RinError(
            f"this model draws clips of {kind.num_frames} frames and goes on from none: take as many frames at most, "
            "or train one with --model.num-context-frames"
        )
    return blocks


@dataclass(frozen=True)
class _Drawing:
    """What the batches of a request have in common."""

    model: Denoiser
    diffusion: Diffusion
    kind: Kind
    request: Request
    callback: Callback | None
    options: SamplingOptions
    bar: Bar

    def examples(self, share: Share) -> Examples:
        """Images, or sets, of a share."""
        return self._last(share, self._steps(share, self.kind.shape, self._condition(share))).x_0.cpu()

    def noise(self, share: Share) -> Examples:
        """The noise that the given data of a share is taken to."""
        context = self._condition(share)
        if context is not None and self.kind.is_video:
            context = context[:, :, -self.kind.num_context_frames :]
        x_t = self._last(share, self._steps(share, self.kind.shape, context)).x_t
        return x_t.cpu() * self.diffusion.config.input_scale

    def clips(self, share: Share, blocks: int) -> Clips:
        """The frames drawn of a share's clips."""
        context, num_frames = self.request.context, self.request.num_frames
        given = 0 if context is None else context.shape[2]
        # a single frame without context is an image, which a model that has learned from images draws apart
        length = 1 if num_frames == 1 and context is None else self.kind.num_frames
        clips = _room_for((len(share.places), *self.kind.with_frames(given + blocks * length)))
        if context is not None:
            clips[:, :, :given] = context[share.places].cpu()
        for block in range(blocks):
            end = given + block * length
            last = to_floats(clips[:, :, end - self.kind.num_context_frames : end]) if given else None
            steps = self._steps(share, self.kind.with_frames(length), last, block)
            clips[: share.count, :, end : end + length] = to_pictures(self._last(share, steps).x_0.cpu())
        return clips[: share.count, :, given : given + num_frames]

    def _condition(self, share: Share) -> Examples | None:
        """What the samples of a share are given: condition pictures, or all frames before clips."""
        context = self.request.context
        return None if context is None else to_floats(context[share.places])

    def _steps(
        self, share: Share, shape: Sequence[int], context: Examples | None = None, block: int = 0
    ) -> Iterable[SamplingStep]:
        request, where = self.request, device_of(self.model)
        labels = None if request.labels is None else torch.tensor([request.labels[place] for place in share.places])
        condition = self.kind.condition(labels, context).to(where)
        options: SamplingOptions = {**self.options, "seeds": request.seeds[share.places], "block": block}
        if request.given is not None:
            options["given"] = request.given.rows(share.places, where)
        return self.diffusion.steps(self.model, (len(share.places), *shape), condition, **options)

    def _last(self, share: Share, steps: Iterable[SamplingStep]) -> SamplingStep:
        """The last step, of the samples that are wanted."""
        step = None
        for number, step in enumerate(steps):
            if self.callback is not None:
                self.callback(number, step.x_0[: share.count])
            self.bar.advance()
        assert step is not None  # one is the least
        return SamplingStep(step.x_0[: share.count], step.x_t[: share.count], step.latents)


def _room_for(shape: tuple[int, ...]) -> Clips:
    try:
        return torch.zeros(shape, dtype=torch.uint8)
    except RuntimeError as error:  # PyTorch has no name for it
        raise RinError(f"{'x'.join(map(str, shape))} numbers do not fit into memory: draw fewer frames") from error
