"""Each thing done for speed, undone alone and measured against it, taking turns, on `small-32` or a part of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from unittest import mock

import torch

from benchmarks.harness import Bench, Step
from rin import RIN, Condition, Diffusion, ExperimentConfig, preset
from rin.core.compute import autocast_to
from rin.nn import linear
from rin.training.optim import make_optimiser, parameter_groups

Undone = Callable[[], AbstractContextManager[object]]
"""A context in which something is undone."""


def steps(bench: Bench) -> None:
    """Records a line a thing: seconds with it and without, and their ratio."""
    experiment = preset("imagenet-64" if bench.full else "small-32")
    batch = 64 if bench.full else 32
    for name, with_it, without in (
        ("products in bfloat16", loss(bench, experiment, batch, bfloat16=True), loss(bench, experiment, batch)),
        ("oneDNN in linear layers", loss(bench, experiment, batch), loss(bench, experiment, batch, _mkl)),
        ("estimate for a share of 0.9", *_shared(bench, experiment, batch)),
        ("AdamW in one kernel", *_adamw(bench, experiment)),
    ):
        seconds = bench.interleave({"with": with_it, "without": without})
        ratio = seconds["without"] / seconds["with"]
        bench.record("steps", thing=name, with_seconds=seconds["with"], without_seconds=seconds["without"], ratio=ratio)


def loss(
    bench: Bench, experiment: ExperimentConfig, batch: int, undone: Undone = nullcontext, *, bfloat16: bool = False
) -> Step:
    """The loss and its gradients, with something undone while the network is made and run."""
    with undone():
        model = RIN(experiment.model).to(bench.device).train()
    diffusion, x_0 = Diffusion(experiment.diffusion), _images(bench, experiment, batch)
    labels = torch.zeros(batch, dtype=torch.int64, device=bench.device)

    def step() -> None:
        with undone():
            with autocast_to(bfloat16, bench.device):
                total = diffusion.loss(model, x_0, Condition(labels=labels))
            total.backward()
        model.zero_grad()

    return step


def _shared(bench: Bench, experiment: ExperimentConfig, batch: int) -> Iterator[Step]:
    for by in ("share", "mask"):
        diffusion = replace(experiment.diffusion, self_cond_by=by)
        yield loss(bench, replace(experiment, diffusion=diffusion), batch)


def _adamw(bench: Bench, experiment: ExperimentConfig) -> Iterator[Step]:
    for fused in (True, False):
        model = RIN(experiment.model).to(bench.device)
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, 1e-3)
        training = replace(experiment.training, optimiser="adamw", learning_rate=1e-6)
        groups = parameter_groups(model.parameters(), training.weight_decay)
        yield (
            make_optimiser(training, model.parameters()) if fused else torch.optim.AdamW(groups, lr=1e-6, foreach=True)
        ).step


def _mkl() -> AbstractContextManager[object]:
    return mock.patch.object(linear, "onednn_is_faster", return_value=False)


def _images(bench: Bench, experiment: ExperimentConfig, batch: int) -> torch.Tensor:
    return torch.rand(batch, *experiment.model.shape, device=bench.device) * 2 - 1
