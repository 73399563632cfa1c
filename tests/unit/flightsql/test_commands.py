"""Commands and errors survive the wire, and nothing else is taken for one."""

import importlib
import json

import pytest
from google.protobuf import any_pb2, descriptor_pb2

from micromegas_jupyter import errors
from micromegas_jupyter.flightsql import commands
from micromegas_jupyter.flightsql.commands import decode_error, descriptor_set_bytes, encode_error, messages
from tests.unit.flightsql.compile_descriptors import compile_descriptors


def _descriptor(message):
    return messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=commands.pack_any(message))


def test_a_ticket_is_what_upstreams_client_sends_or_a_bare_statement_or_a_handle():
    sent = b"\n\x42type.googleapis.com/arrow.flight.protocol.sql.TicketStatementQuery\x12\n\n\x08SELECT 1"
    bare = messages.TicketStatementQuery(statement_handle=b"SELECT 1").SerializeToString()

    assert commands.statement_ticket("SELECT 1") == sent
    assert commands.parse_ticket(sent) == commands.parse_ticket(bare) == commands.StatementQuery(sql="SELECT 1")
    assert commands.parse_ticket(commands.prepared_ticket(b"\x00\xff")) == commands.PreparedQuery(handle=b"\x00\xff")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"SELECT 1", b"\x0a\x00", b"\x0a\x7fshort", b"\x0a\x03abc\x12\x01x",
        commands.pack_any(messages.TicketStatementQuery(statement_handle=b"SELECT '\xff'")),
    ],
    ids=["empty", "plain text", "no handle", "cut off", "a second field", "not UTF-8"],
)  # fmt: skip
def test_other_bytes_are_no_ticket(data):
    with pytest.raises(errors.UsageError):
        commands.parse_ticket(data)


def _named(name, value=b""):
    envelope = any_pb2.Any(type_url=f"x/arrow.flight.protocol.sql.{name}", value=value)
    return messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())


@pytest.mark.parametrize(
    ("descriptor", "kind", "text"),
    [
        (_descriptor(messages.CommandStatementIngest(table="processes")),
         errors.UnsupportedRequest, "CommandStatementIngest"),
        (_descriptor(messages.CommandStatementQuery(query="SELECT 1", transaction_id=b"t")),
         errors.UnsupportedRequest, "auto"),
        (_named("CommandStatementUpdate"), errors.StatementRefused, "not executemany"),
        (_named("CommandStatementSubstraitPlan"), errors.UnsupportedRequest, "Send SQL"),
        (_named("CommandGetTables", b"\x0a\x7f"), errors.UsageError, "not a valid CommandGetTables"),
        (_named("A\nB\u2028" + "C" * 500), errors.UnsupportedRequest, "does not offer A[?]B[?]" + "C" * 76 + "[.]"),
        (messages.FlightDescriptor(type=messages.FlightDescriptor.PATH, path=["etc", "passwd"]),
         errors.UnsupportedRequest, "Paths aren't supported"),
        (messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=b"SELECT 1"), errors.UsageError,
         "not contain"),
    ],
    ids=["ingest", "transaction", "update", "Substrait", "cut off", "hostile name", "path", "SQL"],
)  # fmt: skip
def test_another_descriptor_is_refused_with_what_to_do(descriptor, kind, text):
    with pytest.raises(kind, match=text) as caught:
        commands.parse_descriptor(descriptor)

    assert type(caught.value) is kind


def test_the_committed_descriptor_set_fits_the_proto_files():
    committed = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_bytes())

    fresh = descriptor_pb2.FileDescriptorSet.FromString(compile_descriptors())

    assert committed == fresh


def test_every_flight_sql_field_has_the_number_and_type_that_upstream_has():
    upstream = importlib.import_module("micromegas.flightsql.FlightSql_pb2")
    committed = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_bytes())
    (ours,) = [file for file in committed.file if file.package == "arrow.flight.protocol.sql"]
    theirs = descriptor_pb2.FileDescriptorProto()
    upstream.DESCRIPTOR.CopyToProto(theirs)
    their_messages = {message.name: message for message in theirs.message_type}
    their_messages["TableDefinitionOptions"] = their_messages["CommandStatementIngest"].nested_type[0]

    def facts(message):
        return {(field.name, field.number, field.type, field.label) for field in message.field}

    for message in ours.message_type:
        assert facts(message) == facts(their_messages[message.name]), message.name


_ERROR = errors.InvalidStatement('No column "no_such".', line=1, column=14, query_id="7f3a91c2")


def _details(**changes):
    fields = {"code": "SQL001", "what": "No table.", "remedy": "Correct it.", **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def test_an_error_is_written_as_compact_json_without_the_reason_that_is_for_the_audit():
    assert b"expired" not in encode_error(errors.Rejected(reason="expired"))
    assert encode_error(_ERROR) == (
        b'{"code":"SQL001","what":"No column \\"no_such\\".","remedy":"Correct the statement.",'
        b'"query_id":"7f3a91c2","line":1,"column":14}'
    )


@pytest.mark.parametrize("seconds", [None, 0.0, 86_401.0, float("nan")])
def test_a_delay_that_is_none_is_not_sent(seconds):
    assert b"retry" not in encode_error(errors.ResourcesExhausted("Too often.", retry_after_seconds=seconds))


@pytest.mark.parametrize("character", ["x", "é"])
def test_a_long_sentence_and_remedy_are_cut_to_their_bounds(character):
    written = encode_error(errors.InvalidStatement(character * 9000, remedy="wait " * 1000, line=3, query_id="q"))

    found = decode_error(written)
    assert commands.MAX_DETAILS_BYTES - 8 < len(written) <= commands.MAX_DETAILS_BYTES
    assert (type(found), found.line, len(found.remedy)) == (errors.InvalidStatement, 3, 512)
    assert found.what.endswith(character + " …")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("a\x1b[31mb", "a\ufffd[31mb"), ("a\rb", "a\ufffdb"), ("a\u202eb", "a\ufffdb"), ("a\nb", "a\nb")],
)
def test_what_could_steer_a_terminal_is_replaced_on_both_sides(sent, shown):
    for written in (encode_error(errors.InvalidStatement(sent)), _details(what=sent)):
        assert decode_error(written).what == shown


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe", b"[]", _details(code="SQL999"), _details(what=None), _details(remedy=["a"]),
        _details(query_id="a b"), _details(line=0), _details(line=True), _details(column=2**31),
        _details(correction=[1, 1, -1, "x"]), _details(correction=[1, 1, 0, "x" * 201]), _details(correction=[1, 1, 0]),
        _details(code="SQL004", retry_after_seconds=True), _details(code="SQL004", retry_after_seconds=86_401),
        _details(nested=[[[1]]]), b'{"code":"SQL001","code":"SQL002","what":"","remedy":""}',
        _details(what="x" * commands.MAX_DETAILS_BYTES),
    ],
)  # fmt: skip
def test_anything_else_is_no_error(data):
    assert decode_error(data) is None


def test_a_status_text_holds_sentence_remedy_code_place_and_id():
    text = commands.status_text(_ERROR)

    assert text == 'No column "no_such". Correct the statement. [SQL001] (line 1, column 14) (query_id=7f3a91c2)'
    assert commands.status_text(errors.InvalidStatement("No.", remedy="", line=4)) == "No. [SQL001] (line 4)"


@pytest.mark.parametrize("text", ["Table not found", "No [SQL999]", "[sql001]"])
def test_what_a_library_appends_is_dropped_and_a_text_without_a_known_code_is_no_error(text):
    assert commands.parse_status_text(text) is None
    found = commands.parse_status_text("Too much. Use LIMIT. [SQL004] (query_id=ab-1); ExecuteQuery {grpc_status:8}")

    assert isinstance(found, errors.ResourcesExhausted)
    assert str(found) == "Too much. Use LIMIT."
    # This one is of the caller's SQL.
    assert isinstance(commands.parse_status_text('No column "[AUTH001]". [SQL001]'), errors.InvalidStatement)
    assert found.query_id == "ab-1"
