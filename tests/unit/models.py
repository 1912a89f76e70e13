"""Small networks and denoisers that are no networks, for the tests beside this file."""

import torch

from rin import RIN, Condition, Denoised, Diffusion, DiffusionConfig, RINConfig, TrainedModel
from rin.training import checkpoint
from rin.training.config import TrainingConfig

SMALL = {
    "shape": (3, 8, 8), "patch_size": 2, "num_classes": 5, "num_latents": 8, "latent_dim": 32, "interface_dim": 16,
    "compute_depth": (1, 1), "num_heads": 4, "num_read_write_heads": 2,
}  # fmt: skip
VIDEO = {"shape": (3, 3, 8, 8), "patch_size": 4, "temporal_patch_size": 2, "num_context_frames": 3}
KINDS = {
    "image": {},
    "no classes": {"num_classes": 0},
    "not square": {"shape": (1, 8, 12)},
    "video": VIDEO,
    "set": {"shape": (9, 7)},
    "set without positions": {"shape": (9, 7), "set_positions": False},
    "embeddings": {"num_condition_tokens": 3, "condition_dim": 6},
    "no interface MLP": {"interface_mlp_ratio": 0},
    "read-only tail": {"compute_depth": (1, 0)},
    "read-only middle": {"compute_depth": (1, 0, 2)},
    "local mixing": {"mixing_size": 3},
    "condition picture": {"condition_shape": (2, 3, 4)},
    "condition picture as tokens, mixing": {
        "condition_shape": (1, 4, 4),
        "condition_in_place": False,
        "mixing_size": 3,
    },
}
"""What to change in a small network for each kind."""


def small(**changes):
    return RINConfig(**(SMALL | changes))


def new(config, seed=0):
    """A network at its initial weights, in evaluation mode."""
    torch.manual_seed(seed)
    return RIN(config).eval()


def moved(config, seed=0):
    """A network with every weight off its initial value, so that no path is hidden by a zero."""
    model = new(config, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model


def inputs(config, batch=2, seed=1):
    """Noisy data, gamma and a full condition."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, *config.shape, generator=draw).clamp(-1, 1)
    gamma = torch.rand(batch, generator=draw)
    labels = torch.arange(batch) % config.num_classes if config.num_classes else None
    embeddings = context = None
    if config.num_condition_tokens:
        embeddings = torch.randn(batch, config.num_condition_tokens, config.condition_dim, generator=draw)
    if config.kind.context_shape:
        context = torch.randn(batch, *config.kind.context_shape, generator=draw).clamp(-1, 1)
    return x, gamma, Condition(labels=labels, embeddings=embeddings, context=context)


def short_run(num_steps, **changes):
    """The training of a run of a few small batches, which logs each and keeps a checkpoint of each."""
    usual = {
        "batch_size": 4, "learning_rate": 1e-3, "lr_schedule": "constant", "warmup_steps": 0, "average_decay": 0.5,
        "log_every": 1, "held_out_every": 2, "checkpoint_every": 1, "sample_every": 2, "compile": "off",
    }  # fmt: skip
    return TrainingConfig(num_steps=num_steps, **usual | changes)


def weights_of(run):
    """The bytes of the network in a run's newest checkpoint."""
    return (checkpoint.latest(run / checkpoint.FOLDER) / "model.safetensors").read_bytes()


def trained(model, config=None, class_names=()):
    """A network with its diffusion, as `rin.load` opens one."""
    return TrainedModel(model, Diffusion(config or DiffusionConfig(num_steps=3)), model.config, class_names)


class Answering:
    """A denoiser that answers with a function of (x, gamma, condition) and remembers how it was asked."""

    def __init__(self, answer=lambda x, _gamma, _condition: torch.zeros_like(x)):
        self.answer, self.calls = answer, []

    def __call__(self, x, gamma, condition=None, latents_prev=None, latents_only=False):
        call = {"x": x, "gamma": gamma, "condition": condition, "latents_prev": latents_prev}
        self.calls.append(call | {"latents_only": latents_only, "gradient": torch.is_grad_enabled()})
        latents = torch.full((x.shape[0], 2, 3), float(len(self.calls)))
        return Denoised(None if latents_only else self.answer(x, gamma, condition), latents)

    def recorded(self, name):
        return [call[name] for call in self.calls]
