"""A page shown to a browser, on this machine only unless it is said otherwise; nothing of it leaves the machine."""

import ipaddress
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from rin.app.opened import Opened
from rin.app.page import SCRIPT, STYLE, page
from rin.core.errors import RinError
from rin.core.optional import gradio
from rin.core.progress import LOGGER

THIS_MACHINE = "127.0.0.1"

_OWN = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What the page may load, and whom it may talk to: browsers hold it to this."""

_LARGEST_FILE = "20mb"
"""That a page takes: pictures to draw from."""


def serve(opened: Opened, host: str = THIS_MACHINE, port: int = 7860, wait: Callable[[], None] | None = None) -> None:
    """Shows the page of a model until it is interrupted; the files that it makes are gone with it.

    Args:
        opened: the model.
        host: the address to listen at.
        port: and its port.
        wait: returns when the page is to end; at an interrupt if None.

    Raises:
        RinError: gradio is not installed, or the address cannot be listened at; see `check_address`.
    """
    gr = gradio("for rin app")
    _reach_directly(host)
    with tempfile.TemporaryDirectory(prefix="rin-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # not a folder that others of this machine can read
        blocks = page(opened)
        try:
            blocks.launch(
                server_name=f"[{host}]" if ":" in host else host, server_port=port,
                share=False, quiet=True, prevent_thread_lock=True,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=STYLE, js=SCRIPT, footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, pwa=False,
                enable_monitoring=False, max_file_size=_LARGEST_FILE, app_kwargs={"middleware": [(_OwnOnly, (), {})]},
            )  # fmt: skip
        except (OSError, ValueError) as error:  # what gradio says of a machine that cannot be reached from itself
            raise RinError(f"cannot show a page at {host}:{port}: {error}") from error
        if not is_this_machine(host):
            LOGGER.warning(
                "--host %s: whoever reaches this machine can draw with this model; there is no password", host
            )
        print(f"rin app is at {blocks.local_url} (Ctrl-C ends it)", flush=True)
        try:
            (wait or _until_interrupted)()
        finally:
            blocks.close(verbose=False)


class _OwnOnly:
    """Adds to every answer that the page is to load from here alone (ASGI middleware).

    Args:
        app: what answers.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        """Answers one request."""

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _OWN.encode())]
            await send(message)

        await self._app(scope, receive, with_policy)


def _reach_directly(host: str) -> None:
    """Keeps this process from asking a proxy for its own page, as it does once to see that it is there."""
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join([*([before] if before else []), "localhost", THIS_MACHINE, host])


def check_address(host: str, port: int) -> None:
    """Makes sure that it can be listened at.

    Raises:
        RinError: it is none of this machine, or taken.
    """
    if not 1 <= port <= 65535:
        raise RinError(f"--port {port}: take 1 to 65535")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:
        raise RinError(f"cannot listen at {host}:{port}: {error}; give another --port, or --host") from error


def is_this_machine(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _until_interrupted() -> None:
    """Waits for Ctrl-C or SIGTERM."""
    over = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        over.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
