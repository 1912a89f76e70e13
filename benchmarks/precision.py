"""What 16 bits cost a RIN, place by place: the same training in one precision after another.

    python -m benchmarks.precision --out precision.jsonl [--updates 500] [--seeds 0 1 2] [--preset digits]

Every variant trains the preset's network from the same initial weights with the same data, times, noise, masks and
label drops, which are functions of the seed. The held-out loss is that of the averaged weights, the network computing
in the variant's own precision (`held_out`), and at the end in float32 too (`held_out_float32`); the arithmetic around
the network is float32 in both. Emulation is that of `benchmarks.rounding`; `autocast` is the real one. The warm-up is
an eighth of the updates, where the preset's is longer, and the rate's schedule ends with the run.

The rule, written down before the study ran: differences are paired, a variant's final mean held-out loss minus
float32's of the same seed. Training is chaotic, so `nudged`, which is float32 from initial weights that differ in
their last bits, shows what differences mean nothing. A variant **hurts** if its mean difference is above both the
standard deviation of its differences and the largest absolute difference of `nudged`; it **helps** if it is as far
below; otherwise it is **level**. A loss that is not finite **diverges**.

What the file already holds, by preset, updates, variant and seed, is not run again.
"""

import argparse
import dataclasses
import functools
import json
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rin
from benchmarks.harness import machine, versions
from benchmarks.rounding import Rounding, round_
from rin.core.seeds import Chance, Purpose
from rin.data import Batch, OpenedData, batches
from rin.experiment import ExperimentConfig
from rin.run import settle
from rin.run_data import open_run_data
from rin.training.average import Average
from rin.training.held_out import held_out_losses
from rin.training.lr_schedules import learning_rate
from rin.training.optim import make_optimiser

NETWORK = {"products", "noise level", "stream", "latents"}
"""The places that evaluation rounds as well: those of the network."""

COMPUTED = (*sorted(NETWORK), "noising", "loss")
STORED = ("weights", "moments", "average")
CHECKPOINTS = 4
NUDGE = 1e-6
"""Relative change of the initial weights: their last bits."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How one run departs from float32."""

    computed: tuple[str, ...] = ()
    """Places of the computation that are rounded, see `benchmarks.rounding.PLACES`."""

    stored: tuple[str, ...] = ()
    """What is kept in 16 bits between updates: weights, moments, average."""

    dtype: torch.dtype = torch.bfloat16
    """What is rounded to."""

    autocast: bool = False
    """Compute under PyTorch's own autocast, as the trainer does."""

    forgets: bool = False
    """Lose the gradients of weights that the estimate pass casts first, as autocast's cache of casts once did."""

    loss_scale: float = 1.0
    """What the loss is multiplied by before, and the gradients are divided by after the backward pass."""

    nudged: bool = False
    """Start from weights that differ in their last bits."""


_PRODUCTS = ("products",)
VARIANTS = {
    "float32": Variant(),
    "nudged": Variant(nudged=True),
    "autocast": Variant(autocast=True),
    "autocast, old cache": Variant(autocast=True, forgets=True),
    "products": Variant(computed=_PRODUCTS),
    **{f"+ {place}": Variant(computed=(*_PRODUCTS, place)) for place in COMPUTED if place != "products"},
    **{f"+ {kept}": Variant(computed=_PRODUCTS, stored=(kept,)) for kept in STORED},
    "everything": Variant(computed=COMPUTED, stored=STORED),
    "float16": Variant(computed=_PRODUCTS, dtype=torch.float16),
    "float16, scaled": Variant(computed=_PRODUCTS, dtype=torch.float16, loss_scale=1024.0),
    # the loss is a mean, so gradients of a batch of 32 pictures of 256x256 in colour are 3,072 times as small
    "float16, 256x256": Variant(computed=_PRODUCTS, dtype=torch.float16, loss_scale=1 / 3072),
}


class Run:
    """One training in one precision."""

    def __init__(self, variant: Variant, experiment: ExperimentConfig, data: OpenedData, seed: int) -> None:
        self.variant, self.experiment, self.data, self.seed = variant, experiment, data, seed
        torch.manual_seed(seed)
        self.model = rin.RIN(experiment.model).train()
        for layer in self.model.modules():
            if isinstance(layer, nn.Linear):  # PyTorch's own way, since `Rounding` sees no other
                layer.forward = functools.partial(nn.Linear.forward, layer)
        with torch.no_grad():
            for weight in self.model.parameters() if variant.nudged else ():
                weight.mul_(1 + NUDGE * torch.randn_like(weight))
        if "weights" in variant.stored:
            round_(self.model.parameters(), variant.dtype)
        self.diffusion = rin.Diffusion(experiment.diffusion)
        self.optimiser = make_optimiser(experiment.training, self.model.parameters())
        self.average = Average(self.model, experiment.training.average_decay, experiment.training.average_warmup)
        self.num_skipped = 0

    def precision(self, places: set[str]) -> ExitStack:
        """The variant's precision, in those of the places that it rounds."""
        stack = ExitStack()
        stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=self.variant.autocast))
        self.rounding = stack.enter_context(Rounding(self.variant.dtype, places & set(self.variant.computed)))
        return stack

    def train(self) -> dict[str, Any]:
        """Trains to the end; held-out losses by update and t, and the seconds that an update took."""
        config, checkpoints, seconds = self.experiment.training, {}, 0.0
        stream = batches(
            self.data.training,
            seed=self.seed,
            batch_size=config.batch_size,
            places=torch.arange(config.batch_size),
            first_step=0,
            flip=self.experiment.data.flip,
        )
        for step in range(config.num_steps):
            started = time.perf_counter()
            self.update(step, next(stream))
            seconds += time.perf_counter() - started
            if (step + 1) % math.ceil(config.num_steps / CHECKPOINTS) == 0 or step + 1 == config.num_steps:
                with self.precision(NETWORK):
                    checkpoints[step + 1] = self.held_out()
        stream.close()
        return {
            "held_out": checkpoints,
            "held_out_float32": self.held_out(),
            "num_skipped": self.num_skipped,
            "seconds_per_update": seconds / config.num_steps,
        }

    def held_out(self) -> dict[str, float]:
        """The averaged weights' loss by t."""
        return held_out_losses(
            self.average.model, self.diffusion, self.model.config.kind, self.data.held_out, 64, torch.device("cpu")
        )

    def update(self, step: int, batch: Batch) -> None:
        """One update as the trainer's, with what the variant keeps in 16 bits rounded after it."""
        config, variant = self.experiment.training, self.variant
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(
                step,
                base=config.learning_rate,
                schedule=config.lr_schedule,
                warmup_steps=config.warmup_steps,
                num_steps=config.num_steps,
                end_factor=config.lr_end_factor,
            )
        self.optimiser.zero_grad(set_to_none=True)
        self.gradients(step, batch)
        if not all(bool(gradient.isfinite().all()) for gradient in _gradients(self.model)):
            self.num_skipped += 1  # as loss scalers do
            return
        self.optimiser.step()
        if "moments" in variant.stored:
            state = self.optimiser.state.values()
            round_((value for kept in state for key, value in kept.items() if key != "step"), variant.dtype)
        if "weights" in variant.stored:
            round_(self.model.parameters(), variant.dtype)
        self.average.update(step)
        if "average" in variant.stored:
            round_(self.average.model.parameters(), variant.dtype)

    def gradients(self, step: int, batch: Batch) -> None:
        """Leaves the gradients of a batch's loss in the weights."""
        chance = Chance(self.seed, step, torch.arange(len(batch.labels)))
        x_0, condition = self.model.config.kind.examples(batch.media, batch.labels)
        # drawn out here, so that every precision has the same draws
        t, noise = chance.uniform(Purpose.TIME), chance.normal(Purpose.TRAINING_NOISE, x_0.shape[1:])
        masks = {"self_cond": chance.true(Purpose.SELF_COND, self.diffusion.config.self_cond_rate)}
        if rate := self.diffusion.config.label_drop_rate:
            masks["keep"] = ~chance.true(Purpose.KEEP_LABELS, rate)
            masks["keep_in_estimate"] = ~chance.true(Purpose.KEEP_LABELS_ESTIMATE, rate)
        with self.precision({*NETWORK, "noising", "loss"}):
            loss = self.diffusion.loss(self.model, x_0, condition, t=t, noise=noise, chance=chance, **masks)
        (loss * self.variant.loss_scale).backward()
        for gradient in _gradients(self.model):
            gradient.div_(self.variant.loss_scale)
        for weight in self.rounding.cast_without_gradient if self.variant.forgets else ():
            weight.grad = None


def _gradients(model: nn.Module) -> Iterator[Tensor]:
    return (weight.grad for weight in model.parameters() if weight.grad is not None)


def study(arguments: argparse.Namespace) -> None:
    """Runs what the file does not hold yet, seed by seed, and appends a line for each run."""
    experiment = rin.preset(arguments.preset)
    warmup = min(experiment.training.warmup_steps, arguments.updates // 8)
    training = dataclasses.replace(experiment.training, num_steps=arguments.updates, warmup_steps=warmup)
    source = dataclasses.replace(experiment.data, path=arguments.data or experiment.data.path)
    experiment = dataclasses.replace(experiment, training=training, data=source)
    data = open_run_data(experiment)
    experiment = settle(experiment, data)
    done = {(line["variant"], line["seed"]) for line in results(arguments)}
    for seed in arguments.seeds:
        for name in arguments.variants:
            if (name, seed) in done:
                continue
            figures = Run(VARIANTS[name], experiment, data, seed).train()
            line = {"benchmark": "precision", "preset": arguments.preset, "updates": arguments.updates}
            line |= {"variant": name, "seed": seed, **figures}
            line |= {"machine": machine(torch.device("cpu")), "versions": versions()}
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name}, seed {seed}: {_final(line):.4f}, {figures['seconds_per_update'] * 1e3:.0f} ms", flush=True)


def results(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of this preset and number of updates."""
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.exists() else []
    asked = (arguments.preset, arguments.updates)
    return [line for line in map(json.loads, lines) if (line["preset"], line["updates"]) == asked]


def _final(line: dict[str, Any], key: str = "held_out") -> float:
    """The last mean loss over t of a run."""
    losses = line[key] if key == "held_out_float32" else list(line[key].values())[-1]
    return statistics.fmean(losses.values())


def verdict(differences: list[float], noise: float) -> str:
    """What the rule in the module's docstring says of a variant."""
    if not all(map(math.isfinite, differences)):
        return "diverges"
    if len(differences) < 2:
        return "one seed says nothing"
    mean, bound = statistics.fmean(differences), max(_deviation(differences), noise)
    return "hurts" if mean > bound else "helps" if mean < -bound else "level"


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def report(lines: list[dict[str, Any]]) -> None:
    """Prints a row a variant: final loss, paired difference to float32 and its deviation, verdict."""
    base = {line["seed"]: line for line in lines if line["variant"] == "float32"}
    differences: dict[str, list[float]] = {}
    for line in lines:
        if line["seed"] in base:
            differences.setdefault(line["variant"], []).append(_final(line) - _final(base[line["seed"]]))
    noise = max(map(abs, differences.get("nudged", [0.0])))
    print("variant | seeds | held-out loss | minus float32 | deviation | in float32 | ms an update | verdict")
    for name, found in differences.items():
        own = [line for line in lines if line["variant"] == name]
        loss, exact = (statistics.fmean(_final(line, key) for line in own) for key in ("held_out", "held_out_float32"))
        cost = 1e3 * statistics.fmean(line["seconds_per_update"] for line in own)
        row = f"{name:20} | {len(found)} | {loss:.4f} | {statistics.fmean(found):+.4f} | {_deviation(found):.4f}"
        print(f"{row} | {exact:.4f} | {cost:.0f} | {verdict(found, noise)}")


def main() -> None:
    """Runs the study, or what is left of it, and prints its table."""
    parser = argparse.ArgumentParser(description="What 16 bits cost a RIN, place by place.")
    parser.add_argument("--out", type=Path, required=True, help="file that results are appended to and read from")
    parser.add_argument("--updates", type=int, default=500, help="updates of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the runs")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="precisions to train in"
    )
    parser.add_argument("--preset", default="digits", help="what to train")
    parser.add_argument("--data", help="where the data is, if not where the preset says")
    arguments = parser.parse_args()
    study(arguments)
    report(results(arguments))


if __name__ == "__main__":
    main()
