"""The tab that shows what the latents read."""

from typing import Any

from PIL import Image

from rin.app.controls import COMPUTING, choices, controls, large, messages, named_classes, picture_file
from rin.app.opened import Opened
from rin.app.routing import explained

Kept = list[tuple[float, Image.Image]]
"""Times, and the picture of each."""

_HELP = """Row by row: the clean estimate; how much of all reading each place gets; and what single latents read in the
last block, the most concentrated first. Bright is most, dark least, of each map for itself. Several steps, or the
frames of a clip, stand side by side."""


def routing_tab(gr: Any, opened: Opened) -> None:
    """Lays out the tab, in the blocks that are open."""
    classes = named_classes(opened)
    most = min(16, opened.config.num_latents)
    kept = gr.State([], time_to_live=3600)
    with gr.Row():
        with gr.Column(scale=2):
            of = gr.Dropdown(classes, value=0 if classes else None, label="Class", visible=bool(classes))
            rows = gr.Slider(1, max(most, 2), min(8, most), step=1, label="Latents to show")
            others = controls(gr, opened)
            start = gr.Button("Show", variant="primary")
        with gr.Column(scale=3):
            gr.Markdown(_HELP)
            place = gr.Slider(1, 2, 1, step=1, label="Step, from noise to the sample", visible=False)
            told = gr.Markdown()
            shown, whole = (
                gr.Image(
                    label=label, alt_text=label, format="png", interactive=False, buttons=["download", "fullscreen"],
                    elem_classes=large(opened.kind, *others),
                )
                for label, *others in (("One step",), ("Several steps", "long"))
            )  # fmt: skip

    def show(
        of: Any, rows: Any, prompt: Any, condition: Any, seed: Any, sampler: Any, steps: Any, guidance: Any,
        latents: Any, average: Any,
    ) -> tuple[Kept, Any, str, str | None, str | None]:  # fmt: skip
        values = (prompt, condition, seed, sampler, steps, guidance, latents, average)
        with messages(gr):
            found = explained(opened, choices(opened, [] if of is None else [of], 1, *values), int(rows))
        moments = list(zip(found.times, found.moments, strict=True))
        count = len(moments)
        slider = gr.Slider(minimum=1, maximum=max(count, 2), value=count, visible=count > 1)
        last, sheet = picture_file(shown, moments[-1][1]), picture_file(whole, found.sheet)
        return moments, slider, _time(moments, count), last, sheet

    def go(place: Any, moments: Kept) -> tuple[str, str | None]:
        number = max(1, min(int(place), len(moments)))
        return _time(moments, number), picture_file(shown, moments[number - 1][1] if moments else None)

    start.click(
        show, [of, rows, *others], [kept, place, told, shown, whole], api_name="routing", show_progress_on=shown,
        **COMPUTING,
    )  # fmt: skip
    place.input(  # not by every change: `show` moves it too, see `rin.app.run_tab`
        go, [place, kept], [told, shown], queue=False, show_progress="hidden", api_name="moment",
        api_visibility="undocumented",
    )  # fmt: skip


def _time(moments: Kept, number: int) -> str:
    return f"a step that begins at t = {moments[number - 1][0]:.3g} (1 is noise)" if moments else ""
