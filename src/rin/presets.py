"""Whole experiments by name.

Each preset says where its figures come from, and `preset_sources` does so field by field:

- *released*: the authors' configuration files (google-research/pix2seq, configs/config_diffusion_*.py);
- *paper*: put together from the text and tables of arXiv 2212.11972 and arXiv 2301.10972, and where these are not known
  to us guessed: a value that should work, marked as ours, to be replaced by whoever knows better;
- *ours*: chosen and measured by this project.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace

from rin.core.errors import unknown
from rin.data import DataConfig
from rin.data.config import MovingShapesConfig
from rin.diffusion import DiffusionConfig
from rin.experiment import ExperimentConfig
from rin.nn import RINConfig
from rin.preset_sources import sources_of
from rin.training.config import TrainingConfig

Preset = Callable[[], ExperimentConfig]

_PRESETS: dict[str, Preset] = {}

_UNCERTAIN = DiffusionConfig(schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", num_steps=1000)
"""Of presets whose schedules we do not know: the released one for CIFAR-10."""


def _preset(name: str) -> Callable[[Preset], Preset]:
    def register(function: Preset) -> Preset:
        _PRESETS[name] = function
        return function

    return register


def preset(name: str) -> ExperimentConfig:
    """The experiment of that name.

    Raises:
        RinError: there is none; the message has the nearest.
    """
    if name not in _PRESETS:
        raise unknown("preset", name, _PRESETS)
    return _PRESETS[name]()


def preset_names() -> list[str]:
    """Every preset, smallest first."""
    return list(_PRESETS)


def preset_source(name: str) -> str:
    """Where the figures of a preset come from: a few words, and every field of those that follow the paper."""
    return f"{inspect.getdoc(_PRESETS[name]) or ''}\n\n{sources_of(name)}".strip()


@_preset("digits")
def digits() -> ExperimentConfig:
    """Handwritten digits in a few minutes on a CPU.

    All of it is ours: AdamW, v and few wide operations learn soonest in so short a run; docs/experiments.md has what
    else was tried.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(1, 8, 8), patch_size=1, num_classes=10, num_latents=16, latent_dim=64, interface_dim=32,
            compute_depth=(1, 1, 1), num_heads=4, num_read_write_heads=4, latent_mlp_ratio=2, interface_mlp_ratio=2,
        ),
        diffusion=DiffusionConfig(
            prediction="v", loss_space="v", label_drop_rate=0.1, guidance_latents="own", sampler="ddim", num_steps=50,
        ),
        data=DataConfig(path="digits", flip=False),
        training=TrainingConfig(
            num_steps=5_500, batch_size=32, optimiser="adamw", learning_rate=8e-3, betas=(0.9, 0.99),
            lr_schedule="cosine", warmup_steps=300, average_decay=0.999, average_warmup=True, held_out_every=500,
            sample_every=2_000, checkpoint_every=500,
        ),
    )  # fmt: skip


@_preset("points")
def points() -> ExperimentConfig:
    """Outlines of plane shapes as sets of 128 points, by class, in a few minutes on a CPU. All of it is ours.

    A set's tokens have no positions, so that the order of the points means nothing.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(128, 2), num_classes=6, num_latents=24, latent_dim=96, interface_dim=64, compute_depth=(1, 1, 1),
            num_heads=4, num_read_write_heads=4, latent_mlp_ratio=2, interface_mlp_ratio=2, set_positions=False,
        ),
        diffusion=DiffusionConfig(
            prediction="v", loss_space="v", self_cond_rate=0.3, self_cond_by="share", label_drop_rate=0.1,
            guidance_latents="own", sampler="dpmpp-2m", num_steps=25,
        ),
        data=DataConfig(path="points", num_held_out=1000, flip=False),
        training=TrainingConfig(
            num_steps=4_000, batch_size=64, optimiser="muon", learning_rate=4e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=300, average_decay=0.998, average_warmup=True, held_out_every=1_000,
            sample_every=1_000, checkpoint_every=500,
        ),
    )  # fmt: skip


@_preset("captions")
def captions() -> ExperimentConfig:
    """Pictures of two coloured shapes by a sentence, in 40 minutes of one thread or less. All of it is ours.

    A caption's bytes are latents, and the network learns to read them with all else: three layers of computation before
    anything is written. The loss in v counts high noise for more, where it is decided what lies where.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 24, 24), patch_size=2, caption_length=48, num_latents=64, latent_dim=96, interface_dim=64,
            compute_depth=(3, 1, 1), num_heads=4, num_read_write_heads=4, latent_mlp_ratio=2, interface_mlp_ratio=2,
            position_deviation=1.0, mixing_size=5,
        ),
        diffusion=DiffusionConfig(
            schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", prediction="v", loss_space="v",
            self_cond_rate=0.3, self_cond_by="share", label_drop_rate=0.1, guidance_latents="own",
            sampler="dpmpp-2m", num_steps=20,
        ),
        data=DataConfig(path="captions", num_held_out=1000, flip=False),
        training=TrainingConfig(
            num_steps=3_000, batch_size=64, optimiser="muon", learning_rate=5e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=300, average_decay=0.998, average_warmup=True, held_out_every=1_000,
            sample_every=1_500, checkpoint_every=500,
        ),
    )  # fmt: skip


@_preset("small-32")
def small_32() -> ExperimentConfig:
    """Pictures of 32x32 on a CPU: a RIN that learns something to be seen within an hour.

    The recipe of cifar10-small for a smaller network and fewer updates. All of it is ours.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 32, 32), patch_size=2, num_classes=10, num_latents=32, latent_dim=128, interface_dim=96,
            compute_depth=(1, 1, 1), num_heads=4, num_read_write_heads=4, latent_mlp_ratio=4, interface_mlp_ratio=2,
            position_deviation=1.0, mixing_size=5,
        ),
        diffusion=DiffusionConfig(
            schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", prediction="v", loss_space="eps",
            self_cond_rate=0.3, self_cond_by="share", label_drop_rate=0.1, guidance_latents="own",
            sampler="dpmpp-2m", num_steps=20,
        ),
        data=DataConfig(path="uoft-cs/cifar10", num_held_out=256, flip=True),
        training=TrainingConfig(
            num_steps=4_000, batch_size=64, optimiser="muon", learning_rate=5e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=300, average_decay=0.999, average_warmup=True, held_out_every=1_000,
            sample_every=1_000, checkpoint_every=250,
        ),
    )  # fmt: skip


@_preset("cifar10-small")
def cifar10_small() -> ExperimentConfig:
    """CIFAR-10, class-conditional, in a day or less on two cores: 3 M parameters. All of it is ours.

    Neighbouring patches mix before each write, positions begin as large as the tokens' contents, Muon trains it, it
    predicts v, and three examples in ten start from estimated latents, which leaves time for more updates. It is
    elastic: 8 to 64 latents.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 32, 32), patch_size=2, num_classes=10, num_latents=64, num_latents_min=8, latent_dim=192,
            interface_dim=96, compute_depth=(1, 1, 1), num_heads=4, num_read_write_heads=4, latent_mlp_ratio=4,
            interface_mlp_ratio=2, position_deviation=1.0, mixing_size=5,
        ),
        diffusion=DiffusionConfig(
            schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", prediction="v", loss_space="eps",
            self_cond_rate=0.3, self_cond_by="share", label_drop_rate=0.1, guidance_latents="own",
            sampler="dpmpp-2m", num_steps=20,
        ),
        data=DataConfig(path="uoft-cs/cifar10", num_held_out=512, flip=True),
        training=TrainingConfig(
            num_steps=7_000, batch_size=64, optimiser="muon", learning_rate=5e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=500, average_decay=0.9995, average_warmup=True, held_out_every=2_000,
            sample_every=2_000, checkpoint_every=500, keep_checkpoints=2,
        ),
    )  # fmt: skip


@_preset("cifar10")
def cifar10() -> ExperimentConfig:
    """CIFAR-10, class-conditional. Released.

    The file sweeps the train schedules sigmoid(-3, 3, 0.9), which this preset has, and linear; with the first and
    1000 steps of DDPM the authors report FID 1.81 and IS 10.3 (pix2seq issue 35). It samples with 400 or 1000 steps.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 32, 32), patch_size=2, num_classes=10, num_latents=128, latent_dim=512, interface_dim=256,
            compute_depth=(2, 2, 2), num_heads=16, num_read_write_heads=8, latent_mlp_ratio=4, interface_mlp_ratio=2,
            dropout_rate=0.1, depth_drop_rate=0.1,
        ),
        diffusion=DiffusionConfig(schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", num_steps=1000),
        data=DataConfig(path="uoft-cs/cifar10", flip=True),
        training=TrainingConfig(
            num_steps=150_000, batch_size=256, learning_rate=3e-3, lr_schedule="cosine@0.8", warmup_steps=10_000,
        ),
    )  # fmt: skip


@_preset("cifar10-modern")
def cifar10_modern() -> ExperimentConfig:
    """CIFAR-10, class-conditional, in minutes on one GPU: a quarter of the weights of cifar10. All of it is ours.

    Neighbouring patches mix before each write, positions begin as large as the tokens' contents, Muon trains it, and it
    predicts v.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 32, 32), patch_size=2, num_classes=10, num_latents=64, latent_dim=256, interface_dim=192,
            compute_depth=(2, 2, 2), num_heads=4, num_read_write_heads=3, latent_mlp_ratio=4, interface_mlp_ratio=2,
            position_deviation=1.0, mixing_size=5,
        ),
        diffusion=DiffusionConfig(
            schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", prediction="v", loss_space="eps",
            label_drop_rate=0.1, guidance_latents="own", sampler="ddim", num_steps=50,
        ),
        data=DataConfig(path="uoft-cs/cifar10", num_held_out=512, flip=True),
        training=TrainingConfig(
            num_steps=15_000, batch_size=256, optimiser="muon", learning_rate=2e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=500, average_decay=0.9995, further_decays=(0.999, 0.9998),
            average_warmup=True, held_out_every=2_500, sample_every=0, checkpoint_every=5_000,
        ),
    )  # fmt: skip


@_preset("imagenet-64-p8")
def imagenet_64_p8() -> ExperimentConfig:
    """ImageNet 64x64 with patches of 8. Released."""
    return _imagenet(
        _imagenet_model(64, patch_size=8, num_latents=128, latent_dim=768, compute_depth=(4,) * 4),
        DiffusionConfig(schedule="linear", sampling_schedule="cosine", num_steps=1000),
        num_steps=150_000, learning_rate=2e-3, lr_schedule="cosine@0.7",
    )  # fmt: skip


@_preset("imagenet-64")
def imagenet_64() -> ExperimentConfig:
    """ImageNet 64x64 with patches of 4. Paper, whose widths we do not know."""
    return _imagenet(_imagenet_model(64, patch_size=4, num_latents=128, latent_dim=1024, compute_depth=(4,) * 4))


@_preset("imagenet-128")
def imagenet_128() -> ExperimentConfig:
    """ImageNet 128x128. Paper."""
    return _imagenet(_imagenet_model(128, patch_size=4, num_latents=128, latent_dim=1024, compute_depth=(4,) * 6))


@_preset("imagenet-256")
def imagenet_256() -> ExperimentConfig:
    """ImageNet 256x256. Paper, which has 410 M parameters.

    FID 4.51, and 3.42 with input scaling (arXiv 2301.10972), whose factor this preset does not know.
    """
    return _imagenet(_imagenet_model(256, patch_size=8, num_latents=256, latent_dim=1024, compute_depth=(4,) * 6))


@_preset("imagenet-512")
def imagenet_512() -> ExperimentConfig:
    """ImageNet 512x512 (arXiv 2301.10972). Paper, 320 M parameters; input scaling as we recall it from there."""
    return _imagenet(
        _imagenet_model(512, patch_size=8, num_latents=256, latent_dim=768, compute_depth=(6,) * 6),
        replace(_UNCERTAIN, input_scale=0.2, normalise_input=True),
    )


@_preset("imagenet-1024")
def imagenet_1024() -> ExperimentConfig:
    """ImageNet 1024x1024 (arXiv 2301.10972). Paper; input scaling as we recall it from there."""
    return _imagenet(
        _imagenet_model(1024, patch_size=8, num_latents=256, latent_dim=768, compute_depth=(8,) * 6),
        replace(_UNCERTAIN, input_scale=0.1, normalise_input=True),
    )


@_preset("moving-shapes")
def moving_shapes() -> ExperimentConfig:
    """Generated clips of 32x32 on a CPU: 8 frames after 4 given ones, of two shapes that bounce. All of it is ours.

    Muon, and positions that begin as large as the tokens' contents: without both, a run of minutes does not learn to
    tell one place from another (docs/experiments.md).
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 8, 32, 32), patch_size=16, temporal_patch_size=1, num_context_frames=4, num_latents=16,
            latent_dim=192, interface_dim=160, compute_depth=(2,), num_heads=8, num_read_write_heads=8,
            latent_mlp_ratio=2, interface_mlp_ratio=2, position_deviation=1.0,
        ),
        diffusion=DiffusionConfig(prediction="x", loss_space="x", sampler="ddim", num_steps=20),
        data=DataConfig(
            path="moving-shapes", flip=False,
            moving_shapes=MovingShapesConfig(
                num_clips=40_000, num_shapes=2, radius=0.2, speed=(0.08, 0.1), occlusion_rate=0.25, min_bounces=2,
                seed=0,
            ),
        ),
        training=TrainingConfig(
            num_steps=9_000, batch_size=64, optimiser="muon", learning_rate=4e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=200, average_decay=0.999, average_warmup=True, held_out_every=1_000,
            sample_every=2_500, checkpoint_every=500,
        ),
    )  # fmt: skip


@_preset("moving-shapes-64")
def moving_shapes_64() -> ExperimentConfig:
    """Generated clips of 64x64 for one GPU: 11 frames after 5 given ones, of three shapes. All of it is ours.

    The clips are as long and large as those of kinetics-600; the network has a thirteenth of its weights. Muon and the
    positions are those of moving-shapes. Not yet run.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 11, 64, 64), patch_size=4, temporal_patch_size=2, num_context_frames=5, num_latents=128,
            latent_dim=512, interface_dim=256, compute_depth=(2, 2, 2), num_heads=8, num_read_write_heads=8,
            latent_mlp_ratio=4, interface_mlp_ratio=2, position_deviation=1.0,
        ),
        diffusion=DiffusionConfig(prediction="x", loss_space="x", sampler="ddim", num_steps=50),
        data=DataConfig(
            path="moving-shapes", flip=False, memory_gib=16.0,
            moving_shapes=MovingShapesConfig(
                num_clips=50_000, num_shapes=3, radius=0.1, speed=(0.04, 0.08), occlusion_rate=0.5, min_bounces=2,
                seed=0,
            ),
        ),
        training=TrainingConfig(
            num_steps=20_000, batch_size=64, optimiser="muon", learning_rate=4e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=1_000, average_decay=0.999, average_warmup=True, held_out_every=2_000,
            sample_every=2_000, checkpoint_every=2_000,
        ),
    )  # fmt: skip


@_preset("kinetics-600")
def kinetics_600() -> ExperimentConfig:
    """Kinetics-600: 11 frames of 64x64 after 5 given ones. Paper; not flipped, as in the released file.

    `--data.path` is a folder of videos, or a set that `rin prepare` made of it with `--frames 16 --size 64`.
    """
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, 11, 64, 64), patch_size=4, temporal_patch_size=2, num_context_frames=5, num_latents=256,
            latent_dim=1024, interface_dim=512, compute_depth=(4,) * 6, num_heads=16, num_read_write_heads=16,
            latent_mlp_ratio=4, interface_mlp_ratio=4,
        ),
        diffusion=_UNCERTAIN,
        data=DataConfig(path="kinetics-600", labels=False, flip=False),
        training=TrainingConfig(num_steps=600_000, batch_size=1024, learning_rate=2e-3, lr_schedule="cosine@0.7"),
    )  # fmt: skip


def _imagenet_model(
    size: int, *, patch_size: int, num_latents: int, latent_dim: int, compute_depth: tuple[int, ...]
) -> RINConfig:
    """What the ImageNet networks share: interface of width 512, 16 heads everywhere, MLP ratios of 4."""
    return RINConfig(
        shape=(3, size, size), patch_size=patch_size, num_classes=1000, num_latents=num_latents,
        latent_dim=latent_dim, interface_dim=512, compute_depth=compute_depth, num_heads=16, num_read_write_heads=16,
        latent_mlp_ratio=4, interface_mlp_ratio=4,
    )  # fmt: skip


def _imagenet(
    model: RINConfig,
    diffusion: DiffusionConfig = _UNCERTAIN,
    num_steps: int = 600_000,
    learning_rate: float = 2e-3,
    lr_schedule: str = "cosine@0.7",
) -> ExperimentConfig:
    """What the ImageNet recipes share: LAMB, batch 1024, warm-up of 10 k, centre crops, flips."""
    return ExperimentConfig(
        model=model,
        diffusion=diffusion,
        data=DataConfig(path="ILSVRC/imagenet-1k", held_out_split="validation", flip=True),
        training=TrainingConfig(
            num_steps=num_steps, batch_size=1024, learning_rate=learning_rate, lr_schedule=lr_schedule,
        ),
    )  # fmt: skip
