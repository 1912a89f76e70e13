"""The configuration of training."""

from dataclasses import dataclass
from typing import Literal

from rin.core.compute import Compile, Precision
from rin.core.configs import changeable, check_fields
from rin.core.errors import RinError
from rin.core.seeds import NOISE_VERSION
from rin.training.groups import parse_rate
from rin.training.lr_schedules import parse_lr_schedule

_MOST = 1_000_000
"""Examples of an update, and rates and norms: no run has more, and float32 has room for their products."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained, and what a run writes down."""

    num_steps: int = changeable(150_000)
    """Updates in all; steps of sampling are `diffusion.num_steps`."""

    batch_size: int = 256
    """Examples of one update, over all processes and accumulation steps."""

    accumulation_steps: int = changeable(1)
    """Parts that the batch is computed in, one after the other, to save memory; together with the number of processes
    they divide `batch_size`."""

    all_latents_every: int = 2
    """How often an update of an elastic network works with all its latents: 2 is every second one. The others draw
    their number; with 0 all of them do, as in runs from before."""

    optimiser: Literal["lamb", "adamw", "muon"] = "lamb"
    """LAMB as in the paper, PyTorch's AdamW, or Muon, which learns places sooner in short runs; not with fsdp."""

    learning_rate: float = 3e-3
    """Rate after the warm-up."""

    lr_schedule: str = "cosine@0.8"
    """constant, linear, cosine, or cosine@share for the first share of a cosine's descent."""

    warmup_steps: int = 10_000
    """Updates of linear warm-up; the first has rate 0."""

    lr_end_factor: float = 0.0
    """What a linear or cosine schedule ends at, over the learning rate."""

    weight_decay: float = 1e-2
    """Decoupled decay of kernels, positions and learned latents."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the optimiser's two moments; the first is also Muon's momentum."""

    eps: float = 1e-8
    """Added to the root of the second moment."""

    freeze: tuple[str, ...] = ()
    """Weights that are not trained, by patterns of their names or of modules' (`fnmatch`), as in blocks.0 or
    tokenizer.*: they keep the values that they start with, have no optimiser state, and do not decay."""

    rates: tuple[str, ...] = ()
    """Factors of the learning rate by such patterns, as in tokenizer=0.1 blocks.*=0.5; the last that matches counts."""

    adapter_rank: int = 0
    """Train low-rank adapters of the linear layers (LoRA) of this rank, and what `init_from` did not take over as it
    was, and leave all else as it is; layers that `freeze` names get none. 0 trains the weights themselves. What is
    saved has them merged. Not with fsdp."""

    clip_norm: float = 0.0
    """Scale the gradients of an update down to this norm, taken over all weights together; 0 for never. With LAMB the
    original does not."""

    average_decay: float = 0.9999
    """Decay of the running average of the weights (EMA), which is what one samples from."""

    further_decays: tuple[float, ...] = ()
    """Decays of more averages that checkpoints keep beside it, for `rin evaluate --average-decays`; each takes the
    weights' memory once more."""

    average_warmup: bool = False
    """Start the average at a low decay and raise it; for short runs, whose plain average is still its own start."""

    parallel: Literal["ddp", "fsdp"] = changeable("ddp")
    """How the processes of torchrun share a model. ddp: each has all of it; fsdp: each has a part of weights,
    gradients, optimiser and average (FSDP2), for models that do not fit."""

    precision: Precision = "auto"
    """bfloat16 autocast, float32, or auto: bfloat16 where it is faster."""

    compile: Compile = changeable("auto")
    """Go through torch.compile; auto: on a CUDA device. It changes rounding, and which numbers dropout drops."""

    recompute_blocks: bool = changeable(False)
    """Compute each block's inner results anew in the backward pass: less memory, about a fourth more computation."""

    deterministic: bool = False
    """Bit-equal repetition on a GPU too, at a cost; a CPU always repeats."""

    noise_version: Literal[1, 2] = NOISE_VERSION
    """Of the noise of training and held-out losses: 2 keeps it apart from sampling's, 1 is that of runs from before. A
    run keeps the one that it began with."""

    log_every: int = changeable(100)
    """Updates between lines of the log."""

    held_out_every: int = changeable(2_000)
    """Updates between losses on held-out examples by noise level; 0 for none."""

    sample_every: int = changeable(10_000)
    """Updates between grids of samples; 0 for none."""

    checkpoint_every: int = changeable(2_000)
    """Updates between checkpoints; the last update always writes one."""

    keep_checkpoints: int = changeable(3)
    """Checkpoints kept, the newest ones."""

    keep_checkpoint_every: int = changeable(0)
    """Updates between checkpoints that are kept for good, a multiple of `checkpoint_every`; 0 for none."""

    trackers: tuple[Literal["wandb", "trackio"], ...] = changeable(())
    """Where to log beside log.jsonl and TensorBoard; each is an extra to be installed."""

    def __post_init__(self) -> None:
        """Refuses what cannot be trained."""
        check_fields(self, "training")
        parse_lr_schedule(self.lr_schedule)
        for rate in self.rates:
            parse_rate(rate)
        for name in (
            "num_steps",
            "batch_size",
            "accumulation_steps",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise RinError(f"training.{name} {getattr(self, name)}: take 1 or more")
        for name in (
            "all_latents_every",
            "warmup_steps",
            "held_out_every",
            "sample_every",
            "keep_checkpoint_every",
            "adapter_rank",
            "weight_decay",
            "lr_end_factor",
        ):
            if getattr(self, name) < 0:
                raise RinError(f"training.{name} {getattr(self, name)}: take 0 or more")
        if self.all_latents_every == 1:
            raise RinError(
                "training.all_latents_every 1: no update would learn to work with fewer; take 0, or 2 or more"
            )
        if self.batch_size % self.accumulation_steps:
            raise RinError(
                f"training.accumulation_steps {self.accumulation_steps} does not divide "
                f"training.batch_size {self.batch_size}"
            )
        if self.keep_checkpoint_every % self.checkpoint_every:
            raise RinError(
                f"training.keep_checkpoint_every {self.keep_checkpoint_every} is no multiple of "
                f"training.checkpoint_every {self.checkpoint_every}"
            )
        if not (len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)):
            raise RinError(f"training.betas {self.betas}: take two numbers from 0 to below 1")
        for name in ("learning_rate", "eps"):
            if getattr(self, name) <= 0:
                raise RinError(f"training.{name} {getattr(self, name)}: take a number above 0")
        for name in ("batch_size", "learning_rate", "eps", "weight_decay", "lr_end_factor", "clip_norm"):
            if getattr(self, name) > _MOST:
                raise RinError(f"training.{name} {getattr(self, name)}: take {_MOST:,} at most")
        if self.clip_norm < 0:
            raise RinError(f"training.clip_norm {self.clip_norm}: take a norm above 0, or 0 for no clipping")
        if not 0 <= self.average_decay < 1:
            raise RinError(f"training.average_decay {self.average_decay}: take a number from 0 to below 1")
        if not all(0 <= decay < 1 for decay in self.further_decays):
            raise RinError(f"training.further_decays {self.further_decays}: take numbers from 0 to below 1")
        if len({self.average_decay, *self.further_decays}) <= len(self.further_decays):
            raise RinError(
                f"training.further_decays {self.further_decays}: each once, and training.average_decay "
                f"{self.average_decay} is not among them"
            )
