"""What the server counts is what happened, with labels from bounded sets."""

from __future__ import annotations

import pytest

from micromegas_jupyter.errors import DeadlineExceeded, InvalidStatement, ResourcesExhausted
from micromegas_jupyter.server.metrics import QueryMeasure, ServerMetrics
from tests.fakes.clock import FakeClock


def _value(metrics: ServerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"micromegas_server_{name}", labels)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/arrow.flight.protocol.FlightService/DoGet", "DoGet"),
        ("/grpc.health.v1.Health/Check", "Check"),
        ("/x/" + "y" * 5000, "other"),
        ("", "other"),
    ],
)
def test_a_call_is_counted_under_a_known_method(path: str, method: str) -> None:
    metrics = ServerMetrics()

    metrics.count_call(path, "OK")

    assert _value(metrics, "calls_total", method=method, status="OK") == 1


def test_errors_at_a_limit_are_counted_by_limit() -> None:
    metrics = ServerMetrics()

    metrics.count_error(ResourcesExhausted("Too many rows.", limit="rows"))
    metrics.count_error(DeadlineExceeded("Too long.", limit="query_timeout"))
    metrics.count_error(ResourcesExhausted("Too much."))
    metrics.count_error(InvalidStatement("Wrong."))

    counted = [_value(metrics, "limits_reached_total", limit=name) for name in ("rows", "query_timeout", "other")]
    assert counted == [1, 1, 1]


def test_a_limit_is_reported_before_anybody_reached_it() -> None:
    assert _value(ServerMetrics(), "limits_reached_total", limit="memory") == 0


def test_the_phases_of_a_query_are_measured() -> None:
    clock = FakeClock()
    metrics = ServerMetrics()
    measure = QueryMeasure(clock)

    with measure.waiting():
        clock.advance(2)
    with measure.planning():
        clock.advance(3)
    measure.work_class = "small"
    clock.advance(4)
    with measure.sending():
        clock.advance(5)
    metrics.count_query(measure, "ok")

    assert _value(metrics, "queries_total", work_class="small", status="ok", error="") == 1
    assert _value(metrics, "query_seconds_sum", work_class="small") == 14
    assert _value(metrics, "query_waiting_seconds_sum") == 2
    assert _value(metrics, "query_planning_seconds_sum") == 3
    assert measure.worked_seconds() == 4


def test_gauges_ask_whoever_knows() -> None:
    metrics = ServerMetrics()

    metrics.watch_queries("heavy", running=lambda: 3, waiting=lambda: 5)
    metrics.watch_prepared(lambda: 7)

    assert _value(metrics, "queries_running", work_class="heavy") == 3
    assert _value(metrics, "queries_waiting", work_class="heavy") == 5
    assert _value(metrics, "prepared_statements") == 7


def test_ingested_rows_are_counted_with_a_known_outcome() -> None:
    metrics = ServerMetrics()

    metrics.count_ingest("ok", rows=10, size=1000)
    metrics.count_ingest("surprise", rows=0, size=0)

    assert _value(metrics, "ingest_calls_total", outcome="ok") == 1
    assert _value(metrics, "ingest_calls_total", outcome="other") == 1
    assert _value(metrics, "ingest_rows_total") == 10
    assert _value(metrics, "ingest_bytes_total") == 1000
