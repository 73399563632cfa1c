"""A listing of tables that is kept for a moment, so that many queries at once cost one look at the folder."""

import threading
from collections.abc import Sequence
from typing import Final

from micromegas_jupyter.core.protocols import TableSnapshot, TableSource
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock

KEPT_SECONDS: Final = 1.0


class KeptListing:
    """The tables of another source, at most a second old; implements `contracts.TableSource`.

    One lock covers listing and age, and is held while the source is asked: who comes meanwhile gets that answer.

    Args:
        source: The tables.
        clock: Measures the age.
    """

    def __init__(self, source: TableSource, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._listing: Sequence[TableSnapshot] = ()
        self._until = float("-inf")

    def snapshot(self) -> Sequence[TableSnapshot]:
        """Return all tables.

        Raises:
            Unavailable: They cannot be listed.
        """
        with self._lock:
            if self._clock.monotonic() >= self._until:
                self._listing = self._source.snapshot()
                self._until = self._clock.monotonic() + KEPT_SECONDS
            return self._listing
