"""The list of a server's tables over the wire: from the real server, and from one that answers badly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import InternalError, UnsupportedRequest
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.lake import Lake
from micromegas_jupyter.telemetry.tables import MEASURES, PROCESSES, REMARKS_KEY
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, rows
from tests.integration.client.conftest import FixedToken
from tests.integration.flight_harness import running_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_the_servers_tables_come_with_their_columns_and_remarks(tmp_path: Path) -> None:
    with (
        running_server(tables=Lake(tmp_path)) as harness,
        FlightSQLClient(harness.uri, auth_provider=FixedToken("alice")) as client,
    ):
        tables = client.list_tables()

    assert {"log_entries", "measures", "processes", "streams"} <= set(tables)
    assert tables["measures"].field("value").type == pa.float64()
    assert tables["measures"].metadata[REMARKS_KEY].decode() == MEASURES.remark
    for field in tables["processes"]:
        assert field.metadata[REMARKS_KEY].decode() == PROCESSES.remarks[field.name]


def test_a_server_that_lists_no_tables_says_so(client: FlightSQLClient) -> None:
    with pytest.raises(UnsupportedRequest):
        client.list_tables()


@pytest.mark.parametrize(
    "answer",
    [
        SMALL_TABLE,
        pa.table({"table_name": ["t"], "table_schema": pa.array([b"junk"], pa.binary())}),
        pa.table({"table_name": ["t"] * 20_000, "table_schema": pa.array([b""] * 20_000, pa.binary())}),
    ],
    ids=["other columns", "junk", "too many"],
)
def test_an_answer_that_is_no_list_of_tables_is_not_believed(
    client: FlightSQLClient, fake_server: FakeFlightServer, answer: pa.Table
) -> None:
    ticket = messages.Ticket(ticket=b"tables")
    info = messages.FlightInfo(endpoint=[messages.FlightEndpoint(ticket=ticket)])
    fake_server.answers["GetFlightInfo"] = lambda _call: iter([info.SerializeToString()])
    fake_server.answers["DoGet"] = lambda _call: rows(answer)

    with pytest.raises(InternalError):
        client.list_tables()
