"""The standard health service is answered to anybody, once or as often as it changes, and takes nothing from others."""

from __future__ import annotations

import grpc
import pytest

from micromegas_jupyter.errors import ResourcesExhausted, ServerUnavailable
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.error_details import ERROR_DETAILS_KEY, decode_error
from tests.integration.flight_harness import DEADLINE_SECONDS, NUMBERS, FlightHarness, running_server

pytestmark = pytest.mark.integration

WATCH = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def _watch(flight: FlightHarness, service: str = "") -> grpc.Call:
    request = messages.HealthCheckRequest(service=service).SerializeToString()
    return flight.channel.unary_stream(WATCH)(request, timeout=DEADLINE_SECONDS)


def _status(reply: bytes) -> int:
    status: int = messages.HealthCheckResponse.FromString(reply).status
    return status


def test_a_watcher_is_told_at_once_and_again_when_the_server_begins_to_stop() -> None:
    with running_server() as flight:
        known, unknown = _watch(flight), _watch(flight, "nothing")
        first, other = _status(next(known)), _status(next(unknown))
        flight.server.stop(grace_seconds=DEADLINE_SECONDS)  # the watchers do not hold it up
        second = _status(next(known))
        with pytest.raises(grpc.RpcError):
            next(known)
        with pytest.raises(grpc.RpcError):
            next(unknown)

    assert (first, other, second) == (SERVING, SERVICE_UNKNOWN, NOT_SERVING)
    assert known.code() is unknown.code() is grpc.StatusCode.UNAVAILABLE
    assert isinstance(decode_error(dict(known.trailing_metadata())[ERROR_DETAILS_KEY]), ServerUnavailable)


def test_watchers_beyond_the_limit_are_refused_and_callers_are_served() -> None:
    with running_server() as flight:
        watchers = [_watch(flight) for _ in range(64)]
        told = [_status(next(watcher)) for watcher in watchers]
        one_more = _watch(flight)
        with pytest.raises(grpc.RpcError):
            next(one_more)
        served = flight.query(NUMBERS)
        for watcher in watchers:
            watcher.cancel()

    assert told == [SERVING] * 64
    assert one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(decode_error(dict(one_more.trailing_metadata())[ERROR_DETAILS_KEY]), ResourcesExhausted)
    assert served.code is grpc.StatusCode.OK


def test_what_is_no_request_is_refused(flight: FlightHarness) -> None:
    assert flight.call(WATCH, b"\xff not a message", metadata=()).code is grpc.StatusCode.INVALID_ARGUMENT
