"""`rin-pytorch` (Phil Wang, from the package index), made as like to one of our networks as its options allow."""

import sys
import types
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Step
from rin import RINConfig
from rin.core.compute import autocast_to


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A network of rin-pytorch's, with its diffusion, and what it costs."""

    diffusion: nn.Module
    parameters: int
    operations: int
    """Of a forward pass of one example, counted as ours are."""


def matched(config: RINConfig, device: torch.device) -> Rival:
    """Its network at the sizes of ours, without what the paper does not have, self-conditioned in every step.

    The same interface and latents, depth and patch; heads times their width is our attention width; linear attention
    between patches is off; the noise level is a latent token. It has one attention width for all its attention, so
    this is exact where interface and latents are equally wide, and the latents' width is taken elsewhere.
    """
    width = config.latent_dim
    return _rival(
        config, device, train_prob_self_cond=1.0, heads=config.num_heads, dim_head=width // config.num_heads,
        latent_self_attn_depth=config.compute_depth[0], num_latents=config.num_latents - 1,
        latent_token_time_cond=True, patches_self_attn=False, flash=True,
    )  # fmt: skip


def default(config: RINConfig, device: torch.device) -> Rival:
    """Its network as it comes, but for the widths, the patches, the number of latents and the depth."""
    return _rival(config, device, num_latents=config.num_latents)


def _rival(config: RINConfig, device: torch.device, train_prob_self_cond: float = 0.9, **options: object) -> Rival:
    with _without_torchvision(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rin_pytorch import RIN, GaussianDiffusion
    channels, size, _ = config.shape
    sizes = {
        "dim": config.interface_dim, "dim_latent": config.latent_dim, "image_size": size, "channels": channels,
        "patch_size": config.patch_size, "depth": len(config.compute_depth),
    }  # fmt: skip
    torch.manual_seed(0)
    network = RIN(**sizes, **options)
    diffusion = GaussianDiffusion(network, train_prob_self_cond=train_prob_self_cond)
    with torch.device("meta"):
        shadow = RIN(**sizes, **{name: value for name, value in options.items() if name != "flash"})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            shadow.requires_grad_(False)(torch.empty(1, channels, size, size), torch.empty(1), return_latents=True)
    parameters = sum(weight.numel() for weight in network.parameters())
    return Rival(diffusion=diffusion.to(device), parameters=parameters, operations=counter.get_total_flops())


def training_step(rival: Rival, images: Tensor, bfloat16: bool, average_every: int) -> Step:
    """An update as its `Trainer` makes it: loss, its value read, gradients clipped, Adam, average.

    Args:
        rival: the network.
        images: a batch in [0, 1], as it takes them.
        bfloat16: its own mixed precision, autocast.
        average_every: updates between those of the average; it comes with 10, ours are at every one.
    """
    from ema_pytorch import EMA

    weights = list(rival.diffusion.parameters())
    optimiser = torch.optim.Adam(weights, lr=1e-4, betas=(0.9, 0.99))
    average = EMA(rival.diffusion, beta=0.995, update_every=average_every)

    def step() -> None:
        with autocast_to(bfloat16, images.device):
            loss = rival.diffusion(images)
        loss.item()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update()

    return step


def sampling_steps(rival: Rival, batch: int, num_steps: int, bfloat16: bool) -> Step:
    """A run of its own DDPM sampler, of `num_steps` steps."""
    diffusion = rival.diffusion.eval()
    diffusion.timesteps, diffusion.use_ddim = num_steps, False
    sys.modules[type(diffusion).__module__].tqdm = lambda steps, **_: steps  # no bar while it is timed

    def steps() -> None:
        with autocast_to(bfloat16, diffusion.device):
            diffusion.sample(batch_size=batch)

    return steps


@contextmanager
def _without_torchvision() -> Generator[None]:
    """A stand-in for torchvision where it is missing: rin-pytorch wants it for its data transforms alone."""
    import accelerate  # noqa: F401  # these look for torchvision when they are imported, and must not find the stand-in
    import ema_pytorch  # noqa: F401

    names = ("torchvision", "torchvision.transforms", "torchvision.utils")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        stand_in = {name: types.ModuleType(name) for name in names}
        stand_in["torchvision"].transforms = stand_in["torchvision.transforms"]
        stand_in["torchvision"].utils = stand_in["torchvision.utils"]
        sys.modules.update(stand_in)
        try:
            yield
        finally:
            for name in names:
                del sys.modules[name]
    else:
        yield
