"""Training and sampling steps against rin-pytorch, and against our own plain eager float32 path, taking turns.

`eager` is this project's network as PyTorch runs it: float32, MKL's products on a CPU, no compiling. `rin` is what a
user gets by default on the device; `compiled` goes through torch.compile. `rin-pytorch` is matched in size (see
`rivals.matched`), `rin-pytorch default` is that package as it comes. A training step is both passes, backward,
optimiser and average; a sampling step one of `STEPS` of a run of DDPM.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from benchmarks import rivals
from benchmarks.harness import Bench, Step
from benchmarks.training_memory import update
from rin import RIN, Condition, Diffusion, DiffusionConfig, ExperimentConfig, RINConfig, preset
from rin.core.compute import compiles, uses_bfloat16
from rin.costs.operations import cost
from rin.data import Batch
from rin.nn import linear
from rin.training.config import TrainingConfig

STEPS = 10
"""Steps of a run of sampling, whose time is divided by them."""


def other_rins(bench: Bench) -> None:
    """Records a line a size for training and one for sampling."""
    for name, config, batch in sizes(bench.full):
        for work, make in (("training", _training), ("sampling", _sampling)):
            _compare(bench, name, config, batch, work, make)


def sizes(full: bool) -> list[tuple[str, RINConfig, int]]:
    """Networks without classes, which rin-pytorch has not, and their batches."""

    def square(size: int, patch: int, num_latents: int, width: int, depth: tuple[int, ...]) -> RINConfig:
        return RINConfig(
            shape=(3, size, size), patch_size=patch, num_latents=num_latents, latent_dim=width, interface_dim=width,
            compute_depth=depth, num_heads=width // 32, num_read_write_heads=width // 32, latent_mlp_ratio=4,
            interface_mlp_ratio=4,
        )  # fmt: skip

    if full:
        names = {"cifar10": 256, "imagenet-64": 256, "imagenet-256": 64}
        return [(name, replace(preset(name).model, num_classes=0), batch) for name, batch in names.items()]
    return [
        ("64 tokens, 32 latents, 64 wide", square(32, 4, 32, 64, (1, 1)), 32),
        ("64 tokens, 48 latents, 128 wide", square(32, 4, 48, 128, (1, 1, 1)), 32),
        ("256 tokens, 64 latents, 128 wide", square(32, 2, 64, 128, (2, 2)), 16),
        ("64 tokens, 64 latents, 256 wide", square(64, 8, 64, 256, (2, 2)), 16),
        ("256 tokens, 128 latents, 256 wide", square(32, 2, 128, 256, (2, 2, 2)), 8),
    ]


def with_compiled(bench: Bench, config: RINConfig) -> bool:
    """Whether `compiled` is a side of its own: on a CPU, where it is no default and takes minutes, at one size."""
    return not compiles("auto", bench.device) and config == sizes(full=False)[1][1]


Rivals = dict[str, rivals.Rival]
Make = Callable[[Bench, RINConfig, int, Rivals], dict[str, Step]]


def _compare(bench: Bench, name: str, config: RINConfig, batch: int, work: str, make: Make) -> None:
    theirs = {
        "rin-pytorch": rivals.matched(config, bench.device),
        "rin-pytorch default": rivals.default(config, bench.device),
    }
    sides = make(bench, config, batch, theirs)
    memory = {side: bench.peak_memory(step) for side, step in sides.items()}
    seconds = bench.interleave(sides)
    figures: dict[str, dict[str, Any]] = {}
    for side in sides:
        bfloat16 = "bfloat16" in side or (side in ("rin", "compiled") and uses_bfloat16("auto", bench.device))
        rate = bench.matmul_rate(torch.bfloat16 if bfloat16 else torch.float32)
        price = theirs.get(side.removesuffix(" bfloat16")) or cost(config)
        steps = 1 if work == "training" else STEPS
        passes = 4 if work == "training" else 1  # the estimate, the main pass, and twice that backward
        a_second = batch * steps / seconds[side]
        figures[side] = {
            "images_per_second": a_second, "seconds": seconds[side] / steps, "peak_bytes": memory[side],
            "parameters": price.parameters, "operations": price.operations,
            "share_of_matmul": a_second * price.operations * passes / rate,
        }  # fmt: skip
    ratios = {side: seconds[side] / seconds["rin"] for side in sides if side != "rin"}
    bench.record("other rins", size=name, work=work, batch=batch, sides=figures, times_as_fast=ratios)


def _training(bench: Bench, config: RINConfig, batch: int, theirs: Rivals) -> dict[str, Step]:
    device, bfloat16 = bench.device, uses_bfloat16("auto", bench.device)
    images = torch.rand(batch, *config.shape, generator=torch.Generator().manual_seed(0)).to(device)
    pictures = Batch((images * 255).byte(), torch.full((batch,), -1, device=device), torch.arange(batch))

    def ours(**options: Any) -> Step:
        torch.manual_seed(0)
        experiment = ExperimentConfig(model=config, training=TrainingConfig(batch_size=batch, **options))
        return update(experiment, pictures, bench.path.parent)

    with mock.patch.object(linear, "onednn_is_faster", return_value=False):
        sides = {"eager": ours(precision="float32", compile="off")}
    sides["rin"] = ours()
    if with_compiled(bench, config):
        sides["compiled"] = ours(compile="on")
    sides["rin-pytorch"] = rivals.training_step(theirs["rin-pytorch"], images, False, average_every=1)
    sides["rin-pytorch default"] = rivals.training_step(theirs["rin-pytorch default"], images, False, 10)
    if bfloat16:
        sides["rin-pytorch bfloat16"] = rivals.training_step(rivals.matched(config, device), images, True, 1)
    return sides


def _sampling(bench: Bench, config: RINConfig, batch: int, theirs: Rivals) -> dict[str, Step]:
    device, bfloat16 = bench.device, uses_bfloat16("auto", bench.device)
    diffusion, shape = Diffusion(DiffusionConfig()), (batch, *config.shape)

    def ours(**options: Any) -> Step:
        torch.manual_seed(0)
        model = RIN(config).to(device).eval().requires_grad_(False)
        return lambda: diffusion.sample(
            model, shape, Condition(), num_steps=STEPS, seeds=list(range(batch)), sampler="ddpm", **options
        )

    with mock.patch.object(linear, "onednn_is_faster", return_value=False):
        sides = {"eager": ours()}
    sides["rin"] = ours(bfloat16=bfloat16, compile=compiles("auto", device))
    if with_compiled(bench, config):
        sides["compiled"] = ours(compile=True)
    for side, rival in theirs.items():
        sides[side] = rivals.sampling_steps(rival, batch, STEPS, False)
    if bfloat16:
        sides["rin-pytorch bfloat16"] = rivals.sampling_steps(theirs["rin-pytorch"], batch, STEPS, True)
    return sides
