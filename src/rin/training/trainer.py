"""The training loop."""

import dataclasses
import os
from collections.abc import Collection
from contextlib import closing
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.compute import device
from rin.core.distributed import LargestOfAll, sum_over_processes, world_size
from rin.core.errors import RinError, StoppedError
from rin.core.kind import Kind
from rin.core.launch import naming_the_dead
from rin.core.progress import LOGGER
from rin.core.signals import listening
from rin.costs.operations import update_operations
from rin.data import Batch, OpenedData, joint_batches, on_device
from rin.diffusion import Diffusion
from rin.nn import RIN
from rin.sampling.pipeline import Pipeline
from rin.sampling.previews import draw_previews, write_previews
from rin.training import checkpoint
from rin.training.adapters import add_adapters
from rin.training.average import Average
from rin.training.batch_loss import BatchLoss
from rin.training.checks import check_condition, check_embeddings, check_keeps_all
from rin.training.config import TrainingConfig
from rin.training.groups import freeze, rate_factors
from rin.training.held_out import held_out_losses
from rin.training.lr_schedules import learning_rate
from rin.training.optim import clip, make_optimiser, optimiser_tensors, restore_optimiser
from rin.training.reporter import Reporter
from rin.training.sharding import (
    LocalWeights,
    distribute,
    load_rows,
    local_places,
    local_rows,
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
        kind: what the network draws, and on what condition.
        model: the network with its initial weights, the same in every process: a RIN, or any other `Denoiser`.
        diffusion: its diffusion.
        data: what to train on, and what is held out.
        folder: the run's folder, which every process sees.
        seed: of all that is random.
        flip: mirror half of the images or clips, left to right.
        anew: weights that are trained whole beside adapters, since they are not another model's as they were.

    Raises:
        RinError: the batch cannot be split evenly over accumulation steps and processes, the network takes
            embeddings, or condition pictures that the data have not, training.freeze or training.rates name weights
            that it has not, or there is nothing to adapt by training.adapter_rank.
    """

    def __init__(
        self,
        config: TrainingConfig,
        kind: Kind,
        model: nn.Module,
        diffusion: Diffusion,
        data: OpenedData,
        folder: Path,
        seed: int,
        flip: bool,
        anew: Collection[str] = (),
    ) -> None:
        check_condition(kind, data.degrade)
        check_embeddings(kind, has_any=data.embedded is not None)
        check_keeps_all(model)
        self.config, self.diffusion = config, diffusion
        self.folder, self.seed, self.flip = folder, seed, flip
        self.device = device()
        self.kind = data.with_captions(kind, self.device)
        self.parts = local_places(config.batch_size, config.accumulation_steps)
        self.data = dataclasses.replace(
            data, training=on_device(data.training, self.device), held_out=on_device(data.held_out, self.device)
        )
        self.sharded = config.parallel == "fsdp" and world_size() > 1
        self._set_network(model, anew)
        counts = model.config.latent_counts if isinstance(model, RIN) else ()
        self.loss = BatchLoss(config, self.kind, self.network, counts, diffusion, self.parts, seed, self.device)
        self.checkpoints = folder / checkpoint.FOLDER
        self.step = self.last_logged = 0
        self.is_resumed = False
        self.loss_sum, self.gradient_norm = (torch.zeros((), device=self.device) for _ in range(2))
        self.skips = Skips(self.device)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only under this
            torch.use_deterministic_algorithms(True)

    def _set_network(self, model: nn.Module, anew: Collection[str]) -> None:
        """The network, its averages and its optimiser."""
        config = self.config
        self.model = model.to(self.device).train()
        self.frozen = freeze(self.model, config.freeze)
        factors = rate_factors((name for name, _ in self.model.named_parameters()), config.rates)
        if isinstance(self.model, RIN):
            self.model.recompute_blocks = config.recompute_blocks
        elif config.recompute_blocks:
            raise RinError("training.recompute_blocks is for RINs, and this is another network: leave it out")
        self.average = Average(self.model, config.average_decay, config.average_warmup)
        self.averages = {checkpoint.AVERAGE: self.average} | {
            checkpoint.average_of(decay): Average(self.model, decay, config.average_warmup)
            for decay in config.further_decays
        }
        self.adapters = self._adapt(anew)  # after the averages, which have merged weights
        factors |= {part: factors[weight] for part, weight in self.adapters.items()}
        if self.sharded:
            for average in self.averages.values():
                shard(average.model)
        self.network = distribute(self.model, self.sharded)
        self.weights = LocalWeights(self.model, self.sharded)
        parts = self.weights.parts
        self.optimiser = make_optimiser(
            config, parts.values(), self.sharded, [factors[name] for name in parts],
            [name in self.adapters for name in parts],
        )  # fmt: skip

    def _adapt(self, anew: Collection[str]) -> dict[str, str]:
        """Puts adapters beside the weights, if there are to be some; their names, each with its weight's."""
        rank = self.config.adapter_rank
        if rank and self.sharded:
            raise RinError(f"training.adapter_rank {rank} merges whole matrices: take training.parallel ddp")
        return add_adapters(self.model, rank, anew) if rank else {}

    def run(self) -> None:
        """Trains to the end, going on from the newest checkpoint that is whole, if there is one, as `resume` does.

        Raises:
            RinError: the data or the folder fail, or too many updates in a row are not finite.
            StoppedError: a signal asked to leave (see `rin.core.signals`); everything is saved.
        """
        if not self.is_resumed:
            self.resume()
        stream = joint_batches(
            self.data,
            seed=self.seed,
            batch_size=self.config.batch_size,
            places=torch.cat([torch.arange(part.start, part.stop) for part in self.parts]),
            first_step=self.step,
            flip=self.flip and not (self.kind.is_set or self.kind.is_signal),
        )
        signals = LargestOfAll()
        with listening() as received, closing(stream), self.reporter() as reporter, naming_the_dead():
            while self.step < self.config.num_steps:
                batch = reporter.waits_for(stream)
                lr = self.update(batch)
                if self.skips.in_a_row() >= MOST_SKIPPED:
                    raise self.not_finite(batch)
                if self.due(self.config.log_every) or self.due(self.config.held_out_every):
                    reporter.record(self.record(lr))
                if self.due(self.config.sample_every):
                    self.preview(reporter)
                if self.due(self.config.checkpoint_every):
                    self.save()
                    reporter.saved(self.step)
                reporter.advance()
                if signal := signals.before(received.signal):
                    raise self.stopped(signal, reporter)
            signals.last()

    def reporter(self) -> Reporter:
        """The reporter of this run: progress bar, log, trackers and status."""
        config, operations = self.config, None
        shown = {"diffusion": dataclasses.asdict(self.diffusion.config), "training": dataclasses.asdict(config)}
        if isinstance(self.model, RIN):
            shown["model"] = dataclasses.asdict(self.model.config)
            operations = partial(
                update_operations, self.model.config, self.diffusion.config, config.batch_size, config.recompute_blocks,
                config.all_latents_every,
            )  # fmt: skip
        return Reporter(self.folder, config, self.step, operations, self.data.training, self.device, shown)

    def preview(self, reporter: Reporter) -> None:
        """Draws samples to look at, in the run's folder and by its reporter."""
        pipeline = Pipeline(self.average.model, self.diffusion, self.kind)
        previews = draw_previews(pipeline, self.data, self.seed, self.config.precision)
        if previews is not None:
            write_previews(previews, self.folder, self.step)
            reporter.pictures(self.step, *previews)

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
            group["lr"] = lr * group["lr_factor"]
        self.network.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for number in range(config.accumulation_steps):
            with sums_gradients(self.network, last=number + 1 == config.accumulation_steps):
                part = self.loss.of_part(batch, number, self.step) / config.accumulation_steps
                part.backward()
            loss += part.detach()
        gradients = self.weights.take_gradients()
        loss, self.gradient_norm = self.over_processes(loss, squared_norm(gradients, self.device))
        if config.clip_norm:
            clip(gradients, self.gradient_norm, config.clip_norm)
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

    def record(self, lr: float) -> dict[str, Any]:
        """A line of the log: the mean loss since the line before, norms, and the held-out losses where they are due."""
        taken = self.step - self.last_logged - self.skips.since_line()
        squares = squared_norm(self.average.followed(), self.device)
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
                self.average.model, self.diffusion, self.kind, self.data.held_out, len(self.parts[0]), self.device,
                self.config.noise_version, self.data.degrade,
            )  # fmt: skip
            record["held_out_loss"] = sum(losses.values()) / len(losses)
            record["held_out_loss_by_t"] = losses
        return record

    def save(self) -> Path:
        """Writes a checkpoint."""
        tensors = {
            checkpoint.MODEL: local_rows(self.model),
            **{name: local_rows(average.model) for name, average in self.averages.items()},
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
            RinError: every checkpoint is damaged, or the newest is another run's, or the training set has changed.
        """
        newest = checkpoint.newest_whole(self.checkpoints)
        self.is_resumed = True
        if newest is None:
            return
        try:
            self._restore(newest)
        except RinError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RinError(f"{newest} was not written by this run ({error!r}): take another --out") from error
        LOGGER.info("going on from step %d", self.step)

    def _restore(self, newest: Path) -> None:
        """Puts back what `save` wrote."""
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
        if self.step != checkpoint.step_of(newest):
            raise ValueError(f"it tells of step {self.step}")
        self.loss_sum.fill_(state["loss_sum"])
        self.skips.restore(state["skips"])
        tensors = checkpoint.read(newest, checkpoint.OPTIMISER, self.sharded)
        restore_optimiser(self.optimiser, self.weights.parts, tensors, self.step - self.skips.in_all())

    def stopped(self, signal: int, reporter: Reporter) -> StoppedError:
        """What ends a run that a signal asked to leave; everything is saved."""
        saved = checkpoint.path_of(self.checkpoints, self.step)
        if checkpoint.latest(self.checkpoints) != saved:
            self.save()
            reporter.saved(self.step)
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
