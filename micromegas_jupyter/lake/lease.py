"""Lets one process at a time maintain a lake: an object with a heartbeat, changed by conditional writes only."""

import json
import logging
import threading
import uuid
from contextlib import suppress
from typing import Final, NamedTuple

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.delta_log import CONTROL_FOLDER

TAKE_OVER_SECONDS: Final = 45.0
# A holder that could not renew gives up before another process may take over.
_RENEW_SECONDS: Final = 10.0
_LOST_SECONDS: Final = 30.0
_LEASE_OBJECT: Final = f"{CONTROL_FOLDER}/maintenance-lease.json"
_LOG: Final = logging.getLogger(__name__)


class Sighting(NamedTuple):
    """The state in which another process's lease was found, and since when (monotonic seconds of this machine)."""

    mark: str
    since: float


def try_acquire(storage: Storage, *, clock: Clock, seen: Sighting | None = None) -> "Lease | Sighting | None":
    """Return the lease, or what was seen of the other holder's, to be handed in at the next attempt.

    A lease that has looked the same for 45 seconds of `clock` is taken over. The clocks of machines are never compared.
    """
    found = storage.read(_LEASE_OBJECT)
    mark = None if found is None else found[1]
    if found is not None and mark is not None and b'"holder": ""' not in found[0]:
        now = clock.monotonic()
        if seen is None or seen.mark != mark:
            return Sighting(mark, now)
        if now - seen.since < TAKE_OVER_SECONDS:
            return seen
        _LOG.warning("the maintenance of the lake is taken over from a process that no longer renews its lease")
    lease = Lease(storage, clock=clock, mark=mark)
    return lease if lease.renew() else None


class Lease:
    """The right to maintain a lake; `mark` is the state that it is taken from."""

    def __init__(self, storage: Storage, *, clock: Clock, mark: str | None) -> None:
        self._storage = storage
        self._clock = clock
        self._mark = mark
        self._id = uuid.uuid4().hex
        self._count = 0
        self._renewed_at = float("-inf")
        self._is_taken = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="micromegas-lease", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether another process may have it by now."""
        return self._is_taken or self._clock.monotonic() - self._renewed_at > _LOST_SECONDS

    def renew(self) -> bool:
        """Change the object, at first to take the lease; False when another process did so before."""
        began_at = self._clock.monotonic()
        if not self._write(self._id):
            self._is_taken = True
            return False
        self._renewed_at = began_at
        if self._thread.ident is None:
            self._thread.start()
        return True

    def release(self) -> None:
        """Give it up; never raises."""
        self._released.set()
        self._thread.join()
        if not self._is_taken:
            with suppress(Unavailable):  # then it is taken over in time
                self._write("")

    def _write(self, holder: str) -> bool:
        self._count += 1
        content = json.dumps({"holder": holder, "count": self._count, "by": self._id}).encode()
        self._storage.replace(_LEASE_OBJECT, content, mark=self._mark)
        # The answer to a write may get lost, and the library then repeats it: what counts is what is there.
        found = self._storage.read(_LEASE_OBJECT)
        if found is None or found[0] != content:
            return False
        self._mark = found[1]
        return True

    def _beat(self) -> None:
        while not self._released.wait(_RENEW_SECONDS):
            try:
                if not self.renew():
                    return
            except Unavailable as error:
                _LOG.warning("the lease on the lake's maintenance could not be renewed", exc_info=error)
