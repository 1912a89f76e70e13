"""The training loop."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.compute import autocast_to, compiled, compiles, device, uses_bfloat16
from rin.core.progress import LOGGER, progress_bar
from rin.core.seeds import Chance, picture_seeds, torch_seed
from rin.core.shapes import Labels, Pictures
from rin.data import Batch, OpenedData, batches, on_device, to_floats, to_pictures
from rin.diffusion import Diffusion
from rin.diffusion.loss import fixed_share
from rin.evaluation.pictures import grid, save_image
from rin.nn import RIN
from rin.training import checkpoint
from rin.training.average import Average
from rin.training.config import TrainingConfig
from rin.training.held_out import condition_of, held_out_losses
from rin.training.logging import Log
from rin.training.lr_schedules import learning_rate
from rin.training.optim import make_optimiser, optimiser_tensors, restore_optimiser

GRID_COLUMNS, GRID_ROWS = 8, 10
"""A grid of samples while training: with classes, a row of each of the first ones."""


class Trainer:
    """One run: a model, its average, its optimiser, and the folder that it lives in.

    Everything random is a function of (seed, step, place in the batch), so a trainer that resumes from a checkpoint
    ends, on a CPU, with the uninterrupted run's weights, averages, optimiser state and log, bit by bit.

    Args:
        config: how to train.
        model: the network with its initial weights.
        process: its diffusion.
        data: what to train on, and what is held out.
        folder: the run's folder.
        seed: of all that is random.
        flip: flip half of the examples.
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
        self.data = OpenedData(
            training=on_device(data.training, self.device), held_out=on_device(data.held_out, self.device)
        )
        self.model = model.to(self.device).train()
        self.model.recompute_blocks = config.recompute_blocks
        self.average = Average(self.model, config.average_decay, config.average_warmup)
        self.optimiser = make_optimiser(config, self.model)
        self.in_bfloat16 = uses_bfloat16(config.precision, self.device)
        self.seed_there = torch.tensor(seed, device=self.device)  # once: a copy to a GPU waits for what it is doing
        self.loss_of = self.loss
        if compiles(config.compile, self.device):
            self.loss_of = compiled(self.loss, "the training step")
        self.checkpoints = folder / checkpoint.FOLDER
        self.step = self.last_logged = 0
        self.loss_sum = torch.zeros((), device=self.device)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only under this
            torch.use_deterministic_algorithms(True)

    def run(self) -> None:
        """Trains to the end, going on from the newest checkpoint if there is one."""
        self.resume()
        log = Log(self.folder, self.step)
        stream = batches(
            self.data.training,
            seed=self.seed,
            batch_size=self.config.batch_size,
            first_step=self.step,
            flip=self.flip,
        )
        try:
            with progress_bar("training", self.config.num_steps, self.step) as bar:
                started, since = time.perf_counter(), self.step
                while self.step < self.config.num_steps:
                    lr = self.update(next(stream))
                    if self.due(self.config.log_every) or self.due(self.config.held_out_every):
                        rate = (self.step - since) * self.config.batch_size / (time.perf_counter() - started)
                        record = self.record(lr)
                        log.record(record, {"images_per_second": rate})
                        bar.say(f"step {self.step}: loss {record['loss']:.4f}, {rate:.4g} images/s")
                        started, since = time.perf_counter(), self.step
                    if self.due(self.config.sample_every):
                        log.pictures(self.step, self.sample_grid())
                    if self.due(self.config.checkpoint_every):
                        self.save()
                    bar.advance()
        finally:
            stream.close()
            log.close()

    def due(self, every: int) -> bool:
        """Whether something that happens every so many updates is due, as everything is after the last."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.num_steps)

    def update(self, batch: Batch) -> float:
        """One update of weights and average; returns its learning rate."""
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
        self.optimiser.zero_grad(set_to_none=True)
        part_size = config.batch_size // config.accumulation_steps
        for start in range(0, config.batch_size, part_size):
            loss = self.part_loss(batch, range(start, start + part_size)) / config.accumulation_steps
            loss.backward()
            self.loss_sum += loss.detach()
        self.optimiser.step()
        self.average.update(self.step)
        self.step += 1
        return lr

    def part_loss(self, batch: Batch, part: range) -> Float[Tensor, ""]:
        """The mean loss of some places of the batch, with their own noise, masks and dropout."""
        images, labels = (
            values[part.start : part.stop].to(self.device, non_blocking=True) for values in (batch.images, batch.labels)
        )
        step = torch.full((), self.step, device=self.device)  # a tensor, to be no constant of compiled code
        chance = Chance(self.seed_there, step, torch.arange(part.start, part.stop, device=self.device))
        self_cond = fixed_share(self.process.config, part, self.device)
        torch.manual_seed(torch_seed(self.seed, self.step, part.start))  # dropout and stochastic depth
        return self.loss_of(images, labels, chance, self_cond)

    def loss(
        self, images: Pictures, labels: Labels, chance: Chance, self_cond: Int[Tensor, "k"] | None
    ) -> Float[Tensor, ""]:
        """The mean loss of some pictures: all of it on the device, to be compiled as a whole."""
        with autocast_to(self.in_bfloat16, self.device):
            condition = condition_of(self.model, labels)
            return self.process.loss(self.model, to_floats(images), condition, self_cond=self_cond, chance=chance)

    def record(self, lr: float) -> dict[str, Any]:
        """A line of the log: the mean loss since the line before, and the held-out losses where they are due."""
        mean_loss = self.loss_sum.item() / (self.step - self.last_logged)
        self.loss_sum.zero_()
        self.last_logged = self.step
        record: dict[str, Any] = {"step": self.step, "loss": mean_loss, "lr": lr}
        if self.due(self.config.held_out_every) and len(self.data.held_out):
            part_size = self.config.batch_size // self.config.accumulation_steps
            losses = held_out_losses(self.average.model, self.process, self.data.held_out, part_size, self.device)
            record["held_out_loss"] = sum(losses.values()) / len(losses)
            record["held_out_loss_by_t"] = losses
        return record

    def sample_grid(self) -> Pictures:
        """A grid of samples of the averaged weights, always from the same noise; written to the run's folder."""
        classes = self.model.config.num_classes
        count = GRID_COLUMNS * (min(classes, GRID_ROWS) if classes else GRID_ROWS)
        labels = torch.arange(count, device=self.device) // GRID_COLUMNS
        seeds = picture_seeds(self.seed, 0, count)
        shape = (count, *self.model.config.shape)
        condition = condition_of(self.average.model, labels)
        samples = self.process.sample(self.average.model, shape, condition, seeds=seeds, bfloat16=self.in_bfloat16)
        pictures = grid(to_pictures(samples), GRID_COLUMNS)
        save_image(pictures, self.folder / "samples" / f"step-{self.step:09d}.png")
        return pictures

    def save(self) -> None:
        """Writes a checkpoint."""
        tensors = {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "optimiser": optimiser_tensors(self.optimiser, self.model),
        }
        state = {"step": self.step, "loss_sum": self.loss_sum.item(), "last_logged": self.last_logged}
        checkpoint.save(self.checkpoints, self.step, tensors, state, self.config.keep_checkpoints)

    def resume(self) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        checkpoint.discard_unfinished(self.checkpoints)
        newest = checkpoint.latest(self.checkpoints)
        if newest is None:
            return
        tensors, state = checkpoint.load(newest)
        self.model.load_state_dict(tensors["model"])
        self.average.model.load_state_dict(tensors["average"])
        self.step, self.last_logged = state["step"], state["last_logged"]
        self.loss_sum.fill_(state["loss_sum"])
        restore_optimiser(self.optimiser, self.model, tensors["optimiser"], self.step)
        LOGGER.info("going on from step %d", self.step)
