"""`rin app`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from rin.app import Opened, check_address, serve
from rin.cli.arguments import parse
from rin.core.optional import gradio


@dataclass(frozen=True, kw_only=True)
class AppArguments:
    """Opens a model in a page for the browser, on this machine.

    Three tabs: draw samples and watch the clean estimates; see what the latents read; look at the run, its losses and
    the samples that it drew on the way. Needs the extra app: pip install "rin-diffusion[app]". Nothing leaves the
    machine, and nobody else reaches the page unless --host says so.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, the name of a model that comes with rin, as in digits, or a Hub name
    owner/name."""

    host: str = "127.0.0.1"
    """The address to listen at: this machine's own, which nobody else reaches; 0.0.0.0 is every one of it. There is no
    password."""

    port: int = 7860
    """And its port."""


def app(arguments: list[str]) -> None:
    """Shows the page until it is interrupted."""
    chosen = parse(AppArguments, arguments, "rin app")
    check_address(chosen.host, chosen.port)  # both before a model is opened, which can take long
    gradio("for rin app")
    serve(Opened(chosen.run), chosen.host, chosen.port)
