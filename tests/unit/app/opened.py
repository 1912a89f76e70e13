"""Toy models on disk, opened for a page."""

from rin.app.opened import Opened
from rin.diffusion import DiffusionConfig
from tests.unit.models import moved, small, trained

ELASTIC = {"num_latents_min": 4}
TOYS = {
    "pictures": ELASTIC,
    "clips": {"shape": (3, 2, 8, 8), "patch_size": 4, "num_classes": 0},
    "sets": {"shape": (9, 2), "num_classes": 0},
    "sets of many numbers": {"shape": (9, 7), "num_classes": 0},
    "signals": {"shape": (2, 1, 16), "patch_size": 4, "num_classes": 0},
    "captions": {"num_classes": 0, "caption_length": 12, "num_latents": 20},
    "from a picture": {"num_classes": 0, "condition_shape": (3, 4, 4)},
}
"""What to change in a small network for each kind."""


def opened(folder, kind="pictures", num_steps=4, **own):
    """A model with random weights, which falls into no step; `own` is of its diffusion."""
    config = small(**TOYS[kind])
    names = tuple("abcde"[: config.num_classes])
    diffusion = DiffusionConfig(num_steps=num_steps, label_drop_rate=0.1, sampler="ddim", **own)
    trained(moved(config), diffusion, names).save(folder)
    return Opened(str(folder))
