"""Prepared statements, rows that are sent, and the list of tables."""

import threading

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InternalError, UnsupportedRequest
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.telemetry.tables import MEASURES, PROCESSES, REMARKS_KEY
from tests.fakes.flight_server import SMALL_TABLE, fail_plainly, results, rows
from tests.integration.client.conftest import FixedToken
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration


def _preparing(fake_server, **fields):
    created = messages.ActionCreatePreparedStatementResult(prepared_statement_handle=b"h", **fields)
    fake_server.answers["DoAction:CreatePreparedStatement"] = results(pack_any(created))
    fake_server.answers["DoAction:ClosePreparedStatement"] = results()


def test_a_statement_is_prepared_for_its_schema_and_closed(client, fake_server):
    _preparing(fake_server, dataset_schema=SMALL_TABLE.schema.serialize().to_pybytes())

    statement = client.prepare_statement("SELECT n FROM t")
    streamed = list(client.prepared_statement_stream(statement))

    assert statement.query == "SELECT n FROM t"
    assert statement.dataset_schema == SMALL_TABLE.schema
    assert len(statement.parameter_schema) == 0
    assert pa.Table.from_batches(streamed) == SMALL_TABLE
    assert [call.method for call in fake_server.calls] == ["DoAction", "DoAction", "DoGet"]


def _binding(fake_server, put, *endpoints):
    """Let the server prepare, bind (answering `put`) and plan to the given tickets."""
    info = messages.FlightInfo(
        flight_descriptor=messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=b"x"),
        endpoint=[messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket)) for ticket in endpoints],
    )
    _preparing(fake_server)
    fake_server.answers["DoPut"] = lambda _call: iter([messages.PutResult(app_metadata=put).SerializeToString()])
    fake_server.answers["GetFlightInfo"] = lambda _call: iter([info.SerializeToString()])


def test_a_bound_query_follows_the_protocol_and_the_servers_new_handle(client, fake_server):
    closed_on_server = threading.Event()

    def close(_call):
        closed_on_server.set()
        return iter(())

    renewed = messages.DoPutPreparedStatementResult(prepared_statement_handle=b"h2").SerializeToString()
    _binding(fake_server, renewed, b"t")
    fake_server.answers["DoAction:ClosePreparedStatement"] = close

    frame = client.query("SELECT :a", begin="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z", params={"a": 1})

    assert closed_on_server.wait(30)
    planned, fetched, closed = fake_server.calls[2:]
    assert frame["n"].tolist() == [1, 2, 3]
    assert [call.method for call in fake_server.calls] == ["DoAction", "DoPut", "GetFlightInfo", "DoGet", "DoAction"]
    assert all(call.metadata["query_range_begin"] == "2026-01-01T00:00:00+00:00" for call in fake_server.calls)
    assert planned.messages[0].cmd == pack_any(messages.CommandPreparedStatementQuery(prepared_statement_handle=b"h2"))
    assert fetched.messages[0].ticket == b"t"
    assert closed.messages[0].body == pack_any(
        messages.ActionClosePreparedStatementRequest(prepared_statement_handle=b"h2")
    )


class OneTokenPerCall:
    """A provider with another token for each call."""

    def __init__(self):
        self.count = 0
        self.invalidated = []

    def get_token(self):
        self.count += 1
        return f"t{self.count}"

    def invalidate(self, token):
        self.invalidated.append(token)


def test_each_call_of_a_bound_query_has_a_fresh_token_and_the_refused_one_is_renewed(fake_server):
    provider, seen = OneTokenPerCall(), []
    _binding(fake_server, b"", b"t")
    plan = fake_server.answers["GetFlightInfo"]

    def plan_once_refused(call):
        seen.append(call.metadata["authorization"].removeprefix("Bearer "))
        return plan(call) if len(seen) > 1 else fail_plainly("UNAUTHENTICATED")(call)

    fake_server.answers["GetFlightInfo"] = plan_once_refused
    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client:
        assert client.query("SELECT :a", params={"a": 1})["n"].tolist() == [1, 2, 3]

    tokens = [call.metadata["authorization"] for call in fake_server.calls]
    assert len(tokens) == len(set(tokens)) > 4
    assert provider.invalidated == seen[:1]


@pytest.mark.parametrize("moment", ["DoPut", "GetFlightInfo", "DoGet"])
def test_a_bound_query_that_a_retired_client_has_started_is_read_and_closed(client, fake_server, moment):
    closed_on_server = threading.Event()
    _binding(fake_server, b"", b"t")
    answer = fake_server.answers.get(moment, lambda _call: rows(SMALL_TABLE))

    def retire_first(call):
        client.close(keeps_readers=True)
        return answer(call)

    def close(_call):
        closed_on_server.set()
        return iter(())

    fake_server.answers |= {moment: retire_first, "DoAction:ClosePreparedStatement": close}

    assert client.query("SELECT :a", params={"a": 1})["n"].tolist() == [1, 2, 3]
    assert closed_on_server.wait(30)


def test_an_answer_in_several_parts_is_not_half_read(client, fake_server):
    _binding(fake_server, b"", b"t1", b"t2")

    with pytest.raises(UnsupportedRequest):
        client.query("SELECT :a", params={"a": 1})


def test_rows_are_ingested(client, fake_server):
    counted = messages.DoPutUpdateResult(record_count=3).SerializeToString()
    fake_server.answers["DoPut"] = lambda _call: iter([messages.PutResult(app_metadata=counted).SerializeToString()])

    result = client.bulk_ingest("processes", SMALL_TABLE)

    assert result.record_count == 3
    descriptor = fake_server.calls[0].messages[0].flight_descriptor
    assert descriptor.cmd == pack_any(messages.CommandStatementIngest(table="processes"))


def test_the_servers_tables_come_with_their_columns_and_remarks(tmp_path):
    with (
        running_server(tables=Lake(Storage(tmp_path))) as harness,
        FlightSQLClient(harness.uri, auth_provider=FixedToken("alice")) as client,
    ):
        tables = client.list_tables()

    assert {"log_entries", "measures", "processes", "streams"} <= set(tables)
    assert tables["measures"].field("value").type == pa.float64()
    assert tables["measures"].metadata[REMARKS_KEY].decode() == MEASURES.remark
    for field in tables["processes"]:
        assert field.metadata[REMARKS_KEY].decode() == PROCESSES.remarks[field.name]


@pytest.mark.parametrize(
    "answer",
    [
        SMALL_TABLE,
        pa.table({"table_name": ["t"], "table_schema": pa.array([b"junk"], pa.binary())}),
        pa.table({"table_name": ["t"] * 20_000, "table_schema": pa.array([b""] * 20_000, pa.binary())}),
    ],
    ids=["other columns", "junk", "too many"],
)
def test_no_answer_or_one_that_is_no_list_of_tables_is_not_believed(client, fake_server, answer):
    ticket = messages.Ticket(ticket=b"tables")
    info = messages.FlightInfo(endpoint=[messages.FlightEndpoint(ticket=ticket)])
    with pytest.raises(UnsupportedRequest):
        client.list_tables()
    fake_server.answers["GetFlightInfo"] = lambda _call: iter([info.SerializeToString()])
    fake_server.answers["DoGet"] = lambda _call: rows(answer)

    with pytest.raises(InternalError):
        client.list_tables()
