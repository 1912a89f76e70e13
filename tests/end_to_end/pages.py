"""Pages of `rin app`, each in a process of its own, and a run to show in them."""

import signal
import socket
import time
from contextlib import contextmanager

from tests.end_to_end.commands import TINY, ended, rin, start


def free_port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def listens(port, host="127.0.0.1"):
    with socket.socket() as tried:
        return tried.connect_ex((host, port)) == 0


def until(done, seconds=60):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def shown(*arguments):
    """A page in a process of its own, and its port."""
    port = free_port()
    process = start("app", *arguments, "--port", port)
    try:
        until(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, ended(process).stderr
    except AssertionError:
        process.kill()
        raise
    return process, port


@contextmanager
def served(run):
    """The port of a run's page, which ends well when it is told to."""
    process, port = shown(run)
    yield port
    process.send_signal(signal.SIGTERM)
    assert ended(process, timeout=60).returncode == 0


def short_run(folder):
    """A run on the digits, elastic, with two averages, losses and samples on the way."""
    options = [
        *("--training.num-steps", "4", "--diffusion.label-drop-rate", "0.1", "--model.num-latents-min", "3"),
        *("--training.further-decays", "0.5", "--training.sample-every", "2", "--training.held-out-every", "2"),
    ]
    result = rin("train", "digits", *TINY, *options, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder
