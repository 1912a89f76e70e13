"""`rin`, killed at a named point.

    python -m tests.end_to_end.faults POINT COUNT ARGUMENTS-OF-RIN ...

kills its own process with SIGKILL when it comes to the point for the COUNT-th time. Points, in an update and in the
writing of a checkpoint: see `POINTS`.
"""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

from rin import cli
from rin.core import files
from rin.training import checkpoint, logging
from rin.training.average import Average
from rin.training.batch_loss import BatchLoss

CHECKPOINT = re.compile(r"step-\d{9}")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Dies when it is counted down."""

    def __init__(self, count):
        self.left = count

    def step(self):
        self.left -= 1
        return self.left == 0


def at_a_part(countdown):
    """Before a part of a batch is computed."""
    honest = BatchLoss.of_part

    def deadly(self, batch, number, step):
        if countdown.step():
            die()
        return honest(self, batch, number, step)

    BatchLoss.of_part = deadly


def before_the_average(countdown):
    """Between the update of the weights and that of their average."""
    honest = Average.update

    def deadly(self, update):
        if countdown.step():
            die()
        honest(self, update)

    Average.update = deadly


def _after_a_file(countdown, torn):
    honest = checkpoint.save_tensors

    def deadly(tensors, path):
        honest(tensors, path)
        if countdown.step():
            if torn:
                os.truncate(path, path.stat().st_size // 2)
            die()

    checkpoint.save_tensors = deadly


def within_a_file(countdown):
    """Half of a checkpoint's file is written."""
    _after_a_file(countdown, torn=True)


def between_files(countdown):
    """One of a checkpoint's files is written, the next is not."""
    _after_a_file(countdown, torn=False)


def _around_the_rename(countdown, after):
    honest = Path.rename

    def deadly(self, target):
        counts = CHECKPOINT.fullmatch(Path(target).name) and countdown.step()
        if counts and not after:
            die()
        renamed = honest(self, target)
        if counts:
            die()
        return renamed

    Path.rename = deadly


def before_the_rename(countdown):
    """A checkpoint is whole, and does not have its name yet."""
    _around_the_rename(countdown, after=False)


def after_the_rename(countdown):
    """A checkpoint has just got its name."""
    _around_the_rename(countdown, after=True)


def while_pruning(countdown):
    """An old checkpoint is half deleted."""
    honest = shutil.rmtree

    def deadly(path, **options):
        inside = sorted(Path(path).glob("*"))
        if CHECKPOINT.match(Path(path).name) and inside and countdown.step():
            inside[0].unlink()
            die()
        honest(path, **options)

    files.shutil.rmtree = deadly


def within_a_line(countdown):
    """Half a line of the log is written."""
    honest = logging.Log.record

    def deadly(self, record, rates):
        if countdown.step():
            with self.path.open("a", encoding="utf-8") as log:
                log.write('{"step": 1, "lo')
            die()
        honest(self, record, rates)

    logging.Log.record = deadly


POINTS = {
    point.__name__: point
    for point in (
        at_a_part, before_the_average, within_a_file, between_files, before_the_rename, after_the_rename,
        while_pruning, within_a_line,
    )
}  # fmt: skip


def main(arguments):
    """Runs `rin`, to be killed."""
    point, count, *rest = arguments
    POINTS[point](Countdown(int(count)))
    cli.main(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
