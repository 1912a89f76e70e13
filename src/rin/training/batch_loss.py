"""The loss of an update: a process's share of the batch, part by part."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rin.core.compute import autocast_to, compiled, compiles, uses_bfloat16
from rin.core.distributed import world_size
from rin.core.kind import Kind
from rin.core.seeds import Chance, Purpose, choice, noise_purpose, torch_seed
from rin.core.shapes import Labels, Stored
from rin.core.texts import Tokens
from rin.data import Batch
from rin.diffusion import Diffusion
from rin.diffusion.loss import fixed_share
from rin.training.config import TrainingConfig


class BatchLoss:
    """The loss of this process's share of a batch, in as many parts as gradients are accumulated over.

    Noise, masks, dropout and the number of latents are functions of (seed, step, place in the global batch).

    Args:
        config: how to train.
        kind: what the network draws, and on what condition.
        network: the network as it is called, by DDP or FSDP if there are several processes.
        latent_counts: of an elastic network, what updates draw from; all latents if fewer than two.
        diffusion: its diffusion.
        parts: the places in the global batch of each part.
        seed: of all that is random.
        device: where it is computed.
    """

    def __init__(
        self,
        config: TrainingConfig,
        kind: Kind,
        network: nn.Module,
        latent_counts: Sequence[int],
        diffusion: Diffusion,
        parts: Sequence[range],
        seed: int,
        device: torch.device,
    ) -> None:
        self.kind, self.network, self.latent_counts, self.diffusion = kind, network, latent_counts, diffusion
        self.parts, self.seed, self.device = parts, seed, device
        self.all_latents_every = config.all_latents_every
        self.in_bfloat16 = uses_bfloat16(config.precision, device)
        self.seed_on_device = torch.tensor(seed, device=device)  # once: a copy waits for what a GPU is doing
        self.noise = noise_purpose(Purpose.TRAINING_NOISE, config.noise_version)
        self.of_examples = self._of_examples
        if compiles(config.compile, device):
            # graphs would write the gradients of one part over those of the part before
            graphs = device.type == "cuda" and len(parts) == 1 and world_size() == 1
            self.of_examples = compiled(self._of_examples, "the training step", graphs)

    def of_part(self, batch: Batch, number: int, step: int) -> Float[Tensor, ""]:
        """The mean loss of one part of this process's batch, with its own noise, masks and dropout."""
        part = self.parts[number]
        rows = slice(number * len(part), (number + 1) * len(part))
        media, labels, degraded = (
            None if values is None else values[rows].to(self.device, non_blocking=True)
            for values in (batch.media, batch.labels, batch.degraded)
        )
        assert media is not None
        assert labels is not None
        step_on_device = torch.full((), step, device=self.device)  # a tensor, to be no constant of compiled code
        places = torch.arange(part.start, part.stop, device=self.device)
        chance = Chance(self.seed_on_device, step_on_device, places)
        self_cond = fixed_share(self.diffusion.config, part, self.device)
        torch.manual_seed(torch_seed(self.seed, step, part.start))  # dropout and stochastic depth
        tokens = self.kind.tokens(labels)  # out of files and text encoders, which are no part of what is compiled
        return self.of_examples(media, labels, chance, self_cond, self.num_latents(step), degraded, tokens)

    def num_latents(self, step: int) -> int | None:
        """The latents of an update, of an elastic network: the same in every process; None for all of them."""
        if len(self.latent_counts) < 2:
            return None
        if self.all_latents_every and step % self.all_latents_every == 0:
            return max(self.latent_counts)
        return self.latent_counts[choice(self.seed, step, len(self.latent_counts), Purpose.NUM_LATENTS)]

    def _of_examples(
        self,
        media: Stored,
        labels: Labels,
        chance: Chance,
        self_cond: Int[Tensor, " k"] | None,
        num_latents: int | None,
        degraded: Stored | None = None,
        tokens: Tokens | None = None,
    ) -> Float[Tensor, ""]:
        """The mean loss of some pictures or clips: all of it on the device, to be compiled as a whole."""
        with autocast_to(self.in_bfloat16, self.device):
            x_0, condition = self.kind.examples(media, labels, degraded, tokens)
            noise = chance.normal(self.noise, x_0.shape[1:])
            return self.diffusion.loss(
                self.network, x_0, condition, noise=noise, self_cond=self_cond, chance=chance, num_latents=num_latents
            )
