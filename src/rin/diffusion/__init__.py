"""The diffusion process: schedules, predictions, the loss, the samplers."""

from rin.diffusion.config import DiffusionConfig
from rin.diffusion.diffusion import Diffusion
from rin.diffusion.given import Given
from rin.diffusion.options import SamplingOptions
from rin.diffusion.reverse_process import SamplingStep, last_of
from rin.diffusion.samplers import SAMPLERS, SamplerName
from rin.diffusion.schedules import parse_schedule

__all__ = [
    "SAMPLERS",
    "Diffusion",
    "DiffusionConfig",
    "Given",
    "SamplerName",
    "SamplingOptions",
    "SamplingStep",
    "last_of",
    "parse_schedule",
]
