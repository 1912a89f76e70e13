"""Samples drawn step by step, as a generator that a page shows, stops and forgets."""

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image

from rin.app.opened import Opened
from rin.core.errors import RinError
from rin.core.shapes import Examples, Pictures
from rin.diffusion import SamplerName
from rin.sampling.denoising import Denoising
from rin.sampling.plots import is_plotted
from rin.sampling.requests import spread_labels

MOST_SAMPLES = 16
"""Samples that a page draws at once."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a person has chosen of a drawing."""

    classes: tuple[int, ...] = ()
    """Over which samples are spread; all there are if empty."""

    prompt: str = ""
    """A caption, for models that have learned from captions; none if empty."""

    condition: Image.Image | None = None
    """A picture to draw from, for models that have learned to."""

    num: int = 4
    """Samples, 1 to 16."""

    seed: int = 0
    """Of the noise."""

    sampler: SamplerName | None = None
    """The model's own if None."""

    num_steps: int | None = None
    """The model's own if None."""

    guidance: float = 0.0
    """See `rin.diffusion.options.SampleOptions`."""

    num_latents: int | None = None
    """Of an elastic network; all if None."""

    average: float | None = None
    """The decay of the average of the weights; the first one if None."""

    @property
    def options(self) -> dict[str, Any]:
        """The same as `TrainedModel.sample` takes it, of those that `rin.routing` takes too."""
        return {
            "seed": self.seed, "sampler": self.sampler, "num_steps": self.num_steps, "guidance": self.guidance,
            "num_latents": self.num_latents,
        } | ({} if self.condition is None else {"condition": self.condition})  # fmt: skip

    def labels(self, opened: Opened, num: int) -> list[int] | str | None:
        """What is asked for of each of `num` samples: its class or, one for all, the caption."""
        if opened.kind.has_captions:
            return self.prompt.strip() or None
        classes = self.classes or tuple(range(opened.kind.num_classes))
        return spread_labels(classes, num) if classes else None


class Drawn(NamedTuple):
    """Where a drawing stands after a step."""

    step: int
    """Steps done, of all batches."""

    num_steps: int
    """Steps in all: times the batches, if not all samples fit into memory at once."""

    samples: Examples
    """The clean estimates (num ...); after the last step the samples, with the frames that clips go on from."""

    denoising: list[Pictures] | None
    """All samples at some steps on the way, of images; None before the end."""

    labels: list[int] | None
    """The class of each sample; None if there are none."""


class _StoppedError(Exception):
    """A drawing that nobody waits for any more."""


def drawn(opened: Opened, choices: Choices, stop: threading.Event) -> Generator[Drawn]:
    """Draws samples in a thread of its own, and tells of the newest step whenever it is asked.

    It ends without the samples within a step of `stop` being set, and likewise when it is closed; no thread is left.
    Steps that come while nobody asks are passed over, but for the last.

    Args:
        opened: the model.
        choices: what to draw.
        stop: set it to stop.

    Raises:
        RinError: there is no such drawing.
    """
    if not 1 <= choices.num <= MOST_SAMPLES:
        raise RinError(f"{choices.num} samples: take 1 to {MOST_SAMPLES}")
    told: queue.SimpleQueue[Drawn | BaseException | None] = queue.SimpleQueue()
    closed = threading.Event()

    def check() -> None:
        if stop.is_set() or closed.is_set():
            raise _StoppedError

    def step(state: Drawn) -> None:
        check()
        with suppress(queue.Empty):  # a step that nobody has asked for
            told.get_nowait()
        told.put(state)

    def work() -> None:
        try:
            with opened.computing:
                check()
                told.put(_draw(opened, choices, step))
            told.put(None)
        except _StoppedError:
            told.put(None)
        except BaseException as error:  # whoever asks is to have it
            told.put(error)

    thread = threading.Thread(target=work, name="drawing", daemon=True)
    thread.start()
    try:
        while (state := told.get()) is not None:
            if isinstance(state, BaseException):
                raise state
            yield state
    finally:
        closed.set()
        thread.join()


def _draw(opened: Opened, choices: Choices, step: Callable[[Drawn], None]) -> Drawn:
    """Draws samples; calls `step` after each of its steps."""
    trained = opened.trained(choices.average)
    kind, num = opened.kind, choices.num
    labels = choices.labels(opened, num)
    classes = labels if isinstance(labels, list) else None
    context = opened.context(trained, num, classes)
    num_steps = choices.num_steps or opened.own.num_steps
    denoising = Denoising(num_steps) if kind.is_image and not is_plotted(kind.shape) else None
    estimates, first, size = torch.zeros(num, *kind.shape), 0, num

    def callback(number: int, x_0: Examples) -> None:
        nonlocal first, size
        if denoising is not None:
            denoising(number, x_0)
        if first == number == 0:
            size = len(x_0)  # of all batches but the last
        estimates[first : first + len(x_0)] = x_0.cpu()
        batch, batches = first // size, -(-num // size)
        step(Drawn(batch * num_steps + number + 1, batches * num_steps, estimates.clone(), None, classes))
        if number + 1 == num_steps:
            first += len(x_0)

    samples = trained.sample(labels, num, context=context, callback=callback, compile="off", **choices.options)
    moments = [] if denoising is None else denoising.moments(num)
    whole = samples if context is None else torch.cat([context.cpu(), samples], dim=2)
    steps = -(-num // size) * num_steps
    return Drawn(steps, steps, whole, moments, classes)
