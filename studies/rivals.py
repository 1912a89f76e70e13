"""Study 5's other networks, in a RIN's place in the trainer, and how many updates they get in a RIN's time."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from benchmarks.harness import Bench, Step
from benchmarks.transformers import initialise, jit
from benchmarks.unets import Layout
from rin import RIN, Condition, Diffusion, ExperimentConfig, RINConfig
from rin.core.compute import device
from rin.core.denoiser import Denoised
from rin.data import joint_batches
from rin.run_data import open_run_data
from rin.training.trainer import Trainer

UNETS = {32: Layout(128, 2, (1, 2, 2, 2)), 16: Layout(32, 2, (1, 2, 2))}
"""By the pictures' size: DDPM's for CIFAR-10 (Ho et al. 2020, arXiv 2006.11239, appendix B), and a small one."""

TRANSFORMERS = {
    32: {"width": 384, "depth": 12, "num_heads": 6, "bottleneck_dim": 12},
    16: {"width": 128, "depth": 6, "num_heads": 4, "bottleneck_dim": 12},
}
"""By the pictures' size, of about a RIN's weights; patches of 2, which are 12 numbers and need no bottleneck."""


class WithoutLatents(nn.Module):
    """A network called `network(x, gamma, labels)` as a denoiser, which has no latents."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        x: Tensor,
        gamma: Tensor,
        condition: Condition,
        latents_prev: Tensor | None = None,
        latents_only: bool = False,
    ) -> Denoised:
        """A prediction (b c h w) for noisy pictures of that shape, shares gamma of clean variance (b) and classes."""
        del latents_prev
        return Denoised(None if latents_only else self.network(x, gamma, condition.labels), None)


class DDPM(nn.Module):
    """DDPM's U-Net for CIFAR-10, as diffusers has it, told the class as well: attention at the second resolution."""

    def __init__(self, size: int, num_classes: int, layout: Layout) -> None:
        super().__init__()
        levels = range(len(layout.multipliers))
        self.network = UNet2DModel(
            sample_size=size,
            block_out_channels=layout.channels,
            layers_per_block=layout.num_blocks,
            down_block_types=tuple("AttnDownBlock2D" if level == 1 else "DownBlock2D" for level in levels),
            up_block_types=tuple("AttnUpBlock2D" if level == 1 else "UpBlock2D" for level in reversed(levels)),
            attention_head_dim=None,  # one head, and what follows, as in the released configuration for CIFAR-10
            downsample_padding=0,
            norm_eps=1e-6,
            flip_sin_to_cos=False,
            freq_shift=1,
            num_class_embeds=num_classes,
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """A prediction (b 3 h w) for noisy pictures x, times t in [0, 1] (b) and classes (b)."""
        return self.network(x, t * 1000, labels).sample


def unet(config: RINConfig, size: int | None = None) -> nn.Module:
    """DDPM's U-Net, in place of a RIN, with the layout for pictures of `size`; of the RIN's if None."""
    side = config.shape[-1]
    return WithoutLatents(DDPM(side, config.num_classes, UNETS[size or side]))


def transformer(config: RINConfig, size: int | None = None) -> nn.Module:
    """JiT, a transformer over the pixels' patches, in place of a RIN, as wide and deep as for pictures of `size`."""
    side, classes = config.shape[-1], config.num_classes
    network = jit(side, patch_size=2, num_classes=classes, num_class_tokens=8, **TRANSFORMERS[size or side])
    initialise(network)
    return WithoutLatents(network)


NETWORKS: dict[str, Callable[[RINConfig], nn.Module]] = {
    "unet": unet,
    "transformer": transformer,
    "small-unet": partial(unet, size=16),
    "small-transformer": partial(transformer, size=16),
}


def cpu_seconds_of_updates(sides: dict[str, tuple[ExperimentConfig, nn.Module]], rounds: int = 15) -> dict[str, float]:
    """The CPU time of this thread that an update of each side takes: medians, timed in turns.

    Before each that is timed one is not: in a training the caches hold a run's own weights, not another's.
    """
    with tempfile.TemporaryDirectory() as folder:
        updates = {name: _update(*side, Path(folder) / name) for name, side in sides.items()}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, update in updates.items():
                update()
                begun = time.thread_time()
                update()
                seconds[name].append(time.thread_time() - begun)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


def updates_in_the_time_of(base: ExperimentConfig, other: ExperimentConfig, network: nn.Module) -> int:
    """How many updates the other run makes while the base makes all of its own: both timed in turns, in the trainer."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "base": _update(base, RIN(base.model), Path(folder) / "base"),
            "other": _update(other, network, Path(folder) / "other"),
        }
        bench = Bench(device=device(), full=False, path=Path(folder) / "unused", seconds=20.0)
        seconds = bench.interleave(sides, min_rounds=20)
    return round(base.training.num_steps * seconds["base"] / seconds["other"])


def _update(experiment: ExperimentConfig, model: nn.Module, folder: Path) -> Step:
    data = open_run_data(experiment)
    training, diffusion = experiment.training, Diffusion(experiment.diffusion)
    trainer = Trainer(
        training, experiment.model.kind, model, diffusion, data, folder, seed=0, flip=experiment.data.flip
    )
    places = torch.arange(training.batch_size)
    with closing(
        joint_batches(trainer.data, seed=0, batch_size=training.batch_size, places=places, first_step=0, flip=True)
    ) as stream:
        batch = next(iter(stream))
    return lambda: trainer.update(batch)
