"""The diffusion of a RIN: its loss with latent self-conditioning and its sampling with carried latents."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.compute import autocast_to, compiled
from rin.core.denoiser import Condition, Denoiser
from rin.core.errors import RinError, unknown
from rin.core.seeds import Chance, Purpose
from rin.core.shapes import Examples, Latents, Mask, PerExample
from rin.diffusion.config import DiffusionConfig
from rin.diffusion.loss import SelfConditioned, estimate_latents, fixed_share, squared_error
from rin.diffusion.predictions import Estimate, as_factor, corrupt, estimate
from rin.diffusion.samplers import SAMPLERS, SamplerName, ddim_step, ddpm_step, noise_source, step_times
from rin.diffusion.schedules import parse_schedule


class SamplingOptions(TypedDict, total=False):
    """How to draw samples; what is absent or None is the configuration's."""

    sampler: SamplerName | None
    """ddpm, ddpm-small or ddim."""

    num_steps: int | None
    """Steps, 1 or more."""

    schedule: str | None
    """gamma(t) of sampling."""

    guidance: float
    """g in out = out_c + g (out_c - out_u); 0 is off."""

    td: float
    """Shifts where each step leads to by that many steps; 0 is off."""

    seeds: Sequence[int] | Int[Tensor, "b"] | None
    """One a sample: the same seed starts from the same noise in any batch. None draws fresh ones."""

    block: int
    """Which block of a longer clip is drawn, from 0 on: each has noise of its own."""

    latents: Latents | None
    """Latents that warm-start the first step; None starts from zeros."""

    noise: Sequence[Examples] | None
    """Every draw in order, the starting point first, instead of seeds."""

    bfloat16: bool
    """Run the network in bfloat16 autocast; the sampler's own arithmetic stays in float32."""

    compile: bool
    """Compile the steps after the first; on a CUDA device they are captured in CUDA graphs, too."""


class Draws(TypedDict, total=False):
    """What a loss draws by chance, and can be given instead; what is absent or None is drawn."""

    t: PerExample | None
    """Times in [0, 1] (b)."""

    noise: Examples | None
    """Standard normal noise, of x_0's shape."""

    self_cond: SelfConditioned | None
    """The examples that start from estimated latents: a mask (b) or their numbers."""

    keep: Mask | None
    """The examples that keep their labels in the main pass (b)."""

    keep_in_estimate: Mask | None
    """Those that keep them in the first pass, which drops its own (b)."""

    chance: Chance | None
    """Where to draw the rest from; None draws from PyTorch's own generator."""


class SamplingStep(NamedTuple):
    """Where a sampling run stands after a step; data in [-1, 1]."""

    x_0: Examples
    """The clean data predicted at this step: the result, after the last."""

    x_t: Examples
    """The noisy data that the next step starts from, divided by the input scale."""

    latents: Latents
    """The latents carried to the next step."""


def last_of(steps: Iterable[SamplingStep]) -> SamplingStep:
    """The last step of a sampling run, without keeping those before."""
    return deque(steps, maxlen=1).pop()


Step = Callable[..., tuple[Examples, Examples, Latents]]
"""(x_t, latents, times, number) to (x_0, the next x_t, the next latents)."""


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
        """
        config = self.config
        t, noise, self_cond = draws.get("t"), draws.get("noise"), draws.get("self_cond")
        chance = draws.get("chance") or Chance.fresh(x_0.shape[0], x_0.device)
        t = chance.uniform(Purpose.TIME) if t is None else t
        noise = chance.normal(Purpose.NOISE, x_0.shape[1:]) if noise is None else noise
        if self_cond is None:
            share = fixed_share(config, range(x_0.shape[0]), x_0.device)
            self_cond = chance.true(Purpose.SELF_COND, config.self_cond_rate) if share is None else share

        clean, gamma = x_0 * config.input_scale, self.schedule(t)
        x_t = corrupt(clean, noise, gamma)
        model_input = self._model_input(x_t)
        told_in_estimate = self._drop(condition, draws.get("keep_in_estimate"), chance, Purpose.KEEP_LABELS_ESTIMATE)
        told = self._drop(condition, draws.get("keep"), chance, Purpose.KEEP_LABELS)

        latents_prev = None
        if config.self_cond_rate:
            latents_prev = estimate_latents(model, model_input, gamma, told_in_estimate, self_cond)
        prediction = _asked(model(model_input, gamma, told, latents_prev).prediction)
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
            model: the denoiser, in evaluation mode.
            shape: of the samples, batch first.
            condition: what the samples are to show.
            **options: see `SamplingOptions`.

        Raises:
            RinError: guidance for a model trained without label dropping, an unknown sampler or schedule, no steps.
        """
        scale, guidance = self.config.input_scale, options.get("guidance", 0.0)
        sampler = options.get("sampler") or self.config.sampler
        num_steps = self.config.num_steps if (asked := options.get("num_steps")) is None else asked
        self._check_sampling(sampler, num_steps, guidance)
        gamma_of = parse_schedule(options.get("schedule") or self.config.sampling_schedule)
        device, bfloat16 = _device_of(model), options.get("bfloat16", False)
        draw = noise_source(shape, options.get("seeds"), options.get("noise"), device, options.get("block", 0))

        @torch.no_grad()  # here and not on `steps`: gradients would be off between the steps too
        def take(
            x_t: Examples, latents: Latents | None, times: Float[Tensor, "2"], number: int | Int[Tensor, ""]
        ) -> tuple[Examples, Examples, Latents]:
            gamma, gamma_next = gamma_of(times)
            with autocast_to(bfloat16, device):
                found, latents = self._denoise(model, x_t, gamma.expand(shape[0]), condition, latents, guidance)
            if sampler == "ddim":
                return found.x_0, ddim_step(found, gamma_next), latents
            noise = draw(number + 1)
            x_next = ddpm_step(x_t, found, gamma, gamma_next, noise, small=sampler == "ddpm-small")
            return found.x_0, x_next, latents

        fast = _fast(take, device) if options.get("compile", False) else take
        td = options.get("td", 0.0)
        times = torch.tensor([step_times(step, num_steps, td) for step in range(num_steps)], device=device)
        x_t, latents = draw(0), options.get("latents")
        for step in range(num_steps):
            # without latents the step is another: it is taken once, and not worth compiling
            x_0, x_t, latents = (take if latents is None else fast)(x_t, latents, times[step], step)
            yield SamplingStep(x_0 / scale, x_t / scale, latents)

    def _denoise(
        self,
        model: Denoiser,
        x_t: Examples,
        gamma: PerExample,
        condition: Condition | None,
        latents: Latents | None,
        guidance: float,
    ) -> tuple[Estimate, Latents]:
        """One look at x_t; under guidance both passes start from the same latents, the conditional's are carried."""
        model_input = self._model_input(x_t)
        told = model(model_input, gamma, condition, latents)
        prediction = _asked(told.prediction)
        if guidance:
            untold = model(model_input, gamma, (condition or Condition()).null(), latents)
            prediction = prediction + guidance * (prediction - _asked(untold.prediction))
        clip, space = self.config.input_scale, self.config.prediction
        return estimate(prediction, x_t, gamma, space, clip, recompute_eps=True), told.latents

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
        x_t: Examples, latents: Latents | None, times: Float[Tensor, "2"], number: int
    ) -> tuple[Examples, Examples, Latents]:
        x_0, x_next, latents_next = fast(x_t, latents, times, torch.full((), number, device=device))
        # the next replay of the graphs overwrites what this one returned
        return (x_0.clone(), x_next.clone(), latents_next.clone()) if graphs else (x_0, x_next, latents_next)

    return step


def _asked(prediction: Tensor | None) -> Examples:
    """A prediction that was asked for, in float32 whatever the network computes in."""
    assert prediction is not None
    return prediction.float()


def _device_of(model: Denoiser) -> torch.device:
    """Where a denoiser computes: where its weights are; the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    first = next(parameters, None)
    return torch.device("cpu") if first is None else first.device
