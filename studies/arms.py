"""The runs of `studies`: the base of each scale, and how each arm departs from it."""

import dataclasses
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

import rin
from rin.data import DataConfig
from rin.diffusion import DiffusionConfig, SamplerName
from rin.experiment import ExperimentConfig
from rin.nn import RINConfig, initialisation
from rin.training import optim
from rin.training.config import TrainingConfig

BASE, LAMB = "base", "lamb"

FEWER = (3, 5, 9)
"""Latents beside all 16, two of which are the noise level's and the class's: 1, 3 and 7 of the 14 learned ones."""

Change = Callable[[ExperimentConfig], ExperimentConfig]
Network = Callable[[RINConfig], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the studies are."""

    base: Callable[[Path, int], ExperimentConfig]
    """The run that all arms depart from, on a prepared set, of so many updates."""

    size: int
    """Height and width of a picture."""

    updates: int
    """Of a run; in how many the learning rate warms up and so on goes with them."""

    samples: int
    num_seeds: int
    steps: tuple[int, ...]
    """Of sampling, in study 2: evaluations of the network, of which heun has two a step."""

    samplers: tuple[SamplerName, ...] = ("ddpm", "ddim")
    """In study 2."""

    studies: tuple[int, ...]

    cpu_seconds: float | None = None
    """Of each run's training on one thread, instead of `updates`, which are then as many as fit in."""


def small_base(data: Path, updates: int) -> ExperimentConfig:
    """small-32 at a quarter of the pixels, with Muon, which learns places sooner."""
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 16, 16), patch_size=4, num_classes=10, num_latents=16, latent_dim=128, interface_dim=96,
            compute_depth=(1, 1, 1), num_heads=4, num_read_write_heads=4, latent_mlp_ratio=4, interface_mlp_ratio=2,
            position_deviation=1.0,
        ),
        diffusion=DiffusionConfig(
            schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", prediction="v", loss_space="eps", num_steps=100,
        ),
        data=DataConfig(path=str(data), num_held_out=512, flip=True),
        training=TrainingConfig(
            num_steps=updates, batch_size=32, optimiser="muon", learning_rate=4e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=150,
            average_decay=0.999, average_warmup=True, held_out_every=0, sample_every=0, checkpoint_every=500,
        ),
    )  # fmt: skip


def equal_time_base(size: int) -> Callable[[Path, int], ExperimentConfig]:
    """What a RIN is for so little computation: patches of 2 that mix with their neighbours; three in ten estimates.

    Batches of 64, of which an update takes 1.4 (16x16) to 1.6 times (32x32) the time of one of 32.
    """

    def base(data: Path, updates: int) -> ExperimentConfig:
        whole = small_base(data, updates)
        return dataclasses.replace(
            whole,
            model=dataclasses.replace(
                whole.model, shape=(3, size, size), patch_size=2, mixing_size=5, interface_dim=64
            ),
            diffusion=dataclasses.replace(
                whole.diffusion, self_cond_rate=0.3, self_cond_by="share", sampler="ddim", num_steps=25
            ),
            training=dataclasses.replace(
                whole.training, batch_size=64, learning_rate=6e-3, warmup_steps=min(500, updates // 10),
                checkpoint_every=1_000,
            ),
        )  # fmt: skip

    return base


def preset_base(data: Path, updates: int) -> ExperimentConfig:
    """The cifar10 preset, with its warm-up and its average cut as its updates are."""
    whole = rin.preset("cifar10")
    return dataclasses.replace(
        whole,
        diffusion=dataclasses.replace(whole.diffusion, num_steps=100),
        data=DataConfig(path=str(data), num_held_out=512, flip=True),
        training=dataclasses.replace(
            whole.training, num_steps=updates, warmup_steps=updates // 15, average_decay=0.999, average_warmup=True,
            held_out_every=0, sample_every=0, checkpoint_every=1_000,
        ),
    )  # fmt: skip


def third_base(data: Path, updates: int) -> ExperimentConfig:
    """The same with a third of the parameters, 10.4 M: its widths are smaller, and a head's is 24 throughout."""
    whole = preset_base(data, updates)
    return _model(latent_dim=288, interface_dim=192, num_heads=12)(whole)


_GPU = Scale(
    base=preset_base, size=32, updates=5_000, samples=10_000, num_seeds=3, steps=(10, 25, 100, 1_000),
    studies=(1, 2, 3, 4, 5, 6),
)  # fmt: skip

SCALES = {
    "cpu": Scale(
        base=small_base, size=16, updates=1_500, samples=1_000, num_seeds=5, steps=(10, 25, 100), studies=(1, 2, 3)
    ),
    **{
        f"cpu-{size}-{seconds}s": Scale(
            base=equal_time_base(size), size=size, updates=1_000, samples=1_000, num_seeds=seeds,
            steps=(10, 25), samplers=("ddpm", "ddim", "dpmpp-2m", "heun"), studies=(7, 8, 9), cpu_seconds=seconds,
        )
        for size, seconds, seeds in ((16, 300, 5), (16, 1800, 3), (32, 1800, 3), (32, 7200, 2))
    },
    "gpu": _GPU,
    "gpu-third": dataclasses.replace(_GPU, base=third_base),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How the runs of an arm depart from the base."""

    study: int
    words: str
    change: Change = lambda experiment: experiment
    undone: Callable[[], AbstractContextManager[Any]] = nullcontext
    beside: str = BASE

    network: Network | None = None
    """Makes another network than a RIN."""

    in_the_same_time: bool = False
    """Makes as many updates as fit into the time of the base's."""

    updates: float = 1.0
    """How many it makes, as a share of those that it otherwise would."""

    grown_from: Change | None = None
    """What the first half of the updates is made as, at an even rate; the rest starts from its weights."""

    @property
    def is_another_way(self) -> bool:
        """Whether it departs from the base in more than its configuration."""
        return self.undone is not nullcontext or self.updates != 1 or self.grown_from is not None


def _diffusion(**changes: Any) -> Change:
    return lambda whole: dataclasses.replace(whole, diffusion=dataclasses.replace(whole.diffusion, **changes))


def _training(**changes: Any) -> Change:
    return lambda whole: dataclasses.replace(whole, training=dataclasses.replace(whole.training, **changes))


def _model(**changes: Any) -> Change:
    return lambda whole: dataclasses.replace(whole, model=dataclasses.replace(whole.model, **changes))


def _elastic_drawn(**changes: Any) -> Change:
    """Elastic, but no update is sure to have all latents, with other changes of the network."""
    return lambda whole: _training(all_latents_every=0)(_model(num_latents_min=FEWER[0], **changes)(whole))


def _lamb(times: float = 1.0) -> Change:
    """LAMB at its usual rate here, or so many times that; a base that has LAMB keeps its own rate."""

    def change(whole: ExperimentConfig) -> ExperimentConfig:
        rate = whole.training.learning_rate if whole.training.optimiser == "lamb" else 1e-2
        return _training(optimiser="lamb", learning_rate=times * rate, betas=(0.9, 0.999))(whole)

    return change


def _adamw(rates: dict[int, float]) -> Change:
    """AdamW at the rate for pictures of that size."""
    return lambda whole: _adamw_at(rates[whole.model.shape[-1]])(whole)


def _adamw_at(rate: float) -> Change:
    return _training(optimiser="adamw", learning_rate=rate, betas=(0.9, 0.999))


def _rival_at(rate: float) -> Change:
    """AdamW, and batches of 32: one of 64 takes a U-Net 1.7 times as long, and `small-unet-64` shows if it pays."""
    return lambda whole: _training(batch_size=32)(_adamw_at(rate)(whole))


def _instead(name: str) -> Network:
    def network(config: RINConfig) -> nn.Module:
        from studies.rivals import NETWORKS  # late, for diffusers is long to import

        return NETWORKS[name](config)

    return network


def _clamped(most: float) -> Callable[[], AbstractContextManager[Any]]:
    honest = optim.trust_ratios
    return lambda: mock.patch.object(optim, "trust_ratios", lambda *args: honest(*args).clamp(max=most))


def _with_latents(whole: ExperimentConfig, times: float) -> ExperimentConfig:
    return _model(num_latents=round(times * whole.model.num_latents))(whole)


def _read_only() -> AbstractContextManager[Any]:
    honest = rin.RIN.__init__

    def without_writes(model: rin.RIN, config: RINConfig) -> None:
        honest(model, config)
        for block in model.blocks[:-1]:
            block.write = None  # pyright: ignore[reportAttributeAccessIssue]

    return mock.patch.object(rin.RIN, "__init__", without_writes)


def _without_ratio() -> AbstractContextManager[Any]:
    return mock.patch.object(optim, "trust_ratios", lambda weights, *_: torch.ones(len(weights)))


ARMS = {
    BASE: Arm(study=1, words="the base"),
    "rate-0.5": Arm(study=1, words="rate 0.5", change=_diffusion(self_cond_rate=0.5)),
    "rate-0": Arm(study=1, words="rate 0", change=_diffusion(self_cond_rate=0.0)),
    "rate-0-longer": Arm(
        study=1,
        words="rate 0, 1.2 times the updates",
        change=lambda whole: _training(num_steps=round(1.2 * whole.training.num_steps))(
            _diffusion(self_cond_rate=0.0)(whole)
        ),
    ),
    "plain-glorot": Arm(
        study=3,
        words="attention's initial weights plain Glorot",
        undone=lambda: mock.patch.object(initialisation, "attention_"),
    ),
    "dropout": Arm(
        study=3, words="dropout and stochastic depth 0.1", change=_model(dropout_rate=0.1, depth_drop_rate=0.1)
    ),
    "no-dropout": Arm(study=3, words="no dropout", change=_model(dropout_rate=0.0, depth_drop_rate=0.0)),
    LAMB: Arm(study=3, words="LAMB (a base)", change=_lamb(), beside=LAMB),
    "clamped-ratio": Arm(
        study=3, words="LAMB's ratio clamped to 10", change=_lamb(), undone=_clamped(10.0), beside=LAMB
    ),
    "no-ratio": Arm(
        study=3, words="no ratio, a tenth of the rate", change=_lamb(0.1), undone=_without_ratio, beside=LAMB
    ),
    "no-ratio-third": Arm(
        study=3, words="no ratio, a third of the rate", change=_lamb(1 / 3), undone=_without_ratio, beside=LAMB
    ),
    "eps": Arm(study=4, words="eps prediction", change=_diffusion(prediction="eps")),
    "v": Arm(study=4, words="v prediction", change=_diffusion(prediction="v")),
    "v-in-v": Arm(study=4, words="v prediction, loss in v", change=_diffusion(prediction="v", loss_space="v")),
    "x-in-x": Arm(study=4, words="x prediction, loss in x", change=_diffusion(prediction="x", loss_space="x")),
    "cosine": Arm(study=4, words="trained on cosine", change=_diffusion(schedule="cosine")),
    "linear": Arm(study=4, words="trained on linear", change=_diffusion(schedule="linear")),
    "input-0.5": Arm(study=4, words="input scale 0.5", change=_diffusion(input_scale=0.5)),
    "adamw": Arm(study=5, words="RIN with AdamW", change=_adamw({16: 1e-3, 32: 1e-3}), in_the_same_time=True),
    "unet": Arm(
        study=5,
        words="DDPM's U-Net with AdamW",
        change=_adamw({16: 1e-3, 32: 2e-4}),
        network=_instead("unet"),
        in_the_same_time=True,
    ),
    "transformer": Arm(
        study=5,
        words="JiT with AdamW",
        change=_adamw({16: 1e-3, 32: 2e-4}),
        network=_instead("transformer"),
        in_the_same_time=True,
    ),
    "unmixed": Arm(study=7, words="without mixing", change=_model(mixing_size=0)),
    "mask": Arm(
        study=7, words="nine in ten estimates, by mask", change=_diffusion(self_cond_rate=0.9, self_cond_by="mask")
    ),
    "patch-4": Arm(study=7, words="patches of 4", change=_model(patch_size=4)),
    "batch-32": Arm(study=7, words="batches of 32", change=_training(batch_size=32)),
    **{
        f"{name}-{rate:g}": Arm(
            study=7, words=f"{words}, AdamW at {rate:g}", change=_rival_at(rate), network=_instead(name)
        )
        for name, words in (("small-unet", "DDPM's U-Net"), ("small-transformer", "JiT"))
        for rate in (1e-3, 3e-3, 1e-2)
    },
    "small-unet-64": Arm(
        study=7,
        words="DDPM's U-Net, AdamW at 0.003, batches of 64",
        change=_adamw_at(3e-3),
        network=_instead("small-unet"),
    ),
    "half-latents": Arm(study=6, words="half as many latents", change=lambda whole: _with_latents(whole, 0.5)),
    "double-latents": Arm(study=6, words="twice as many latents", change=lambda whole: _with_latents(whole, 2.0)),
    "one-block": Arm(
        study=6,
        words="one block with all layers",
        change=lambda whole: _model(compute_depth=(sum(whole.model.compute_depth),))(whole),
    ),
    "many-blocks": Arm(
        study=6,
        words="a layer a block, as many layers and 3 more",
        change=lambda whole: _model(compute_depth=(1,) * (sum(whole.model.compute_depth) + 3))(whole),
    ),
    "read-only": Arm(study=6, words="only the last block writes", undone=_read_only),
    "elastic": Arm(study=8, words=f"elastic, {FEWER[0]} latents to all", change=_model(num_latents_min=FEWER[0])),
    "elastic-drawn": Arm(study=8, words="elastic, the number always drawn", change=_elastic_drawn()),
    **{
        f"latents-{count}": Arm(study=8, words=f"{count} latents alone", change=_model(num_latents=count))
        for count in FEWER
    },
    "unmixed-elastic": Arm(
        study=8, words="elastic, without mixing", change=_model(num_latents_min=FEWER[0], mixing_size=0)
    ),
    "unmixed-elastic-drawn": Arm(
        study=8, words="elastic, the number always drawn, without mixing", change=_elastic_drawn(mixing_size=0)
    ),
    "unmixed-latents-3": Arm(
        study=8, words="3 latents alone, without mixing", change=_model(num_latents=3, mixing_size=0)
    ),
    "grown": Arm(
        study=9,
        words=f"half of the updates with {FEWER[1]} latents, then all",
        grown_from=_model(num_latents=FEWER[1]),
    ),
    "three-quarters": Arm(
        study=9,
        words="three quarters of the updates",
        updates=0.75,
    ),
}


def arms_of(studies: Collection[int], base: ExperimentConfig) -> list[str]:
    """The arms of some studies: the base, which is in all of them, and those that are not the base again."""
    return [
        name
        for name, arm in ARMS.items()
        if name == BASE or (arm.study in studies and (arm.is_another_way or arm.change(base) != base))
    ]
