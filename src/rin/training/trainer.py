"""The training loop."""

import dataclasses
import os
from contextlib import closing
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.compute import autocast_to, compiled, compiles, device, uses_bfloat16
from rin.core.distributed import LargestOfAll, sum_over_processes, world_size
from rin.core.errors import RinError, StoppedError
from rin.core.launch import naming_the_dead
from rin.core.progress import LOGGER
from rin.core.seeds import Chance, torch_seed
from rin.core.shapes import Labels, Media
from rin.core.signals import listening
from rin.data import Batch, OpenedData, joint_batches, on_device
from rin.diffusion import Diffusion
from rin.diffusion.loss import fixed_share
from rin.evaluation.cost import update_operations
from rin.nn import RIN
from rin.training import checkpoint
from rin.training.average import Average
from rin.training.config import TrainingConfig
from rin.training.held_out import examples_of, held_out_losses
from rin.training.lr_schedules import learning_rate
from rin.training.optim import make_optimiser, optimiser_tensors, restore_optimiser
from rin.training.reports import Reports
from rin.training.samples import keep, samples
from rin.training.sharding import (
    OwnWeights,
    distribute,
    load_rows,
    own_places,
    own_rows,
    shard,
    squared_norm,
    sums_gradients,
)
from rin.training.skips import Skips, finite_or_none

MOST_SKIPPED = 3
"""Updates in a row that may be skipped because their loss or gradient is not finite."""


class Trainer:
    """One run: a model, its average, its optimiser, and the folder that it lives in.

    Everything random is a function of (seed, step, place in the global batch), so a trainer that resumes from a
    checkpoint ends, on a CPU, with the uninterrupted run's weights, averages, optimiser state and log, bit by bit.
    Under a launcher every process makes a trainer and calls the same methods.

    Args:
        config: how to train.
        model: the network with its initial weights, the same in every process.
        process: its diffusion.
        data: what to train on, and what is held out.
        folder: the run's folder, which every process sees.
        seed: of all that is random.
        flip: flip half of the examples.

    Raises:
        RinError: the batch cannot be split evenly over accumulation steps and processes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: RIN,
        process: Diffusion,
        data: OpenedData,
        folder: Path,
        seed: int,
        flip: bool,
    ) -> None:
        self.config, self.process = config, process
        self.folder, self.seed, self.flip = folder, seed, flip
        self.device = device()
        self.parts = own_places(config.batch_size, config.accumulation_steps)
        self.data = dataclasses.replace(
            data, training=on_device(data.training, self.device), held_out=on_device(data.held_out, self.device)
        )
        self.model = model.to(self.device).train()
        self.model.recompute_blocks = config.recompute_blocks
        self.average = Average(self.model, config.average_decay, config.average_warmup)
        self.averages = {checkpoint.AVERAGE: self.average} | {
            checkpoint.average_of(decay): Average(self.model, decay, config.average_warmup)
            for decay in config.further_decays
        }
        self.sharded = config.parallel == "fsdp" and world_size() > 1
        if self.sharded:
            for average in self.averages.values():
                shard(average.model)
        self.network = distribute(self.model, self.sharded)
        self.weights = OwnWeights(self.model, self.sharded)
        self.optimiser = make_optimiser(config, self.weights.parts.values(), self.sharded)
        self.in_bfloat16 = uses_bfloat16(config.precision, self.device)
        self.seed_there = torch.tensor(seed, device=self.device)  # once: a copy to a GPU waits for what it is doing
        self.loss_of = self.loss
        if compiles(config.compile, self.device):
            self.loss_of = compiled(self.loss, "the training step")
        self.checkpoints = folder / checkpoint.FOLDER
        self.step = self.last_logged = 0
        self.loss_sum, self.gradient_norm = (torch.zeros((), device=self.device) for _ in range(2))
        self.skips = Skips(self.device)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only under this
            torch.use_deterministic_algorithms(True)

    def run(self) -> None:
        """Trains to the end, going on from the newest checkpoint that is whole, if there is one.

        Raises:
            RinError: the data or the folder fail, or too many updates in a row are not finite.
            StoppedError: a signal asked to leave (see `rin.core.signals`); everything is saved.
        """
        self.resume()
        stream = joint_batches(
            self.data,
            seed=self.seed,
            batch_size=self.config.batch_size,
            places=torch.cat([torch.arange(part.start, part.stop) for part in self.parts]),
            first_step=self.step,
            flip=self.flip,
        )
        signals = LargestOfAll()
        with listening() as asked, closing(stream), self.reports() as reports, naming_the_dead():
            while self.step < self.config.num_steps:
                batch = reports.waits_for(stream)
                lr = self.update(batch)
                if self.skips.in_a_row() >= MOST_SKIPPED:
                    raise self.not_finite(batch)
                if self.due(self.config.log_every) or self.due(self.config.held_out_every):
                    reports.record(self.record(lr))
                if self.due(self.config.sample_every):
                    shown = samples(self.average.model, self.process, self.data, self.seed, self.in_bfloat16)
                    reports.pictures(self.step, *keep(shown, self.folder, self.step))
                if self.due(self.config.checkpoint_every):
                    self.save()
                    reports.saved(self.step)
                reports.advance()
                if signal := signals.before(asked.signal):
                    raise self.stopped(signal, reports)
            signals.last()

    def reports(self) -> Reports:
        """What tells how the run goes."""
        config = self.config
        operations = partial(
            update_operations, self.model.config, self.process.config, config.batch_size, config.recompute_blocks
        )
        shown = {name: dataclasses.asdict(part) for name, part in
                 (("model", self.model.config), ("diffusion", self.process.config), ("training", config))}  # fmt: skip
        return Reports(self.folder, config, self.step, operations, self.data.training, self.device, shown)

    def due(self, every: int) -> bool:
        """Whether something that happens every so many updates is due, as everything is after the last."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.num_steps)

    def update(self, batch: Batch) -> float:
        """One update of weights and average from this process's share of a batch; returns its learning rate.

        An update whose loss or gradient is not finite, in any process, leaves the weights as they are in all.
        """
        config = self.config
        lr = learning_rate(
            self.step,
            base=config.learning_rate,
            schedule=config.lr_schedule,
            warmup_steps=config.warmup_steps,
            num_steps=config.num_steps,
            end_factor=config.lr_end_factor,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.network.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for number in range(config.accumulation_steps):
            with sums_gradients(self.network, last=number + 1 == config.accumulation_steps):
                part = self.part_loss(batch, number) / config.accumulation_steps
                part.backward()
            loss += part.detach()
        gradients = self.weights.take_gradients()
        loss, self.gradient_norm = self.over_processes(loss, squared_norm(gradients, self.device))
        skipped = 1 - (loss.isfinite() & self.gradient_norm.isfinite()).float()
        self.optimiser.found_inf = skipped  # pyright: ignore[reportAttributeAccessIssue]
        self.optimiser.step()
        for average in self.averages.values():
            average.update(self.step)
        self.loss_sum += torch.where(skipped > 0, 0, loss)
        self.skips.add(skipped)
        self.step += 1
        return lr

    def over_processes(self, loss: Float[Tensor, ""], squares: Float[Tensor, ""]) -> tuple[Tensor, Tensor]:
        """The mean loss and the gradient's norm, of all processes."""
        loss, squares = sum_over_processes(torch.stack([loss, squares]))
        # the gradients of DDP are the mean already, the same in every process; those of FSDP are rows of it
        return loss / world_size(), (squares if self.sharded else squares / world_size()).sqrt()

    def part_loss(self, batch: Batch, number: int) -> Float[Tensor, ""]:
        """The mean loss of one part of this process's batch, with its own noise, masks and dropout."""
        part = self.parts[number]
        rows = slice(number * len(part), (number + 1) * len(part))
        media, labels = (values[rows].to(self.device, non_blocking=True) for values in (batch.media, batch.labels))
        step = torch.full((), self.step, device=self.device)  # a tensor, to be no constant of compiled code
        chance = Chance(self.seed_there, step, torch.arange(part.start, part.stop, device=self.device))
        self_cond = fixed_share(self.process.config, part, self.device)
        torch.manual_seed(torch_seed(self.seed, self.step, part.start))  # dropout and stochastic depth
        return self.loss_of(media, labels, chance, self_cond)

    def loss(
        self, media: Media, labels: Labels, chance: Chance, self_cond: Int[Tensor, "k"] | None
    ) -> Float[Tensor, ""]:
        """The mean loss of some pictures or clips: all of it on the device, to be compiled as a whole."""
        with autocast_to(self.in_bfloat16, self.device):
            x_0, condition = examples_of(self.model.config, media, labels)
            return self.process.loss(self.network, x_0, condition, self_cond=self_cond, chance=chance)

    def record(self, lr: float) -> dict[str, Any]:
        """A line of the log: the mean loss since the line before, norms, and the held-out losses where they are due."""
        taken = self.step - self.last_logged - self.skips.since_line()
        squares = squared_norm(own_rows(self.model).values(), self.device)
        weight_norm = (sum_over_processes(squares) if self.sharded else squares).sqrt()
        record: dict[str, Any] = {
            "step": self.step,
            "loss": self.loss_sum.item() / taken if taken else None,
            "lr": lr,
            "grad_norm": finite_or_none(self.gradient_norm),
            "weight_norm": finite_or_none(weight_norm),
            "skipped": self.skips.in_all(),
        }
        self.loss_sum.zero_()
        self.skips.line()
        self.last_logged = self.step
        if self.due(self.config.held_out_every) and len(self.data.held_out):
            losses = held_out_losses(
                self.average.model, self.process, self.data.held_out, len(self.parts[0]), self.device
            )
            record["held_out_loss"] = sum(losses.values()) / len(losses)
            record["held_out_loss_by_t"] = losses
        return record

    def save(self) -> Path:
        """Writes a checkpoint."""
        tensors = {
            checkpoint.MODEL: own_rows(self.model),
            **{name: own_rows(average.model) for name, average in self.averages.items()},
            checkpoint.OPTIMISER: optimiser_tensors(self.optimiser, self.weights.parts),
        }
        state = {
            "step": self.step,
            "loss_sum": self.loss_sum.item(),
            "last_logged": self.last_logged,
            "skips": self.skips.state(),
            "examples": len(self.data.training),
            "pictures": len(self.data.pictures or ()),
            "optimiser": self.config.optimiser,
        }
        return checkpoint.save(
            self.checkpoints, self.step, tensors, state, self.config.keep_checkpoints,
            keep_every=self.config.keep_checkpoint_every, sharded=self.sharded,
        )  # fmt: skip

    def resume(self) -> None:
        """Goes on from the newest checkpoint that is whole, if there is one.

        Raises:
            RinError: every checkpoint is damaged, or the training set has changed.
        """
        newest = checkpoint.newest_whole(self.checkpoints)
        if newest is None:
            return
        state = checkpoint.state(newest)
        for name, now in (("examples", self.data.training), ("pictures", self.data.pictures or ())):
            if state[name] != len(now):
                raise RinError(
                    f"the training set has {len(now)} {name}, and had {state[name]} when {newest} was written: restore "
                    "it, or train on it in another --out"
                )
        if state["optimiser"] != self.config.optimiser:
            raise RinError(f"{newest} was written with {state['optimiser']}, and this run has {self.config.optimiser}")
        averages = {name: average.model for name, average in self.averages.items()}
        for name, model in {checkpoint.MODEL: self.model, **averages}.items():
            if not load_rows(model, checkpoint.read(newest, name, self.sharded)):
                raise RinError(f"{newest} holds the weights of another network: it was not written by this run")
        self.step, self.last_logged = state["step"], state["last_logged"]
        self.loss_sum.fill_(state["loss_sum"])
        self.skips.restore(state["skips"])
        tensors = checkpoint.read(newest, checkpoint.OPTIMISER, self.sharded)
        restore_optimiser(self.optimiser, self.weights.parts, tensors, self.step - self.skips.in_all())
        LOGGER.info("going on from step %d", self.step)

    def stopped(self, signal: int, reports: Reports) -> StoppedError:
        """What ends a run that a signal asked to leave; everything is saved."""
        saved = checkpoint.path_of(self.checkpoints, self.step)
        if checkpoint.latest(self.checkpoints) != saved:
            self.save()
            reports.saved(self.step)
        name = Signals(signal).name
        return StoppedError(
            f"stopped by {name} after step {self.step}, saved as {saved}; the same command goes on", signal
        )

    def not_finite(self, batch: Batch) -> RinError:
        """What to tell a person when too many updates in a row were skipped."""
        few = ", ".join(map(str, batch.examples[:8].tolist()))
        newest = checkpoint.latest(self.checkpoints)
        return RinError(
            f"loss or gradient was not finite in {MOST_SKIPPED} updates in a row, the last of them number {self.step} "
            f"(examples {few} ... of the training set); none of these changed the weights; the last good checkpoint is "
            f"{newest or 'not written yet'}: look at these examples, or take a lower learning rate"
        )
