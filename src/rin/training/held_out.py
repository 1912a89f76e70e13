"""The loss on held-out examples by noise level: on a fixed grid of t, with fixed noise, of the averaged weights."""

import torch

from rin.core.denoiser import Condition
from rin.core.distributed import rank, sum_over_processes, world_size
from rin.core.seeds import Chance
from rin.core.shapes import Examples, Labels, Media
from rin.data import MediaSet, to_floats
from rin.diffusion import Diffusion
from rin.nn import RIN, RINConfig

TIMES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
"""The grid of t: 0.1 ... 0.9."""

_SEED = 0  # the same noise in every run, so that runs compare


def examples_of(config: RINConfig, media: Media, labels: Labels) -> tuple[Examples, Condition]:
    """What a set holds as clean data in [-1, 1] and what a network is told of it.

    The first frames of a clip are the context of those after them. To a network of clips a picture is a clip of one
    frame, which has no context. A network without classes is told none.
    """
    x, told = to_floats(media), labels if config.num_classes else None
    if len(config.shape) != 4:
        return x, Condition(labels=told)
    if media.ndim == 4:
        return x[:, :, None], Condition(labels=told)
    given = config.num_context_frames
    return x[:, :, given:], Condition(labels=told, context=x[:, :, :given] if given else None)


@torch.no_grad()
def held_out_losses(
    model: RIN, process: Diffusion, images: MediaSet, batch_size: int, device: torch.device
) -> dict[str, float]:
    """The mean loss of `images` at each t of the grid, by t, shared out over the processes.

    Every example starts from estimated latents and keeps its label, as in sampling; example k at time number i has
    the noise of place k and step i of a fixed seed.
    """
    sums = torch.zeros(len(TIMES), dtype=torch.float64)
    share = -(-len(images) // world_size())  # the same for all, who compute together where weights are sharded
    for places in torch.arange(rank() * share, (rank() + 1) * share).split(batch_size):
        counts, places = places < len(images), places.clamp(max=len(images) - 1)
        pictures, labels = images.get(places)
        x_0, condition = examples_of(model.config, pictures.to(device), labels.to(device))
        everyone = torch.ones(len(places), dtype=torch.bool, device=device)
        for number, t in enumerate(TIMES):
            losses = process.losses(
                model,
                x_0,
                condition,
                t=torch.full((len(places),), t, device=device),
                self_cond=everyone,
                keep=everyone,
                keep_in_estimate=everyone,
                chance=Chance(_SEED, number, places.to(device)),
            )
            sums[number] += losses.cpu().double()[counts].sum()
    means = (sum_over_processes(sums) / len(images)).tolist()
    return {str(t): mean for t, mean in zip(TIMES, means, strict=True)}
