"""Commands survive the way through `Any`, and nothing else is taken for one."""

from typing import Any

import pytest
from google.protobuf import any_pb2

from micromegas_jupyter.errors import StatementRefused, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import commands, messages


def _descriptor(message: object) -> object:
    return messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=commands.pack_any(message))


def test_a_statement_ticket_is_what_upstreams_client_sends() -> None:
    ticket = commands.statement_ticket("SELECT 1")

    assert ticket == (b"\n\x42type.googleapis.com/arrow.flight.protocol.sql.TicketStatementQuery\x12\n\n\x08SELECT 1")


def test_a_ticket_in_any_holds_a_statement() -> None:
    assert commands.parse_ticket(commands.statement_ticket("SELECT 'é'")) == commands.StatementQuery(sql="SELECT 'é'")


def test_a_bare_ticket_holds_a_statement() -> None:
    bare = messages.TicketStatementQuery(statement_handle=b"SELECT 1").SerializeToString()

    assert commands.parse_ticket(bare) == commands.StatementQuery(sql="SELECT 1")


def test_a_prepared_ticket_holds_its_handle() -> None:
    assert commands.parse_ticket(commands.prepared_ticket(b"\x00\xff")) == commands.PreparedQuery(handle=b"\x00\xff")


@pytest.mark.parametrize(
    "data",
    [b"", b"SELECT 1", b"\x0a\x00", b"\x0a\x7fshort", b"\x0a\x03abc\x12\x01x", b"\xff" * 40],
    ids=["empty", "plain text", "no handle", "cut off", "a second field", "noise"],
)
def test_other_bytes_are_no_ticket(data: bytes) -> None:
    with pytest.raises(UsageError):
        commands.parse_ticket(data)


def test_sql_that_is_not_utf8_is_refused() -> None:
    ticket = commands.pack_any(messages.TicketStatementQuery(statement_handle=b"SELECT '\xff'"))

    with pytest.raises(UsageError):
        commands.parse_ticket(ticket)


def test_a_statement_descriptor_holds_a_statement() -> None:
    descriptor = _descriptor(messages.CommandStatementQuery(query="SELECT 1"))

    assert commands.parse_descriptor(descriptor) == commands.StatementQuery(sql="SELECT 1")


def test_a_tables_descriptor_tells_absent_from_empty() -> None:
    descriptor = _descriptor(messages.CommandGetTables(catalog="", table_name_filter_pattern="log%"))

    command = commands.parse_descriptor(descriptor)

    assert isinstance(command, commands.MetadataQuery)
    assert command.name == "CommandGetTables"
    fields = ("catalog", "db_schema_filter_pattern", "table_name_filter_pattern")
    assert [command.optional(field) for field in fields] == ["", None, "log%"]


@pytest.mark.parametrize(
    "message",
    [
        messages.CommandGetSqlInfo(info=[8, 508]),
        messages.CommandGetCatalogs(),
        messages.CommandGetDbSchemas(db_schema_filter_pattern="%"),
        messages.CommandGetTableTypes(),
        messages.CommandGetPrimaryKeys(table="t"),
        messages.CommandGetExportedKeys(table="t"),
        messages.CommandGetImportedKeys(table="t"),
        messages.CommandGetCrossReference(pk_table="p", fk_table="f"),
        messages.CommandGetXdbcTypeInfo(data_type=0),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_the_metadata_commands_are_read(message: Any) -> None:
    command = commands.parse_descriptor(_descriptor(message))

    assert command == commands.MetadataQuery(name=message.DESCRIPTOR.name, message=message)


def test_a_prepared_descriptor_holds_its_handle() -> None:
    descriptor = _descriptor(messages.CommandPreparedStatementQuery(prepared_statement_handle=b"h"))

    assert commands.parse_descriptor(descriptor) == commands.PreparedQuery(handle=b"h")


def test_an_ingest_command_is_not_offered() -> None:
    with pytest.raises(UnsupportedRequest, match="CommandStatementIngest"):
        commands.parse_descriptor(_descriptor(messages.CommandStatementIngest(table="processes")))


def test_a_name_from_the_wire_cannot_break_out_of_the_sentence() -> None:
    envelope = any_pb2.Any(type_url="x/arrow.flight.protocol.sql.A\nB\u2028" + "C" * 500)
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())

    with pytest.raises(UnsupportedRequest) as caught:
        commands.parse_descriptor(descriptor)

    assert caught.value.what == "This server does not offer A?B?" + "C" * 76 + "."


def test_a_path_descriptor_is_not_offered() -> None:
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.PATH, path=["etc", "passwd"])

    with pytest.raises(UnsupportedRequest):
        commands.parse_descriptor(descriptor)


def test_a_descriptor_without_flight_sql_is_refused() -> None:
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=b"SELECT 1")

    with pytest.raises(UsageError):
        commands.parse_descriptor(descriptor)


def test_an_action_body_must_hold_the_expected_message() -> None:
    body = commands.pack_any(messages.ActionCreatePreparedStatementRequest(query="SELECT 1"))

    read = commands.parse_action_body(messages.ActionCreatePreparedStatementRequest, body)

    assert read.query == "SELECT 1"
    with pytest.raises(UsageError):
        commands.parse_action_body(messages.ActionClosePreparedStatementRequest, body)


def test_a_metadata_command_that_is_cut_off_is_refused() -> None:
    envelope = any_pb2.Any(type_url="x/arrow.flight.protocol.sql.CommandGetTables", value=b"\x0a\x7f")
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())

    with pytest.raises(UsageError, match="not a valid CommandGetTables"):
        commands.parse_descriptor(descriptor)


def test_a_statement_of_a_transaction_is_refused() -> None:
    with pytest.raises(UnsupportedRequest, match="autocommit"):
        commands.parse_descriptor(_descriptor(messages.CommandStatementQuery(query="SELECT 1", transaction_id=b"t")))


@pytest.mark.parametrize("name", ["CommandStatementUpdate", "CommandPreparedStatementUpdate"])
def test_an_update_is_refused_with_what_to_do(name: str) -> None:
    envelope = any_pb2.Any(type_url=f"x/arrow.flight.protocol.sql.{name}")
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())

    with pytest.raises(StatementRefused, match="Run a reading statement as a query"):
        commands.parse_descriptor(descriptor)


def test_a_substrait_plan_is_not_offered() -> None:
    envelope = any_pb2.Any(type_url="x/arrow.flight.protocol.sql.CommandStatementSubstraitPlan")
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())

    with pytest.raises(UnsupportedRequest, match="Send SQL"):
        commands.parse_descriptor(descriptor)
