"""Row groups of parquet files, of which a few are in memory and some are being read."""

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rin.core.errors import RinError
from rin.data.files.label_columns import Table
from rin.data.files.tables import first_line, name_of

_BYTES_HELD = 512 * 2**20
"""Bytes of encoded pictures or videos that a split holds, those being read included."""

_LEAST_HELD = 2
"""Row groups that are held however large they are: the one in use and the next."""

NUM_READERS = 4
"""Row groups that are read at the same time: over a network one after the other is too slow."""


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """A part of a parquet file that is read in one go."""

    open: Callable[[], AbstractContextManager[Any]]
    """Opens the file, as a `pyarrow.parquet.ParquetFile`."""

    file: str
    """What a person calls the file."""

    number: int
    """Which group of the file it is."""

    column: str
    """The column of images or videos."""

    row_in_file: int
    """Its first row, counted in the file."""

    num_rows: int
    """Its rows."""

    num_bytes: int
    """Bytes of its pictures or videos, as they are held in memory."""


class RowGroups:
    """The images or videos of many row groups, of which a few are in memory.

    As many groups as fit into 512 MiB are held, and two if these alone are larger: the ones asked for or expected
    last. Groups are read by a few threads; each group that is being read may take its size once more for a moment.

    Args:
        groups: all of them, in the order of the set.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self._groups = groups
        self._ends = list(itertools.accumulate(group.num_rows for group in groups))
        self._held: OrderedDict[int, Future[Table]] = OrderedDict()
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="rin-read")

    def group_of(self, row: int) -> tuple[int, int]:
        """The group of a row of the set, and the row in that group."""
        number = bisect.bisect_right(self._ends, row)
        return number, row - self._ends[number] + self._groups[number].num_rows

    def expect(self, groups: Sequence[int]) -> None:
        """Begins to read the groups that are needed next, as many of the first ones as may be held.

        Others that are not begun are not read before they are asked for: after `expect(())` nothing is waited for.
        """
        requested = list(dict.fromkeys(groups))
        while len(requested) > _LEAST_HELD and self._bytes(requested) > _BYTES_HELD:
            requested.pop()
        with self._lock:
            for number in self._held.keys() - requested:
                if self._held[number].cancel():
                    del self._held[number]
            for number in requested:
                self._hold(number)
            for number in reversed(requested):  # the one needed first is the last to be dropped
                self._held.move_to_end(number)
            self._drop()

    def cell(self, row: int) -> Any:
        """What the column of images or videos holds at a row of the set.

        Raises:
            RinError: the row group cannot be read.
        """
        number, place = self.group_of(row)
        while True:
            with self._lock:
                reading = self._hold(number)
                self._drop()
            try:
                return reading.result()[place].as_py()
            except CancelledError:  # it was dropped before it was begun
                continue
            except RinError:
                with self._lock:  # whoever asks again has it read again
                    self._held.pop(number, None)
                raise

    def name(self, row: int) -> str:
        """What a person calls a row of the set."""
        number, place = self.group_of(row)
        group = self._groups[number]
        return name_of(group.row_in_file + place, group.file, self.cell(row))

    def _hold(self, number: int) -> Future[Table]:
        if number not in self._held:
            self._held[number] = self._readers.submit(_read_images, self._groups[number])
        self._held.move_to_end(number)
        return self._held[number]

    def _drop(self) -> None:
        """Lets go of the groups not used for longest, until the others may be held."""
        while len(self._held) > _LEAST_HELD and self._bytes(self._held) > _BYTES_HELD:
            _, reading = self._held.popitem(last=False)
            reading.cancel()

    def _bytes(self, numbers: Iterable[int]) -> int:
        return sum(self._groups[number].num_bytes for number in numbers)


def _read_images(group: RowGroup) -> Table:
    try:
        with group.open() as file:
            return file.read_row_group(group.number, columns=[group.column], use_threads=False).column(0)
    except Exception as error:  # every file system has errors of its own
        way_out = "mend it or the connection, and the same command goes on from the last checkpoint"
        raise RinError(
            f"cannot read row group {group.number} of {group.file}: {first_line(error)}; {way_out}"
        ) from error
