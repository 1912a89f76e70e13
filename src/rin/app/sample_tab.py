"""The tab that draws samples."""

import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

from rin.app.controls import COMPUTING, choices, controls, large, messages, named_classes, picture_file
from rin.app.drawing import MOST_SAMPLES, drawn
from rin.app.opened import Opened
from rin.app.results import files, picture


class Stops:
    """What stops the drawing of each session."""

    def __init__(self) -> None:
        self._by_session: dict[str, threading.Event] = {}

    def begin(self, session: str) -> None:
        """A drawing is asked for, and nothing stops it yet."""
        self._by_session[session] = threading.Event()

    def of(self, session: str) -> threading.Event:
        """What stops the drawing that the session asked for last."""
        return self._by_session.setdefault(session, threading.Event())

    def stop(self, session: str) -> None:
        """Stops it, also while it waits in the queue."""
        if session in self._by_session:
            self._by_session[session].set()

    def end(self, session: str, stop: threading.Event) -> None:
        """The drawing that this was to stop has ended: it is no other's."""
        if self._by_session.get(session) is stop:
            del self._by_session[session]

    def forget(self, session: str) -> None:
        """Stops it: nobody is there any more."""
        self.stop(session)
        self._by_session.pop(session, None)


def sample_tab(gr: Any, blocks: Any, opened: Opened) -> None:
    """Lays out the tab, in the blocks that are open."""
    stops = Stops()
    with gr.Row():
        with gr.Column(scale=2):
            classes = gr.Dropdown(
                named_classes(opened), value=[], multiselect=True, label="Classes (all if none)",
                visible=bool(opened.kind.num_classes),
            )  # fmt: skip
            number = gr.Slider(1, MOST_SAMPLES, _usual_number(opened), step=1, label="Number")
            others = controls(gr, opened)
            with gr.Row():
                start, end = gr.Button("Draw", variant="primary"), gr.Button("Stop", variant="stop")
        with gr.Column(scale=3):
            shown = gr.Image(
                label="Samples", alt_text="Samples", format="png", interactive=False,
                buttons=["download", "fullscreen"], elem_classes=large(opened.kind),
            )  # fmt: skip
            status = gr.Markdown("Press Draw.")
            results = gr.Files(label="To download", interactive=False, elem_classes="results")

    def begin(request: gr.Request) -> None:
        stops.begin(request.session_hash)

    def draw(
        request: gr.Request,
        classes: Any, number: Any, prompt: Any, condition: Any, seed: Any, sampler: Any, steps: Any, guidance: Any,
        latents: Any, average: Any,
    ) -> Generator[tuple[Any, Any, Any]]:  # fmt: skip
        values = (prompt, condition, seed, sampler, steps, guidance, latents, average)
        stop = stops.of(request.session_hash)
        try:
            with messages(gr):
                yield from _draw(gr, shown, opened, stop, classes, number, values)
        finally:
            stops.end(request.session_hash, stop)

    def halt(request: gr.Request) -> None:
        stops.stop(request.session_hash)

    def leave(request: gr.Request) -> None:
        stops.forget(request.session_hash)

    start.click(begin, queue=False, show_progress="hidden", api_name="begin", api_visibility="undocumented").then(
        draw, [classes, number, *others], [shown, status, results], api_name="draw", show_progress_on=shown, **COMPUTING
    )
    end.click(halt, queue=False, show_progress="hidden", api_name="stop", api_visibility="undocumented")
    blocks.unload(leave)


def _draw(
    gr: Any, shown: Any, opened: Opened, stop: threading.Event, classes: list[int], number: int,
    values: tuple[Any, ...],
) -> Generator[tuple[Any, Any, Any]]:  # fmt: skip
    """Pictures, where the drawing stands, and files, for as long as it lasts."""
    chosen, state = choices(opened, classes, int(number), *values), None
    for state in drawn(opened, chosen, stop):
        if state.denoising is None:
            told = f"step {state.step} of {state.num_steps}: the clean estimate"
            yield picture_file(shown, picture(state, opened.kind)) or gr.skip(), told, None
            continue
        with tempfile.TemporaryDirectory(prefix="drawn-") as folder:  # the page has copies of its own by the end
            written = files(state, opened.kind, opened.values, opened.class_names, Path(folder))
            playing = next((str(path) for path in written if path.name == "clips.gif"), None)
            num, noun = len(state.samples), opened.kind.noun
            told = f"{num} {noun if num > 1 else noun[:-1]}, {chosen.num_steps or opened.own.num_steps} steps"
            media = playing or picture_file(shown, picture(state, opened.kind))
            yield media or gr.skip(), told, list(map(str, written))
        return
    told = "before its first step" if state is None else f"after step {state.step} of {state.num_steps}"
    yield gr.skip(), f"Stopped {told}.", None


def _usual_number(opened: Opened) -> int:
    """Of samples; a sample of each of a few classes."""
    return 2 if opened.kind.is_video else min(max(opened.kind.num_classes, 4), MOST_SAMPLES)
