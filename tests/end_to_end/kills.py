"""`rin prepare` in a process for each named point, which kills itself there, and in one more that may end.

Arguments: source, folder, further options of the command in one text, points.
"""

import os
import signal
from pathlib import Path

from rin import cli
from rin.core import files
from rin.data import preparing
from rin.data.files.encoded import Encoded


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(point):
    """Makes this process kill itself at a point."""
    flush, decode, unlink = files.flush, Encoded.decode, Path.unlink

    def flush_or_die(path):
        if path.name.startswith(point):
            os.truncate(path, path.stat().st_size // 2)
            die()
        flush(path)

    def decode_or_die(self, place, shape):
        return die() if point == f"decode {place}" else decode(self, place, shape)

    def unlink_or_die(path, missing_ok=False):
        return die() if point == f"unlink {path.name}" else unlink(path, missing_ok)

    files.flush, Encoded.decode, Path.unlink = flush_or_die, decode_or_die, unlink_or_die


def main(arguments):
    """Kills at each point in turn, and lets the last process end."""
    source, out, options, *points = arguments
    preparing.MAX_PICTURES = 10
    for point in [*points, None]:
        child = os.fork()
        if child == 0:
            if point:
                deadly(point)
            cli.main(["prepare", source, out, "--size", "6x10", "--skip-broken", *options.split()])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(point, status, flush=True)
        assert status == (-signal.SIGKILL if point else 0)
