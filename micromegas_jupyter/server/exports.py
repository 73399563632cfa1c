"""Exports of OpenTelemetry (OTLP): who may send them, how many at once, and over gRPC the calls themselves.

Bodies go to the ingest process as they came; this process never decodes them.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from micromegas_jupyter.access.write_rights import check_may_ingest
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    MicromegasError,
    ResourcesExhausted,
    ServerUnavailable,
    Unavailable,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.ingest import Exports, IngestProcess
from micromegas_jupyter.executors.scheduling import CallerKey
from micromegas_jupyter.otlp.exchange import SIZE_LIMIT, ExportReport, ExportRequest, Signal
from micromegas_jupyter.server.flight_service import Call
from micromegas_jupyter.server.monitoring import ServerMetrics

_MIB: Final = 1024 * 1024
MAX_WAITING_BYTES: Final = 64 * _MIB
MAX_WAITING_BYTES_PER_CALLER: Final = 32 * _MIB
MAX_WAITING: Final = 1024
_STORE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 1.0
# With these the same export fails again.
FINAL_LIMITS: Final = frozenset({SIZE_LIMIT, "memory"})


class ExportRunner:
    """Stores the exports of one server, which only reads without a process.

    `admit` may be called on any thread, `store` on any event loop; the rest belongs to that of the server.
    """

    def __init__(self, process: IngestProcess | None, *, metrics: ServerMetrics) -> None:
        self._exports = None if process is None else Exports(process)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._bytes: Counter[CallerKey] = Counter()
        self._count = self._total_bytes = 0
        self._running: set[asyncio.Task[ExportReport]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_serving = True

    def attach(self) -> None:
        """Store exports on this event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def check_right(self, caller: AuthContext, signal: Signal) -> None:
        """Check that the caller may send records of this signal."""
        check_may_ingest(caller, signal.table)
        if self._exports is None:
            raise UnsupportedRequest("This server only reads.", remedy="Send to a server that keeps a lake.")

    @contextmanager
    def admit(self, source: CallerKey, size: int) -> Iterator[None]:
        """Count the body as an export of so many bytes that waits to be stored, or refuse it for the moment."""
        with self._lock:
            is_full = self._count >= MAX_WAITING or self._total_bytes + size > MAX_WAITING_BYTES
            if is_full or self._bytes[source] + size > MAX_WAITING_BYTES_PER_CALLER:
                raise ResourcesExhausted(
                    "Exports arrive faster than they can be stored.",
                    remedy="Send this one again.",
                    retry_after_seconds=_RETRY_SECONDS,
                    limit="exports",
                )
            self._count += 1
            self._total_bytes += size
            self._bytes[source] += size
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                self._total_bytes -= size
                self._bytes[source] -= size
                if not self._bytes[source]:
                    del self._bytes[source]

    async def store(self, request: ExportRequest) -> ExportReport:
        """Store an export of a caller who may; its records are durable when this returns."""
        loop = self._loop
        if loop is None or not self._is_serving:
            raise _stopping()
        if loop is asyncio.get_running_loop():
            return await self._store(request)
        work = self._store(request)
        try:
            stored = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the server has stopped
            work.close()
            raise _stopping() from None
        try:
            async with asyncio.timeout(_STORE_SECONDS + _RETRY_SECONDS):
                return await asyncio.wrap_future(stored)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _stopping() from None
        except TimeoutError:
            raise _stopping() from None

    async def drain(self, grace_seconds: float) -> None:
        """Refuse further exports, and let running ones end for so long."""
        self._is_serving = False
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in self._running:
            task.cancel()

    def count_refusal(self, signal: Signal, error: MicromegasError, *, size: int = 0) -> None:
        """Count an export that ended with an error."""
        self._metrics.count_error(error)
        self._metrics.count_export(signal.value, "error", size=size)

    async def _store(self, request: ExportRequest) -> ExportReport:
        if self._exports is None:
            raise UnsupportedRequest("This server only reads.")
        # A task of its own: what an exporter gives up is stored nevertheless, since it may have been on its way.
        task = asyncio.ensure_future(self._exports.store(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                report = await asyncio.shield(task)
        except TimeoutError:
            raise Unavailable(
                "It took too long to store the export, and whether it is stored is not known.",
                remedy="Send it again: what is stored already is not stored twice.",
            ) from None
        except ResourcesExhausted as error:
            if error.limit not in FINAL_LIMITS and error.retry_after_seconds is None:
                error.retry_after_seconds = _RETRY_SECONDS
            raise
        except asyncio.CancelledError:
            if task.cancelled():
                raise _stopping() from None
            raise
        self._metrics.count_export(
            request.signal.value, "ok", size=len(request.body), stored=report.stored, refused=report.refused
        )
        return report

    def methods(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        """Return the gRPC methods of OTLP, by their paths."""
        return {signal.method: partial(self._answer, signal) for signal in Signal}

    async def _answer(self, signal: Signal, call: Call) -> None:
        size = 0
        try:
            self.check_right(call.caller, signal)
            try:
                async with asyncio.timeout(call.read_timeout_seconds):
                    body = await call.read()
            except TimeoutError:
                raise DeadlineExceeded("The export did not arrive in time.", limit="silent_client") from None
            if body is None:
                raise UsageError("The call carries no export.", remedy="Use an OTLP exporter.")
            size = len(body)
            with self.admit(call.source, size):
                report = await self.store(ExportRequest(signal=signal, body=body, is_trusted=call.caller.is_admin))
        except MicromegasError:
            self._metrics.count_export(signal.value, "error", size=size)
            raise
        await call.answer(report.answer)


def _stopping() -> ServerUnavailable:
    return ServerUnavailable("The server is starting or stopping.", remedy="Send the export again.")
