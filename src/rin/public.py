"""The public names, which `rin` itself has as well."""

import rin.interop as interop  # not from `rin`, which asks here
from rin.core.denoiser import Condition, Denoised, Denoiser
from rin.core.errors import RinError
from rin.data import DataConfig, batches, open_data, to_floats, to_pictures
from rin.diffusion import Diffusion, DiffusionConfig, Given
from rin.experiment import ExperimentConfig
from rin.nn import RIN, RINConfig
from rin.presets import preset, preset_names
from rin.run import train
from rin.sampling import bits_per_dim, edit, inpaint, interpolate, invert, routing, save, to_pil
from rin.trained_model import TrainedModel, load
from rin.training.average import Average
from rin.training.config import TrainingConfig
from rin.training.lr_schedules import learning_rate
from rin.training.muon import Muon
from rin.training.optim import Lamb

__all__ = [
    "RIN",
    "Average",
    "Condition",
    "DataConfig",
    "Denoised",
    "Denoiser",
    "Diffusion",
    "DiffusionConfig",
    "ExperimentConfig",
    "Given",
    "Lamb",
    "Muon",
    "RINConfig",
    "RinError",
    "TrainedModel",
    "TrainingConfig",
    "batches",
    "bits_per_dim",
    "edit",
    "inpaint",
    "interop",
    "interpolate",
    "invert",
    "learning_rate",
    "load",
    "open_data",
    "preset",
    "preset_names",
    "routing",
    "save",
    "to_floats",
    "to_pictures",
    "to_pil",
    "train",
]
