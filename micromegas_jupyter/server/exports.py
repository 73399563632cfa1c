"""OpenTelemetry exports (OTLP): who may send them, how many at a time, and the gRPC calls.

Bodies are passed to the ingest process unchanged; this process never decodes them. The response is sent after the audit
line.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Final

from micromegas_jupyter.access.write_rights import check_may_ingest
from micromegas_jupyter.core.log_writer import LogWriter
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.read_only import CallContext, check_may_change_state
from micromegas_jupyter.core.system import Clock
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
from micromegas_jupyter.server.authentication import ActionAudit, CallOrigin
from micromegas_jupyter.server.flight_service import Call, find_origin, recorded
from micromegas_jupyter.server.monitoring import ServerMetrics

_MIB: Final = 1024 * 1024
MAX_WAITING_BYTES: Final = 64 * _MIB
MAX_WAITING_BYTES_PER_CALLER: Final = 32 * _MIB
# For callers that have at most this much data waiting. Exports are counted as soon as they are announced, and a few
# callers must not be able to block all others by sending slowly.
SMALL_BYTES: Final = 4 * _MIB
_RESERVED_SHARE: Final = 4
MAX_WAITING: Final = 1024
_STORE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 1.0
# After these errors, the same export would fail again.
FINAL_LIMITS: Final = frozenset({SIZE_LIMIT, "memory"})


class ExportRunner:
    """Stores a server's exports; without a process, the server is read-only.

    `admit` and `store_own` may be called on any thread, `store` on any event loop; the rest belongs to the server's.
    """

    def __init__(
        self,
        process: IngestProcess | None,
        *,
        clock: Clock,
        metrics: ServerMetrics,
        audit_log: LogWriter | None = None,
    ) -> None:
        self._exports = None if process is None else Exports(process)
        self._clock = clock
        self._metrics = metrics
        self._audit_log = audit_log
        self._waiting = _Waiting()
        self._running: set[asyncio.Task[ExportReport]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_serving = True

    def attach(self) -> None:
        """Store exports on this event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def check_right(self, call: CallContext, caller: AuthContext, signal: Signal) -> None:
        """Check that the caller may send records of this signal."""
        check_may_change_state(call, "send telemetry")
        check_may_ingest(caller, signal.table)
        if self._exports is None:
            raise UnsupportedRequest("This server is read-only.", remedy="Send exports to a server that has a lake.")

    def open_audit(self, origin: CallOrigin, signal: Signal) -> ActionAudit:
        """Return the audit of a new export; ServerUnavailable if it could not be recorded."""
        if self._audit_log is not None:
            self._audit_log.check()
        return ActionAudit(origin, self._clock, "export", signal=signal.value, rows=0, refused=0, received_bytes=0)

    def admit(self, source: CallerKey, size: int = 0) -> "Admission":
        """Count an export of this size as waiting, or raise an error if there is no room."""
        return Admission(self._waiting, source, size)

    async def store(self, request: ExportRequest, admission: "Admission") -> ExportReport:
        """Store an export of an authorized caller; its records are durable on return.

        The admission ends with the work, which continues if the waiting caller disconnects.
        """
        loop = self._loop
        if loop is None or not self._is_serving:
            admission.close()
            raise _stopping()
        if loop is asyncio.get_running_loop():
            return await self._store(request, admission)
        work = self._store(request, admission)
        try:
            stored = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the server has stopped
            work.close()
            admission.close()
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

    def store_own(self, request: ExportRequest) -> Future[ExportReport]:
        """Store the server's own telemetry, which isn't counted or audited; accept it even while draining."""
        refused: Future[ExportReport] = Future()
        if self._exports is None or self._loop is None:
            refused.set_exception(_stopping())
            return refused
        work = self._exports.store(request)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the server has stopped
            work.close()
            refused.set_exception(_stopping())
            return refused

    async def drain(self, grace_seconds: float) -> None:
        """Reject new exports, and give running ones this much time to finish."""
        self._is_serving = False
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in self._running:
            task.cancel()

    def count_refusal(self, signal: Signal, error: MicromegasError, *, size: int = 0) -> None:
        """Count a failed export."""
        self._metrics.count_error(error)
        self._metrics.count_export(signal.value, "error", size=size)

    async def _store(self, request: ExportRequest, admission: "Admission") -> ExportReport:
        if self._exports is None:
            raise UnsupportedRequest("This server is read-only.")
        # A separate task, because abandoned exports are still stored: they may have been in progress.
        task = asyncio.ensure_future(self._exports.store(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _task: admission.close())
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                report = await asyncio.shield(task)
        except TimeoutError:
            raise Unavailable(
                "Storing the export took too long, so it is unknown whether it was stored.",
                remedy="Send it again. Stored rows aren't duplicated.",
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
        """Return OTLP's gRPC methods by path."""
        return {signal.method: partial(self._answer, signal) for signal in Signal}

    async def _answer(self, signal: Signal, call: Call) -> None:
        try:
            self.check_right(call, call.caller, signal)
        except MicromegasError:
            self._metrics.count_export(signal.value, "error", size=0)
            raise
        audit = self.open_audit(find_origin(call), signal)

        def count(outcome: str, _error: MicromegasError | None) -> None:
            if outcome == "error":
                self._metrics.count_export(signal.value, outcome, size=audit.fields["received_bytes"])

        async with recorded(audit, call, count):
            try:
                async with asyncio.timeout(call.read_timeout_seconds):
                    body = await call.read()
            except TimeoutError:
                raise DeadlineExceeded("The export did not arrive in time.", limit="silent_client") from None
            if body is None:
                raise UsageError("The call doesn't contain an export.", remedy="Use an OTLP exporter.")
            audit.fields["received_bytes"] = len(body)
            request = ExportRequest(signal=signal, body=body, is_trusted=call.caller.is_admin)
            report = await self.store(request, self.admit(call.source, len(body)))
            audit.fields |= {"rows": report.stored, "refused": report.refused}
        await call.answer(report.answer)


class _Waiting:
    """The exports that are waiting to be stored, in total and per caller. Guarded by `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes_of: Counter[CallerKey] = Counter()
        self.count = self.bytes = 0


class Admission:
    """Permission for one export to wait until `close`; safe to use from any thread and to close twice."""

    def __init__(self, waiting: _Waiting, source: CallerKey, size: int) -> None:
        self._waiting = waiting
        self._source = source
        self._bytes = 0
        self._is_open = False
        self.extend(size)

    def extend(self, size: int) -> None:
        """Count additional bytes, or reject them."""
        waiting = self._waiting
        with waiting.lock:
            own = waiting.bytes_of[self._source] + size
            reserved = 0 if own <= SMALL_BYTES else MAX_WAITING_BYTES // _RESERVED_SHARE
            is_full = waiting.count >= MAX_WAITING and not self._is_open
            is_full |= waiting.bytes + size > MAX_WAITING_BYTES - reserved
            if is_full or own > MAX_WAITING_BYTES_PER_CALLER:
                raise ResourcesExhausted(
                    "Exports arrive faster than they can be stored.",
                    remedy="Send this one again.",
                    retry_after_seconds=_RETRY_SECONDS,
                    limit="exports",
                )
            waiting.count += not self._is_open
            self._is_open = True
            waiting.bytes += size
            waiting.bytes_of[self._source] += size
            self._bytes += size

    def close(self) -> None:
        """Release the permission."""
        waiting = self._waiting
        with waiting.lock:
            if self._is_open:
                self._is_open = False
                waiting.count -= 1
                waiting.bytes -= self._bytes
                waiting.bytes_of[self._source] -= self._bytes
                if not waiting.bytes_of[self._source]:
                    del waiting.bytes_of[self._source]


def _stopping() -> ServerUnavailable:
    return ServerUnavailable("The server is starting or stopping.", remedy="Send the export again.")
