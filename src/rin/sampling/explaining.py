"""What the latents read while samples come about, step by step: where a network spends its computation."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.distributed import world_size
from rin.core.errors import RinError
from rin.core.shapes import Examples
from rin.diffusion.checks import whole_number
from rin.nn.rin import RIN
from rin.nn.routing import Read, Write, recorded
from rin.sampling.pipeline import Pipeline
from rin.sampling.requests import LabelsLike


class Routing(NamedTuple):
    """One step of sampling: what the latents read of the interface, and what each token took from them.

    Tokens are in the tokenizer's order, patches row by row; those of context frames follow. Latents are the learned
    ones, then those of the noise level and of the condition.
    """

    t: float
    """The time at which the step begins, from 1, noise, to 0."""

    x_0: Examples
    """Its clean estimates (b ...)."""

    read: Read
    """How much of what a latent reads comes from each token, mean over heads: sums to 1 over tokens."""

    write: Write
    """How much of a token's update comes from each latent, mean over heads: sums to 1 over latents."""

    num_condition: int
    """How many of the latents, the last ones, are those of the noise level and of the condition."""

    @property
    def computation(self) -> Float[Tensor, "b tokens"]:
        """How much of all reading each token gets, over all blocks and latents, in parts of an even share: mean 1."""
        return self.read.mean((0, 2)) * self.read.shape[-1]


def routing(
    trained: Pipeline,
    labels: LabelsLike | None = None,
    num: int | None = None,
    *,
    num_times: int = 6,
    **options: Any,
) -> list[Routing]:
    """Draws samples, and tells what the latents read on the way.

    Args:
        trained: the model, as `rin.load` opens it.
        labels: as of `Pipeline.sample`.
        num: how many samples, all at once; as of `Pipeline.sample`.
        num_times: steps to tell of, spread evenly over the sampling, the first and the last among them; all if there
            are fewer.
        **options: seed, num_steps, sampler, guidance and what else `Pipeline.sample` takes.

    Returns:
        Those steps, the noisiest first.

    Raises:
        RinError: the network is no RIN; one is asked for that computes compiled, in batches or in blocks of frames,
            or in several processes; what `Pipeline.sample` refuses.
    """
    if not isinstance(trained.model, RIN):
        raise RinError(f"a {type(trained.model).__name__} has no latents that read: routing is for a RIN")
    if world_size() > 1:
        raise RinError("routing is for one process: start it without others")
    for name in ("compile", "batch_size", "num_frames", "given", "callback"):
        if name in options:
            raise RinError(f"routing looks at one ordinary pass a step: leave {name} out")
    num_steps = options.get("num_steps") or options.get("steps") or trained.diffusion.config.num_steps
    spread = torch.linspace(0, num_steps - 1, min(whole_number("num_times", num_times, least=1), num_steps))
    wanted, found = {round(step) for step in spread.tolist()}, list[Routing]()
    num_condition = trained.model.config.num_condition_latents
    with recorded(trained.model) as recorder:

        def keep(step: int, x_0: Examples) -> None:
            attended = recorder.first()
            if step in wanted:
                found.append(Routing(1 - step / num_steps, x_0.cpu(), *attended, num_condition))

        everything = 2**31 if num is None else num  # all at once: a second batch would begin the steps anew
        trained.sample(labels, num, compile="off", batch_size=everything, callback=keep, **options)
    return found
