"""What goes over the wire, call by call, seen by a raw gRPC client."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pytest
from google.protobuf import any_pb2

from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    PermissionDenied,
    ProviderUnavailable,
    Rejected,
    ResourcesExhausted,
    StatementRefused,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any, prepared_ticket, statement_ticket
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FLIGHT,
    HEALTH,
    FlightHarness,
    Metadata,
    action_bytes,
    descriptor_bytes,
    running_server,
    ticket_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from micromegas_jupyter.errors import MicromegasError

pytestmark = pytest.mark.integration

METHODS = [
    FLIGHT + "Handshake",
    FLIGHT + "ListFlights",
    FLIGHT + "GetFlightInfo",
    FLIGHT + "PollFlightInfo",
    FLIGHT + "GetSchema",
    FLIGHT + "DoGet",
    FLIGHT + "DoPut",
    FLIGHT + "DoExchange",
    FLIGHT + "DoAction",
    FLIGHT + "ListActions",
    FLIGHT + "NoSuchMethod",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/x/health",
]
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def flight() -> Iterator[FlightHarness]:
    with running_server() as harness:
        yield harness


def _prepare(flight: FlightHarness, sql: str, metadata: Metadata = ALICE) -> bytes:
    body = pack_any(messages.ActionCreatePreparedStatementRequest(query=sql))
    answer = flight.call(FLIGHT + "DoAction", action_bytes("CreatePreparedStatement", body), metadata=metadata)
    envelope = any_pb2.Any.FromString(messages.Result.FromString(answer.replies[0]).body)
    handle: bytes = messages.ActionCreatePreparedStatementResult.FromString(envelope.value).prepared_statement_handle
    return handle


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
def test_no_method_answers_without_exactly_one_accepted_credential(
    flight: FlightHarness, method: str, metadata: Metadata
) -> None:
    answer = flight.call(method, b"\xff not a message", metadata=metadata)

    assert answer.code is grpc.StatusCode.UNAUTHENTICATED
    assert type(answer.error) is Rejected
    assert answer.replies == []


def test_a_provider_that_is_down_is_not_a_refusal(flight: FlightHarness) -> None:
    answer = flight.query("numbers", metadata=(("authorization", "Bearer outage"),))

    assert answer.code is grpc.StatusCode.UNAVAILABLE
    assert type(answer.error) is ProviderUnavailable


def test_health_is_answered_to_anybody(flight: FlightHarness) -> None:
    answers = [
        flight.call(HEALTH, messages.HealthCheckRequest(service=service).SerializeToString(), metadata=())
        for service in ("", "arrow.flight.protocol.FlightService")
    ]
    unknown = flight.call(HEALTH, messages.HealthCheckRequest(service="x").SerializeToString(), metadata=())

    assert [messages.HealthCheckResponse.FromString(answer.replies[0]).status for answer in answers] == [1, 1]
    assert unknown.code is grpc.StatusCode.NOT_FOUND


def test_a_health_check_without_its_message_is_refused(flight: FlightHarness) -> None:
    assert flight.call(HEALTH, metadata=()).code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["ListFlights", "PollFlightInfo", "DoExchange", "NoSuchMethod"])
def test_methods_that_are_not_offered_say_so(flight: FlightHarness, name: str) -> None:
    answer = flight.call(FLIGHT + name, b"")

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert answer.error is not None
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
def test_commands_that_are_not_offered_say_so(flight: FlightHarness, method: str, request_bytes: bytes) -> None:
    answer = flight.call(FLIGHT + method, request_bytes)

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert type(answer.error) is UnsupportedRequest


@pytest.mark.parametrize("method", ["GetFlightInfo", "GetSchema", "DoGet", "DoPut", "DoAction"])
@pytest.mark.parametrize("request_bytes", [b"\xff\xff\xff", b"\x0a\x7f"])
def test_noise_is_refused_cleanly(flight: FlightHarness, method: str, request_bytes: bytes) -> None:
    answer = flight.call(FLIGHT + method, request_bytes)

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(answer.error) is UsageError


@pytest.mark.parametrize("method", ["GetFlightInfo", "GetSchema", "DoGet", "DoPut", "DoAction", "ListActions"])
def test_a_call_without_its_message_is_refused(flight: FlightHarness, method: str) -> None:
    assert flight.call(FLIGHT + method).code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("sql", "code", "kind"),
    [
        ("wrong", grpc.StatusCode.INVALID_ARGUMENT, InvalidStatement),
        ("late", grpc.StatusCode.INVALID_ARGUMENT, InvalidStatement),
        ("drop table t", grpc.StatusCode.INVALID_ARGUMENT, StatementRefused),
        ("unsupported", grpc.StatusCode.UNIMPLEMENTED, UnsupportedStatement),
        ("crash", grpc.StatusCode.INTERNAL, InternalError),
        ("cancelled", grpc.StatusCode.INTERNAL, InternalError),
        ("panic", grpc.StatusCode.INTERNAL, InternalError),
    ],
)
def test_an_error_arrives_with_its_class_and_nothing_of_the_server(
    flight: FlightHarness, sql: str, code: grpc.StatusCode, kind: type[MicromegasError]
) -> None:
    answer = flight.query(sql)

    assert answer.code is code
    assert type(answer.error) is kind
    assert answer.error is not None
    assert UUID.fullmatch(answer.error.query_id or "")
    assert answer.initial["x-micromegas-query-id"] == answer.error.query_id
    assert not re.search(r"Traceback|secret|\.py|\.rs|/srv", answer.text)


def test_a_position_in_the_sql_arrives(flight: FlightHarness) -> None:
    error = flight.query("wrong").error

    assert isinstance(error, InvalidStatement)
    assert (error.line, error.column) == (1, 14)


def test_flight_info_has_the_exact_schema_and_one_endpoint_without_location(flight: FlightHarness) -> None:
    answer = flight.call(FLIGHT + "GetFlightInfo", descriptor_bytes(messages.CommandStatementQuery(query="numbers")))

    info = messages.FlightInfo.FromString(answer.replies[0])
    (endpoint,) = info.endpoint
    assert pa.ipc.read_schema(pa.py_buffer(info.schema)) == pa.schema({"n": pa.int64()})
    assert (endpoint.ticket.ticket, list(endpoint.location)) == (statement_ticket("numbers"), [])
    assert (info.total_records, info.total_bytes) == (-1, -1)
    assert UUID.fullmatch(str(answer.initial["x-micromegas-query-id"]))


def test_get_schema_is_exact(flight: FlightHarness) -> None:
    answer = flight.call(FLIGHT + "GetSchema", descriptor_bytes(messages.CommandStatementQuery(query="words")))

    schema = pa.ipc.read_schema(pa.py_buffer(messages.SchemaResult.FromString(answer.replies[0]).schema))
    assert schema == pa.schema({"word": pa.dictionary(pa.int32(), pa.string())})


def test_a_bare_ticket_runs_its_sql(flight: FlightHarness) -> None:
    bare = messages.TicketStatementQuery(statement_handle=b"numbers").SerializeToString()

    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(bare))

    assert (answer.code, len(answer.replies)) == (grpc.StatusCode.OK, 2)


def test_headers_reach_the_engine(flight: FlightHarness) -> None:
    metadata = (
        *ALICE,
        ("query_range_begin", "2026-11-24T12:00:00Z"),
        ("query_range_end", "2026-11-24T13:00:00Z"),
        ("limit", "5"),
        ("preserve_dictionary", "true"),
    )

    flight.query("numbers", metadata=metadata)

    request = flight.engine.requests[-1]
    assert request.time_range is not None
    assert request.time_range.begin.isoformat() == "2026-11-24T12:00:00+00:00"
    assert (request.row_limit, request.preserve_dictionary) == (5, True)


def test_a_bad_header_is_refused(flight: FlightHarness) -> None:
    answer = flight.query("numbers", metadata=(*ALICE, ("limit", "many")))

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(answer.error) is UsageError


def test_naming_another_user_is_refused_and_recorded(flight: FlightHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")

    answer = flight.query("numbers", metadata=(*BOB, ("x-user-id", "alice")))

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert type(answer.error) is PermissionDenied
    assert [json.loads(record.message)["code"] for record in caplog.records] == ["AUTH020"]


def test_identity_headers_change_nothing(flight: FlightHarness) -> None:
    answer = flight.call(
        FLIGHT + "DoAction",
        action_bytes("MicromegasWhoAmI"),
        metadata=(*BOB, ("x-auth-subject", "alice"), ("x-auth-is-admin", "true")),
    )

    assert json.loads(messages.Result.FromString(answer.replies[0]).body) == {
        "subject": "bob",
        "name": None,
        "email": None,
        "issuer": "https://id.example",
        "auth_type": "oidc",
        "is_admin": False,
        "expires_at": None,
    }


def test_without_authentication_everyone_is_the_same_administrator() -> None:
    with running_server(is_open=True) as flight:
        answer = flight.call(
            FLIGHT + "DoAction", action_bytes("MicromegasWhoAmI"), metadata=(("x-auth-subject", "root"),)
        )

    described = json.loads(messages.Result.FromString(answer.replies[0]).body)
    assert (described["subject"], described["auth_type"], described["is_admin"]) == ("anonymous", "none", True)


def test_actions_are_listed(flight: FlightHarness) -> None:
    answer = flight.call(FLIGHT + "ListActions", b"")

    names = [messages.ActionType.FromString(reply).type for reply in answer.replies]
    assert names == ["CreatePreparedStatement", "ClosePreparedStatement", "MicromegasWhoAmI"]


def test_a_prepared_statement_is_its_callers_alone(flight: FlightHarness) -> None:
    handle = _prepare(flight, "numbers")

    own = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))
    others = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)), metadata=BOB)

    assert own.code is grpc.StatusCode.OK
    assert others.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(others.error) is UsageError


def test_a_closed_prepared_statement_is_unknown(flight: FlightHarness) -> None:
    handle = _prepare(flight, "numbers")
    body = pack_any(messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))

    closed = flight.call(FLIGHT + "DoAction", action_bytes("ClosePreparedStatement", body))
    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))

    assert closed.code is grpc.StatusCode.OK
    assert type(answer.error) is UsageError


def test_bound_parameters_reach_the_engine(flight: FlightHarness) -> None:
    handle = _prepare(flight, "echo ?")
    batch = pa.record_batch({"0": pa.array([41], pa.int64())})
    encoder = FlightDataEncoder(batch.schema)
    opening = messages.FlightData.FromString(encoder.encode_schema())
    opening.flight_descriptor.ParseFromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )

    put = flight.call(FLIGHT + "DoPut", opening.SerializeToString(), *encoder.encode_batch(batch))
    flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))

    result = messages.PutResult.FromString(put.replies[0]).app_metadata
    assert messages.DoPutPreparedStatementResult.FromString(result).prepared_statement_handle == handle
    assert flight.engine.requests[-1].parameters == batch


def test_too_many_parameters_are_refused_while_they_arrive(flight: FlightHarness) -> None:
    handle = _prepare(flight, "echo ?")
    descriptor = messages.FlightDescriptor.FromString(
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    )
    frames = [
        messages.FlightData(flight_descriptor=descriptor).SerializeToString(),
        *[messages.FlightData(app_metadata=bytes(1024 * 1024)).SerializeToString()] * 8,
    ]

    answer = flight.call(FLIGHT + "DoPut", *frames)

    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(answer.error) is ResourcesExhausted


def test_flight_info_of_a_prepared_statement_names_it(flight: FlightHarness) -> None:
    handle = _prepare(flight, "words")

    answer = flight.call(
        FLIGHT + "GetFlightInfo",
        descriptor_bytes(messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)),
    )

    info = messages.FlightInfo.FromString(answer.replies[0])
    assert info.endpoint[0].ticket.ticket == prepared_ticket(handle)


def test_each_query_leaves_one_audit_line(flight: FlightHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")
    tags = (("x-client-type", "python"), ("x-client-notebook", "a.ipynb"))

    flight.query("numbers", metadata=(*ALICE, *tags))
    handle = _prepare(flight, "words")
    flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))
    flight.query("wrong\u2028\n")

    records = [json.loads(line) for line in caplog.messages]
    assert [(record["sql"], record["status"]) for record in records] == [
        ("numbers", "ok"),
        ("words", "ok"),
        ("wrong\u2028\n", "error"),
    ]
    assert (records[0]["client"], records[0]["notebook"], records[0]["user"]) == ("python", "a.ipynb", "alice")
    assert (records[0]["client_ip"], records[0]["output_rows"]) == ("127.0.0.1", 3)
    assert all("\n" not in line and "\u2028" not in line for line in caplog.messages)


def test_a_handshake_hands_the_password_back_as_a_bearer(flight: FlightHarness) -> None:
    answer = flight.call(FLIGHT + "Handshake", metadata=(("authorization", "Basic YTphbGljZQ=="),))

    assert (answer.code, answer.initial["authorization"]) == (grpc.StatusCode.OK, "Bearer alice")
