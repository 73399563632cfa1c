"""A lease that lets only one process at a time work on a lake: an object that is changed only by conditional writes.

A single call that takes longer than the lease allows a second one to start. That wastes work but loses no rows,
because each commit checks all others since its snapshot.
"""

import json
import logging
import uuid
from contextlib import suppress
from typing import Final, NamedTuple

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted
from micromegas_jupyter.lake.delta_log import CONTROL_FOLDER

TAKE_OVER_SECONDS: Final = 45.0
_RENEW_SECONDS: Final = 10.0
MAINTENANCE_LEASE: Final = f"{CONTROL_FOLDER}/maintenance-lease.json"
_LOG: Final = logging.getLogger(__name__)


class ObservedLease(NamedTuple):
    """The observed state of another process's lease, and when it was first seen (monotonic seconds)."""

    mark: str
    since: float


def try_acquire(
    storage: Storage, *, clock: Clock, seen: ObservedLease | None = None, path: str = MAINTENANCE_LEASE
) -> "Lease | ObservedLease | None":
    """Acquire the lease at a path, or return the state of another holder's lease, to be passed to the next attempt.

    A lease that has not changed for 45 seconds of `clock` is taken over. Clocks of different machines are never
    compared.
    """
    found = storage.read(path)
    mark = None if found is None else found[1]
    if found is not None and mark is not None and b'"holder": ""' not in found[0]:
        now = clock.monotonic()
        if seen is None or seen.mark != mark:
            return ObservedLease(mark, now)
        if now - seen.since < TAKE_OVER_SECONDS:
            return seen
        _LOG.warning("a lease is taken over from a process that no longer renews it", extra={"lease": path})
    lease = Lease(storage, clock=clock, mark=mark, path=path)
    return lease if lease.is_held() else None


class Lease:
    """A lease; `mark` identifies the state that acquiring it replaces."""

    def __init__(self, storage: Storage, *, clock: Clock, mark: str | None, path: str) -> None:
        self._storage = storage
        self._path = path
        self._clock = clock
        self._mark = mark
        self._id = uuid.uuid4().hex
        self._count = 0
        self._renewed_at = float("-inf")

    def is_held(self) -> bool:
        """Acquire the lease, or renew it when due; return False if another process has it."""
        now = self._clock.monotonic()
        if now - self._renewed_at < _RENEW_SECONDS:
            return True
        try:
            if not self._write(self._id):
                return False
        except ResourcesExhausted:
            return True  # maintenance is needed most when the disk is full
        self._renewed_at = now
        return True

    def release(self) -> None:
        """Release the lease, unless another process has it; never raises."""
        with suppress(MicromegasError):  # if this fails, another process takes over the lease later
            self._write("")

    def _write(self, holder: str) -> bool:
        self._count += 1
        content = json.dumps({"holder": holder, "count": self._count, "by": self._id}).encode()
        self._storage.replace(self._path, content, mark=self._mark)
        # The response to a write may be lost, and the library then repeats the write, so only the actual content
        # counts.
        found = self._storage.read(self._path)
        if found is None or found[0] != content:
            return False
        self._mark = found[1]
        return True
