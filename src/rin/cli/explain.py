"""`rin explain`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from rin.cli.arguments import SamplingArguments, parse, quoted
from rin.cli.sample import check_prompt, parse_classes
from rin.core.errors import RinError
from rin.core.files import check_writable_file
from rin.core.pixels import to_floats
from rin.core.progress import LOGGER
from rin.evaluation.videos import held_out_frames
from rin.model_files import model_folder
from rin.nn import RIN
from rin.sampling.explaining import routing
from rin.sampling.pictures import save_animation, save_image
from rin.sampling.routing_sheet import moments, sheet, why_not_shown
from rin.trained_model import load


@dataclass(frozen=True, kw_only=True)
class ExplainArguments:
    """Draws one sample, and shows what the latents read on the way (the paper's section 3).

    A sheet: a column a step, from noise to the sample; of clips a column a frame, of the last step. The first row is
    the clean estimate; the second how much of all reading each place gets; each further one what one latent reads in
    the last block, those first whose reading is most concentrated. Bright is most, dark least, of each map for itself.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, the name of a model that comes with rin, as in digits, or a Hub name
    owner/name."""

    out: Path = Path("routing.png")
    """.png: the sheet; .gif: its columns one after the other, all steps."""

    classes: str | None = None
    """The class, by number or name; the first if absent."""

    prompt: str | None = None
    """A caption of what to draw, for models that have learned from captions."""

    num_times: int = 6
    """Columns: steps, spread evenly over the sampling."""

    num_rows: int = 8
    """Latents to show."""

    sampling: tyro.conf.OmitArgPrefixes[SamplingArguments] = field(default_factory=SamplingArguments)
    """How it is drawn."""


def explain(arguments: list[str]) -> None:
    """Draws the sheet."""
    chosen = parse(ExplainArguments, arguments, "rin explain")
    animated = chosen.out.suffix.lower() == ".gif"
    if not animated and chosen.out.suffix.lower() not in (".png", ".webp", ".bmp"):
        raise RinError(f"cannot write a sheet as {chosen.out.suffix or 'a folder'}: take .png, or .gif for all steps")
    check_writable_file(chosen.out)
    for name in ("num_times", "num_rows"):
        if getattr(chosen, name) < 1:
            raise RinError(f"--{name.replace('_', '-')} {getattr(chosen, name)}: take 1 or more")
    trained = load(chosen.run)
    kind = trained.kind
    check_prompt(chosen.prompt, kind)
    if reason := why_not_shown(kind):
        raise RinError(reason)
    if kind.condition_shape:
        raise RinError("this model draws from a picture: rin.routing(trained, condition=...) has the numbers")
    classes = parse_classes(chosen.classes, trained)[: None if chosen.classes else 1]
    if len(classes) > 1:
        raise RinError(f"--classes {chosen.classes}: one sample is shown, give one class")
    context = None
    if kind.num_context_frames:
        context = to_floats(held_out_frames(trained, model_folder(chosen.run), 1, classes or None))
    options = chosen.sampling.options
    for name, usual in (("compile", "auto"), ("batch_size", None)):
        if options.pop(name) not in (usual, "off"):
            raise RinError(f"--{name.replace('_', '-')} is for more than one sample: leave it out")
    num_times = 10**9 if animated else chosen.num_times
    steps = routing(
        trained, classes if chosen.prompt is None and classes else chosen.prompt, 1, num_times=num_times,
        context=context, **options,
    )  # fmt: skip
    assert isinstance(trained.model, RIN)  # routing has seen to it
    if animated:
        save_animation(moments(steps, trained.model.tokenizer, num_latents=chosen.num_rows), chosen.out, frame_ms=120)
    else:
        save_image(sheet(steps, trained.model.tokenizer, num_latents=chosen.num_rows), chosen.out)
    LOGGER.info("%d latents, %d tokens", steps[0].read.shape[2], steps[0].read.shape[3])
    print(f"what the latents read in {quoted(chosen.out)}")
