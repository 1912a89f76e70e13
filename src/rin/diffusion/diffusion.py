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
from rin.core.denoiser import Condition, Denoiser, EvaluationMode, working_with
from rin.core.errors import RinError, unknown
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples, Latents, Mask, PerExample
from rin.diffusion.checks import (
    check_condition,
    check_data,
    check_draws,
    check_given,
    check_has_choice,
    check_options,
    check_shape,
    check_without_chance,
)
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.consistency import check_consistent, made_consistent
from rin.diffusion.given import Known
from rin.diffusion.latent_counts import latents_at
from rin.diffusion.loss import estimate_latents, fixed_share, squared_error
from rin.diffusion.options import Draws, SamplingOptions
from rin.diffusion.parametrisation import Estimate, as_factor, corrupt, eps_from_x, estimate
from rin.diffusion.samplers import (
    SAMPLERS,
    Carried,
    Level,
    SamplerName,
    is_inside,
    last_rule,
    noise_levels,
    noise_source,
    noising_step,
    reverse_step,
    step_times,
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


Step = Callable[..., tuple[Examples, Examples, Carried]]
"""(sampler, `Passes`, and the state that `reverse_step` takes) to (x_0, the next x_t, the next latents)."""


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
        model_input = self.model_input(x_t)
        for_estimate = self._drop(condition, draws.get("keep_in_estimate"), chance, Purpose.KEEP_LABELS_ESTIMATE)
        condition = self._drop(condition, draws.get("keep"), chance, Purpose.KEEP_LABELS)

        latents_prev = None
        if config.self_cond_rate:
            before, gamma_before = model_input, gamma
            if lag := config.self_cond_lag:
                # the same noise, and more of it: where a deterministic sampler was a step before
                gamma_before = self.schedule((t + lag * chance.uniform(Purpose.SELF_COND_LAG)).clamp(max=1))
                before = self.model_input(corrupt(clean, noise, gamma_before))
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
                in [-1, 1], given data that is none or of another shape.
        """
        check_options(options, SamplingOptions.__annotations__)
        check_shape(shape)
        check_condition(condition, len(shape))
        given = options.get("given")
        check_given(given, shape)
        if options.get("num_latents") is not None or options.get("num_guide_latents") is not None:
            check_has_choice(model)
        scale, sampler = self.config.input_scale, options.get("sampler") or self.config.sampler
        num_steps = self.config.num_steps if (requested := options.get("num_steps")) is None else requested
        self._check_sampling(sampler, num_steps, options)
        if to_noise := given is not None and given.to_noise:
            check_without_chance(sampler, options.get("td", 0.0))
        gamma_of = parse_schedule(options.get("schedule") or self.config.sampling_schedule)
        device, bfloat16 = device_of(model), options.get("bfloat16", False)
        seeds, block = options.get("seeds"), options.get("block", 0)
        draw, known = noise_source(shape, seeds, options.get("noise"), device, block), None
        if given is not None and given.redrawn is not None:
            known = Known(given, scale, noise_source(shape, seeds, None, device, block, Purpose.KNOWN_NOISE))
        condition = self.scaled(condition)
        low = None
        if options.get("consistent"):
            check_consistent(condition, tuple(shape), given)
            low = condition.context if condition is not None else None

        def look(x_t: Examples, carried: Carried, gamma: Level, passes: Passes) -> tuple[Estimate, Carried]:
            with autocast_to(bfloat16, device):
                return self._denoise(model, x_t, gamma.expand(shape[0]), condition, carried, passes, low)

        @torch.no_grad()  # here and not on `steps`: gradients would be off between the steps too
        def take(sampler: SamplerName, passes: Passes, *state: Any) -> tuple[Examples, Examples, Carried]:
            if to_noise:
                x_t, carried, _, level, _ = state
                return noising_step(sampler, partial(look, passes=passes), x_t, carried, level)
            return reverse_step(sampler, partial(look, passes=passes), draw, *state)

        fast = _fast(take, device) if options.get("compile", False) else take
        t, td = 1.0 if given is None else given.t, options.get("td", 0.0)
        levels = noise_levels(gamma_of, num_steps, td, t)
        passes = self._passes(options, levels, [t * step_times(step, num_steps, td)[0] for step in range(num_steps)])
        by_clean = num_steps - 1
        if to_noise:
            levels, passes, by_clean = levels.flip(0), passes[::-1], 0
        levels = levels.to(device)
        evaluating = EvaluationMode(model)

        def steps() -> Iterator[SamplingStep]:
            x_t, carried = draw(0), Carried(options.get("latents"))
            x_t = x_t if given is None else given.start(x_t, levels[0, 0], scale)
            x_0 = torch.zeros_like(x_t)
            for step in range(num_steps):
                level = levels[step]
                rule = last_rule(sampler) if step == by_clean else sampler
                # not worth compiling: the first step of a kind, without latents or with fewer or more of them than the
                # step before, and the one by clean data of another rule
                is_first = carried.latents is None if step == 0 else passes[step] != passes[step - 1]
                run = take if rule != sampler or is_first else fast
                for again in range(1 if known is None else known.num_rounds):
                    number = again * num_steps + step
                    if known is not None and again:
                        x_t, level = known.back(x_t, level, number)
                    with evaluating:
                        x_0, x_t, carried = run(rule, passes[step], x_t, carried, x_0, level, number)
                    if known is not None:
                        x_0, x_t = known.keep(x_0, x_t, level[1], number)
                yield SamplingStep(x_0 / scale, x_t / scale, carried.latents)

        return steps()  # so that what cannot be followed is refused by this call, and not by the first step

    def _denoise(
        self,
        model: Denoiser,
        x_t: Examples,
        gamma: PerExample,
        condition: Condition | None,
        carried: Carried,
        passes: Passes,
        low: Examples | None,
    ) -> tuple[Estimate, Carried]:
        """One look at x_t; the estimate agrees with a smaller picture if `low` is one.

        Under guidance the latents of the pass with the condition are carried, and those of the pass that guides beside
        them if it goes on from its own: as `DiffusionConfig.guidance_latents` says, and always with fewer latents.
        """
        model_input = self.model_input(x_t)
        full = working_with(model, passes.num_latents)
        conditioned, of_guide = full(model_input, gamma, condition, carried.latents), carried.of_guide
        prediction = _in_float32(conditioned.prediction)
        if passes.guidance:
            before = of_guide if passes.guide_has_own else carried.latents
            if passes.num_guide_latents is None:
                guide = full(model_input, gamma, (condition or Condition()).null(), before)
            else:
                guide = working_with(model, passes.num_guide_latents)(model_input, gamma, condition, before)
            of_guide = guide.latents if passes.guide_has_own else None
            prediction = prediction + passes.guidance * (prediction - _in_float32(guide.prediction))
        clip, space = self.config.input_scale, self.config.prediction
        estimated = estimate(prediction, x_t, gamma, space, clip, recompute_eps=True)
        if low is not None:
            x_0 = made_consistent(estimated.x_0, low, clip)
            estimated = Estimate(x_0, eps_from_x(x_t, x_0, gamma))
        return estimated, Carried(conditioned.latents, of_guide)

    def _check_sampling(self, sampler: str, num_steps: int, options: SamplingOptions) -> None:
        if sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        if num_steps < 1:
            raise RinError(f"{num_steps} steps of sampling: take 1 or more")
        if options.get("guidance") and options.get("num_guide_latents") is None and not self.config.label_drop_rate:
            raise RinError(
                "guidance needs a model trained with label dropping: train with --diffusion.label-drop-rate 0.1, "
                "or leave guidance at 0"
            )

    def _passes(
        self, options: SamplingOptions, levels: Float[Tensor, "num_steps 3"], times: Sequence[float]
    ) -> list[Passes]:
        """The passes of each step, by the noise level and the time at which it begins."""
        guidance, interval = options.get("guidance", 0.0), options.get("guidance_interval")
        num_guide_latents = options.get("num_guide_latents")
        return [
            Passes(
                guidance if is_inside(gamma, interval) else 0.0,
                latents_at(options.get("num_latents"), t),
                num_guide_latents,
                num_guide_latents is not None or self.config.guidance_latents == "own",
            )
            for (gamma, *_), t in zip(levels.tolist(), times, strict=True)
        ]

    def scaled(self, condition: Condition | None) -> Condition | None:
        """The condition with its context scaled as the data are: the original scales all frames of a clip at once."""
        if condition is None or condition.context is None:
            return condition
        return dataclasses.replace(condition, context=condition.context.float() * self.config.input_scale)

    def model_input(self, x_t: Examples) -> Examples:
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
        sampler: SamplerName, passes: Passes, x_t: Examples, carried: Carried, x_0_before: Examples,
        levels: Float[Tensor, "3"], number: int,
    ) -> tuple[Examples, Examples, Carried]:  # fmt: skip
        x_0, x_next, carried_next = fast(
            sampler, passes, x_t, carried, x_0_before, levels, torch.full((), number, device=device)
        )
        if not graphs:
            return x_0, x_next, carried_next
        # the next replay of the graphs overwrites what this one returned
        return x_0.clone(), x_next.clone(), Carried(*(None if each is None else each.clone() for each in carried_next))

    return step


def _in_float32(prediction: Tensor | None) -> Examples:
    """The prediction in float32, whatever the network computes in."""
    assert prediction is not None
    return prediction.float()
