"""Lets one process at a time maintain a lake: a locked file in a folder, an object with a heartbeat in a bucket."""

import json
import logging
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from filelock import FileLock, Timeout

from micromegas_jupyter.core.storage import Storage, make_private_folder, storage_errors
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.delta_log import CONTROL_FOLDER

TAKE_OVER_SECONDS: Final = 45.0
# A holder that could not renew gives up before another process may take over.
_RENEW_SECONDS: Final = 10.0
_LOST_SECONDS: Final = 30.0
_LOCK_FILE: Final = f"{CONTROL_FOLDER}/maintenance.lock"
_LEASE_OBJECT: Final = f"{CONTROL_FOLDER}/maintenance-lease.json"
_LOG: Final = logging.getLogger(__name__)


class Sighting(NamedTuple):
    """The state in which another process's lease was found, and since when (monotonic seconds of this machine)."""

    mark: str
    since: float


class Lease(Protocol):
    """The right to maintain a lake."""

    @property
    def is_lost(self) -> bool:
        """Whether another process may have it by now."""

    def release(self) -> None:
        """Give it up; never raises."""


def try_acquire(storage: Storage, *, clock: Clock, seen: Sighting | None = None) -> Lease | Sighting | None:
    """Return the lease, or what was seen of the other holder's, to be handed in at the next attempt.

    A lease in a bucket that has looked the same for 45 seconds of `clock` is taken over. The clocks of machines are
    never compared.
    """
    if storage.is_local:
        return _lock_folder(storage)
    found = storage.read(_LEASE_OBJECT)
    mark = None if found is None else found[1]
    if found is not None and mark is not None and _holder(found[0]):
        now = clock.monotonic()
        if seen is None or seen.mark != mark:
            return Sighting(mark, now)
        if now - seen.since < TAKE_OVER_SECONDS:
            return seen
        _LOG.warning("the maintenance of the lake is taken over from a process that no longer renews its lease")
    lease = BucketLease(storage, clock=clock)
    return lease if lease.acquire(mark) else None


class _FolderLease:
    """The operating system frees it when the process ends, however it ends."""

    is_lost = False

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        self._lock.release()


def _lock_folder(storage: Storage) -> Lease | None:
    path = Path(storage.child_uri(_LOCK_FILE))
    with storage_errors("The lake's folder cannot be used."):
        make_private_folder(path.parent)
        lock = FileLock(path, timeout=0, mode=0o600, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return None
    return _FolderLease(lock)


class BucketLease:
    """An object that changes with each heartbeat of its holder, by conditional writes only."""

    def __init__(self, storage: Storage, *, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._id = uuid.uuid4().hex
        self._count = 0
        self._mark: str | None = None
        self._renewed_at = float("-inf")
        self._is_taken = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="micromegas-lease", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether another process may have it by now."""
        return self._is_taken or self._clock.monotonic() - self._renewed_at > _LOST_SECONDS

    def acquire(self, mark: str | None) -> bool:
        """Take it from the state that `mark` names, and renew it from then on; return whether that succeeded."""
        self._mark = mark
        if not self.renew():
            return False
        self._thread.start()
        return True

    def renew(self) -> bool:
        """Change the object; False when another process did so before."""
        began_at = self._clock.monotonic()
        if not self._write(self._id):
            self._is_taken = True
            return False
        self._renewed_at = began_at
        return True

    def release(self) -> None:
        """Give it up."""
        self._released.set()
        if self._thread.is_alive():
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


def _holder(content: bytes) -> str:
    try:
        return str(json.loads(content)["holder"])
    except (ValueError, KeyError, TypeError):
        return "unknown"  # it is taken over in time
