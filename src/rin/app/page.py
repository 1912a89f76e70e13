"""The page, which is to a person what the command line is.

Everything that computes goes through one queue, one at a time. What a request draws is its own: it comes back by that
request alone, and what is kept lies in the state of the person's session.
"""

from typing import Any

from rin.app.opened import Opened
from rin.app.routing_tab import routing_tab
from rin.app.run_tab import run_tab
from rin.app.sample_tab import sample_tab
from rin.core.optional import gradio
from rin.sampling.routing_sheet import why_not_shown


def page(opened: Opened) -> Any:
    """The page of a model, as `gradio.Blocks`; `rin.app.serving` shows it.

    Raises:
        RinError: gradio is not installed.
    """
    gr = gradio("for rin app")
    with gr.Blocks(title=f"rin: {opened.source}", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
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
