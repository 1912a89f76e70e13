"""The reverse process: from noise to data step by step, each step's latents warm-starting the next (section 3.2)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from rin.core.compute import compiled, device_of
from rin.core.denoiser import Condition, Denoiser, EvaluationMode
from rin.core.seeds import Purpose
from rin.core.shapes import Examples, Latents
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.given import Known
from rin.diffusion.guidance import GuidedNetwork, Passes, passes_of_steps
from rin.diffusion.options import SamplingOptions
from rin.diffusion.samplers import (
    Carried,
    SamplerName,
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


class State(NamedTuple):
    """Where a step begins or ends; data are scaled by the input scale."""

    x_t: Examples
    carried: Carried

    x_0: Examples
    """The estimate of the step before; zeros before the first."""


Take = Callable[[SamplerName, Passes, State, Float[Tensor, "3"], int], State]
"""(sampler, passes, where a step begins, its noise levels, its number) to where it ends."""


class ReverseProcess:
    """One sampling run: from noise to data, or by `Given.to_noise` from data to noise.

    Args:
        config: of the diffusion.
        model: the denoiser; each step is taken in evaluation mode, whatever mode it has between them.
        shape: of the samples, batch first.
        condition: what they are to show, scaled as the data are.
        options: see `SamplingOptions`; they are checked.

    Raises:
        RinError: an unknown schedule, seeds or noise of another number or shape.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        model: Denoiser,
        shape: Sequence[int],
        condition: Condition | None,
        options: SamplingOptions,
    ) -> None:
        self._scale, self._model, self._device = config.input_scale, model, device_of(model)
        self._network = GuidedNetwork(config, model, condition, options)
        self._sampler: SamplerName = options.get("sampler") or config.sampler
        self._given, self._latents = options.get("given"), options.get("latents")
        self._to_noise = self._given is not None and self._given.to_noise
        self._compile = options.get("compile", False)
        self._set_noise(shape, options)
        self._set_steps(config, condition, options)

    def _set_noise(self, shape: Sequence[int], options: SamplingOptions) -> None:
        """Where the noise of the steps comes from, and that of the known part."""
        seeds, block = options.get("seeds"), options.get("block", 0)
        self._draw, self._known = noise_source(shape, seeds, options.get("noise"), self._device, block), None
        if self._given is not None and self._given.redrawn is not None:
            draw = noise_source(shape, seeds, None, self._device, block, Purpose.KNOWN_NOISE)
            self._known = Known(self._given, self._scale, draw)

    def _set_steps(self, config: DiffusionConfig, condition: Condition | None, options: SamplingOptions) -> None:
        """The noise levels of each step, its passes, and which one is by the rule for clean data."""
        num_steps = config.num_steps if (asked := options.get("num_steps")) is None else asked
        t, td = 1.0 if self._given is None else self._given.t, options.get("td", 0.0)
        levels = noise_levels(parse_schedule(options.get("schedule") or config.sampling_schedule), num_steps, td, t)
        times = [t * step_times(step, num_steps, td)[0] for step in range(num_steps)]
        passes = passes_of_steps(config, condition, options, levels, times)
        self._step_at_clean_data = num_steps - 1
        if self._to_noise:
            levels, passes, self._step_at_clean_data = levels.flip(0), passes[::-1], 0
        self._levels, self._passes = levels.to(self._device), passes

    def steps(self) -> Iterator[SamplingStep]:
        """Takes the steps one by one."""
        fast, evaluating = self._fast() if self._compile else self._take, EvaluationMode(self._model)
        state = self._start()
        for step, passes in enumerate(self._passes):
            level = self._levels[step]
            rule = last_rule(self._sampler) if step == self._step_at_clean_data else self._sampler
            take = fast if rule == self._sampler and self._is_like_the_one_before(step, state) else self._take
            for again in range(1 if self._known is None else self._known.num_rounds):
                number = again * len(self._passes) + step
                if self._known is not None and again:
                    x_t, level = self._known.back(state.x_t, level, number)
                    state = state._replace(x_t=x_t)
                with evaluating:
                    state = take(rule, passes, state, level, number)
                if self._known is not None:
                    x_0, x_t = self._known.keep(state.x_0, state.x_t, level[1], number)
                    state = state._replace(x_0=x_0, x_t=x_t)
            yield SamplingStep(state.x_0 / self._scale, state.x_t / self._scale, state.carried.latents)

    def _start(self) -> State:
        x_t = self._draw(0)
        if self._given is not None:
            x_t = self._given.start(x_t, self._levels[0, 0], self._scale)
        return State(x_t, Carried(self._latents), torch.zeros_like(x_t))

    def _is_like_the_one_before(self, step: int, state: State) -> bool:
        """Whether a step is of the kind of the one before: others come once, and are not worth compiling.

        They are the first one without latents, and those with fewer or more of them, or of guidance.
        """
        if step == 0:
            return state.carried.latents is not None
        return self._passes[step] == self._passes[step - 1]

    @torch.no_grad()  # here and not on `steps`: gradients would be off between the steps too
    def _take(
        self,
        sampler: SamplerName,
        passes: Passes,
        state: State,
        levels: Float[Tensor, "3"],
        number: int | Int[Tensor, ""],
    ) -> State:
        look = partial(self._network.look, passes=passes)
        if self._to_noise:
            x_0, x_t, carried = noising_step(sampler, look, state.x_t, state.carried, levels)
        else:
            x_0, x_t, carried = reverse_step(
                sampler, look, self._draw, state.x_t, state.carried, state.x_0, levels, number
            )
        return State(x_t, carried, x_0)

    def _fast(self) -> Take:
        """A step, compiled; its number becomes a tensor, which is no constant of the compiled code."""
        graphs = self._device.type == "cuda"
        fast = compiled(self._take, "the sampling step", graphs)

        def take(sampler: SamplerName, passes: Passes, state: State, levels: Float[Tensor, "3"], number: int) -> State:
            ends = fast(sampler, passes, state, levels, torch.full((), number, device=self._device))
            # the next replay of the graphs overwrites what this one returned
            return tree_map_only(Tensor, torch.clone, ends) if graphs else ends

        return take
