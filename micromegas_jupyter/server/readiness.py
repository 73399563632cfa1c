"""Whether calls make sense now: asked often by probes, answered within two seconds, and cheap.

What makes a server ready is known to whoever passes the question in; the page that tells it is in `http_pages`.
"""

import asyncio
import enum
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from micromegas_jupyter.core.system import Clock

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_ANSWER_SECONDS: Final = 2.0
_KEPT_SECONDS: Final = 1.0


class NotReady(enum.StrEnum):
    """Why calls make no sense now; the values are what `/ready` shows.

    Attributes:
        STARTING: The server does not listen yet.
        DRAINING: It is stopping, and takes no more calls.
        STORAGE: The tables cannot be read.
        EXECUTORS: No process can run a statement.
        TIMEOUT: It could not be found out in time.
    """

    STARTING = "starting"
    DRAINING = "draining"
    STORAGE = "storage"
    EXECUTORS = "executors"
    TIMEOUT = "timeout"


Readiness = Callable[[], NotReady | None]


class ReadinessProbe:
    """Asks for readiness, one question at a time; who asks meanwhile shares the answer. Belongs to one event loop.

    That the server is ready is remembered for a second, so that probes cost nothing; that it is not, never.
    """

    def __init__(self, ask: Readiness, *, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._ready_until = float("-inf")
        self._answer: asyncio.Future[NotReady | None] | None = None

    async def find_out(self) -> NotReady | None:
        """Return why the server is not ready, None when it is."""
        if self._clock.monotonic() < self._ready_until:
            return None
        if self._answer is None or self._answer.done():
            self._answer = self._start()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reason = await asyncio.shield(self._answer)
        except TimeoutError:
            return NotReady.TIMEOUT
        if reason is None:
            self._ready_until = self._clock.monotonic() + _KEPT_SECONDS
        return reason

    def _start(self) -> "asyncio.Future[NotReady | None]":
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[NotReady | None] = loop.create_future()

        def settle(reason: NotReady | None) -> None:
            if not answer.done():
                answer.set_result(reason)

        def ask() -> None:
            try:
                reason = self._ask()
            except Exception:  # noqa: BLE001 - not knowing is an answer, too
                _LOG.exception("whether the server is ready could not be found out")
                reason = NotReady.STORAGE
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, reason)

        # Not of a pool: storage that hangs must keep neither other pages nor the end of the process waiting.
        threading.Thread(target=ask, name="readiness", daemon=True).start()
        return answer
