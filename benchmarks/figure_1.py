"""The paper's Figure 1: what a RIN costs beside U-Nets and transformers, counted and timed.

Operations are counted by one counter for all, on the meta device, two a multiply-add, matrix products, convolutions
and attention alone. A training step is counted as three forward passes, a RIN's with its estimate pass besides.

Published operations stand beside, by the paper that has them and in its own convention. RIN's (arXiv 2212.11972,
figure 1) does not tell its own. DiT's (arXiv 2212.09748, section 5.1 and appendix) and JiT's (arXiv 2511.13720,
table 7) have multiply-adds, which our counts are twice of.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import rin
from benchmarks.harness import Bench, Step, autocast
from benchmarks.transformers import dit, jit
from benchmarks.unets import Layout, adm_unet, video_unet
from rin.training.optim import make_optimiser

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """One side of the figure."""

    name: str
    input: str
    """What it is compared at."""
    make: Callable[[], nn.Module]
    shape: Shape
    """One example, as the network takes it."""
    num_classes: int = 1000
    published: dict[str, float] = field(default_factory=dict)
    """Operations of a forward pass, by the paper that has them."""
    experiment: rin.ExperimentConfig | None = None
    """Diffusion and training of a RIN; None makes it a rival."""


class Cost(NamedTuple):
    """What a network is, and what it takes an example."""

    parameters: int
    operations: int
    training_operations: int


class Batch(NamedTuple):
    """What a network is given."""

    x: Tensor
    t: Tensor
    condition: rin.Condition


def rin_network(name: str, where: str, experiment: rin.ExperimentConfig, **published: float) -> Network:
    """A RIN."""
    model = experiment.model
    return Network(
        name=f"RIN {name}", input=where, make=partial(rin.RIN, model), shape=model.shape,
        num_classes=model.num_classes, published=published, experiment=experiment,
    )  # fmt: skip


def preset(name: str, where: str, **published: float) -> Network:
    """A RIN preset."""
    return rin_network(name, where, rin.preset(name), **published)


def rival(name: str, where: str, make: Callable[[], nn.Module], shape: Shape, **published: float) -> Network:
    """A network of ImageNet's classes, or of clips without classes."""
    classes = 0 if len(shape) == 4 else 1000
    return Network(name=name, input=where, make=make, shape=shape, num_classes=classes, published=published)


NETWORKS = (
    preset("imagenet-64", "64"),
    preset("imagenet-64-p8", "64"),
    rival("U-Net ADM", "64", partial(adm_unet, 64), (3, 64, 64)),
    preset("imagenet-128", "128", RIN=194e9),
    rival("U-Net ADM", "128", partial(adm_unet, 128), (3, 128, 128), RIN=538e9),
    preset("imagenet-256", "256", RIN=334e9),
    rival("U-Net ADM", "256", partial(adm_unet, 256), (3, 256, 256), RIN=2212e9, DiT=1120e9),
    rival("DiT-L/2", "256", dit, (4, 32, 32), DiT=80.7e9),
    rival("JiT-L/16", "256", jit, (3, 256, 256), JiT=88e9),
    preset("imagenet-512", "512", RIN=425e9),
    rival("U-Net ADM", "512", partial(adm_unet, 512), (3, 512, 512), RIN=4122e9, DiT=1983e9),
    rival("JiT-L/32", "512", partial(jit, 512, 32), (3, 512, 512)),
    preset("imagenet-1024", "1024"),
    preset("kinetics-600", "video", RIN=387e9),
    rival("U-Net 3-D, our build", "video", video_unet, (3, 16, 64, 64), RIN=4136e9),
)
"""Counted, and timed at full size: the presets, ADM, and transformers of about as many weights as the RIN at 256."""

BATCHES = {"64": (128, 64), "128": (64, 32), "256": (32, 8), "512": (8, 2), "1024": (8, 4), "video": (8, 2)}
"""Examples of a forward pass and of a training step at full size, where they fit."""


def small_networks(where: str, shape: Shape, patch_size: int, layout: Layout) -> tuple[Network, ...]:
    """All kinds at sizes for a CPU, 7 to 9 M weights each; DiT takes pixels, in patches of half the size."""
    video, size, width, depth, heads = len(shape) == 4, shape[-1], 256, 6, 8
    model = rin.RINConfig(
        shape=shape, patch_size=patch_size, temporal_patch_size=2 if video else 1, num_classes=0 if video else 1000,
        num_latents=48, latent_dim=width, interface_dim=128, compute_depth=(2, 2, 2), num_heads=heads,
        num_read_write_heads=heads, latent_mlp_ratio=4, interface_mlp_ratio=4,
    )  # fmt: skip
    ours = rin_network("small", where, dataclasses.replace(rin.preset("small-32"), model=model))
    if video:
        return ours, rival("U-Net 3-D small", where, partial(video_unet, shape, layout), shape)
    return (
        ours,
        rival("U-Net ADM small", where, partial(adm_unet, size, layout), shape),
        rival("DiT small", where, partial(dit, size, 3, patch_size // 2, width, depth, heads), shape),
        rival("JiT small", where, partial(jit, size, patch_size, width, depth, heads, 32, num_class_tokens=8), shape),
    )


SMALL_NETWORKS = (
    *small_networks("small 64", (3, 64, 64), 8, Layout(32, 3, (1, 2, 3, 4))),
    *small_networks("small 32", (3, 32, 32), 4, Layout(64, 2, (1, 2, 2))),
    *small_networks("small video", (3, 8, 32, 32), 4, Layout(64, 1, (1, 2, 2))),
)
"""Timed where `bench.full` is off."""

SMALL_BATCHES = {"small 64": (4, 4), "small 32": (4, 4), "small video": (2, 2)}


def figure_1(bench: Bench) -> None:
    """Counts every network, sets RIN against U-Net, and times all sides of an input in turns."""
    costs = [count(network) for network in NETWORKS]
    for network, cost in zip(NETWORKS, costs, strict=True):
        bench.record(
            "figure 1: operations", input=network.input, name=network.name, **cost._asdict(),
            published_operations=network.published,
        )  # fmt: skip
    for ours, cost in zip(NETWORKS, costs, strict=True):
        for unet, taken in zip(NETWORKS, costs, strict=True):
            if ours.experiment and unet.name.startswith("U-Net") and unet.input == ours.input:
                published = unet.published["RIN"] / ours.published["RIN"] if ours.published else None
                bench.record(
                    "figure 1: ratio", input=ours.input, name=ours.name,
                    rin_operations=cost.operations, unet_operations=taken.operations,
                    ratio=taken.operations / cost.operations, published_ratio=published,
                )  # fmt: skip
    networks, batches = (NETWORKS, BATCHES) if bench.full else (SMALL_NETWORKS, SMALL_BATCHES)
    for where, (forward_batch, training_batch) in batches.items():
        sides = [network for network in networks if network.input == where]
        time_sides(bench, sides, "forward pass", forward_batch)
        time_sides(bench, sides, "training step", training_batch)


def count(network: Network) -> Cost:
    """Parameters, and operations for one example, counted where nothing is computed."""
    with torch.device("meta"):
        model = network.make().eval()
    batch = make_batch(network, 1, torch.device("meta"))
    forward, estimate = operations(lambda: predict(model, batch)), 0
    if network.experiment:
        estimate = operations(lambda: model(batch.x, batch.t, batch.condition, latents_only=True))
    return Cost(sum(weight.numel() for weight in model.parameters()), forward, 3 * forward + estimate)


def operations(step: Step) -> int:
    """Operations of a step on the meta device, without gradient."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        step()
    return counter.get_total_flops()


def make_batch(network: Network, size: int, device: torch.device) -> Batch:
    """Noise of the network's shape, times, and what it can be told."""
    labels = torch.randint(network.num_classes, (size,), device=device) if network.num_classes else None
    frames = network.experiment.model.num_context_frames if network.experiment else 0
    context = torch.randn(size, network.shape[0], frames, *network.shape[2:], device=device) if frames else None
    x, t = torch.randn(size, *network.shape, device=device).clamp(-1, 1), torch.rand(size, device=device)
    return Batch(x, t, rin.Condition(labels=labels, context=context))


def predict(model: nn.Module, batch: Batch) -> Tensor:
    """A forward pass of any network."""
    if isinstance(model, rin.RIN):
        return model(batch.x, batch.t, batch.condition).prediction
    return model(batch.x, batch.t, batch.condition.labels)


def forward_step(network: Network, size: int, device: torch.device) -> Step:
    """A forward pass in evaluation mode, without gradient."""
    with device:
        model = network.make().eval()
    batch = make_batch(network, size, device)

    def step() -> None:
        with torch.no_grad(), autocast(device):
            predict(model, batch)

    return step


def training_step(network: Network, size: int, device: torch.device) -> Step:
    """Loss, gradients and update: a RIN's own loss and optimiser, mean squared error and AdamW for the others."""
    with device:
        model = network.make().train()
    batch = make_batch(network, size, device)
    if network.experiment:
        diffusion = rin.Diffusion(network.experiment.diffusion)
        # the recipe's rate is for the end of a warm-up
        optimiser = make_optimiser(
            dataclasses.replace(network.experiment.training, learning_rate=1e-4), model.parameters()
        )
    else:
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def loss() -> Tensor:
        if network.experiment:
            return diffusion.loss(model, batch.x, batch.condition)
        prediction = predict(model, batch)[:, : network.shape[0]]  # without the variance, where there is one
        return F.mse_loss(prediction.float(), batch.x)

    def step() -> None:
        with autocast(device):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()  # at the end, so that no gradients are held while others have their turn

    return step


def time_sides(bench: Bench, networks: list[Network], work: str, size: int) -> None:
    """Times networks of one input in turns, each with `size` examples, or half of them, and so on, until they fit."""
    steps: dict[str, Step] = {}
    sizes: dict[str, int] = {}
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        for network in networks:
            sizes[network.name], step = fitting(bench, network, work, size)
            if step is not None:
                steps[network.name] = step
        try:
            seconds = bench.interleave(steps) if steps else {}
        except torch.OutOfMemoryError:  # what fitted once can fail to find room among the others
            seconds = {}
            bench.record("figure 1: out of memory", input=networks[0].input, name="all in turns", work=work, batch=size)
    rate = bench.matmul_rate(torch.bfloat16 if bench.device.type == "cuda" else torch.float32)
    for network in networks:
        if network.name in seconds:
            cost, each = count(network), seconds[network.name] / sizes[network.name]
            done = (cost.training_operations if work == "training step" else cost.operations) / each
            bench.record(
                "figure 1: throughput", input=network.input, name=network.name, work=work,
                batch=sizes[network.name], **cost._asdict(), examples_per_second=1 / each,
                operations_per_second=done, share_of_matmul=done / rate,
            )  # fmt: skip


def fitting(bench: Bench, network: Network, work: str, size: int) -> tuple[int, Step | None]:
    """The largest batch that fits beside the networks already there, and its step; what does not fit is recorded."""
    while size:
        try:
            step = (training_step if work == "training step" else forward_step)(network, size, bench.device)
            step()
            return size, step
        except torch.OutOfMemoryError:
            bench.record("figure 1: out of memory", input=network.input, name=network.name, work=work, batch=size)
        step = None
        torch.cuda.empty_cache()
        size //= 2
    return 0, None
