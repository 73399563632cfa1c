"""An exclusive right to change a file, which a process loses if it is suspended while others wait.

A lease is an advisory lock (`flock`) on a lock file, so that programs that know nothing of leases can wait for it and
hold it, too. Its holder also writes a record into the lock file every two seconds. A waiter that has seen no new record
for ten seconds puts a lock file of its own in the place of that one. The lock file that is in place is the lease's
generation: a holder whose lock file has been replaced finds that out by `Lease.check`.
"""

import errno
import json
import os
import secrets
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, start_thread

BROKEN_AFTER_SECONDS: Final = 10.0
#: For a lock without a record of a living process: its holder may be a program without leases that works slowly.
UNRECORDED_BROKEN_AFTER_SECONDS: Final = 40.0
_RECORD_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.02
# If this process itself was suspended, the time until then says nothing about the holder.
_MAX_COUNTED_SECONDS: Final = 1.0
_RECORD_BYTES: Final = 256
_MODE: Final = 0o600
_CONTENTION: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})


class LeaseBusy(Exception):
    """Another program holds the lease. `suspended_process` has its process ID if it must not be interrupted."""

    def __init__(self, suspended_process: int | None = None) -> None:
        super().__init__("another program holds the lease")
        self.suspended_process = suspended_process


class LeaseLost(Exception):
    """Another program has taken the lease over, so that nothing may be written under it any more."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What the holder of a lease writes into the lock file; `count` makes each record a new one."""

    process: int | None = None
    count: int = 0
    is_critical: bool = False
    notes: Mapping[str, object] | None = None

    def encode(self) -> bytes:
        text = json.dumps([self.process, self.count, self.is_critical, dict(self.notes or {})])
        return text.encode().ljust(_RECORD_BYTES)

    @classmethod
    def decode(cls, content: bytes) -> "_Record":
        """Read a record; an empty one if there is none, or it was cut by a program without leases."""
        try:
            process, count, is_critical, notes = json.loads(content)
            return cls(None if process is None else int(process), int(count), bool(is_critical), dict(notes))
        except (ValueError, TypeError):
            return cls()

    @property
    def is_of_living_process(self) -> bool:
        if self.process is None:
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            pass
        return True


class Lease:
    """A lease that is held until `release`, or until another program takes it over."""

    def __init__(self, path: Path, descriptor: int, notes: Mapping[str, object]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._record = _Record(os.getpid(), notes=notes)
        self._released = threading.Event()
        self._write()
        with suppress(RuntimeError):  # without a thread, or at the program's end, it can be lost after ten seconds
            start_thread(self._keep, name="micromegas-lease")

    @property
    def notes(self) -> Mapping[str, object]:
        """What holders of this lease leave for the next ones."""
        return self._record.notes or {}

    def check(self) -> None:
        """Raise `LeaseLost` if another program has taken the lease over."""
        # The open descriptor keeps the number of its file from being used for another one.
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._path.lstat()):
                return
        raise LeaseLost

    def enter_critical(self) -> None:
        """Ask that the lease is not taken over while this process is suspended; raises as `check`."""
        self._write(is_critical=True)
        self.check()

    def leave_critical(self, **notes: object) -> None:
        """End the critical part, and leave notes for the next holders; None removes one."""
        merged = {**self.notes, **notes}
        self._write(is_critical=False, notes={name: value for name, value in merged.items() if value is not None})

    def release(self) -> None:
        """Release the lease, also one that was lost."""
        self._released.set()
        self._write(process=None, is_critical=False)
        with self._lock:
            _unlock(self._descriptor)
            self._descriptor = -1

    def _keep(self) -> None:
        while not self._released.wait(_RECORD_SECONDS):
            self._write()

    def _write(self, **changes: object) -> None:
        with self._lock:
            if self._descriptor == -1:
                return
            old = self._record
            values = {name: getattr(old, name) for name in _Record.__slots__}
            self._record = _Record(**{**values, "count": old.count + 1, **changes})
            with suppress(OSError):  # a full disk must not end a sign-in
                os.pwrite(self._descriptor, self._record.encode(), 0)


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A state of the lock file, since when it was seen, and for how long all in all."""

    state: tuple[int, int, bytes]
    at: float
    seconds: float = 0.0


class LeaseFile:
    """The lock file of a lease; safe to use from several threads.

    `OSError` is raised if the lock file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._sighting: _Sighting | None = None

    def acquire(self, *, wait_seconds: float, interrupts_critical: bool = False) -> Lease:
        """Wait for the lease and return it; `LeaseBusy` if that takes too long.

        If the holder is suspended in its critical part, the wait ends at once with `LeaseBusy`, unless
        `interrupts_critical`.
        """
        ends_at = self._clock.monotonic() + wait_seconds
        while True:
            descriptor = _try_lock(self._path)
            if descriptor is None and (seen := self._look()) is not None:
                record = _Record.decode(seen[2])
                if record.is_critical and record.is_of_living_process and not interrupts_critical:
                    raise LeaseBusy(record.process)
                descriptor = self._replace(seen)
            if descriptor is not None:
                return Lease(self._path, descriptor, _Record.decode(_read(descriptor)[2]).notes or {})
            left_seconds = ends_at - self._clock.monotonic()
            if left_seconds <= 0:
                raise LeaseBusy
            threading.Event().wait(min(_POLL_SECONDS, left_seconds))

    def _look(self) -> tuple[int, int, bytes] | None:
        """Return the state of the lock file if its holder may be suspended."""
        state, now = _read_path(self._path), self._clock.monotonic()
        if state is None:
            return None
        with self._lock:
            known = self._sighting
            if known is None or known.state != state:
                self._sighting = _Sighting(state, now)
                return None
            seconds = known.seconds + min(now - known.at, _MAX_COUNTED_SECONDS)
            self._sighting = _Sighting(state, now, seconds)
        is_recorded = _Record.decode(state[2]).is_of_living_process
        limit = BROKEN_AFTER_SECONDS if is_recorded else UNRECORDED_BROKEN_AFTER_SECONDS
        return state if seconds >= limit else None

    def _replace(self, seen: tuple[int, int, bytes]) -> int | None:
        """Put a new, locked file in the place of the lock file; None if another waiter does, or it has changed."""
        claim = self._path.with_name(f"{self._path.name}.claim")
        claimed = _try_lock(claim)
        if claimed is None:
            return None
        try:
            if _read_path(self._path) != seen:
                return None
            new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.tmp")
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            try:
                _lock_now(descriptor)
                os.pwrite(descriptor, _Record(notes=_Record.decode(seen[2]).notes).encode(), 0)
                new.replace(self._path)
            except BaseException:
                os.close(descriptor)
                new.unlink(missing_ok=True)
                raise
            return descriptor
        finally:
            claim.unlink(missing_ok=True)
            _unlock(claimed)


def _try_lock(path: Path) -> int | None:
    """Return the file, open and locked, or None if another program has locked or replaced it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, _MODE)
    is_held = False
    try:
        if _lock_now(descriptor):
            with suppress(FileNotFoundError):
                is_held = os.path.samestat(os.fstat(descriptor), path.lstat())
    finally:
        if not is_held:
            os.close(descriptor)
    return descriptor if is_held else None


def _read(descriptor: int) -> tuple[int, int, bytes]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, os.pread(descriptor, _RECORD_BYTES, 0)


def _read_path(path: Path) -> tuple[int, int, bytes] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return _read(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":

    def _lock_now(_descriptor: int) -> bool:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _unlock(descriptor: int) -> None:
        os.close(descriptor)

else:
    import fcntl

    def _lock_now(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _CONTENTION:
                return False
            raise
        return True

    def _unlock(descriptor: int) -> None:
        """Unlock and close a file; a forked process may have it open as well."""
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
