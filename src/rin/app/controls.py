"""The controls that tabs share, and how mistakes are told."""

import html
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from rin.app.drawing import Choices
from rin.app.opened import Opened, shares_of_operations
from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.diffusion.samplers import SamplerName
from rin.sampling.plots import is_plotted

COMPUTING: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "computing"}
"""Of every event that computes: they wait for one another, and the page shows the place in the queue."""

_MOST_STEPS, _MOST_GUIDANCE = 1000, 10.0

_LARGEST_PIXELS = 64
"""The side of pictures up to which they are enlarged pixel by pixel, not smoothly."""

SAMPLERS: dict[SamplerName, str] = {
    "ddpm": "noise, of large variance",
    "ddpm-small": "noise, of the posterior's variance",
    "ddim": "no noise, first order",
    "dpmpp-2m": "no noise, second order",
    "heun": "no noise, second order, two passes a step",
}
"""Names of samplers, and what is what."""


@contextmanager
def messages(gr: Any) -> Generator[None]:
    """Turns a mistake into a message in the page; what is anything else is a bug, and told in the terminal."""
    try:
        yield
    except RinError as error:
        text = html.escape(str(error), quote=False)  # the page would take it for HTML
        raise gr.Error(text, duration=None, print_exception=False) from None


class Controls(NamedTuple):
    """What is asked of a drawing, but for its classes and its number; hidden where it is nothing to this model."""

    prompt: Any
    condition: Any
    seed: Any
    sampler: Any
    num_steps: Any
    guidance: Any
    num_latents: Any
    average: Any


def controls(gr: Any, opened: Opened) -> Controls:
    """Lays them out, each with a value that works."""
    kind, own, config = opened.kind, opened.own, opened.config
    prompt = gr.Textbox(opened.caption, label="Prompt", max_length=1000, visible=bool(kind.has_captions))
    condition = gr.Image(
        opened.condition, label="Picture to draw from", type="pil", image_mode=None, format="png", sources=["upload"],
        visible=bool(kind.condition_shape),
    )  # fmt: skip
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0)
        num_steps = gr.Number(
            own.num_steps, label="Steps", precision=0, minimum=1, maximum=max(_MOST_STEPS, own.num_steps)
        )
    samplers = [(f"{name}: {words}", name) for name, words in SAMPLERS.items()]
    sampler = gr.Dropdown(samplers, value=own.sampler, label="Sampler")
    is_guided = bool(own.label_drop_rate and kind.is_labelled)
    interval = "" if own.guidance_interval is None else ", at sigma {:g} to {:g}".format(*own.guidance_interval)
    strength = (own.guidance or 1.0) if is_guided else 0.0
    guidance = gr.Slider(
        0, max(_MOST_GUIDANCE, strength), strength, step=0.1, label=f"Guidance{interval}", visible=is_guided
    )
    least, most = config.num_latents_min if opened.is_elastic else 0, config.num_latents
    num_latents = gr.Slider(least, most, most, step=1, label="Latents", visible=opened.is_elastic)
    if opened.is_elastic:
        _share_of_operations(gr, opened, num_latents)
    averages = [(f"{decay:g}", decay) for decay in opened.averages]
    average = gr.Dropdown(
        averages, value=averages[0][1] if averages else None, label="Average of the weights, by its decay",
        visible=len(averages) > 1,
    )  # fmt: skip
    return Controls(prompt, condition, seed, sampler, num_steps, guidance, num_latents, average)


def choices(opened: Opened, classes: list[int], num: int, *values: Any) -> Choices:
    """What a person has chosen, from the values of `Controls`; what is nothing to this model is left out."""
    given = Controls(*values)
    is_asked_for = not opened.kind.has_captions or bool((given.prompt or "").strip())
    return Choices(
        classes=tuple(classes),
        prompt=given.prompt or "",
        condition=given.condition if opened.kind.condition_shape else None,
        num=num,
        seed=given.seed or 0,
        sampler=given.sampler,
        num_steps=given.num_steps,
        guidance=(given.guidance or 0.0) if is_asked_for else 0.0,
        num_latents=int(given.num_latents) if opened.is_elastic else None,
        average=given.average if len(opened.averages) > 1 else None,
    )


def picture_file(component: Any, picture: Image.Image | None) -> str | None:
    """The path of a PNG of `picture` in the cache of `component`, a `gr.Image`; None where there is no picture.

    Events return it in place of the picture. A picture itself, gradio would write to the same path each time, also
    while that file is being sent to a browser, which then gets half of it.
    """
    if picture is None:
        return None
    from gradio.processing_utils import save_file_to_cache  # late, for gradio is an extra and long to import

    with tempfile.TemporaryDirectory(prefix="shown-") as folder:
        path = Path(folder) / "image.png"
        picture.save(path)
        return save_file_to_cache(path, component.GRADIO_CACHE)


def named_classes(opened: Opened) -> list[tuple[str, int]]:
    """The classes as a dropdown takes them: names, and the numbers that they stand for."""
    return [(name, number) for number, name in enumerate(opened.class_names[: opened.kind.num_classes])]


def large(kind: Kind, *others: str) -> list[str]:
    """The CSS classes of an image of samples: as large as there is room, and small pictures pixel by pixel."""
    is_small = not is_plotted(kind.shape) and max(kind.shape[-2:]) <= _LARGEST_PIXELS
    return ["sheet", *(["pixels"] if is_small else []), *others]


def _share_of_operations(gr: Any, opened: Opened, num_latents: Any) -> None:
    shares = shares_of_operations(opened.config)

    def share(count: Any) -> str:
        return f"{shares[int(count)]:.0%} of the operations of a pass with all latents"

    text = gr.Markdown(share(opened.config.num_latents))
    num_latents.change(share, num_latents, text, queue=False, show_progress="hidden", api_visibility="undocumented")
