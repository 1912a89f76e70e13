"""What a caller of a diffusion can choose: of sampling, and of what a loss draws by chance."""

from collections.abc import Sequence
from typing import TypedDict

from jaxtyping import Int
from torch import Tensor

from rin.core.seeds import Chance
from rin.core.shapes import Examples, Latents, Mask, PerExample
from rin.diffusion.given import Given
from rin.diffusion.latent_counts import NumLatents
from rin.diffusion.loss import SelfConditioned
from rin.diffusion.samplers import SamplerName


class SampleOptions(TypedDict, total=False):
    """How to draw samples; what is absent or None is the configuration's."""

    sampler: SamplerName | None
    """ddpm, ddpm-small, ddim, dpmpp-2m or heun."""

    num_steps: int | None
    """Steps, 1 or more; heun evaluates the network twice a step, but for the last."""

    schedule: str | None
    """gamma(t) of sampling."""

    num_latents: NumLatents | None
    """Latents m that each step works with, of an elastic network: one number, pairs (t, m) or a function of t; all of
    them if None (see `rin.diffusion.latent_counts`)."""

    guidance: float | None
    """g in p + g (p - p_u), p_u being the prediction without the condition; 0 is none. It is the `guidance_scale` of
    diffusers less 1. Samples without a condition are not guided by the configuration's."""

    num_guide_latents: int | None
    """Take for p_u the prediction of an elastic network with so few latents, under the same condition (autoguidance by
    a smaller self; Karras et al., 2024, arXiv 2406.02507)."""

    guidance_interval: tuple[float, float] | None
    """Guidance only in steps that begin at a noise level sigma = sqrt((1 - gamma) / gamma) above the first number and
    up to the second; the others cost half (Kynkäänniemi et al., 2024, arXiv 2404.07724). (0, inf) is all steps."""

    consistent: bool
    """Of a model that draws from a smaller picture: after each estimate of clean data have it agree with that, so that
    the mean over each box of pixels is what the picture tells."""

    td: float
    """Shifts where each step leads to by that many steps; 0 is off."""


class SamplingOptions(SampleOptions, total=False):
    """The same, with what `Diffusion` itself takes."""

    seeds: Sequence[int] | Int[Tensor, " b"] | None
    """One a sample: the same seed starts from the same noise in any batch. None draws fresh ones."""

    block: int
    """Which block of a longer clip is drawn, from 0 on: each has noise of its own."""

    latents: Latents | None
    """Latents that warm-start the first step; None starts from zeros."""

    noise: Sequence[Examples] | None
    """Every draw in order, the starting point first, instead of seeds."""

    given: Given | None
    """Data that sampling starts from, or keeps a part of; None samples anew."""

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

    num_latents: int | None
    """Latents m that both passes of an elastic network work with; all of them if None."""

    chance: Chance | None
    """Where to draw the rest from; None draws from PyTorch's own generator."""
