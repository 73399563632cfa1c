"""What one server process counts of its calls and queries, in the Prometheus data model.

Where the numbers are read is the HTTP endpoint's job; what the validators count, that of `access.metrics`.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from micromegas_jupyter.errors import DeadlineExceeded, MicromegasError, ResourcesExhausted
from micromegas_jupyter.executors.pool import Pool, StatementReport
from micromegas_jupyter.executors.scheduling import Cause

_OTHER: Final = "other"
_METHODS: Final = frozenset(
    {
        "Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoExchange",
        "DoAction", "ListActions", "Check", "Watch", "ServerReflectionInfo",
    }
)  # fmt: skip
#: Alerts ask for the increase of these; a series that is not there yet has none, and its first event would be missed.
_LIMITS: Final = (
    "call_rate", "calls", "crash", "denied", "ended_statements", "ingest", "memory", "planning", "prepared",
    "query_timeout", "queue", "result_bytes", "rows", "silent_client", "stack", "stalled_client", _OTHER,
)  # fmt: skip
_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
_INGEST_OUTCOMES: Final = ("ok", "error", "incomplete")


class ServerMetrics:
    """The numbers of one server; safe to share between threads.

    Attributes:
        registry: Where a reader finds them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._calls = self._counter("calls", "Calls that ended, by method and gRPC status.", "method", "status")
        self.calls_open = self._gauge("calls_open", "Calls that are being answered now.")
        self._queries = self._counter("queries", "Queries that ended, by outcome and error code.", "status", "error")
        self._seconds = self._histogram("query_seconds", "How long queries took, from call to last row.")
        self._waiting_seconds = self._histogram("query_waiting_seconds", "How long queries waited for an executor.")
        self._planning_seconds = self._histogram("query_planning_seconds", "How long queries were planned.")
        self._cpu_seconds = self._counter("query_cpu_seconds", "CPU time that queries took.")
        self._rows = self._counter("rows_sent", "Rows of results that were sent.")
        self._bytes = self._counter("bytes_sent", "Bytes of results that were sent.")
        self._limits = self._counter("limits_reached", "Calls that ended at a limit, by limit.", "limit")
        self._running = self._gauge("queries_running", "Queries that have an executor now.")
        self._waiting = self._gauge("queries_waiting", "Queries that wait for an executor now.")
        self._executors = self._gauge("executors", "Executor processes, by state.", "state")
        self._ended = self._counter("statements_ended", "Statements whose executor was ended, by cause.", "cause")
        self._prepared = self._gauge("prepared_statements", "Prepared statements that are kept now.")
        self._ingests = self._counter("ingest_calls", "Calls that brought rows, by outcome.", "outcome")
        self._ingest_rows = self._counter("ingest_rows", "Rows that were taken in durably.")
        self._ingest_bytes = self._counter("ingest_bytes", "Bytes of messages that brought these rows.")
        for limit in _LIMITS:
            self._limits.labels(limit)
        for cause in Cause:
            self._ended.labels(cause.value)
        for outcome in _INGEST_OUTCOMES:
            self._ingests.labels(outcome)

    def count_call(self, method: str, status: str) -> None:
        """Count a call that ended."""
        name = method.rpartition("/")[2]
        self._calls.labels(name if name in _METHODS else _OTHER, status).inc()

    def count_error(self, error: MicromegasError) -> None:
        """Count an error that ended a call, if it is about a limit."""
        if isinstance(error, ResourcesExhausted | DeadlineExceeded):
            self._limits.labels(error.limit or _OTHER).inc()

    def count_sent(self, size: int) -> None:
        """Count bytes of a result that were sent just now."""
        self._bytes.inc(size)

    def count_query(
        self, report: StatementReport, seconds: float, status: str, error: MicromegasError | None = None
    ) -> None:
        """Count a query that ended: `ok`, `error` with the error, or `incomplete` when the client left."""
        self._queries.labels(status, "" if error is None else error.code).inc()
        self._seconds.observe(seconds)
        self._waiting_seconds.observe(report.waiting_seconds)
        self._rows.inc(report.rows)
        if report.planning_seconds is not None:
            self._planning_seconds.observe(report.planning_seconds)
        if report.cpu_seconds is not None:
            self._cpu_seconds.inc(report.cpu_seconds)

    def count_end(self, cause: Cause) -> None:
        """Count a statement whose executor was ended."""
        self._ended.labels(cause.value).inc()

    def count_ingest(self, outcome: str, *, rows: int, size: int) -> None:
        """Count a call that brought rows: `ok`, `error` or `incomplete`, with what was taken in durably."""
        self._ingests.labels(outcome if outcome in _INGEST_OUTCOMES else _OTHER).inc()
        self._ingest_rows.inc(rows)
        self._ingest_bytes.inc(size)

    def watch_pool(self, pool: Pool) -> None:
        """Report how many statements and executors there are; the counts are read on other threads."""
        self._running.set_function(lambda: pool.slots.running_count)
        self._waiting.set_function(lambda: pool.slots.waiting_count)
        self._executors.labels("idle").set_function(lambda: pool.idle_count)
        self._executors.labels("busy").set_function(lambda: max(0, pool.executor_count - pool.idle_count))

    def watch_prepared(self, count: Callable[[], int]) -> None:
        """Report how many prepared statements are kept; the function is called from other threads."""
        self._prepared.set_function(count)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"micromegas_server_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"micromegas_server_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"micromegas_server_{name}", text, labels, registry=self.registry, buckets=_SECONDS)
