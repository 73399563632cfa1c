"""What one server process counts of its calls and queries, in the Prometheus data model.

Where the numbers are read is the HTTP endpoint's job; what the validators count, that of `access.metrics`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from micromegas_jupyter.errors import DeadlineExceeded, MicromegasError, ResourcesExhausted
from micromegas_jupyter.seams import Clock

#: What a query's label says before its plan is known.
UNPLANNED: Final = "unplanned"

_OTHER: Final = "other"
_METHODS: Final = frozenset(
    {
        "Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoExchange",
        "DoAction", "ListActions", "Check", "Watch", "ServerReflectionInfo",
    }
)  # fmt: skip
#: Alerts ask for the increase of these; a series that is not there yet has none, and its first event would be missed.
_LIMITS: Final = (
    "call_rate", "calls", "denied", "heavy_queue", "ingest", "memory", "planning", "prepared", "query_timeout", "queue",
    "result_bytes", "rows", "silent_client", "stalled_client", "stuck_queries", _OTHER,
)  # fmt: skip
_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
_INGEST_OUTCOMES: Final = ("ok", "error", "incomplete")


class QueryMeasure:
    """How long the phases of one query take, from its making on. Belongs to one task.

    Attributes:
        work_class: `small` or `heavy`, once the plan is known.
        waiting_seconds: How long it waited for its turns.
        planning_seconds: How long it was planned.
        sending_seconds: How long it waited for the client to take rows.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self.work_class = UNPLANNED
        self.waiting_seconds = 0.0
        self.planning_seconds = 0.0
        self.sending_seconds = 0.0

    def planning(self) -> AbstractContextManager[None]:
        """Measure the body as planning."""
        return _Phase(self, "planning_seconds", self._clock)

    def waiting(self) -> AbstractContextManager[None]:
        """Measure the body as a wait for a turn."""
        return _Phase(self, "waiting_seconds", self._clock)

    def sending(self) -> AbstractContextManager[None]:
        """Measure the body as a wait for the client."""
        return _Phase(self, "sending_seconds", self._clock)

    def worked_seconds(self) -> float:
        """Return for how long the engine works, so far, after planning."""
        return self.total_seconds() - self.waiting_seconds - self.planning_seconds - self.sending_seconds

    def total_seconds(self) -> float:
        """Return how long the query takes so far."""
        return self._clock.monotonic() - self._started


class _Phase:
    """Measures one phase, such as one message; there are many of them, and a generator takes several times as long."""

    __slots__ = ("_clock", "_measure", "_name", "_started")

    def __init__(self, measure: QueryMeasure, name: str, clock: Clock) -> None:
        self._measure = measure
        self._name = name
        self._clock = clock

    def __enter__(self) -> None:
        self._started = self._clock.monotonic()

    def __exit__(self, *_error: object) -> None:
        took = self._clock.monotonic() - self._started
        setattr(self._measure, self._name, getattr(self._measure, self._name) + took)


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
        self._queries = self._counter(
            "queries", "Queries that ended, by class, outcome and error code.", "work_class", "status", "error"
        )
        self._seconds = self._histogram("query_seconds", "How long queries took, from call to last row.", "work_class")
        self._waiting_seconds = self._histogram("query_waiting_seconds", "How long queries waited for their turn.")
        self._planning_seconds = self._histogram("query_planning_seconds", "How long queries were planned.")
        self._rows = self._counter("rows_sent", "Rows of results that were sent.")
        self._bytes = self._counter("bytes_sent", "Bytes of results that were sent.")
        self._limits = self._counter("limits_reached", "Calls that ended at a limit, by limit.", "limit")
        self._running = self._gauge("queries_running", "Queries that plan or run now, by class.", "work_class")
        self._waiting = self._gauge("queries_waiting", "Queries that wait for their turn now, by class.", "work_class")
        self._prepared = self._gauge("prepared_statements", "Prepared statements that are kept now.")
        self._ingests = self._counter("ingest_calls", "Calls that brought rows, by outcome.", "outcome")
        self._ingest_rows = self._counter("ingest_rows", "Rows that were taken in durably.")
        self._ingest_bytes = self._counter("ingest_bytes", "Bytes of messages that brought these rows.")
        for limit in _LIMITS:
            self._limits.labels(limit)
        for outcome in _INGEST_OUTCOMES:
            self._ingests.labels(outcome)

    def count_call(self, method: str, status: str) -> None:
        """Count a call that ended.

        Args:
            method: Its path, `/service/name`.
            status: The name of its gRPC status.
        """
        name = method.rpartition("/")[2]
        self._calls.labels(name if name in _METHODS else _OTHER, status).inc()

    def count_error(self, error: MicromegasError) -> None:
        """Count an error that ended a call, if it is about a limit."""
        if isinstance(error, ResourcesExhausted | DeadlineExceeded):
            self._limits.labels(error.limit or _OTHER).inc()

    def count_sent(self, *, rows: int, size: int) -> None:
        """Count rows and bytes of a result that were sent just now."""
        if rows:
            self._rows.inc(rows)
        if size:
            self._bytes.inc(size)

    def count_query(self, measure: "QueryMeasure", status: str, error: MicromegasError | None = None) -> None:
        """Count a query that ended: `ok`, `error` with the error, or `incomplete` when the client left."""
        self._queries.labels(measure.work_class, status, "" if error is None else error.code).inc()
        self._seconds.labels(measure.work_class).observe(measure.total_seconds())
        self._waiting_seconds.observe(measure.waiting_seconds)
        self._planning_seconds.observe(measure.planning_seconds)

    def count_ingest(self, outcome: str, *, rows: int, size: int) -> None:
        """Count a call that brought rows: `ok`, `error` or `incomplete`, with what was taken in durably."""
        self._ingests.labels(outcome if outcome in _INGEST_OUTCOMES else _OTHER).inc()
        self._ingest_rows.inc(rows)
        self._ingest_bytes.inc(size)

    def watch_queries(self, work_class: str, *, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Report how many queries of a class run and wait; the functions are called from other threads."""
        self._running.labels(work_class).set_function(running)
        self._waiting.labels(work_class).set_function(waiting)

    def watch_prepared(self, count: Callable[[], int]) -> None:
        """Report how many prepared statements are kept; the function is called from other threads."""
        self._prepared.set_function(count)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"micromegas_server_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"micromegas_server_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"micromegas_server_{name}", text, labels, registry=self.registry, buckets=_SECONDS)
