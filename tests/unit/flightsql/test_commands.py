"""Commands survive the way through `Any`, and nothing else is taken for one."""

import pytest
from google.protobuf import any_pb2

from micromegas_jupyter.errors import MicromegasError, StatementRefused, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import commands
from micromegas_jupyter.flightsql.commands import messages


def _descriptor(message: object) -> object:
    return messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=commands.pack_any(message))


def test_a_statement_ticket_is_what_upstreams_client_sends() -> None:
    ticket = commands.statement_ticket("SELECT 1")

    assert ticket == (b"\n\x42type.googleapis.com/arrow.flight.protocol.sql.TicketStatementQuery\x12\n\n\x08SELECT 1")


def test_a_ticket_holds_a_statement_in_any_or_bare_or_a_handle() -> None:
    bare = messages.TicketStatementQuery(statement_handle=b"SELECT 1").SerializeToString()

    assert commands.parse_ticket(commands.statement_ticket("SELECT 'é'")) == commands.StatementQuery(sql="SELECT 'é'")
    assert commands.parse_ticket(bare) == commands.StatementQuery(sql="SELECT 1")
    assert commands.parse_ticket(commands.prepared_ticket(b"\x00\xff")) == commands.PreparedQuery(handle=b"\x00\xff")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SELECT 1",
        b"\x0a\x00",
        b"\x0a\x7fshort",
        b"\x0a\x03abc\x12\x01x",
        commands.pack_any(messages.TicketStatementQuery(statement_handle=b"SELECT '\xff'")),
    ],
    ids=["empty", "plain text", "no handle", "cut off", "a second field", "not UTF-8"],
)
def test_other_bytes_are_no_ticket(data: bytes) -> None:
    with pytest.raises(UsageError):
        commands.parse_ticket(data)


def test_a_tables_descriptor_tells_absent_from_empty() -> None:
    descriptor = _descriptor(messages.CommandGetTables(catalog="", table_name_filter_pattern="log%"))

    command = commands.parse_descriptor(descriptor)

    assert isinstance(command, commands.MetadataQuery)
    assert command.name == "CommandGetTables"
    fields = ("catalog", "db_schema_filter_pattern", "table_name_filter_pattern")
    assert [command.optional(field) for field in fields] == ["", None, "log%"]


def _named(name: str, value: bytes = b"") -> object:
    envelope = any_pb2.Any(type_url=f"x/arrow.flight.protocol.sql.{name}", value=value)
    return messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())


@pytest.mark.parametrize(
    ("descriptor", "kind", "text"),
    [
        (_descriptor(messages.CommandStatementIngest(table="processes")), UnsupportedRequest, "CommandStatementIngest"),
        (
            _descriptor(messages.CommandStatementQuery(query="SELECT 1", transaction_id=b"t")),
            UnsupportedRequest,
            "auto",
        ),
        (_named("CommandStatementUpdate"), StatementRefused, "not executemany"),
        (_named("CommandStatementSubstraitPlan"), UnsupportedRequest, "Send SQL"),
        (_named("CommandGetTables", b"\x0a\x7f"), UsageError, "not a valid CommandGetTables"),
        (_named("A\nB\u2028" + "C" * 500), UnsupportedRequest, "does not offer A[?]B[?]" + "C" * 76 + "[.]"),
        (
            messages.FlightDescriptor(type=messages.FlightDescriptor.PATH, path=["etc", "passwd"]),
            UnsupportedRequest,
            "paths are not offered",
        ),
        (messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=b"SELECT 1"), UsageError, "not hold"),
    ],
    ids=["ingest", "transaction", "update", "Substrait", "cut off", "hostile name", "path", "SQL"],
)
def test_another_descriptor_is_refused_with_what_to_do(
    descriptor: object, kind: type[MicromegasError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        commands.parse_descriptor(descriptor)

    assert type(caught.value) is kind
