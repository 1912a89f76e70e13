"""The diffusion of a RIN: its loss with latent self-conditioning and its sampling with carried latents."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from rin.core.denoiser import Condition, Denoiser, working_with
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples, Mask, PerExample
from rin.diffusion.checks import (
    check_condition,
    check_data,
    check_draws,
    check_given,
    check_options,
    check_sampling,
    check_shape,
)
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.consistency import check_consistent
from rin.diffusion.loss import estimate_latents, fixed_share, squared_error
from rin.diffusion.options import Draws, SamplingOptions
from rin.diffusion.parametrisation import corrupt, in_float32, network_input
from rin.diffusion.reverse_process import ReverseProcess, SamplingStep, last_of
from rin.diffusion.schedules import parse_schedule


class Diffusion:
    """The process around a denoiser. Every public tensor is in [-1, 1]; the input scale lives in here alone."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        self.schedule = parse_schedule(config.schedule)

    def loss(
        self, model: Denoiser, x_0: Examples, condition: Condition | None = None, **draws: Unpack[Draws]
    ) -> Float[Tensor, ""]:
        """The loss of a batch: the mean of `losses`, which has the arguments."""
        return self.losses(model, x_0, condition, **draws).mean()

    def losses(
        self, model: Denoiser, x_0: Examples, condition: Condition | None = None, **draws: Unpack[Draws]
    ) -> PerExample:
        """The squared error of each example, averaged over its numbers.

        A first pass without gradient estimates the latents; the second starts from them where `self_cond` says so,
        and from zeros elsewhere (paper section 3.2).

        Args:
            model: the denoiser.
            x_0: clean data in [-1, 1] (b ...).
            condition: what the examples are to show.
            **draws: see `Draws`.

        Returns:
            One loss an example (b).

        Raises:
            RinError: x_0 or context that are no floats in [-1, 1] (looked at on a CPU alone), draws of other names or
                shapes, times outside [0, 1], a condition that the denoiser was not made for.
        """
        check_data("x_0", x_0)
        check_draws(x_0, draws)
        check_condition(condition, x_0.ndim)
        config, x_0, condition = self.config, x_0.float(), self.scaled(condition)
        model = working_with(model, draws.get("num_latents"))
        t, noise, self_cond = draws.get("t"), draws.get("noise"), draws.get("self_cond")
        chance = draws.get("chance") or Chance.fresh(x_0.shape[0], x_0.device)
        t = chance.uniform(Purpose.TIME) if t is None else t
        noise = chance.normal(Purpose.TRAINING_NOISE, x_0.shape[1:]) if noise is None else noise
        if self_cond is None:
            share = fixed_share(config, range(x_0.shape[0]), x_0.device)
            self_cond = chance.true(Purpose.SELF_COND, config.self_cond_rate) if share is None else share

        clean, gamma = x_0 * config.input_scale, self.schedule(t)
        x_t = corrupt(clean, noise, gamma)
        model_input = network_input(x_t, config.normalise_input)
        for_estimate = self._drop(condition, draws.get("keep_in_estimate"), chance, Purpose.KEEP_LABELS_ESTIMATE)
        condition = self._drop(condition, draws.get("keep"), chance, Purpose.KEEP_LABELS)

        latents_prev = None
        if config.self_cond_rate:
            latents_prev = estimate_latents(model, model_input, gamma, for_estimate, self_cond)
        prediction = in_float32(model(model_input, gamma, condition, latents_prev).prediction)
        return squared_error(config, prediction, clean, noise, x_t, gamma).flatten(1).mean(dim=1)

    def sample(
        self,
        model: Denoiser,
        shape: Sequence[int],
        condition: Condition | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Examples:
        """Draws samples in [-1, 1]: the last prediction of clean data (arguments and errors as of `steps`)."""
        return last_of(self.steps(model, shape, condition, **options)).x_0

    def steps(
        self,
        model: Denoiser,
        shape: Sequence[int],
        condition: Condition | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Iterator[SamplingStep]:
        """The reverse process step by step, each step's latents warm-starting the next (section 3.2).

        Args:
            model: the denoiser; each step is taken in evaluation mode, whatever mode it has between them.
            shape: of the samples, batch first.
            condition: what the samples are to show.
            **options: see `SamplingOptions`.

        Raises:
            RinError: guidance for a model trained without label dropping, an unknown sampler or schedule, no steps,
                a shape of none, seeds or noise of another number or shape, unknown options, context that is no floats
                in [-1, 1], given data that is none or of another shape.
        """
        check_options(options, SamplingOptions.__annotations__)
        check_shape(shape)
        check_condition(condition, len(shape))
        check_given(options.get("given"), shape)
        check_sampling(self.config, model, condition, options)
        condition = self.scaled(condition)
        if options.get("consistent"):
            check_consistent(condition, tuple(shape), options.get("given"))
        # no generator itself, so that what cannot be followed is refused by this call, and not by the first step
        return ReverseProcess(self.config, model, shape, condition, options).steps()

    def scaled(self, condition: Condition | None) -> Condition | None:
        """The condition with its context scaled as the data are: the original scales all frames of a clip at once."""
        if condition is None or condition.context is None:
            return condition
        return dataclasses.replace(condition, context=condition.context.float() * self.config.input_scale)

    def _drop(
        self, condition: Condition | None, keep: Mask | None, chance: Chance, purpose: Purpose
    ) -> Condition | None:
        """The condition with labels dropped where `keep` says, or at the configured rate."""
        if condition is None or (keep is None and not self.config.label_drop_rate):
            return condition
        return condition.keep(~chance.true(purpose, self.config.label_drop_rate) if keep is None else keep)
