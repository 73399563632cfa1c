"""Counts what uses a connection, so that it is closed when nothing does."""

import threading
import weakref
from collections.abc import Callable

from micromegas_jupyter.errors import UsageError


class Uses:
    """Counts the uses of a connection, which is closed by `close` or, if it is in use then, after the last use."""

    def __init__(self, on_unused: Callable[[], None]) -> None:
        self._on_unused = on_unused
        self._lock = threading.RLock()  # the garbage collector may end a use on a thread that holds it
        self._count = 0
        self.is_closed = False

    @property
    def is_used(self) -> bool:
        """Whether the connection is in use."""
        return self._count > 0

    def begin(self) -> None:
        """Count a use; raises UsageError after `close`."""
        with self._lock:
            if self.is_closed:
                raise UsageError("The client is closed.", remedy="Make a new one.")
            self._count += 1

    def finish(self) -> None:
        """Stop counting a use."""
        with self._lock:
            self._count -= 1
        self._close_if_unused()

    def share(self, user: object) -> Callable[[], None]:
        """Count another use while one is counted, until the returned function is called or `user` is collected."""
        with self._lock:
            self._count += 1
        finalizer = weakref.finalize(user, self.finish)
        finalizer.atexit = False
        return finalizer

    def close(self) -> None:
        """Reject new uses; calling again does nothing."""
        with self._lock:
            self.is_closed = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            is_unused = self.is_closed and not self._count
        if is_unused:
            self._on_unused()
