"""How time and memory grow with interface tokens, latents and batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import rin
from benchmarks.harness import Bench, Step, autocast
from rin.costs.operations import cost

SMALL = rin.RINConfig(
    shape=(3, 128, 128), patch_size=8, num_latents=32, latent_dim=64, interface_dim=64, compute_depth=(1, 1),
    num_heads=4, num_read_write_heads=4, latent_mlp_ratio=4, interface_mlp_ratio=2,
)  # fmt: skip
"""A RIN whose 1024x1024 step takes a CPU a fraction of a second."""

IMAGE_SIZES = (64, 128, 256, 512, 1024)
LATENTS = (32, 64, 128, 256, 512)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a sweep."""

    value: int
    """What the sweep varies: height and width of the image, latents, or batch."""

    network: str
    """What a person calls the network, but for what is varied."""

    model: rin.RINConfig
    """The network at that point."""

    batch: int
    """Examples of a step."""


def growth(bench: Bench) -> None:
    """Measures training (loss with its estimate pass, backward) and forward (no gradient) at each point of each sweep.

    Memory is what one call on a fresh model takes at its peak beyond the weights; in training the gradients are part
    of it, the optimiser's state is not. Operations are those of a forward pass of one example.
    """
    for sweep, points in sweeps(bench.full).items():
        seconds = _seconds(bench, points)
        for point in points:
            price = cost(point.model)
            bench.record(
                "growth",
                sweep=sweep,
                value=point.value,
                network=point.network,
                tokens=price.tokens,
                latents=price.latents,
                batch=point.batch,
                training_seconds=seconds[f"training {point.value}"],
                forward_seconds=seconds[f"forward {point.value}"],
                training_memory=bench.peak_memory(training_step(point, bench.device)),
                forward_memory=bench.peak_memory(forward_step(point, bench.device)),
                operations=price.operations,
            )


def sweeps(full: bool) -> dict[str, list[Point]]:
    """The points of each sweep; all but what is swept stays as it is."""
    name, model, batch = ("imagenet-256", rin.preset("imagenet-256").model, 8) if full else ("small RIN", SMALL, 1)
    whole = "cifar10" if full else "small-32"
    return {
        "tokens": [
            Point(value=size, network=name, model=replace(model, shape=(3, size, size)), batch=batch)
            for size in IMAGE_SIZES
        ],
        "latents": [
            Point(value=count, network=name, model=replace(model, num_latents=count), batch=batch) for count in LATENTS
        ],
        "batch": [Point(value=count, network=whole, model=rin.preset(whole).model, batch=count) for count in BATCHES],
    }


def training_step(point: Point, device: torch.device) -> Step:
    """Loss and backward of a fresh model."""
    model = rin.RIN(point.model).to(device).train()
    diffusion = rin.Diffusion(rin.DiffusionConfig())
    x_0, condition = _examples(point, device)

    def step() -> None:
        with autocast(device):
            loss = diffusion.loss(model, x_0, condition)
        loss.backward()
        model.zero_grad(set_to_none=True)  # at the end, so that none are held while other points have their turn

    return step


def forward_step(point: Point, device: torch.device) -> Step:
    """A forward pass of a fresh model, as in sampling."""
    model = rin.RIN(point.model).to(device).eval()
    x_t, condition = _examples(point, device)
    gamma = torch.full((point.batch,), 0.5, device=device)

    def step() -> None:
        with torch.no_grad(), autocast(device):
            model(x_t, gamma, condition)

    return step


def _seconds(bench: Bench, points: list[Point]) -> dict[str, float]:
    """The median of each point's training and forward; the models end with this call, for memory's sake."""
    works: dict[str, Callable[[Point, torch.device], Step]] = {"training": training_step, "forward": forward_step}
    return bench.interleave(
        {f"{name} {point.value}": work(point, bench.device) for point in points for name, work in works.items()}
    )


def _examples(point: Point, device: torch.device) -> tuple[Tensor, rin.Condition]:
    x = torch.randn(point.batch, *point.model.shape, device=device).clamp(-1, 1)
    classes = point.model.num_classes
    labels = torch.randint(classes, (point.batch,), device=device) if classes else None
    return x, rin.Condition(labels=labels)
