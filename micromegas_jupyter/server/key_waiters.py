"""Lets calls wait on the event loop until keys are here, so that no issuer holds the threads that check credentials.

Fetching the keys and asking the validator again are left to others.
"""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.oidc.keys import KeySet

# So many calls may wait for one fetch as long as it lasts. Others wait for a moment: at a start under load nearly all
# fetches end within it, and an issuer that does not answer must not fill the server with calls.
_PATIENT_WAITERS: Final = 256
_MOMENT_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Arrival:
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    waiter_count: int = 0


class KeyWaiters:
    """Who waits for which fetch. Belongs to one event loop; there is an entry for each fetch that has not ended."""

    def __init__(self) -> None:
        self._arrivals: dict[Future[KeySet | None], _Arrival] = {}

    async def wait_for(self, fetch: Future[KeySet | None]) -> bool:
        """Wait for a fetch and return whether it brought keys; too many who wait get a moment only."""
        arrival = self._arrivals.get(fetch) or self._expect(fetch)
        limit_seconds = None if arrival.waiter_count < _PATIENT_WAITERS else _MOMENT_SECONDS
        arrival.waiter_count += 1
        try:
            async with asyncio.timeout(limit_seconds):
                await arrival.ended.wait()
        except TimeoutError:
            return False
        finally:
            arrival.waiter_count -= 1
        return fetch.done() and fetch.result() is not None

    def _expect(self, fetch: Future[KeySet | None]) -> _Arrival:
        loop = asyncio.get_running_loop()
        arrival = self._arrivals[fetch] = _Arrival()

        def end() -> None:
            self._arrivals.pop(fetch, None)
            arrival.ended.set()

        def tell(_fetch: object) -> None:
            # Called on the thread that fetched; the loop may have been closed meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        fetch.add_done_callback(tell)
        return arrival
