"""Over a limit, a caller gets a status that says which one and what to do; the server goes on."""

from __future__ import annotations

import grpc
import pytest

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FLIGHT,
    FlightHarness,
    descriptor_bytes,
    running_server,
    ticket_bytes,
)

pytestmark = pytest.mark.integration


def _check_alive(flight: FlightHarness) -> None:
    # No query: on a busy machine it could be over the small limits of these tests.
    assert flight.call(FLIGHT + "ListActions", b"").code is grpc.StatusCode.OK


def test_a_query_over_its_time_ends_with_its_id_and_stops_its_stream() -> None:
    with running_server(query_timeout_seconds=0.2) as flight:
        while not flight.engine.stream_started.is_set():  # on a busy machine the time may be over before it begins
            answer = flight.query("waiting")

            assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert type(answer.error) is DeadlineExceeded
            assert answer.error.query_id == answer.initial["x-micromegas-query-id"]
            assert "longer than the 0.2 s" in answer.text
        assert flight.engine.stream_closed.wait(30)
        _check_alive(flight)


def test_rows_come_up_to_the_limit() -> None:
    with running_server(max_rows=2) as flight:
        answer = flight.query("numbers")

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert type(answer.error) is ResourcesExhausted
        assert "more rows than the 2" in answer.text
        assert "LIMIT" in answer.error.remedy
        assert len(answer.replies) == 2  # schema and two rows
        _check_alive(flight)


def test_a_result_over_its_size_ends() -> None:
    with running_server(max_result_bytes=3 << 20) as flight:
        answer = flight.query("large")

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than the 3 MiB" in answer.text
        assert sum(map(len, answer.replies)) < 4 << 20
        _check_alive(flight)


def test_planning_counts_towards_the_time() -> None:
    with running_server(query_timeout_seconds=0.2) as flight:
        command = messages.CommandStatementQuery(query="slow")

        answer = flight.call(FLIGHT + "GetFlightInfo", descriptor_bytes(command))

        assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
        _check_alive(flight)


def _value(flight: FlightHarness, name: str, **labels: str) -> float | None:
    return flight.server.metrics.registry.get_sample_value(f"micromegas_server_{name}", labels)


def test_calls_and_queries_are_counted_as_they_end() -> None:
    with running_server(max_rows=2) as flight:
        flight.query("empty")
        flight.query("numbers")
        flight.query("wrong")
        flight.call(FLIGHT + "NoSuchMethod", b"")

        assert _value(flight, "queries_total", work_class="small", status="ok", error="") == 1
        assert _value(flight, "queries_total", work_class="small", status="error", error="SQL004") == 1
        assert _value(flight, "queries_total", work_class="unplanned", status="error", error="SQL001") == 1
        assert _value(flight, "calls_total", method="DoGet", status="RESOURCE_EXHAUSTED") == 1
        assert _value(flight, "calls_total", method="other", status="UNIMPLEMENTED") == 1
        assert _value(flight, "limits_reached_total", limit="rows") == 1
        assert _value(flight, "rows_sent_total") == 2
        assert (_value(flight, "bytes_sent_total") or 0) > 0
        assert _value(flight, "query_seconds_count", work_class="small") == 2
        assert _value(flight, "queries_running", work_class="small") == 0
        assert _value(flight, "queries_waiting", work_class="small") == 0


def test_heavy_queries_wait_for_each_other_and_small_ones_for_nobody() -> None:
    with running_server(max_heavy_queries=1, admission_wait_seconds=0.1) as flight:
        running = flight.channel.unary_stream(FLIGHT + "DoGet")(
            ticket_bytes(statement_ticket("heavy")), metadata=ALICE, timeout=60
        )
        assert flight.engine.stream_started.wait(30)

        refused = flight.query("heavy", metadata=BOB)
        small = flight.query("numbers", metadata=BOB)

        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert _value(flight, "limits_reached_total", limit="heavy_queue") == 1
        assert _value(flight, "queries_running", work_class="heavy") == 1
        assert small.code is grpc.StatusCode.OK
        running.cancel()
        assert flight.engine.stream_closed.wait(30)
