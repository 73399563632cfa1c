"""What is refused before a statement runs, call by call, damaged messages, and health checks, which anyone may make."""

import random

import grpc
import pytest

from micromegas_jupyter.errors import (
    InternalError,
    ProviderUnavailable,
    Rejected,
    ResourcesExhausted,
    ServerUnavailable,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, decode_error, messages, pack_any
from tests.fuzz.damage import damage_bytes
from tests.fuzz.wire_samples import ACTIONS, DESCRIPTORS, FRAMES, TICKETS
from tests.integration.flight_harness import (
    DEADLINE_SECONDS,
    FLIGHT,
    HEALTH,
    NUMBERS,
    action_bytes,
    descriptor_bytes,
    running_server,
    ticket_bytes,
)

pytestmark = pytest.mark.integration

METHODS = [
    *(FLIGHT + name for name in ("Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet")),
    *(FLIGHT + name for name in ("DoPut", "DoExchange", "DoAction", "ListActions", "NoSuchMethod")),
    "/grpc.health.v1.Health/Nonsense",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/x/health",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer alice"), ("authorization", "Bearer alice")),
        (("authorization", "Bearer mallory"),),
        (("authorization", "alice"),),
        (("x-auth-subject", "alice"), ("x-auth-is-admin", "true")),
    ],
    ids=["none", "two", "wrong", "no scheme", "identity headers"],
)
def test_no_method_answers_without_exactly_one_accepted_credential(flight, method, metadata):
    answer = flight.call(method, b"\xff not a message", metadata=metadata)

    assert answer.code is grpc.StatusCode.UNAUTHENTICATED
    assert type(answer.error) is Rejected
    assert answer.replies == []


def test_a_provider_that_is_down_is_not_a_refusal(flight):
    answer = flight.query("numbers", metadata=(("authorization", "Bearer outage"),))

    assert answer.code is grpc.StatusCode.UNAVAILABLE
    assert type(answer.error) is ProviderUnavailable


def test_health_is_answered_to_anybody(flight):
    answers = [
        flight.call(HEALTH, messages.HealthCheckRequest(service=service).SerializeToString(), metadata=())
        for service in ("", "arrow.flight.protocol.FlightService")
    ]
    unknown = flight.call(HEALTH, messages.HealthCheckRequest(service="x").SerializeToString(), metadata=())
    missing, noise = flight.call(HEALTH, metadata=()), flight.call(WATCH, b"\xff not a message", metadata=())

    assert [messages.HealthCheckResponse.FromString(answer.replies[0]).status for answer in answers] == [1, 1]
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    assert missing.code is noise.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["ListFlights", "DoExchange", "NoSuchMethod"])
def test_methods_that_are_not_offered_say_so(flight, name):
    answer = flight.call(FLIGHT + name, b"")

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert answer.error.what == f"This server does not offer /arrow.flight.protocol.FlightService/{name}."


@pytest.mark.parametrize(
    ("method", "request_bytes"),
    [
        ("GetFlightInfo", descriptor_bytes(messages.CommandStatementIngest(table="processes"))),
        ("DoGet", ticket_bytes(pack_any(messages.CommandStatementIngest(table="processes")))),
        ("DoAction", action_bytes("BeginTransaction")),
        (
            "DoPut",
            messages.FlightData(
                flight_descriptor=messages.FlightDescriptor.FromString(
                    descriptor_bytes(messages.CommandStatementIngest(table="processes"))
                )
            ).SerializeToString(),
        ),
        (
            "GetFlightInfo",
            messages.FlightDescriptor(type=messages.FlightDescriptor.PATH, path=["../etc"]).SerializeToString(),
        ),
    ],
)
def test_commands_that_are_not_offered_say_so(flight, method, request_bytes):
    answer = flight.call(FLIGHT + method, request_bytes)

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert type(answer.error) is UnsupportedRequest


@pytest.mark.parametrize("method", ["GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoAction"])
@pytest.mark.parametrize("request_bytes", [b"\xff\xff\xff", b"\x0a\x7f"])
def test_noise_is_refused_cleanly(flight, method, request_bytes):
    answer = flight.call(FLIGHT + method, request_bytes)

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(answer.error) is UsageError


@pytest.mark.parametrize("method", ["GetFlightInfo", "GetSchema", "DoGet", "DoPut", "DoAction", "ListActions"])
def test_a_call_without_its_message_is_refused(flight, method):
    assert flight.call(FLIGHT + method).code is grpc.StatusCode.INVALID_ARGUMENT


WATCH = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def _watch(flight, service=""):
    request = messages.HealthCheckRequest(service=service).SerializeToString()
    return flight.channel.unary_stream(WATCH)(request, timeout=DEADLINE_SECONDS)


def _status(reply):
    return messages.HealthCheckResponse.FromString(reply).status


def test_a_watcher_hears_at_once_and_again_when_the_server_begins_to_stop():
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


def test_watchers_beyond_the_limit_are_refused_and_callers_are_served():
    with running_server() as flight:
        watchers = [_watch(flight) for _ in range(64)]
        statuses = [_status(next(watcher)) for watcher in watchers]
        one_more = _watch(flight)
        with pytest.raises(grpc.RpcError):
            next(one_more)
        served = flight.query(NUMBERS)
        for watcher in watchers:
            watcher.cancel()

    assert statuses == [SERVING] * 64
    assert one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(decode_error(dict(one_more.trailing_metadata())[ERROR_DETAILS_KEY]), ResourcesExhausted)
    assert served.code is grpc.StatusCode.OK


CASES = 40
CLEAN = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.PERMISSION_DENIED,
}
SAMPLES = {
    "Handshake": (b"", b"\x0a\x00"),
    "ListFlights": (b"", b"\x0a\x01x"),
    "GetFlightInfo": DESCRIPTORS,
    "PollFlightInfo": DESCRIPTORS,
    "GetSchema": DESCRIPTORS,
    "DoGet": tuple(map(ticket_bytes, TICKETS)),
    "DoAction": tuple(action_bytes(name, body) for name, body in ACTIONS.items()),
    "DoExchange": FRAMES,
    "ListActions": (b"",),
    "NoSuchMethod": DESCRIPTORS,
}


@pytest.mark.parametrize("method", SAMPLES)
def test_damaged_messages_get_clean_statuses(flight, method):
    source = random.Random(method)

    for _ in range(CASES):
        answer = flight.call(FLIGHT + method, damage_bytes(source.choice(SAMPLES[method]), source))

        # What is left of the SQL may be another statement of the engine's, or none; the engine's answers are not ours.
        assert answer.code in CLEAN, answer
        assert type(answer.error) is not InternalError
    assert flight.query(NUMBERS).code is grpc.StatusCode.OK
