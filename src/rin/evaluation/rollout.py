"""Clips drawn block after block, each going on from the last frames of the one before, for as long as asked."""

from collections.abc import Sequence
from typing import Unpack

import torch
from jaxtyping import UInt8
from torch import Tensor

from rin.core.errors import RinError
from rin.core.progress import progress_bar
from rin.core.shapes import Clips
from rin.data import to_floats, to_pictures
from rin.diffusion import Diffusion, SamplingOptions, last_of
from rin.evaluation.sampling import Share, of_all, seeded_steps, share_out
from rin.nn import RIN, RINConfig


def num_blocks(config: RINConfig, num_frames: int) -> int:
    """How many blocks a network draws `num_frames` frames in.

    Raises:
        RinError: it draws no clips, or no more than one block since no frames are given to it.
    """
    if len(config.shape) != 4:
        raise RinError("this model draws pictures: leave the frames out")
    if num_frames < 1:
        raise RinError(f"{num_frames} frames: take 1 or more")
    blocks = -(-num_frames // config.shape[1])
    if blocks > 1 and not config.num_context_frames:
        raise RinError(
            f"this model draws clips of {config.shape[1]} frames and goes on from none: take as many frames at most, "
            "or train one with --model.num-context-frames"
        )
    return blocks


def sample_clips(
    model: RIN,
    process: Diffusion,
    labels: Sequence[int] | None,
    context: UInt8[Tensor, "num c given h w"] | None,
    num: int,
    num_frames: int,
    seed: int,
    batch_size: int,
    carry_latents: bool = False,
    **options: Unpack[SamplingOptions],
) -> UInt8[Tensor, "num c drawn h w"]:
    """Draws `num` clips of `num_frames` frames, shared out over the processes; every process gets all of them.

    Each block is given the last frames of what there is, in 8 bits as files have them, so that what is drawn does not
    depend on whether it was written down in between. Clip p of a seed is the same at any batch size and number of
    processes, but for rounding, which grows from block to block.

    Args:
        model: the network, in evaluation mode.
        process: its diffusion.
        labels: the class of each; None asks for none.
        context: the frames that each goes on from, as many as the network takes or more (num c f h w); None for a
            network that takes none.
        num: how many.
        num_frames: frames to draw; a network that is given no frames draws one block at most, and a single frame as a
            picture, for which it must have learned from pictures too.
        seed: of the noise.
        batch_size: how many at a time.
        carry_latents: whether the latents of a block's last step warm-start the next block's first; measured, that
            brings nothing (docs/video.md).
        **options: see `SamplingOptions`.

    Returns:
        The frames drawn, without those given (num c num_frames h w).

    Raises:
        RinError: a number below 1, a class that the model does not have, frames of another size or too few of them,
            or options that it cannot follow.
    """
    check_context(model.config, context)
    blocks = num_blocks(model.config, num_frames)
    shares = share_out(num, batch_size, labels, fill=options.get("compile", False))
    num_steps = options.get("num_steps") or process.config.num_steps

    channels, most, height, width = model.config.shape
    given = 0 if context is None else context.shape[2]
    shape = (channels, 1 if num_frames == 1 and context is None else most, height, width)

    def draw(share: Share) -> Clips:
        count, latents = len(share.places), None
        clips = _room_for((count, channels, given + blocks * shape[1], height, width))
        if context is not None:
            clips[:, :, :given] = context[share.places].cpu()
        for block, end in enumerate(range(given, clips.shape[2], shape[1])):
            last = to_floats(clips[:, :, end - model.config.num_context_frames : end]) if given else None
            of_block: SamplingOptions = {**options, "block": block, "latents": latents if carry_latents else None}
            steps = seeded_steps(model, process, share.labels, count, seed, share.first, last, shape, **of_block)
            final = last_of(bar.counted(steps))
            clips[:, :, end : end + shape[1]], latents = to_pictures(final.x_0.cpu()), final.latents
        return clips[: share.count, :, given : given + num_frames]

    with progress_bar("sampling", len(shares) * blocks * num_steps) as bar:
        return of_all([draw(share) for share in shares], num)


def _room_for(shape: tuple[int, ...]) -> Clips:
    try:
        return torch.empty(shape, dtype=torch.uint8)
    except RuntimeError as error:  # PyTorch has no name for it
        raise RinError(f"{'x'.join(map(str, shape))} numbers do not fit into memory: draw fewer frames") from error


def check_context(config: RINConfig, context: Clips | None) -> None:
    """Refuses frames that a network cannot go on from.

    Raises:
        RinError: there are too few of them, none are taken, or they have another size.
    """
    given, needed = 0 if context is None else context.shape[2], config.num_context_frames
    if given and not needed:
        raise RinError("this model goes on from no frames: leave the context out")
    if given < needed:
        raise RinError(f"{given} frames are given: this model goes on from {needed}")
    if context is not None and (context.shape[1], *context.shape[3:]) != (config.shape[0], *config.shape[2:]):
        shape = (context.shape[1], *context.shape[3:])
        raise RinError(f"the given frames are {shape} (c h w): this model takes {(config.shape[0], *config.shape[2:])}")
