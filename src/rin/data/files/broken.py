"""Pictures that cannot be read, where they are to be passed over: named, counted, and too many of them refused."""

import threading

from rin.core.errors import RinError
from rin.core.progress import LOGGER
from rin.data.decoding.pictures import BrokenMediaError
from rin.data.files.encoded import Encoded

MAX_BROKEN_SHARE = 0.1
"""A set of which more than this cannot be read is another one than was meant."""

_ALWAYS_BEARABLE = 3
"""So many may be broken in the smallest set."""

_NUM_NAMED = 10
"""Broken ones that get a line of their own; after them their number is said each time that it has doubled."""

_NUM_IN_REFUSAL = 3


class BrokenMedia:
    """The broken pictures of one set, as they are met by any of its threads.

    Args:
        encoded: the set.
        skip: whether they are passed over; otherwise the first one is an error.
    """

    def __init__(self, encoded: Encoded, skip: bool) -> None:
        self._encoded = encoded
        self._skip = skip
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, place: int) -> bool:
        return place in self._names

    @property
    def names(self) -> tuple[str, ...]:
        """What a person calls them, in the order of the set."""
        with self._lock:
            return tuple(self._names[place] for place in sorted(self._names))

    def meet(self, place: int, error: BrokenMediaError) -> None:
        """Takes down the picture at a place of the set, and tells the person at the first meeting.

        Raises:
            RinError: broken pictures are not passed over.
        """
        if not self._skip:
            way_out = f"replace or remove it, or skip all such {self._encoded.kind}s with --data.skip-broken"
            way_out += " (rin prepare: --skip-broken)" if self._encoded.kind == "video" else ""
            raise self._encoded.refusal(place, error, way_out) from error
        name = self._encoded.name_at(place)
        with self._lock:
            if place in self._names:
                return
            self._names[place] = name
            count = len(self._names)
        if count <= _NUM_NAMED:
            LOGGER.warning("passed over %s, which cannot be read: %s", name, error.reason)
        elif count == _NUM_NAMED + 1 or (count % _NUM_NAMED == 0 and (count // _NUM_NAMED).bit_count() == 1):
            LOGGER.warning(
                "%d of %d %ss cannot be read so far and are passed over", count, len(self._encoded), self._encoded.kind
            )

    def refuse_too_many(self) -> None:
        """Stops a run on a set that is mostly not what it should be.

        Raises:
            RinError: more than a tenth of the set's pictures are broken, and more than three.
        """
        count, total = len(self), len(self._encoded)
        if count <= max(_ALWAYS_BEARABLE, MAX_BROKEN_SHARE * total):
            return
        first = ", ".join(self.names[:_NUM_IN_REFUSAL])
        raise RinError(
            f"{count} of {total} {self._encoded.kind}s ({count / total:.0%}) cannot be read, {first} first: more than "
            f"{MAX_BROKEN_SHARE:.0%} are too many to pass over, so repair the set or remove them"
        )

    def nothing_readable(self) -> RinError:
        """The error of a set without one readable picture."""
        return RinError(
            f"none of {len(self._encoded)} {self._encoded.kind}s can be read, {self._encoded.name_at(0)} to begin with"
        )
