"""Metrics (Prometheus) and traces (OpenTelemetry) for one server process, and its readiness.

Spans contain no SQL, identities, or error messages. OpenTelemetry is not imported while traces are off.
"""

import asyncio
import enum
import logging
import math
import threading
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import ContextVar
from functools import partial
from itertools import accumulate
from typing import Any, Final, Self

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from micromegas_jupyter import __version__
from micromegas_jupyter.core.log_writer import LogWriter
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import DeadlineExceeded, MicromegasError, ResourcesExhausted
from micromegas_jupyter.executors.launcher import run_in_thread
from micromegas_jupyter.executors.pool import Pool, StatementReport
from micromegas_jupyter.executors.scheduling import Cause
from micromegas_jupyter.flightsql.commands import FLIGHT_SERVICE
from micromegas_jupyter.otlp.exchange import Signal

_OTHER: Final = "other"
_METHODS: Final = frozenset({
    "Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoExchange",
    "DoAction", "ListActions", "Check", "Watch", "ServerReflectionInfo", "Export",
})  # fmt: skip
#: Alerts use the increase in these series. A series must exist before its first event, or the event is missed.
_LIMITS: Final = (
    "call_rate", "calls", "crash", "denied", "ended_statements", "engine", "exports", "ingest", "memory", "otlp_size",
    "planning", "prepared", "query_timeout", "queue", "result_bytes", "rows", "scan_bytes", "silent_client", "stack",
    "stalled_client", "storage", _OTHER,
)  # fmt: skip
_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
_OUTCOMES: Final = ("ok", "error", "incomplete")
_TABLE_OPERATIONS: Final = (
    "list", "describe", "create", "drop", "delete", "restore", "add_column", "optimize", "history", "set_retention",
    "set_undo_hours", "set_time_travel", "create_view", "drop_view", "rebuild_view",
    _OTHER,
)  # fmt: skip
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_FLUSH_MILLISECONDS: Final = 3000
_MAX_NAME_CHARACTERS: Final = 32
_READY_TIMEOUT_SECONDS: Final = 2.0
_READY_CACHE_SECONDS: Final = 1.0
#: The maximum event loop callback delays for readiness and liveness.
MAX_READY_LAG_SECONDS: Final = 2.0
MAX_ALIVE_LAG_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.25
_HIGHEST_LAG_SECONDS: Final = 60.0
#: Source: OpenTelemetry's semantic conventions for gRPC, "span status" of servers.
_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_NO_PHASE: Final = nullcontext()
_tracer_of_call: ContextVar[Any] = ContextVar("micromegas_tracer_of_call", default=None)


class ServerMetrics:
    """The metrics of one server, in `registry`. Calls and queries are counted on one event loop, the rest anywhere."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        tally, durations = partial(_Tally, self.registry), partial(_Durations, self.registry)
        # fmt: off
        self._calls = tally(
            "calls", "Completed calls by method (other if unknown) and gRPC status; "
            "CANCELLED if the client disconnected or its deadline passed.", "method", "status",
        )
        self.calls_open = self._gauge("calls_open", "Open calls, including open streams.")
        self.prepared = self._gauge("prepared_statements", "Open prepared statements.")
        self._queries = tally(
            "queries", "Completed queries: ok, error (with its code), or incomplete if the client disconnected.",
            "status", "error",
        )
        self._seconds = durations("query_seconds", "Query duration, from the call to the last row.")
        self._waiting_seconds = durations("query_waiting_seconds", "Time that queries waited for an executor.")
        self._planning_seconds = durations("query_planning_seconds", "Time spent planning queries.")
        self._cpu_seconds = tally(
            "query_cpu_seconds", "CPU time of queries in their executors, including stopped queries."
        )
        self._running = self._gauge("queries_running", "Queries that are being planned or executed.")
        self._waiting = self._gauge("queries_waiting", "Queries that are waiting for an executor.")
        self._rows = tally("rows_sent", "Result rows sent.")
        self.bytes_sent = tally("bytes_sent", "Result bytes sent.")
        self._limits = self._counter("limits_reached", "Calls that failed because of a limit.", "limit")
        self._executors = self._gauge(
            "executors", "Executor processes: idle, or busy (starting, or running a statement or upload).", "state",
        )
        self._ended = self._counter(
            "statements_ended", f"Statements and uploads whose executor was stopped, by cause: {', '.join(Cause)}.",
            "cause",
        )
        self._ingests = self._counter(
            "ingest_calls", "Completed calls that sent rows: ok, error, or incomplete if the client "
            "disconnected before the end.", "outcome",
        )
        self.ingests_running = self._gauge("ingests_running", "Calls that are currently sending rows.")
        self._ingest_rows = self._counter("ingest_rows", "Rows that were stored durably.")
        self._ingest_bytes = self._counter("ingest_bytes", "Size of the messages that contained these rows, in bytes.")
        self._table_operations = self._counter(
            "table_operations", f"Completed table operations: {', '.join(_TABLE_OPERATIONS)} (an invalid request); "
            "ok, error, or incomplete if the client disconnected.", "operation", "outcome",
        )
        self._lake = {
            "bytes": self._gauge(
                "lake_bytes", "Size of the tables' files at this server's last maintenance round, in bytes."
            ),
            "files": self._gauge("lake_files", "Files in all tables."),
            "small_files": self._gauge("lake_small_files", "Files that compaction would merge."),
            "commits": self._gauge("lake_commits", "Versions in all tables."),
            "lag_seconds": self._gauge(
                "lake_lag_seconds", "Age of the newest file whose compaction is overdue."
            ),
        }
        self._lake_errors = self._gauge("lake_failed_tables", "Tables whose maintenance failed in the last round.")
        self._stale_views = self._gauge(
            "lake_stale_views", "Materialized views that queries compute from their entire source until a refresh."
        )
        self._lake_free = self._gauge(
            "lake_free_bytes", "Free space at the lake's location, in bytes; NaN for buckets, and before the first "
            "maintenance round.",
        )
        self._maintained = self._gauge(
            "lake_maintained", "Time when this server's last maintenance round ended, in Unix seconds; a different "
            "server may have run a later one.",
        )
        self._exports = self._counter(
            "otlp_exports", "Completed OpenTelemetry exports over HTTP and gRPC: ok, or error if nothing "
            "was stored.", "signal", "outcome",
        )
        self._export_records = self._counter(
            "otlp_records", "Records acknowledged as durable; repeated exports count again.",
            "signal",
        )
        self._export_refused = self._counter(
            "otlp_refused", "Records that were rejected in accepted exports.", "signal"
        )
        self._export_bytes = self._counter("otlp_bytes", "Size of exports before decompression, in bytes.", "signal")
        # fmt: on
        self._loop_lag = self._gauge(
            "loop_lag_seconds",
            "Longest delay of an event loop callback in the last minute. The server is not ready while a callback is "
            "delayed by more than two seconds.",
        )
        self._log_lines = self._gauge("log_lines_waiting", "Log and audit lines that haven't been written yet.")
        self._dropped_lines = _DroppedLines()
        self.registry.register(self._dropped_lines)
        self._lake_free.set(math.nan)  # 0 would mean a full disk
        for limit in _LIMITS:
            self._limits.labels(limit)
        for cause in Cause:
            self._ended.labels(cause.value)
        for outcome in _OUTCOMES:
            self._ingests.labels(outcome)
            for operation in _TABLE_OPERATIONS:
                self._table_operations.labels(operation, outcome)
        for signal in Signal:
            for counter in (self._export_records, self._export_refused, self._export_bytes):
                counter.labels(signal.value)
            for outcome in ("ok", "error"):
                self._exports.labels(signal.value, outcome)

    def count_call(self, method: str, status: str) -> None:
        """Count a finished call."""
        name = method.rpartition("/")[2]
        self._calls.add(1, name if name in _METHODS else _OTHER, status)

    def count_error(self, error: MicromegasError) -> None:
        """Count an error that ended a call if a limit caused it."""
        if isinstance(error, ResourcesExhausted | DeadlineExceeded):
            self._limits.labels(error.limit if error.limit in _LIMITS else _OTHER).inc()

    def count_query(
        self, report: StatementReport, seconds: float, status: str, error: MicromegasError | None = None
    ) -> None:
        """Count a finished query: `ok`, `error` with the error, or `incomplete` if the client disconnected."""
        self._queries.add(1, status, "" if error is None else error.code)
        self._seconds.observe(seconds)
        self._waiting_seconds.observe(report.waiting_seconds)
        self._rows.add(report.rows)
        if report.planning_seconds is not None:
            self._planning_seconds.observe(report.planning_seconds)
        if report.cpu_seconds is not None:
            self._cpu_seconds.add(report.cpu_seconds)

    def count_end(self, cause: Cause) -> None:
        """Count a statement whose executor was killed."""
        self._ended.labels(cause.value).inc()

    def count_ingest(self, outcome: str, *, rows: int, size: int) -> None:
        """Count an ingest call: `ok`, `error`, or `incomplete`, with its durable rows and bytes."""
        self._ingests.labels(outcome if outcome in _OUTCOMES else _OTHER).inc()
        self._ingest_rows.inc(rows)
        self._ingest_bytes.inc(size)

    def count_export(self, signal: str, outcome: str, *, size: int, stored: int = 0, refused: int = 0) -> None:
        """Count a finished export: `ok` or `error`, with its size."""
        self._exports.labels(signal, outcome).inc()
        self._export_bytes.labels(signal).inc(size)
        self._export_records.labels(signal).inc(stored)
        self._export_refused.labels(signal).inc(refused)

    def count_table_operation(self, operation: str, outcome: str) -> None:
        """Count a finished table operation: `ok`, `error`, or `incomplete`; unknown operations are `other`."""
        self._table_operations.labels(operation if operation in _TABLE_OPERATIONS else _OTHER, outcome).inc()

    def set_lake_status(self, status: Mapping[str, Any]) -> None:
        """Publish the result of a maintenance round, a `LakeStatus` as decoded JSON."""
        tables = status["tables"].values()
        for name, gauge in self._lake.items():
            values = [float(table[name]) for table in tables]
            gauge.set(max(values, default=0.0) if name == "lag_seconds" else sum(values))
        self._lake_errors.set(sum(table["error"] is not None for table in tables))
        self._stale_views.set(status["stale_views"])
        if status["free_bytes"] is not None:
            self._lake_free.set(status["free_bytes"])
        self._maintained.set_to_current_time()

    def watch_loop(self, watch: "LoopWatch") -> None:
        """Report the delay of callbacks."""
        self._loop_lag.set_function(lambda: watch.highest_lag_seconds)

    def watch_log(self, writers: Sequence[LogWriter]) -> None:
        """Report how many lines are waiting and how many were dropped."""
        self._dropped_lines.writers = writers
        self._log_lines.set_function(lambda: sum(writer.line_count for writer in writers))

    def watch_pool(self, pool: Pool) -> None:
        """Report the numbers of statements and executors; other threads read the counts."""
        slots, starts = pool.slots, pool.starts  # a statement that is waiting to start already has its slot
        self._running.set_function(lambda: max(0, slots.running_count - starts.waiting_count))
        self._waiting.set_function(lambda: slots.waiting_count + starts.waiting_count)
        self._executors.labels("idle").set_function(lambda: pool.idle_count)
        self._executors.labels("busy").set_function(lambda: max(0, pool.executor_count - pool.idle_count))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"micromegas_server_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"micromegas_server_{name}", text, labels, registry=self.registry)


class _Tally(Collector):
    """A counter for one event loop: plain numbers without a lock or label objects."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = f"micromegas_server_{name}", text, labels
        self._values: dict[tuple[str, ...], float] = defaultdict(float, {} if labels else {(): 0.0})
        self._created_at = SYSTEM_CLOCK.now().timestamp()
        registry.register(self)

    def add(self, amount: float, *labels: str) -> None:
        """Add to the count of these labels."""
        self._values[labels] += amount

    def collect(self) -> Iterator[Metric]:
        """Yield the counts."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value, created=self._created_at)
        yield family


class _Durations(Collector):
    """A duration histogram for one event loop, as plain numbers."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str) -> None:
        self._name, self._text = f"micromegas_server_{name}", text
        self._counts = [0] * (len(_SECONDS) + 1)
        self._total = 0.0
        self._created_at = SYSTEM_CLOCK.now().timestamp()
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._total += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the buckets."""
        bounds = (*map(str, _SECONDS), "+Inf")
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        family = HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._total)
        family.add_sample(f"{self._name}_created", {}, self._created_at)
        yield family


class CallSpan:
    """The span of one call; does nothing without a tracer. A context manager."""

    def __init__(self, tracer: Any, method: str, query_id: str, context: Any) -> None:
        self._tracer = tracer
        self._name = method
        self._query_id = query_id
        self._context = context  # not the client's metadata, because a traceback shows the variables in its frames
        self._started_at = int(SYSTEM_CLOCK.now().timestamp() * 1e9)
        self._ends = ExitStack()
        self._span: Any = None

    def begin(self) -> None:
        """Begin the span after authentication, in the trace that the metadata specifies (W3C Trace Context)."""
        if self._tracer is None:
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {
            key: value
            for key, value in self._context.invocation_metadata() or ()
            if key in {"traceparent", "tracestate"}
        }
        known = self._name if self._name.isalnum() and len(self._name) <= _MAX_NAME_CHARACTERS else "other"
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": FLIGHT_SERVICE,
            "rpc.method": known,
            "micromegas.query_id": self._query_id,
        }
        self._span = self._ends.enter_context(
            self._tracer.start_as_current_span(
                f"{FLIGHT_SERVICE}/{known}",
                context=TraceContextTextMapPropagator().extract(carrier),
                kind=SpanKind.SERVER,
                attributes=attributes,
                start_time=self._started_at,
                record_exception=False,
                set_status_on_exception=False,
            )
        )
        self._ends.callback(_tracer_of_call.reset, _tracer_of_call.set(self._tracer))

    def set_status(self, status: str, code: str | None = None) -> None:
        """Set the call's gRPC status and the code of its error, if any."""
        if self._span is None:
            return
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[status].value[0])
        if code is not None:
            self._span.set_attribute("error.type", code)
        if status in _SERVER_ERRORS:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._span is not None:
            self._ends.close()


_NO_SPAN: Final = CallSpan(None, "", "", None)


class Tracing:
    """Creates a server's spans, one per call and phase; none without OpenTelemetry's tracer provider."""

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("micromegas_jupyter.server", __version__)

    def call(self, method: str, query_id: str, context: "grpc.aio.ServicerContext[bytes, bytes] | None") -> CallSpan:
        """Return the span of a call; calls to other services don't have one."""
        service, _, name = method[1:].rpartition("/")
        if self._tracer is None or service != FLIGHT_SERVICE:
            return _NO_SPAN
        return CallSpan(self._tracer, name, query_id, context)

    def close(self) -> None:
        """Send queued spans, for at most three seconds. May be called twice."""
        if self._provider is not None:
            provider, self._provider = self._provider, None
            provider.force_flush(_FLUSH_MILLISECONDS)
            provider.shutdown()


def phase(name: str) -> AbstractContextManager[None]:
    """Make the body a child of the call's span, if any."""
    tracer = _tracer_of_call.get()
    if tracer is None:
        return _NO_PHASE
    span: AbstractContextManager[None] = tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    )
    return span


def open_tracing(environ: Mapping[str, str]) -> Tracing:
    """Return the tracing that OpenTelemetry's standard variables configure; without an endpoint, no tracing."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or not any(map(environ.get, _ENDPOINTS)):
        return Tracing()
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") not in {"", "otlp"}:
        return Tracing()
    protocol = next((found for name in _PROTOCOLS if (found := environ.get(name))), _PROTOCOL)
    if protocol != _PROTOCOL:
        _LOG.warning("Traces are off: they are sent by http/protobuf only.", extra={"protocol": protocol})
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _LOG.warning(
            "Traces are off: OpenTelemetry is not installed. Run: pip install opentelemetry-sdk "
            "opentelemetry-exporter-otlp-proto-http"
        )
        return Tracing()
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "micromegas"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class NotReady(enum.StrEnum):
    """Why the server isn't ready; `/ready` shows these values."""

    STARTING = "starting"
    DRAINING = "draining"
    LOOP = "loop"  # calls have been waiting too long for their turn
    LOG = "log"  # audit lines cannot be written, so new statements are rejected
    STORAGE = "storage"
    EXECUTORS = "executors"
    DISK = "disk"
    LAKE_DISK = "lake_disk"  # writes fail, reads don't
    ENGINE = "engine"
    DENIALS = "denials"
    TIMEOUT = "timeout"  # the check took too long


Readiness = Callable[[], NotReady | None]


class LoopWatch:
    """Measures, from a separate thread, how long an event loop's callbacks wait for their turn.

    The measurements may be read on any thread. `attach` and `stop` are each called once.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._asked_at: float | None = None  # set until the loop responds
        self._lag_seconds = 0.0
        self._highest: deque[tuple[float, float]] = deque(maxlen=round(_HIGHEST_LAG_SECONDS / _LOOK_SECONDS))
        self._stop = threading.Event()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to measure this loop."""
        threading.Thread(target=self._run, args=(loop,), name="loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop measuring."""
        self._stop.set()

    @property
    def lag_seconds(self) -> float:
        """The last callback's delay, or that of the current one if it is longer."""
        asked_at = self._asked_at
        return max(self._lag_seconds, 0.0 if asked_at is None else self._clock.monotonic() - asked_at)

    @property
    def highest_lag_seconds(self) -> float:
        """The longest delay of the last minute."""
        since = self._clock.monotonic() - _HIGHEST_LAG_SECONDS
        return max([self.lag_seconds, *(lag for at, lag in list(self._highest) if at >= since)])

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            if self._asked_at is None:
                self._asked_at = self._clock.monotonic()
                try:
                    loop.call_soon_threadsafe(self._note)
                except RuntimeError:  # the loop is closed
                    self._asked_at = None
                    return

    def _note(self) -> None:
        asked_at, now = self._asked_at, self._clock.monotonic()
        if asked_at is not None:
            self._lag_seconds = now - asked_at
            self._highest.append((now, self._lag_seconds))
            self._asked_at = None


class _DroppedLines(Collector):
    """Counts one server's dropped log lines."""

    def __init__(self) -> None:
        self.writers: Sequence[LogWriter] = ()

    def collect(self) -> Iterator[Metric]:
        """Yield the number per destination."""
        dropped = CounterMetricFamily(
            "micromegas_server_log_lines_dropped",
            "Lines that were dropped because their destination (the log or the audit file) did not accept them.",
            labels=["destination"],
        )
        for name, count in {"log": 0, **{writer.name: writer.lost_count for writer in self.writers}}.items():
            dropped.add_metric([name], count)
        yield dropped


class ReadinessProbe:
    """Checks readiness one request at a time; concurrent requests share the response. Belongs to one event loop.

    A positive result is cached for a second, so that probes are cheap; a negative result is not cached.
    """

    def __init__(self, check: Readiness, *, clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._ready_until = float("-inf")
        self._answer: asyncio.Task[NotReady | None] | None = None

    async def check(self) -> NotReady | None:
        """Return why the server is not ready, or None."""
        if self._clock.monotonic() < self._ready_until:
            return None
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_task(self._find_answer())
        try:
            async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
                reason = await asyncio.shield(self._answer)
        except TimeoutError:
            return NotReady.TIMEOUT
        if reason is None:
            self._ready_until = self._clock.monotonic() + _READY_CACHE_SECONDS
        return reason

    async def _find_answer(self) -> NotReady | None:
        try:
            # Hanging storage must not delay other pages or the exit of the process.
            return await run_in_thread(self._check, name="readiness")
        except Exception:  # noqa: BLE001 - an unknown state is a valid result
            _LOG.exception("the readiness check failed")
            return NotReady.STORAGE
