"""What goes over the wire, call by call, seen by a raw gRPC client, pyarrow's and ADBC's; prepared statements, too."""

import json
import logging
import re
from dataclasses import replace

import adbc_driver_flightsql.dbapi
import grpc
import pyarrow as pa
import pyarrow.flight
import pytest
from adbc_driver_flightsql import DatabaseOptions

from micromegas_jupyter import errors
from micromegas_jupyter.client.commands import parse_server_identity
from micromegas_jupyter.flightsql.commands import messages, pack_any, prepared_ticket
from tests.fakes.validator import FakeValidator
from tests.integration import flight_harness as harness
from tests.integration.flight_harness import ALICE, BOB, FLIGHT, NUMBERS, prepare, result_of, rows_of, running_server

pytestmark = pytest.mark.integration

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
NUMBERS_SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])
WRONG = "SELECT tagret FROM log_entries"


@pytest.mark.parametrize(
    ("sql", "code", "kind"),
    [
        (WRONG, grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidStatement),
        (harness.FAILS_LATE, grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidStatement),
        ("DROP TABLE log_entries", grpc.StatusCode.INVALID_ARGUMENT, errors.StatementRefused),
        ("SELECT msg FROM log_entries TABLESAMPLE (10)", grpc.StatusCode.UNIMPLEMENTED, errors.UnsupportedStatement),
        (harness.HUGE, grpc.StatusCode.RESOURCE_EXHAUSTED, errors.ResourcesExhausted),
    ],
)
def test_an_error_arrives_with_its_class_and_nothing_of_the_server(flight, sql, code, kind):
    answer = flight.query(sql)

    assert answer.code is code
    assert type(answer.error) is kind
    assert UUID.fullmatch(answer.error.query_id or "")
    assert answer.initial["x-micromegas-query-id"] == answer.error.query_id
    assert not re.search(r"Traceback|secret|\.py|\.rs|/srv", answer.text)
    if sql == WRONG:
        assert (answer.error.line, answer.error.column) == (1, 8)


def test_flight_info_has_the_exact_schema_and_one_endpoint_without_location(flight):
    command = messages.CommandStatementQuery(query=NUMBERS)
    info = flight.info(command)
    polled = flight.call("PollFlightInfo", harness.descriptor_bytes(command))

    (endpoint,) = info.endpoint
    assert pa.ipc.read_schema(pa.py_buffer(info.schema)) == NUMBERS_SCHEMA
    assert list(endpoint.location) == []
    assert flight.get(endpoint.ticket.ticket).replies == flight.query(NUMBERS).replies
    assert (info.total_records, info.total_bytes) == (-1, -1)
    found = messages.PollInfo.FromString(polled.replies[0])
    assert (found.HasField("flight_descriptor"), found.progress, found.info.schema) == (False, 1.0, info.schema)
    assert UUID.fullmatch(str(polled.initial["x-micromegas-query-id"]))


@pytest.mark.parametrize(
    ("headers", "kind"),
    [((), pa.string()), ((("preserve_dictionary", "true"),), pa.dictionary(pa.int32(), pa.string()))],
)
def test_get_schema_is_exact(flight, headers, kind):
    command = messages.CommandStatementQuery(query="SELECT exe FROM log_entries")

    answer = flight.call("GetSchema", harness.descriptor_bytes(command), metadata=(*ALICE, *headers))
    rows = rows_of(flight.query(command.query, metadata=(*ALICE, *headers)))

    schema = pa.ipc.read_schema(pa.py_buffer(messages.SchemaResult.FromString(answer.replies[0]).schema))
    assert schema == rows.schema == pa.schema([pa.field("exe", kind, nullable=False)])


def test_a_bare_ticket_runs_its_sql(flight):
    bare = messages.TicketStatementQuery(statement_handle=NUMBERS.encode()).SerializeToString()

    answer = flight.get(bare)

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
    assert type(answer.error) is errors.UsageError


def test_naming_another_user_is_refused_and_recorded(flight, caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")

    answer = flight.query(NUMBERS, metadata=(*BOB, ("x-user-id", "alice")))

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert type(answer.error) is errors.PermissionDenied
    (event,) = [
        json.loads(record.message) for record in caplog.records if record.name == "micromegas_jupyter.audit.access"
    ]
    assert (event["outcome"], event["reason"], event["code"]) == ("forbidden", "impersonation", "AUTH020")
    assert (event["subject"], event["client_ip"], event["method"]) == ("bob", "127.0.0.1", FLIGHT + "DoGet")
    assert event["query_id"] == answer.error.query_id


def test_identity_headers_change_nothing(flight):
    sent = (("x-auth-subject", "alice"), ("x-auth-is-admin", "true"))

    answer = flight.act("MicromegasWhoAmI", metadata=(*BOB, *sent))

    nothing = dict.fromkeys(("name", "email", "expires_at")) | {"groups": [], "group_count": 0, "reads_nothing": False}
    who = {"subject": "bob", "issuer": "https://id.example", "auth_type": "oidc", "is_admin": False}
    assert json.loads(result_of(answer)) == who | nothing


def test_the_server_names_the_callers_groups_as_many_as_a_client_reads():
    validator = FakeValidator()
    groups = tuple(f"\N{GREEK SMALL LETTER ALPHA}{'x' * 50}{number}" for number in range(256))
    validator.known["alice"] = replace(validator.known["alice"], groups=groups)

    with running_server(validator=validator) as flight:
        identity = parse_server_identity(result_of(flight.act("MicromegasWhoAmI")))

    assert identity.group_count == 256
    assert identity.groups == groups[: len(identity.groups)]
    assert len(identity.groups) > 50


def test_without_authentication_everyone_is_the_same_administrator():
    sent = (("x-auth-subject", "root"), ("x-auth-email", "root@example.com"), ("x-auth-is-admin", "false"))
    with running_server(is_open=True) as flight:
        answer, without = (flight.act("MicromegasWhoAmI", metadata=headers) for headers in (sent, ()))

    assert answer.replies == without.replies
    described = json.loads(result_of(answer))
    assert (described["subject"], described["auth_type"], described["is_admin"]) == ("anonymous", "none", True)


def test_actions_are_listed(flight):
    names = [messages.ActionType.FromString(reply).type for reply in flight.call("ListActions", b"").replies]

    assert names == [
        "CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo", "CancelQuery", "RenewFlightEndpoint",
        "GetSessionOptions", "SetSessionOptions", "CloseSession", "MicromegasWhoAmI", "MicromegasQueries",
        "MicromegasTables", "MicromegasKeys", "MicromegasCutOff",
    ]  # fmt: skip


def test_each_query_leaves_one_audit_line(flight, caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")
    tags = (("x-client-type", "python"), ("x-client-notebook", "a.ipynb"))

    flight.query(NUMBERS, metadata=(*ALICE, *tags))
    flight.get(prepared_ticket(prepare(flight, harness.WORDS)))
    flight.query("wrong\u2028\n")

    records = [json.loads(line) for line in caplog.messages]
    statements = [(record["sql"], record["status"]) for record in records]
    assert statements == [(NUMBERS, "ok"), (harness.WORDS, "ok"), ("wrong\u2028\n", "error")]
    assert (records[0]["client"], records[0]["notebook"], records[0]["user"]) == ("python", "a.ipynb", "alice")
    assert (records[0]["client_ip"], records[0]["output_rows"]) == ("127.0.0.1", 3)
    assert {record["credential"] for record in records} == {"2bd806c9"}  # of "alice"
    assert all("\n" not in line and "\u2028" not in line for line in caplog.messages)


OPTIONS = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer alice")], timeout=60)


@pytest.fixture
def adbc(flight):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice"}
    with adbc_driver_flightsql.dbapi.connect(flight.uri, db_kwargs=options, autocommit=True) as connection:
        yield connection


def test_pyarrow_follows_flight_info_to_the_rows(flight):
    descriptor = pyarrow.flight.FlightDescriptor.for_command(
        pack_any(messages.CommandStatementQuery(query=harness.WORDS))
    )

    with pyarrow.flight.connect(flight.uri) as client:
        info = client.get_flight_info(descriptor, OPTIONS)
        table = client.do_get(info.endpoints[0].ticket, OPTIONS).read_all()

    assert info.schema == table.schema
    assert table["word"].to_pylist() == ["a", "b", "a"]


def test_pyarrow_exchanges_a_password(flight):
    with pyarrow.flight.connect(flight.uri) as client:
        assert client.authenticate_basic_token("anybody", "alice") == (b"authorization", b"Bearer alice")


def test_adbc_describes_the_database(adbc):
    (catalog,) = adbc.adbc_get_objects(depth="tables").read_all().to_pylist()

    (schema,) = catalog["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["log_entries", "processes"]
    assert adbc.adbc_get_table_schema("processes").names == ["process_id", "start_time", "last_update_time"]
    assert adbc.adbc_get_table_types() == ["table"]
    assert adbc.adbc_get_info()["vendor_name"] == "micromegas_jupyter"


ECHO = "SELECT ? AS n"


def test_a_prepared_statement_is_its_callers_alone(flight):
    ticket = prepared_ticket(prepare(flight, NUMBERS))

    own, others = flight.get(ticket), flight.get(ticket, metadata=BOB)

    assert (own.code, others.code) == (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    assert type(others.error) is errors.UsageError


def test_a_closed_prepared_statement_is_unknown(flight):
    handle = prepare(flight, NUMBERS)
    body = pack_any(messages.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))

    closed = flight.act("ClosePreparedStatement", body)
    answer = flight.get(prepared_ticket(handle))

    assert closed.code is grpc.StatusCode.OK
    assert type(answer.error) is errors.UsageError


def _prepared(handle):
    return messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)


@pytest.mark.parametrize("is_first", [True, False], ids=["first handle", "new handle"])
def test_bound_parameters_are_the_statements_values(flight, is_first):
    handle = prepare(flight, ECHO)

    bound = harness.bind(flight, handle, pa.record_batch({"0": pa.array([41, None], pa.int64())}))
    answer = flight.get(prepared_ticket(handle if is_first else bound))

    assert rows_of(answer)["n"].to_pylist() == [41, None]


@pytest.mark.parametrize(("sql", "name"), [("SELECT ? AS n", "$1"), ("SELECT $m AS n", "$1"), ("SELECT $m AS n", "x")])
def test_a_single_value_is_bound_by_position_if_its_name_does_not_match(flight, sql, name):
    bound = harness.bind(flight, prepare(flight, sql), pa.record_batch({name: [41]}))

    assert rows_of(flight.get(prepared_ticket(bound)))["n"].to_pylist() == [41]


@pytest.mark.parametrize("size", [1, 100_000], ids=["few values", "large values"])
def test_a_flight_of_a_prepared_statement_has_its_values(flight, size):
    bound = harness.bind(flight, prepare(flight, ECHO), pa.record_batch({"0": ["x" * size]}))

    rows = rows_of(flight.get(flight.info(_prepared(bound)).endpoint[0].ticket.ticket))

    assert rows["n"].to_pylist() == ["x" * size]


def test_headers_act_on_prepared_statements(flight):
    handle = prepare(flight, "SELECT exe, time FROM log_entries ORDER BY time")
    within = (("query_range_begin", "2026-11-24T12:10:00Z"), ("query_range_end", "2026-11-24T12:50:00Z"))
    metadata = (*ALICE, *within, ("limit", "2"), ("preserve_dictionary", "true"))

    info = flight.info(_prepared(handle), metadata=metadata)
    rows = rows_of(flight.get(prepared_ticket(handle), metadata=metadata))
    refused = flight.get(prepared_ticket(handle), metadata=(*ALICE, ("x-user-id", "bob")))

    assert pa.ipc.read_schema(pa.py_buffer(info.schema)) == rows.schema
    assert rows.schema.field("exe").type == pa.dictionary(pa.int32(), pa.string())
    assert [time.strftime("%H:%M") for time in rows["time"].to_pylist()] == ["12:15", "12:30"]
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


def test_too_many_parameters_are_refused_while_they_arrive(flight):
    opening = harness.opening_frame(_prepared(prepare(flight, ECHO)))

    answer = flight.call("DoPut", opening, *[messages.FlightData(app_metadata=bytes(1 << 20)).SerializeToString()] * 8)

    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(answer.error) is errors.ResourcesExhausted
