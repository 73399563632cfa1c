"""What the server counts is what happened, with labels from bounded sets."""

import pytest

from micromegas_jupyter.errors import DeadlineExceeded, InvalidStatement, ResourcesExhausted
from micromegas_jupyter.executors.pool import StatementReport
from micromegas_jupyter.executors.scheduling import Cause
from micromegas_jupyter.server.monitoring import ServerMetrics


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


def test_limits_and_causes_are_reported_before_they_occur_and_counted_when_they_do() -> None:
    metrics = ServerMetrics()
    names = ("rows", "query_timeout", "other")

    before = [_value(metrics, "limits_reached_total", limit=name) for name in names]
    metrics.count_error(ResourcesExhausted("Too many rows.", limit="rows"))
    metrics.count_error(DeadlineExceeded("Too long.", limit="query_timeout"))
    metrics.count_error(ResourcesExhausted("Too much."))
    metrics.count_error(InvalidStatement("Wrong."))

    assert before == [0, 0, 0]
    assert [_value(metrics, "limits_reached_total", limit=name) for name in names] == [1, 1, 1]
    assert [_value(metrics, "statements_ended_total", cause=cause.value) for cause in Cause] == [0] * len(Cause)


def test_a_query_is_counted_with_what_it_took() -> None:
    metrics = ServerMetrics()
    report = StatementReport(rows=7, waiting_seconds=2, planning_seconds=3, cpu_seconds=4)

    metrics.count_query(report, 14, "ok")
    metrics.count_query(StatementReport(waiting_seconds=1), 1, "error", InvalidStatement("Wrong."))
    metrics.count_end(Cause.CRASH)

    assert _value(metrics, "queries_total", status="ok", error="") == 1
    assert _value(metrics, "queries_total", status="error", error="SQL001") == 1
    assert _value(metrics, "query_seconds_sum") == 15
    assert _value(metrics, "query_waiting_seconds_sum") == 3
    assert (_value(metrics, "query_planning_seconds_sum"), _value(metrics, "query_planning_seconds_count")) == (3, 1)
    assert (_value(metrics, "query_cpu_seconds_total"), _value(metrics, "rows_sent_total")) == (4, 7)
    assert _value(metrics, "statements_ended_total", cause="crash") == 1
