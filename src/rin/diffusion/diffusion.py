"""The diffusion of a RIN: its loss with latent self-conditioning and its sampling with carried latents."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.compute import autocast_to, compiled, device_of
from rin.core.denoiser import Condition, Denoiser, EvaluationMode
from rin.core.errors import RinError, unknown
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples, Latents, Mask, PerExample
from rin.diffusion.checks import check_condition, check_data, check_draws, check_options, check_shape
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.loss import estimate_latents, fixed_share, squared_error
from rin.diffusion.options import Draws, SamplingOptions
from rin.diffusion.parametrisation import Estimate, as_factor, corrupt, estimate
from rin.diffusion.samplers import (
    SAMPLERS,
    Level,
    SamplerName,
    is_inside,
    last_rule,
    noise_levels,
    noise_source,
    reverse_step,
)
from rin.diffusion.schedules import parse_schedule


class SamplingStep(NamedTuple):
    """Where a sampling run stands after a step; data in [-1, 1]."""

    x_0: Examples
    """The clean data predicted at this step: the result, after the last."""

    x_t: Examples
    """The noisy data that the next step starts from, divided by the input scale."""

    latents: Latents | None
    """The latents carried to the next step; None of a network that has none."""


def last_of(steps: Iterable[SamplingStep]) -> SamplingStep:
    """The last step of a sampling run, without keeping those before."""
    return deque(steps, maxlen=1).pop()


Step = Callable[..., tuple[Examples, Examples, Latents | None]]
"""(sampler, whether guided, and the state that `reverse_step` takes) to (x_0, the next x_t, the next latents)."""


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
        check_condition(condition)
        config, x_0, condition = self.config, x_0.float(), self._scaled(condition)
        t, noise, self_cond = draws.get("t"), draws.get("noise"), draws.get("self_cond")
        chance = draws.get("chance") or Chance.fresh(x_0.shape[0], x_0.device)
        t = chance.uniform(Purpose.TIME) if t is None else t
        noise = chance.normal(Purpose.TRAINING_NOISE, x_0.shape[1:]) if noise is None else noise
        if self_cond is None:
            share = fixed_share(config, range(x_0.shape[0]), x_0.device)
            self_cond = chance.true(Purpose.SELF_COND, config.self_cond_rate) if share is None else share

        clean, gamma = x_0 * config.input_scale, self.schedule(t)
        x_t = corrupt(clean, noise, gamma)
        model_input = self._model_input(x_t)
        for_estimate = self._drop(condition, draws.get("keep_in_estimate"), chance, Purpose.KEEP_LABELS_ESTIMATE)
        condition = self._drop(condition, draws.get("keep"), chance, Purpose.KEEP_LABELS)

        latents_prev = None
        if config.self_cond_rate:
            before, gamma_before = model_input, gamma
            if lag := config.self_cond_lag:
                # the same noise, and more of it: where a deterministic sampler was a step before
                gamma_before = self.schedule((t + lag * chance.uniform(Purpose.SELF_COND_LAG)).clamp(max=1))
                before = self._model_input(corrupt(clean, noise, gamma_before))
            latents_prev = estimate_latents(model, before, gamma_before, for_estimate, self_cond)
        prediction = _in_float32(model(model_input, gamma, condition, latents_prev).prediction)
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
                in [-1, 1].
        """
        check_options(options, SamplingOptions.__annotations__)
        check_shape(shape)
        check_condition(condition)
        scale, guidance = self.config.input_scale, options.get("guidance", 0.0)
        sampler = options.get("sampler") or self.config.sampler
        num_steps = self.config.num_steps if (requested := options.get("num_steps")) is None else requested
        self._check_sampling(sampler, num_steps, guidance)
        gamma_of = parse_schedule(options.get("schedule") or self.config.sampling_schedule)
        device, bfloat16 = device_of(model), options.get("bfloat16", False)
        draw = noise_source(shape, options.get("seeds"), options.get("noise"), device, options.get("block", 0))
        condition = self._scaled(condition)

        def look(x_t: Examples, latents: Latents | None, gamma: Level, guided: bool) -> tuple[Estimate, Latents | None]:
            with autocast_to(bfloat16, device):
                return self._denoise(
                    model, x_t, gamma.expand(shape[0]), condition, latents, guidance if guided else 0.0
                )

        @torch.no_grad()  # here and not on `steps`: gradients would be off between the steps too
        def take(sampler: SamplerName, guided: bool, *state: Any) -> tuple[Examples, Examples, Latents | None]:
            return reverse_step(sampler, partial(look, guided=guided), draw, *state)

        fast = _fast(take, device) if options.get("compile", False) else take
        levels = noise_levels(gamma_of, num_steps, options.get("td", 0.0))
        guided = [is_inside(gamma, options.get("guidance_interval")) for gamma, *_ in levels.tolist()]
        levels = levels.to(device)
        evaluating = EvaluationMode(model)

        def steps() -> Iterator[SamplingStep]:
            x_t, latents = draw(0), options.get("latents")
            x_0 = torch.zeros_like(x_t)
            for step in range(num_steps):
                rule = last_rule(sampler) if step == num_steps - 1 else sampler
                # not worth compiling: the first step without latents, and a last one of another rule
                run = take if rule != sampler or (step == 0 and latents is None) else fast
                with evaluating:
                    x_0, x_t, latents = run(rule, guided[step], x_t, latents, x_0, levels[step], step)
                yield SamplingStep(x_0 / scale, x_t / scale, latents)

        return steps()  # so that what cannot be followed is refused by this call, and not by the first step

    def _denoise(
        self,
        model: Denoiser,
        x_t: Examples,
        gamma: PerExample,
        condition: Condition | None,
        latents: Latents | None,
        guidance: float,
    ) -> tuple[Estimate, Latents | None]:
        """One look at x_t; under guidance both passes start from the same latents, the conditional's are carried."""
        model_input = self._model_input(x_t)
        conditioned = model(model_input, gamma, condition, latents)
        prediction = _in_float32(conditioned.prediction)
        if guidance:
            unconditioned = model(model_input, gamma, (condition or Condition()).null(), latents)
            prediction = prediction + guidance * (prediction - _in_float32(unconditioned.prediction))
        clip, space = self.config.input_scale, self.config.prediction
        return estimate(prediction, x_t, gamma, space, clip, recompute_eps=True), conditioned.latents

    def _check_sampling(self, sampler: str, num_steps: int, guidance: float) -> None:
        if sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        if num_steps < 1:
            raise RinError(f"{num_steps} steps of sampling: take 1 or more")
        if guidance and not self.config.label_drop_rate:
            raise RinError(
                "guidance needs a model trained with label dropping: train with --diffusion.label-drop-rate 0.1, "
                "or leave guidance at 0"
            )

    def _scaled(self, condition: Condition | None) -> Condition | None:
        """The condition with its context scaled as the frames after it are: the original scales all frames at once."""
        if condition is None or condition.context is None:
            return condition
        return dataclasses.replace(condition, context=condition.context.float() * self.config.input_scale)

    def _model_input(self, x_t: Examples) -> Examples:
        """x_t as the network is given it: divided by its deviation if the configuration asks (arXiv 2301.10972)."""
        if not self.config.normalise_input:
            return x_t
        return x_t / as_factor(x_t.flatten(1).std(dim=1, correction=0), x_t)

    def _drop(
        self, condition: Condition | None, keep: Mask | None, chance: Chance, purpose: Purpose
    ) -> Condition | None:
        """The condition with labels dropped where `keep` says, or at the configured rate."""
        if condition is None or (keep is None and not self.config.label_drop_rate):
            return condition
        return condition.keep(~chance.true(purpose, self.config.label_drop_rate) if keep is None else keep)


def _fast(take: Step, device: torch.device) -> Step:
    """A step of sampling, compiled; its number becomes a tensor, which is no constant of the compiled code."""
    graphs = device.type == "cuda"
    fast = compiled(take, "the sampling step", graphs)

    def step(
        sampler: SamplerName, guided: bool, x_t: Examples, latents: Latents | None, x_0_before: Examples,
        levels: Float[Tensor, "3"], number: int,
    ) -> tuple[Examples, Examples, Latents | None]:  # fmt: skip
        x_0, x_next, latents_next = fast(
            sampler, guided, x_t, latents, x_0_before, levels, torch.full((), number, device=device)
        )
        if not graphs:
            return x_0, x_next, latents_next
        # the next replay of the graphs overwrites what this one returned
        return x_0.clone(), x_next.clone(), None if latents_next is None else latents_next.clone()

    return step


def _in_float32(prediction: Tensor | None) -> Examples:
    """The prediction in float32, whatever the network computes in."""
    assert prediction is not None
    return prediction.float()
