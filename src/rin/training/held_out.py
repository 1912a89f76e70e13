"""The loss on held-out examples by noise level: on a fixed grid of t, with fixed noise, of the averaged weights."""

import torch

from rin.core.denoiser import Denoiser, EvaluationMode
from rin.core.distributed import rank, sum_over_processes, world_size
from rin.core.kind import Kind
from rin.core.seeds import NOISE_VERSION, Chance, Purpose, noise_purpose
from rin.data import MediaSet, held_out_degraded
from rin.diffusion import Diffusion

TIMES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
"""The grid of t: 0.1 ... 0.9."""

_SEED = 0  # the same noise in every run, so that runs compare


@torch.no_grad()
def held_out_losses(
    model: Denoiser,
    diffusion: Diffusion,
    kind: Kind,
    images: MediaSet,
    batch_size: int,
    device: torch.device,
    noise_version: int = NOISE_VERSION,
    degrade: str = "",
) -> dict[str, float]:
    """The mean loss of `images` at each t of the grid, by t, shared out over the processes.

    Every example starts from latents estimated at its own noise and keeps its label; example k at time number i has
    the noise of place k and step i of a fixed seed, which is that of a run of `noise_version`. Of a model that draws
    from pictures, `degrade` says how they are made of `images`.
    """
    kind = kind if kind.captions is not None else kind.reading(images.class_names, device)
    purpose = noise_purpose(Purpose.HELD_OUT_NOISE, noise_version)
    sums, evaluating = torch.zeros(len(TIMES), dtype=torch.float64), EvaluationMode(model)
    share = -(-len(images) // world_size())  # the same for all, who compute together where weights are sharded
    for places in torch.arange(rank() * share, (rank() + 1) * share).split(batch_size):
        counts, places = places < len(images), places.clamp(max=len(images) - 1)
        pictures, labels = images.get(places)
        degraded = held_out_degraded(pictures, degrade, places)
        degraded = None if degraded is None else degraded.to(device)
        x_0, condition = kind.examples(pictures.to(device), labels.to(device), degraded)
        everyone = torch.ones(len(places), dtype=torch.bool, device=device)
        for number, t in enumerate(TIMES):
            chance = Chance(_SEED, number, places.to(device))
            with evaluating:
                losses = diffusion.losses(
                    model,
                    x_0,
                    condition,
                    t=torch.full((len(places),), t, device=device),
                    self_cond=everyone,
                    keep=everyone,
                    keep_in_estimate=everyone,
                    noise=chance.normal(purpose, x_0.shape[1:]),
                    chance=chance,
                )
            sums[number] += losses.cpu().double()[counts].sum()
    means = (sum_over_processes(sums) / len(images)).tolist()
    return {str(t): mean for t, mean in zip(TIMES, means, strict=True)}
