"""What goes over the wire, call by call, seen by a raw gRPC client."""

import json
import logging
import re
from dataclasses import replace

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.client.commands import parse_server_identity
from micromegas_jupyter.errors import (
    InvalidStatement,
    PermissionDenied,
    ResourcesExhausted,
    StatementRefused,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.flightsql.commands import messages, pack_any, prepared_ticket
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import (
    ALICE,
    BOB,
    FAILS_LATE,
    FLIGHT,
    HUGE,
    NUMBERS,
    WORDS,
    action_bytes,
    descriptor_bytes,
    prepare,
    rows_of,
    running_server,
    ticket_bytes,
)

pytestmark = pytest.mark.integration

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


NUMBERS_SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])
WRONG = "SELECT tagret FROM log_entries"


@pytest.mark.parametrize(
    ("sql", "code", "kind"),
    [
        (WRONG, grpc.StatusCode.INVALID_ARGUMENT, InvalidStatement),
        (FAILS_LATE, grpc.StatusCode.INVALID_ARGUMENT, InvalidStatement),
        ("DROP TABLE log_entries", grpc.StatusCode.INVALID_ARGUMENT, StatementRefused),
        (
            "SELECT msg FROM log_entries TABLESAMPLE (10)",
            grpc.StatusCode.UNIMPLEMENTED,
            UnsupportedStatement,
        ),
        (HUGE, grpc.StatusCode.RESOURCE_EXHAUSTED, ResourcesExhausted),
    ],
)
def test_an_error_arrives_with_its_class_and_nothing_of_the_server(flight, sql, code, kind):
    answer = flight.query(sql)

    assert answer.code is code
    assert type(answer.error) is kind
    assert answer.error is not None
    assert UUID.fullmatch(answer.error.query_id or "")
    assert answer.initial["x-micromegas-query-id"] == answer.error.query_id
    assert not re.search(r"Traceback|secret|\.py|\.rs|/srv", answer.text)
    if sql == WRONG:
        assert (answer.error.line, answer.error.column) == (1, 8)


def test_flight_info_has_the_exact_schema_and_one_endpoint_without_location(flight):
    answer = flight.call(FLIGHT + "GetFlightInfo", descriptor_bytes(messages.CommandStatementQuery(query=NUMBERS)))

    info = messages.FlightInfo.FromString(answer.replies[0])
    (endpoint,) = info.endpoint
    assert pa.ipc.read_schema(pa.py_buffer(info.schema)) == NUMBERS_SCHEMA
    assert list(endpoint.location) == []
    assert flight.call(FLIGHT + "DoGet", ticket_bytes(endpoint.ticket.ticket)).replies == flight.query(NUMBERS).replies
    assert (info.total_records, info.total_bytes) == (-1, -1)
    assert UUID.fullmatch(str(answer.initial["x-micromegas-query-id"]))


def test_polling_a_flight_finds_it_complete(flight):
    answer = flight.call(FLIGHT + "PollFlightInfo", descriptor_bytes(messages.CommandStatementQuery(query=NUMBERS)))

    found = messages.PollInfo.FromString(answer.replies[0])
    assert (found.HasField("flight_descriptor"), found.progress) == (False, 1.0)
    assert pa.ipc.read_schema(pa.py_buffer(found.info.schema)) == NUMBERS_SCHEMA


@pytest.mark.parametrize("is_packed", [False, True])
def test_session_options_are_answered_bare_and_in_any(flight, is_packed):
    request = messages.SetSessionOptionsRequest(
        session_options={"catalog": messages.SessionOptionValue(string_value="other")}
    )
    body = pack_any(request) if is_packed else request.SerializeToString()

    answer = flight.call(FLIGHT + "DoAction", action_bytes("SetSessionOptions", body))

    result = messages.SetSessionOptionsResult.FromString(messages.Result.FromString(answer.replies[0]).body)
    assert {name: error.value for name, error in result.errors.items()} == {"catalog": 2}


@pytest.mark.parametrize(
    ("headers", "kind"),
    [((), pa.string()), ((("preserve_dictionary", "true"),), pa.dictionary(pa.int32(), pa.string()))],
)
def test_get_schema_is_exact(flight, headers, kind):
    command = messages.CommandStatementQuery(query="SELECT exe FROM log_entries")

    answer = flight.call(FLIGHT + "GetSchema", descriptor_bytes(command), metadata=(*ALICE, *headers))
    rows = rows_of(flight.query(command.query, metadata=(*ALICE, *headers)))

    schema = pa.ipc.read_schema(pa.py_buffer(messages.SchemaResult.FromString(answer.replies[0]).schema))
    assert schema == rows.schema == pa.schema([pa.field("exe", kind, nullable=False)])


def test_a_bare_ticket_runs_its_sql(flight):
    bare = messages.TicketStatementQuery(statement_handle=NUMBERS.encode()).SerializeToString()

    answer = flight.call(FLIGHT + "DoGet", ticket_bytes(bare))

    assert (answer.code, len(answer.replies)) == (grpc.StatusCode.OK, 2)


def test_headers_cut_what_is_read(flight):
    within = (("query_range_begin", "2026-11-24T12:10:00Z"), ("query_range_end", "2026-11-24T13:10:00Z"))
    sql = "SELECT time FROM log_entries ORDER BY time"

    cut = rows_of(flight.query(sql, metadata=(*ALICE, *within)))
    limited = rows_of(flight.query(sql, metadata=(*ALICE, *within, ("limit", "2"))))

    assert [time.strftime("%H:%M") for time in cut["time"].to_pylist()] == ["12:15", "12:30", "12:45", "13:00"]
    assert limited == cut.slice(0, 2)


def test_a_bad_header_is_refused(flight):
    answer = flight.query(NUMBERS, metadata=(*ALICE, ("limit", "many")))

    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert type(answer.error) is UsageError


def test_naming_another_user_is_refused_and_recorded(flight, caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")

    answer = flight.query(NUMBERS, metadata=(*BOB, ("x-user-id", "alice")))

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert type(answer.error) is PermissionDenied
    (event,) = [
        json.loads(record.message) for record in caplog.records if record.name == "micromegas_jupyter.audit.access"
    ]
    assert (event["outcome"], event["reason"], event["code"]) == ("forbidden", "impersonation", "AUTH020")
    assert (event["subject"], event["client_ip"], event["method"]) == ("bob", "127.0.0.1", FLIGHT + "DoGet")
    assert event["query_id"] == answer.error.query_id


def test_identity_headers_change_nothing(flight):
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
        "groups": [],
        "group_count": 0,
        "reads_nothing": False,
    }


def test_the_server_names_the_callers_groups_as_many_as_a_client_reads():
    validator = FakeValidator()
    groups = tuple(f"\N{GREEK SMALL LETTER ALPHA}{'x' * 50}{number}" for number in range(256))
    validator.known["alice"] = replace(validator.known["alice"], groups=groups)

    with running_server(validator=validator) as flight:
        answer = flight.call(FLIGHT + "DoAction", action_bytes("MicromegasWhoAmI"), metadata=ALICE)

    identity = parse_server_identity(messages.Result.FromString(answer.replies[0]).body)
    assert identity.group_count == 256
    assert identity.groups == groups[: len(identity.groups)]
    assert len(identity.groups) > 50


def test_s14_identity_headers_change_nothing_with_authentication_off():
    sent = (
        ("x-auth-subject", "root"),
        ("x-auth-email", "root@example.com"),
        ("x-auth-issuer", "https://id.example"),
        ("x-auth-is-admin", "false"),
        ("x-allow-delegation", "false"),
    )

    with running_server(is_open=True) as flight:
        with_headers = flight.call(FLIGHT + "DoAction", action_bytes("MicromegasWhoAmI"), metadata=sent)
        without = flight.call(FLIGHT + "DoAction", action_bytes("MicromegasWhoAmI"), metadata=())

    assert with_headers.replies == without.replies
    assert json.loads(messages.Result.FromString(without.replies[0]).body)["is_admin"] is True


def test_without_authentication_everyone_is_the_same_administrator():
    with running_server(is_open=True) as flight:
        answer = flight.call(
            FLIGHT + "DoAction", action_bytes("MicromegasWhoAmI"), metadata=(("x-auth-subject", "root"),)
        )

    described = json.loads(messages.Result.FromString(answer.replies[0]).body)
    assert (described["subject"], described["auth_type"], described["is_admin"]) == ("anonymous", "none", True)


def test_actions_are_listed(flight):
    answer = flight.call(FLIGHT + "ListActions", b"")

    names = [messages.ActionType.FromString(reply).type for reply in answer.replies]
    assert names == [
        "CreatePreparedStatement",
        "ClosePreparedStatement",
        "CancelFlightInfo",
        "CancelQuery",
        "RenewFlightEndpoint",
        "GetSessionOptions",
        "SetSessionOptions",
        "CloseSession",
        "MicromegasWhoAmI",
    ]


def test_each_query_leaves_one_audit_line(flight, caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")
    tags = (("x-client-type", "python"), ("x-client-notebook", "a.ipynb"))

    flight.query(NUMBERS, metadata=(*ALICE, *tags))
    handle = prepare(flight, WORDS)
    flight.call(FLIGHT + "DoGet", ticket_bytes(prepared_ticket(handle)))
    flight.query("wrong\u2028\n")

    records = [json.loads(line) for line in caplog.messages]
    assert [(record["sql"], record["status"]) for record in records] == [
        (NUMBERS, "ok"),
        (WORDS, "ok"),
        ("wrong\u2028\n", "error"),
    ]
    assert (records[0]["client"], records[0]["notebook"], records[0]["user"]) == ("python", "a.ipynb", "alice")
    assert (records[0]["client_ip"], records[0]["output_rows"]) == ("127.0.0.1", 3)
    assert {record["credential"] for record in records} == {"2bd806c9"}  # of "alice"
    assert all("\n" not in line and "\u2028" not in line for line in caplog.messages)


def test_a_handshake_hands_the_password_back_as_a_bearer(flight):
    answer = flight.call(FLIGHT + "Handshake", metadata=(("authorization", "Basic YTphbGljZQ=="),))

    assert (answer.code, answer.initial["authorization"]) == (grpc.StatusCode.OK, "Bearer alice")
