"""The page, which is to a person what the command line is.

Everything that computes goes through one queue, one at a time. What a request draws is its own: it comes back by that
request alone, and what is kept lies in the state of the person's session.
"""

import html
from typing import Any

import torch

from rin.app.opened import Opened
from rin.app.routing_tab import routing_tab
from rin.app.run_tab import run_tab
from rin.app.sample_tab import sample_tab
from rin.core.optional import gradio
from rin.costs.operations import cost
from rin.sampling.routing_sheet import why_not_shown

STYLE = """
.heading .html-container { padding: 0; }
.sheet button:has(img), .sheet .image-frame { width: 100%; }
.sheet img { width: 100%; height: auto; max-height: 480px; object-fit: contain; }
.long img { max-height: none; }
.sheet.fullscreen img { max-height: 90vh; }
.sheet label { position: static; width: fit-content; }
.sheet .image-container { position: static; }
.pixels img { image-rendering: pixelated; }
.results:has(> .empty), .results .label-clear-button { display: none; }
[data-testid="status-tracker"]:has(.error) { display: none; }
"""
"""Pictures as large as there is room; no way to take a file from the list of what was drawn; and no mistake, which a
message tells, lies over what was drawn before."""

SCRIPT = """() => addEventListener("keydown", event => {
    if (event.key == "Tab" && event.target.getAttribute("role") == "combobox") event.stopPropagation()
}, true)"""
"""Keeps gradio's dropdowns from opening, and staying open over the others, when Tab leaves them."""


def page(opened: Opened) -> Any:
    """The page of a model, as `gradio.Blocks`; `rin.app.serving` shows it.

    Raises:
        RinError: gradio is not installed.
    """
    gr = gradio("for rin app")
    with gr.Blocks(title=f"rin: {opened.source}", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.HTML(_heading(opened), elem_classes="heading")
        with gr.Tab("Sample"):
            sample_tab(gr, blocks, opened)
        with gr.Tab("Routing"):
            if reason := why_not_shown(opened.kind):
                gr.Markdown(reason)
            else:
                routing_tab(gr, opened)
        with gr.Tab("Run"):
            run_tab(gr, blocks, opened)
    return blocks


def _heading(opened: Opened) -> str:
    """The model's name, and a line on it."""
    kind, price = opened.kind, cost(opened.config)
    of_what = f", of {kind.num_classes} classes" if kind.num_classes else ", by captions" if kind.has_captions else ""
    line = (
        f"Draws {kind.noun} of {' x '.join(map(str, kind.shape))}{of_what}; {price.parameters:,} parameters; "
        f"computes on {_named(opened.device)}."
    )
    return f"<h1>{html.escape(opened.source)}</h1><p>{html.escape(line)}</p>"


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"cpu": "the CPU", "mps": "Apple's Metal"}.get(device.type, str(device))
