"""How a check waits for keys that are being fetched: in its thread, outside of it, or not at all.

The fetch is `key_source`'s job. Who waits outside, such as a server's event loop, asks again when the fetch has ended.
"""

import enum
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar

from micromegas_jupyter.oidc.keys import KeySet


class KeyWait(enum.Enum):
    """How a check waits for keys.

    Attributes:
        IN_THREAD: In the thread that checks.
        OUTSIDE: The check ends with `KeysOnTheWay`, and the thread is free.
        NOT_AT_ALL: The check goes on with the keys that there are, and starts no fetch.
    """

    IN_THREAD = "in thread"
    OUTSIDE = "outside"
    NOT_AT_ALL = "not at all"


class KeysOnTheWay(Exception):
    """Nothing can be said before a fetch has ended; raised only where `KeyWait.OUTSIDE` was asked for.

    Attributes:
        fetch: The fetch; shared by all who wait for it, so it must not be cancelled.
    """

    def __init__(self, fetch: Future[KeySet | None]) -> None:
        super().__init__("the keys are being fetched")
        self.fetch = fetch


_current: ContextVar[KeyWait] = ContextVar("micromegas_key_wait", default=KeyWait.IN_THREAD)


def current_key_wait() -> KeyWait:
    """Return how the check that runs now waits for keys."""
    return _current.get()


@contextmanager
def waiting_for_keys(how: KeyWait) -> Iterator[None]:
    """Let checks inside wait for keys in this way."""
    token = _current.set(how)
    try:
        yield
    finally:
        _current.reset(token)
