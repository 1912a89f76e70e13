"""What a pipeline of diffusers is made of: the network, and a scheduler that says how to sample."""

# pyright: reportPrivateImportUsage=false, reportIncompatibleMethodOverride=false
# diffusers exports its names when they are asked for, and has defaults that it refuses.

import dataclasses
import inspect
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin, SchedulerMixin

from rin.core.denoiser import Condition, Denoised
from rin.core.errors import RinError, unknown
from rin.core.shapes import Examples, LatentsBefore, PerExample
from rin.diffusion import Diffusion, DiffusionConfig
from rin.diffusion.checks import whole_number
from rin.diffusion.samplers import step_times
from rin.experiment import from_dict, to_dict
from rin.nn import RIN, RINConfig
from rin.older_configs import as_of_today


class Configured(ConfigMixin):
    """A component whose configuration in diffusers is one of rin's, field by field."""

    kind: ClassVar[type]
    """Of rin's configuration."""

    group: ClassVar[str]
    """What an experiment calls it."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Has diffusers find the fields as arguments of `__init__`, where it looks for them."""
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            fields = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in _fields(cls)]
            itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
            vars(cls)["__init__"].__signature__ = inspect.Signature([itself, *fields])

    @classmethod
    def from_config(cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **changes: Any) -> Any:
        """A component of this configuration, with some of its fields changed.

        Raises:
            RinError: a field is unknown, which diffusers would leave out with a warning, or has no such value.
        """
        config = as_of_today(cls.group, config, config)
        for name in [*config, *changes]:
            if name not in _fields(cls) and not name.startswith("_"):
                raise unknown(f"option of {cls.__name__}", name, _fields(cls))
        return super().from_config(config, return_unused_kwargs, **changes)


def _fields(component: type[Configured]) -> list[str]:
    return [field.name for field in dataclasses.fields(component.kind)]


class RINDenoiser(ModelMixin, Configured):
    """A RIN as a model of diffusers, and still a `rin.Denoiser`.

    Args:
        fields: of `rin.RINConfig`.

    Raises:
        RinError: they make no network.
    """

    kind, group = RINConfig, "model"

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        config = from_dict(RINConfig, fields)
        self.register_to_config(**to_dict(config))
        self.network = RIN(config)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> Any:
        """See `diffusers.ModelMixin.from_pretrained`.

        Raises:
            RinError: weights are missing, which diffusers would make up with a warning, or left over.
        """
        both: Any = super().from_pretrained(source, **options | {"output_loading_info": True})
        denoiser, told = both
        for what, names in (("is missing", told["missing_keys"]), ("is no weight of it", told["unexpected_keys"])):
            if names:
                raise RinError(f"the weights in {source} are not those of its configuration: {names[0]} {what}")
        return (denoiser, told) if options.get("output_loading_info") else denoiser

    def forward(
        self,
        x: Examples,
        gamma: PerExample,
        condition: Condition | None = None,
        latents_prev: LatentsBefore | None = None,
        latents_only: bool = False,
    ) -> Denoised:
        """See `rin.RIN.forward`."""
        return self.network(x, gamma, condition, latents_prev, latents_only)


class RINScheduler(SchedulerMixin, Configured):
    """How samples are drawn: rin's samplers and schedules.

    It has no `step`: a step of a RIN takes the latents of the step before and hands on its own, and a step of some
    samplers evaluates the network twice. `rin.Diffusion.steps` does all that, and `RINPipeline` goes through it.
    `RINScheduler.from_config(pipe.scheduler.config, sampler="ddim")` is one with another sampler.

    Args:
        fields: of `rin.DiffusionConfig`.

    Raises:
        RinError: they make no diffusion.
    """

    kind, group = DiffusionConfig, "diffusion"

    def __init__(self, **fields: Any) -> None:
        self.diffusion = Diffusion(from_dict(DiffusionConfig, fields))
        self.register_to_config(**to_dict(self.diffusion.config))
        self.set_timesteps()

    def set_timesteps(self, num_inference_steps: int | None = None) -> None:
        """Sets `timesteps`, the times at which steps begin, from 1, which is noise, down towards 0.

        Args:
            num_inference_steps: how many; as many as the model was saved with if None.

        Raises:
            RinError: it is no whole number from 1 on.
        """
        num = self.diffusion.config.num_steps if num_inference_steps is None else num_inference_steps
        num = whole_number("num_inference_steps", num, least=1)
        self.timesteps = torch.tensor([step_times(step, num, 0.0)[0] for step in range(num)])
