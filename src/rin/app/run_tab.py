"""The tab that tells of a run."""

from typing import Any

from rin.app.controls import large, messages, picture_file
from rin.app.opened import Opened
from rin.app.run_figures import figures, losses, preview, previews


def run_tab(gr: Any, blocks: Any, opened: Opened) -> None:
    """Lays out the tab, in the blocks that are open; read when the page is opened, and when asked for."""
    import pandas as pd  # gradio has it

    with gr.Row():
        with gr.Column():
            again = gr.Button("Read again")
            table = gr.Dataframe(
                headers=["figure", "value"], datatype="str", interactive=False, label="Figures", wrap=True,
                column_widths=["35%", "65%"], max_height=2000,
            )  # fmt: skip
        with gr.Column():
            curves = gr.LinePlot(x="step", y="loss", color="of", color_title="loss", label="Losses", visible=False)
            no_curves = gr.Markdown(visible=False)
            place = gr.Slider(0, 1, 0, step=1, label="Samples on the way", visible=False)
            told = gr.Markdown()
            shown = gr.Image(
                label="Samples", alt_text="Samples on the way", format="png", interactive=False, visible=False,
                buttons=["download", "fullscreen"], elem_classes=large(opened.kind),
            )  # fmt: skip

    def read() -> tuple[Any, ...]:
        with messages(gr):
            points, count = losses(opened.folder), len(previews(opened.folder))
            words, picture = preview(opened.folder, count - 1)
            rows = figures(opened)
        some = bool(points["step"])
        return (
            rows,
            gr.LinePlot(value=pd.DataFrame(points), visible=some),
            gr.Markdown("" if some else "A saved model, which has no log of its training.", visible=not some),
            gr.Slider(minimum=0, maximum=max(count - 1, 1), value=max(count - 1, 0), visible=count > 1),
            words,
            gr.Image(value=picture_file(shown, picture), visible=picture is not None),
        )

    def go(place: Any) -> tuple[str, str | None]:
        with messages(gr):
            words, picture = preview(opened.folder, int(place))
        return words, picture_file(shown, picture)

    outputs = [table, curves, no_curves, place, told, shown]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "undocumented"}
    blocks.load(read, None, outputs, **quiet)
    again.click(read, None, outputs, api_name="run", **quiet)
    # not by every change: `read` moves the slider too, and has given the picture already
    place.input(go, place, [told, shown], api_name="samples", **quiet)
