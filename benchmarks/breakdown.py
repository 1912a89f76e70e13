"""Where the time of a training step goes, part by part."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rin
from benchmarks.harness import Bench, Step, autocast
from benchmarks.loading import open_pictures, preset_at
from rin.data import MediaSet, batches
from rin.nn.blocks import Block
from rin.training.average import Average
from rin.training.optim import make_optimiser

PARTS = (
    "data", "condition", "tokenise", "read", "compute", "write", "read-out", "diffusion", "optimiser", "average",
    "other",
)  # fmt: skip
"""What a step's time is charged to. "condition" is all that makes the initial latents, self-conditioning included;
"diffusion" is noise, masks, corruption and loss; "data" is the wait for a batch and its way to the device."""


def breakdown(bench: Bench) -> None:
    """Measures the parts of whole training steps: data, estimate pass, main pass, backward, optimiser, average.

    A step's time is cut where a part begins and ends: in the forward passes around the part's call, in the backward
    pass where the gradients come to the part's outputs and where they leave its inputs (see `charge`). Each stretch
    belongs to one part, both passes and backward together; what belongs to none is "other". On CUDA the cuts are
    events in the stream. The medians of the parts are recorded, beside that of a like step without cuts that takes
    turns with the cut one, `step_seconds`: the sum of the parts is above it by what cutting costs.
    """
    chosen = (("imagenet-256", "JPEG", 32),) if bench.full else (("digits", "", 32), ("small-32", "memory", 32))
    with tempfile.TemporaryDirectory() as folder:
        for preset, source, batch in chosen:
            experiment = preset_at(preset, batch)
            images = _open(experiment, source, Path(folder))
            plain, cut = (Training(experiment, images, bench.device) for _ in range(2))
            timeline = Timeline(bench.device)
            charge_parts(timeline, cut)
            sides = {"plain": plain.step, "cut": lambda cut=cut, timeline=timeline: timeline.run(cut.step)}
            step_seconds = bench.interleave(sides)["plain"]
            plain.stream.close()
            cut.stream.close()
            seconds = {part: statistics.median(run.get(part, 0.0) for run in timeline.runs) for part in PARTS}
            bench.record("breakdown", preset=preset, batch=batch, step_seconds=step_seconds, part_seconds=seconds)


class Training:
    """The trainer's step in pieces that can be charged to parts, and never compiled, since that would merge them.

    Args:
        experiment: what to train; its data is given apart.
        images: what to train on.
        device: where to compute.
    """

    def __init__(self, experiment: rin.ExperimentConfig, images: MediaSet, device: torch.device) -> None:
        config = experiment.training
        self.device = device
        self.model = rin.RIN(experiment.model).to(device).train()
        self.diffusion = rin.Diffusion(experiment.diffusion)
        self.average = Average(self.model, config.average_decay, config.average_warmup)
        self.optimiser = make_optimiser(config, self.model.parameters())
        self.stream = batches(
            images, seed=0, batch_size=config.batch_size, places=torch.arange(config.batch_size), first_step=0,
            flip=experiment.data.flip,
        )  # fmt: skip
        self.updates = 0

    def step(self) -> None:
        """One update of weights and average."""
        x_0, condition = self.fetch()
        self.optimiser.zero_grad(set_to_none=True)
        self.gradients(x_0, condition)
        self.optimiser.step()
        self.average.update(self.updates)
        self.updates += 1

    def fetch(self) -> tuple[Tensor, rin.Condition]:
        """The next batch, on the device, as the loss takes it."""
        images, labels = next(self.stream)
        x_0 = rin.to_floats(images.to(self.device))
        has_classes = self.model.config.num_classes > 0
        return x_0, rin.Condition(labels=labels.to(self.device) if has_classes else None)

    def gradients(self, x_0: Tensor, condition: rin.Condition) -> None:
        """The loss, with its estimate pass, and its gradients."""
        with autocast(self.device):
            loss = self.diffusion.loss(self.model, x_0, condition)
        loss.backward()


class Timeline:
    """Charges the time of a step to parts: all that passes until the next cut is the current part's.

    `runs` has the seconds of each part for each step that was run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.part = "other"
        self.runs: list[dict[str, float]] = []
        self._cuts: list[tuple[str, Any]] = []

    def switch(self, part: str) -> None:
        """Cuts here; what follows is for `part`."""
        self.part = part
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._cuts.append((part, event))
        else:
            self._cuts.append((part, time.perf_counter()))

    def run(self, step: Step) -> None:
        """Runs a step from beginning to end."""
        self._cuts.clear()
        self.switch("other")
        step()
        self.switch("other")
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (part, begun), (_, ended) in zip(self._cuts, self._cuts[1:], strict=False):
            passed = begun.elapsed_time(ended) / 1000 if self.device.type == "cuda" else ended - begun
            seconds[part] = seconds.get(part, 0.0) + passed
        self.runs.append(seconds)


def charge_parts(timeline: Timeline, training: Training) -> None:
    """Has every part of a training step charged to its name, and the rest of loss and network to "diffusion", "other".

    What runs in none of them, "other", is what the step and the network do between their parts.
    """
    model = training.model
    charge(timeline, training, "fetch", "data")
    charge(timeline, training, "gradients", "diffusion")
    charge(timeline, training.optimiser, "zero_grad", "optimiser")
    charge(timeline, training.optimiser, "step", "optimiser")
    charge(timeline, training.average, "update", "average")
    charge(timeline, model, "forward", "other")
    charge(timeline, model, "initial_latents", "condition")
    charge(timeline, model.tokenizer, "tokenize", "tokenise")
    charge(timeline, model.tokenizer, "detokenize", "read-out")
    for block in model.blocks:
        assert isinstance(block, Block)
        charge(timeline, block.read, "forward", "read")
        if block.write is not None:
            charge(timeline, block.write, "forward", "write")
        for layer in block.compute:
            charge(timeline, layer, "forward", "compute")


def charge(timeline: Timeline, owner: Any, method: str, part: str) -> None:
    """Wraps a method of one object so that its time, in the forward and in the backward pass, is charged to a part.

    Autograd goes back through a graph in the reverse order of its making. So a node that does nothing on the way of
    the method's outputs is where the part's backward begins, and one on the way of its inputs is where it ends.
    """
    original = getattr(owner, method)

    def charged(*arguments: Any, **named: Any) -> Any:
        around = timeline.part
        arguments = _with_cut(timeline, around, arguments)
        timeline.switch(part)
        result = original(*arguments, **named)
        timeline.switch(around)
        return _with_cut(timeline, part, (result,))[0]

    setattr(owner, method, charged)


def _with_cut(timeline: Timeline, part: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, where those with gradients switch to the part once all of their gradients are there."""
    places = [
        place
        for place, value in enumerate(values)
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()
    ]
    if not places:
        return values
    passed = dict(zip(places, _Cut.apply(timeline, part, *(values[place] for place in places)), strict=True))
    return tuple(passed.get(place, value) for place, value in enumerate(values))


class _Cut(torch.autograd.Function):
    """The identity, that switches a timeline to a part when the backward pass comes by."""

    @staticmethod
    def forward(ctx: Any, timeline: Timeline, part: str, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.timeline, ctx.part = timeline, part
        ctx.set_materialize_grads(False)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        ctx.timeline.switch(ctx.part)
        return None, None, *gradients


def _open(experiment: rin.ExperimentConfig, source: str, folder: Path) -> MediaSet:
    """What a preset is fed with: its own data, or made pictures in place of those to be fetched."""
    if source:
        return open_pictures(source, experiment.model.shape, folder).training
    channels, height, width = experiment.model.shape
    return rin.open_data(experiment.data, (channels, height, width)).training
