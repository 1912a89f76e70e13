"""Recurrent Interface Networks: train, sample and evaluate diffusion models of images, video and sets of vectors.

The public names; everything else is an implementation detail.
"""

from rin import interop
from rin.core.denoiser import Condition, Denoised, Denoiser
from rin.core.errors import RinError
from rin.data import DataConfig, open_data, to_floats, to_pictures
from rin.diffusion import Diffusion, DiffusionConfig
from rin.experiment import ExperimentConfig
from rin.nn import RIN, RINConfig
from rin.presets import preset, preset_names
from rin.run import train
from rin.trained import Trained, load
from rin.training.config import TrainingConfig

__all__ = [
    "RIN",
    "Condition",
    "DataConfig",
    "Denoised",
    "Denoiser",
    "Diffusion",
    "DiffusionConfig",
    "ExperimentConfig",
    "RINConfig",
    "RinError",
    "Trained",
    "TrainingConfig",
    "interop",
    "load",
    "open_data",
    "preset",
    "preset_names",
    "to_floats",
    "to_pictures",
    "train",
]
