"""A network as a step of sampling asks it: once, or twice under guidance, with the latents of the step before."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from rin.core.compute import autocast_to, device_of
from rin.core.denoiser import Condition, Denoised, Denoiser, working_with
from rin.core.errors import RinError
from rin.core.progress import warn_once
from rin.core.shapes import Examples, Latents, PerExample
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.consistency import made_consistent
from rin.diffusion.given import Given
from rin.diffusion.latent_counts import latents_at
from rin.diffusion.options import SamplingOptions
from rin.diffusion.parametrisation import Estimate, eps_from_x, estimate, in_float32, network_input
from rin.diffusion.samplers import Carried, Level, check_some_step_is_guided, guidance_of_steps, is_everywhere


class Passes(NamedTuple):
    """The passes through the network at a step."""

    guidance: float
    """0 for one pass alone."""

    num_latents: int | None
    """Latents that they work with; None is the network's own number."""

    num_guide_latents: int | None
    """Latents of the pass that guides, under the same condition; None guides by a pass without the condition."""

    guide_has_own: bool
    """Whether the pass that guides starts from its own latents of the step before, not from those that the other pass
    starts from."""


def guidance_of(
    config: DiffusionConfig, options: Mapping[str, Any], is_labelled: bool
) -> tuple[float, tuple[float, float] | None]:
    """The strength of guidance and the noise levels that it is for: each as asked, or else the configuration's own.

    Args:
        config: of the diffusion.
        options: see `SampleOptions`.
        is_labelled: whether the samples have labels or embeddings. Without them the configuration's strength is not
            used, nor in DDIM inversion and for noise that is given, which is to lead back to its picture.

    Returns:
        The strength, 0 for none, and the interval of sigma; None for all noise levels.
    """
    interval = config.guidance_interval if (asked := options.get("guidance_interval")) is None else asked
    interval = None if interval is None or is_everywhere(interval) else interval
    if (strength := options.get("guidance")) is not None:
        return strength, interval
    given: Given | None = options.get("given")
    is_inverted = given is not None and (given.to_noise or given.x_0 is None)  # guided, noise leads back to no picture
    return (config.guidance if is_labelled and not is_inverted else 0.0), interval


def passes_of_steps(
    config: DiffusionConfig,
    condition: Condition | None,
    options: SamplingOptions,
    levels: Float[Tensor, "num_steps 3"],
    times: Sequence[float],
) -> list[Passes]:
    """The passes of each step, by the noise level and the time at which it begins.

    Raises:
        RinError: guidance is asked for, and no step begins in its interval. Where it is the model's own, a warning is
            logged, once.
    """
    guidance, interval = guidance_of(config, options, condition is not None and condition.is_labelled)
    is_asked_for = options.get("guidance") is not None or options.get("guidance_interval") is not None
    whose = "the model's own " if options.get("guidance_interval") is None else ""
    try:
        check_some_step_is_guided(levels, interval if guidance else None, f"{whose}guidance_interval")
    except RinError as error:
        if is_asked_for:
            raise
        warn_once(f"not guided: {error}")  # as an edit that begins below the model's own interval
    guidances = guidance_of_steps(levels, guidance, interval)
    num_guide_latents = options.get("num_guide_latents")
    return [
        Passes(
            of_step,
            latents_at(options.get("num_latents"), t),
            num_guide_latents,
            num_guide_latents is not None or config.guidance_latents == "own",
        )
        for of_step, t in zip(guidances, times, strict=True)
    ]


class GuidedNetwork:
    """What a network says of x_t, under guidance if a step asks for it.

    Args:
        config: of the diffusion.
        model: the denoiser.
        condition: what the samples are to show, scaled as the data are.
        options: see `SamplingOptions`.
    """

    def __init__(
        self, config: DiffusionConfig, model: Denoiser, condition: Condition | None, options: SamplingOptions
    ) -> None:
        self._config, self._model, self._condition = config, model, condition
        self._device, self._bfloat16 = device_of(model), options.get("bfloat16", False)
        self._low = condition.context if condition is not None and options.get("consistent") else None

    def look(self, x_t: Examples, carried: Carried, gamma: Level, passes: Passes) -> tuple[Estimate, Carried]:
        """The estimate of clean data and noise, which agrees with a smaller picture if it has to.

        Under guidance the latents of the pass with the condition are carried, and those of the pass that guides beside
        them if it goes on from its own: as `DiffusionConfig.guidance_latents` says, and always with fewer latents.
        """
        level = gamma.expand(len(x_t))
        with autocast_to(self._bfloat16, self._device):
            prediction, carried = self._predict(x_t, carried, level, passes)
        clip, space = self._config.input_scale, self._config.prediction
        estimated = estimate(prediction, x_t, level, space, clip, recompute_eps=True)
        if self._low is not None:
            x_0 = made_consistent(estimated.x_0, self._low, clip)
            estimated = Estimate(x_0, eps_from_x(x_t, x_0, level))
        return estimated, carried

    def _predict(self, x_t: Examples, carried: Carried, gamma: PerExample, passes: Passes) -> tuple[Examples, Carried]:
        """One pass, or p + g (p - p_u) of two; and their latents."""
        model_input = network_input(x_t, self._config.normalise_input)
        network = working_with(self._model, passes.num_latents)
        conditioned = network(model_input, gamma, self._condition, carried.latents)
        prediction, of_guide = in_float32(conditioned.prediction), carried.of_guide
        if passes.guidance:
            before = of_guide if passes.guide_has_own else carried.latents
            guide = self._guide(model_input, gamma, before, passes)
            of_guide = guide.latents if passes.guide_has_own else None
            prediction = prediction + passes.guidance * (prediction - in_float32(guide.prediction))
        return prediction, Carried(conditioned.latents, of_guide)

    def _guide(self, model_input: Examples, gamma: PerExample, before: Latents | None, passes: Passes) -> Denoised:
        """The pass that guides: without the condition, or with fewer latents under the same one."""
        if passes.num_guide_latents is None:
            num_latents, condition = passes.num_latents, (self._condition or Condition()).null()
        else:
            num_latents, condition = passes.num_guide_latents, self._condition
        return working_with(self._model, num_latents)(model_input, gamma, condition, before)
