"""The configuration of a diffusion."""

from dataclasses import dataclass
from typing import Literal

from rin.core.configs import changeable, check_fields
from rin.core.errors import RinError
from rin.diffusion.parametrisation import Parametrisation
from rin.diffusion.samplers import SamplerName, check_interval
from rin.diffusion.schedules import parse_schedule


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """How data is corrupted, what the network predicts, and how samples are drawn."""

    schedule: str = "cosine"
    """gamma(t) in training: cosine, cosine@start,end,tau, sigmoid@start,end,tau or linear."""

    sampling_schedule: str = changeable("cosine")
    """gamma(t) in sampling: one of those, karras@start,end,rho or log-snr@start,end."""

    prediction: Parametrisation = "eps"
    """What the network predicts."""

    loss_space: Parametrisation = "eps"
    """Where the squared error is taken."""

    input_scale: float = 1.0
    """Clean data is multiplied by this inside the diffusion; below 1 it adds noise at large resolutions."""

    normalise_input: bool = False
    """Divide the noisy input by its own population deviation before the network."""

    self_cond_rate: float = 0.9
    """Share of the examples that start from latents estimated in a first pass."""

    self_cond_by: Literal["mask", "share"] = "mask"
    """A random mask of examples, or an exact share of each batch, whose first pass leaves the others out."""

    label_drop_rate: float = 0.0
    """Share of the examples whose condition is dropped in training; guidance needs more than 0."""

    guidance_latents: Literal["shared", "own"] = changeable("shared")
    """Under guidance the pass without the condition starts from the latents that the pass with it starts from, as in
    the original (shared), or from its own of the step before (own), which know nothing of the condition."""

    guidance: float = changeable(0.0)
    """Strength of guidance of conditioned samples, where none is asked for; 0 is none."""

    guidance_interval: tuple[float, float] | None = changeable(None)
    """Noise levels sigma that this guidance is for; None is all."""

    sampler: SamplerName = changeable("ddpm")
    """ddpm, ddpm-small (the posterior's variance), ddim, dpmpp-2m or heun."""

    num_steps: int = changeable(250)
    """Steps of sampling, where none are asked for; training's updates are `training.num_steps`."""

    def __post_init__(self) -> None:
        """Refuses what makes no diffusion."""
        check_fields(self, "diffusion")
        parse_schedule(self.schedule)
        parse_schedule(self.sampling_schedule)
        if not 1e-6 <= self.input_scale <= 1e6:  # float32 would lose the data, or the noise
            raise RinError(f"diffusion.input_scale {self.input_scale}: take a number from 1e-6 to 1e6")
        for name in ("self_cond_rate", "label_drop_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise RinError(f"diffusion.{name} {getattr(self, name)}: take a rate from 0 to 1")
        if self.guidance and not self.label_drop_rate:
            raise RinError(f"diffusion.guidance {self.guidance} needs a diffusion.label_drop_rate above 0, as 0.1")
        if self.guidance_interval is not None:
            check_interval("diffusion.guidance_interval", self.guidance_interval)
        if not 1 <= self.num_steps <= 1_000_000:
            raise RinError(f"diffusion.num_steps {self.num_steps}: take 1 or more, a million at most")
