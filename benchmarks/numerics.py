"""The authors' numbers on this device, one way of computing after the other: how far each is from them.

`float32` is plain; `compiled` goes through torch.compile, in CUDA graphs on a GPU; `bfloat16` is the autocast that
`rin train` takes by itself. Differences are the largest of a case, over the largest number of the reference.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import rin
from benchmarks.harness import Bench
from benchmarks.training_memory import update
from rin.core.compute import Precision, autocast_to
from rin.core.denoiser import Condition
from rin.data import Batch
from rin.diffusion import Diffusion
from rin.interop import pix2seq
from rin.training import trainer
from tests.reference.case import Case, case_files

FORWARD = ("image", "video", "tokens")
"""Kinds of cases that hold a forward pass."""

COMPILED = ("image_class", "sample_ddim_guided")
"""Cases that are compiled too: each takes a minute."""

UPDATES = 20
"""Of the digits preset, whose losses are compared to a CPU's."""


def numerics(bench: Bench) -> None:
    """Records a line a way: of forward passes and samples, and of updates beside the same on a CPU."""
    ways: dict[str, dict[str, bool]] = {"float32": {}, "bfloat16": {"bfloat16": True}, "compiled": {"compile": True}}
    cases = [Case(path) for path in case_files()]
    for name, way in ways.items():
        for work, kinds, run in (("forward", FORWARD, _forward), ("sampling", ("sample",), _sample)):
            of_work = [case for case in cases if case.kind in kinds]
            chosen = [case for case in of_work if case.path.stem in COMPILED] if name == "compiled" else of_work
            found = {case.path.stem: run(bench, case, **way) for case in chosen}
            bench.record("numerics", work=work, way=name, largest=max(found.values()), by_case=found)
    expected = _losses(torch.device("cpu"))
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        losses = _losses(bench.device, precision)
        largest = max(abs(ours - theirs) / theirs for ours, theirs in zip(losses, expected, strict=True))
        bench.record("numerics", work="training", way=precision, largest=largest, losses=losses, on_a_cpu=expected)


def _forward(bench: Bench, case: Case, compile: bool = False, bfloat16: bool = False) -> float:
    model, labels = _model(bench, case), case.labels()
    context = case.data("in/cond") if "in/cond" in case else None
    condition = Condition(labels=labels, context=context).to(bench.device)
    inputs = [case.data("in/x"), case.flat("in/gamma"), case.flat("in/latent_prev")]
    x, gamma, latents = (value.to(bench.device) for value in inputs)
    call: Callable[..., rin.Denoised] = torch.compile(model, dynamic=False) if compile else model
    with torch.no_grad(), autocast_to(bfloat16, bench.device):
        out = call(x, gamma, condition, latents)
    return max(_difference(out.prediction, case.data("out/x")), _difference(out.latents, case.flat("out/latent")))


def _sample(bench: Bench, case: Case, compile: bool = False, bfloat16: bool = False) -> float:
    config = case.config | ({"cond_dropout": 0.1} if case.config["guidance"] else {})
    noise = [draw if config["kind"] == "tokens" else draw.movedim(-1, 1) for draw in case.flat("in/noise")]
    samples = Diffusion(pix2seq.diffusion_config(config)).sample(
        _model(bench, case), noise[0].shape, Condition(labels=case.labels()).to(bench.device),
        num_steps=config["steps"], guidance=config["guidance"], td=config["td"], compile=compile, bfloat16=bfloat16,
        noise=[draw.to(bench.device) for draw in noise],
    )  # fmt: skip
    return _difference(samples * config["b_scale"], case.data("out/x0"))


def _model(bench: Bench, case: Case) -> rin.RIN:
    return pix2seq.load(case.config, case.variables("w/")).to(bench.device)


def _difference(ours: Tensor | None, theirs: Tensor) -> float:
    assert ours is not None
    return ((ours.cpu().double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def _losses(device: torch.device, precision: Precision = "float32") -> list[float]:
    """The losses of the first updates of digits, of the same random pictures each, on a device."""
    digits = rin.preset("digits")
    training = replace(digits.training, warmup_steps=5, precision=precision, compile="off")
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (training.batch_size, *digits.model.shape), generator=generator).byte()
    batch = Batch(pictures, torch.arange(training.batch_size) % 10, torch.arange(training.batch_size))
    torch.manual_seed(0)
    losses: list[float] = []
    with mock.patch.object(trainer, "device", return_value=device), tempfile.TemporaryDirectory() as folder:
        step = update(replace(digits, training=training), batch, Path(folder))
        for _ in range(UPDATES):
            step()
            losses.append(step.func.__self__.loss_sum.item())
    return [after - before for before, after in pairwise([0.0, *losses])]
