"""What is refused before a statement runs, call by call, damaged messages, and health checks, which anyone may make."""

import random

import grpc
import pytest

from micromegas_jupyter import errors
from micromegas_jupyter.flightsql.commands import messages, pack_any
from tests.fuzz.damage import damage_bytes
from tests.fuzz.wire_samples import ACTIONS, DESCRIPTORS, FRAMES, TICKETS
from tests.integration import flight_harness as harness
from tests.integration.flight_harness import DEADLINE_SECONDS, FLIGHT, HEALTH, NUMBERS, action_bytes, running_server

pytestmark = pytest.mark.integration

METHODS = [
    "Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoExchange",
    "DoAction", "ListActions", "NoSuchMethod", "/grpc.health.v1.Health/Nonsense",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/health",
]  # fmt: skip
WATCH = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
INGEST = messages.CommandStatementIngest(table="processes")
PATH = messages.FlightDescriptor(type=messages.FlightDescriptor.PATH, path=["../etc"])


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
def test_no_method_answers_without_exactly_one_accepted_credential(flight, metadata):
    answers = {method: flight.call(method, b"\xff not a message", metadata=metadata) for method in METHODS}

    found = {method: (answer.code, type(answer.error), answer.replies) for method, answer in answers.items()}
    assert found == dict.fromkeys(METHODS, (grpc.StatusCode.UNAUTHENTICATED, errors.Rejected, []))


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
    answer = flight.call(name, b"")

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert answer.error.what == f"This server does not offer {FLIGHT}{name}."


@pytest.mark.parametrize(
    ("method", "request_bytes"),
    [
        ("GetFlightInfo", harness.descriptor_bytes(INGEST)),
        ("DoGet", harness.ticket_bytes(pack_any(INGEST))),
        ("DoAction", action_bytes("BeginTransaction")),
        ("DoPut", harness.opening_frame(INGEST)),
        ("GetFlightInfo", PATH.SerializeToString()),
    ],
)
def test_commands_that_are_not_offered_say_so(flight, method, request_bytes):
    answer = flight.call(method, request_bytes)

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert type(answer.error) is errors.UnsupportedRequest


@pytest.mark.parametrize("method", ["GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoAction"])
def test_noise_is_refused_cleanly(flight, method):
    for request in ([b"\xff\xff\xff"], [b"\x0a\x7f"], []):
        answer = flight.call(method, *request)

        assert (answer.code, type(answer.error)) == (grpc.StatusCode.INVALID_ARGUMENT, errors.UsageError), request


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
    assert type(harness.error_of(known)) is errors.ServerUnavailable


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
    assert type(harness.error_of(one_more)) is errors.ResourcesExhausted
    assert served.code is grpc.StatusCode.OK


CASES = 40
CLEAN = {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"}
SAMPLES = {
    "Handshake": (b"", b"\x0a\x00"),
    "ListFlights": (b"", b"\x0a\x01x"),
    **dict.fromkeys(("GetFlightInfo", "PollFlightInfo", "GetSchema", "NoSuchMethod"), DESCRIPTORS),
    "DoGet": tuple(map(harness.ticket_bytes, TICKETS)),
    "DoAction": tuple(action_bytes(name, body) for name, body in ACTIONS.items()),
    "DoExchange": FRAMES,
    "ListActions": (b"",),
}


@pytest.mark.parametrize("method", SAMPLES)
def test_damaged_messages_get_clean_statuses(flight, method):
    source = random.Random(method)

    for _ in range(CASES):
        answer = flight.call(method, damage_bytes(source.choice(SAMPLES[method]), source))

        # What is left of the SQL may be another statement of the engine's, or none; the engine's answers are not ours.
        assert answer.code.name in CLEAN, answer
        assert type(answer.error) is not errors.InternalError
    assert flight.query(NUMBERS).code is grpc.StatusCode.OK
