"""What latents read while a sample comes about, as pictures to go through."""

from typing import NamedTuple

from PIL import Image

from rin.app.drawing import Choices
from rin.app.opened import Opened
from rin.core.errors import RinError
from rin.nn import RIN
from rin.sampling.explaining import routing
from rin.sampling.pictures import to_image
from rin.sampling.routing_sheet import moments, sheet, why_not_shown

_MOST_TIMES = 24
"""Steps to go through."""

_COLUMNS = 6
"""Steps of the sheet."""


class Explained(NamedTuple):
    """What the latents read of one sample."""

    times: list[float]
    """At which the steps begin, from 1, noise, to 0."""

    moments: list[Image.Image]
    """A picture a step: the clean estimate, how much each place is read, what single latents read."""

    sheet: Image.Image
    """Some steps side by side; of clips the frames of the last one."""


def explained(opened: Opened, choices: Choices, num_rows: int) -> Explained:
    """Draws one sample, of the first class chosen, and tells what the latents read.

    Args:
        opened: the model.
        choices: what to draw.
        num_rows: latents to show.

    Raises:
        RinError: there are no pictures of such data, or no such drawing.
    """
    if reason := why_not_shown(opened.kind):
        raise RinError(reason)
    with opened.computing:
        trained = opened.trained(choices.average)
        labels = choices.labels(opened, 1)
        context = opened.context(trained, 1, labels if isinstance(labels, list) else None)
        steps = routing(trained, labels, 1, num_times=_MOST_TIMES, context=context, **choices.options)
        assert isinstance(trained.model, RIN)  # routing has seen to it
        tokenizer = trained.model.tokenizer
    few = [steps[round(place * (len(steps) - 1) / (_COLUMNS - 1))] for place in range(_COLUMNS)]
    few = few if len(steps) > _COLUMNS else steps
    return Explained(
        [step.t for step in steps],
        [to_image(picture) for picture in moments(steps, tokenizer, num_latents=num_rows)],
        to_image(sheet(few, tokenizer, num_latents=num_rows)),
    )
