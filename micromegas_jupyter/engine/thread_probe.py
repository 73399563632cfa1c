"""Finds out which of the engine's threads still take up work: tiny queries note the threads that they run on.

A thread that is stuck in one step takes up nothing. How long that is suspicious is `leftovers`' decision.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.seams import Clock

# Threads that have nothing to do take every probe at once, so each probe keeps its thread for a moment and there are
# more of them than threads: what is left waits for the busy ones.
_FOR_EACH_THREAD: Final = 3
_MOST_AT_ONCE: Final = 96
_HOLD_SECONDS: Final = 0.02
_PAUSE_SECONDS: Final = 0.05
_ROUND_SECONDS: Final = 2.0


class ThreadProbe:
    """Sends probes from a daemon thread of its own while it is wanted; `answered_at` is read by another thread.

    Args:
        clock: Tells when a thread answered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_wanted = threading.Event()
        self._never = threading.Event()
        self._count = _FOR_EACH_THREAD
        self._thread: threading.Thread | None = None
        #: By thread id, when it answered last, on the clock's monotonic seconds.
        self.answered_at: dict[int, float] = {}

    def start(self, threads: int) -> None:
        """Send probes from now on, enough for this many threads; safe to call again."""
        self._count = _FOR_EACH_THREAD * max(threads, 1)
        self._is_wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), name="thread-probe", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._is_wanted.clear()

    async def _send(self) -> None:
        import pyarrow as pa
        from datafusion import SessionContext, udf

        session = SessionContext()
        # Volatile, or it would be called once, while the query is planned.
        session.register_udf(udf(self._note, [pa.int64()], pa.int64(), "volatile", "note_thread"))
        frame = session.sql("SELECT note_thread(column1) FROM (VALUES (1))")

        async def probe() -> None:
            async for _ in frame.execute_stream():
                pass

        while True:
            # Waiting blocks this thread only: nothing else runs on its loop.
            self._is_wanted.wait()
            try:
                async with asyncio.timeout(_ROUND_SECONDS):
                    await asyncio.gather(*(probe() for _ in range(min(self._count, _MOST_AT_ONCE))))
            except TimeoutError:
                continue
            await asyncio.sleep(_PAUSE_SECONDS)

    def _note(self, values: pa.Array) -> pa.Array:
        self.answered_at[threading.get_native_id()] = self._clock.monotonic()
        self._never.wait(_HOLD_SECONDS)
        return values
