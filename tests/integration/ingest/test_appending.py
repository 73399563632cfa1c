"""Rows that clients append to tables of the data model: who may, what is accepted, and what the answer is."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import PermissionDenied, UsageError
from tests.fakes.telemetry_rows import log_batch, sent_processes

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from tests.integration.ingest.lake_server import LakeServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning"),
]


def test_rows_are_there_once_the_answer_says_how_many(server: LakeServer, alice: FlightSQLClient) -> None:
    answer = alice.bulk_ingest("processes", sent_processes("own-1", "own-2"))

    assert answer.record_count == 2
    found = alice.query_arrow("SELECT process_id, properties, last_update_time = insert_time AS same FROM processes "
                              "WHERE process_id LIKE 'own-%' ORDER BY 1")  # fmt: skip
    assert found.to_pydict() == {
        "process_id": ["own-1", "own-2"],
        "properties": [[("a", "b")], [("a", "b")]],
        "same": [True, True],
    }


def test_rows_that_were_read_here_are_accepted_as_they_are(server: LakeServer, alice: FlightSQLClient) -> None:
    alice.bulk_ingest("log_entries", pa.Table.from_batches([log_batch([1, 2], writer="first")]))
    read = alice.query_arrow("SELECT * FROM log_entries WHERE target = 'first'")

    answer = alice.bulk_ingest("log_entries", read)

    assert answer.record_count == 2
    assert (
        sorted(server.column("SELECT msg FROM log_entries WHERE target = 'first'")) == ["first:1"] * 2 + ["first:2"] * 2
    )


@pytest.mark.parametrize(
    ("table", "rows", "words"),
    [
        ("blocks", sent_processes("x"), "There is no table 'blocks'"),
        ("../processes", sent_processes("x"), "There is no table '../processes'"),
        ("processes", sent_processes("x", exe=None), "The column exe of processes is missing"),
        ("processes", sent_processes("x", other=pa.array([1])), "has no column 'other'"),
        ("processes", sent_processes("x", exe=pa.array([1])), "The column exe has the type int64"),
        ("processes", sent_processes("x", process_id=pa.array([None], pa.utf8())), "process_id lacks a value"),
        ("processes", sent_processes("x", properties=pa.array([b"\0\1"])), "not binary JSON"),
    ],
    ids=["unknown table", "path", "missing column", "unknown column", "wrong type", "missing value", "not JSONB"],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_stored(
    server: LakeServer, alice: FlightSQLClient, table: str, rows: pa.Table, words: str
) -> None:
    before = server.files()

    with pytest.raises(UsageError, match=words):
        alice.bulk_ingest(table, rows)

    assert server.files() == before


def test_only_administrators_and_keys_for_it_may(server: LakeServer) -> None:
    with server.client("bob") as bob, pytest.raises(PermissionDenied, match="administrators"):
        bob.bulk_ingest("processes", sent_processes("bobs"))
    with server.client("service") as reader, pytest.raises(PermissionDenied):
        reader.bulk_ingest("processes", sent_processes("readers"))
    with server.client("collector") as collector:
        answer = collector.bulk_ingest("processes", sent_processes("collected"))

    assert answer.record_count == 1
    names = "('bobs', 'readers', 'collected')"
    assert server.column(f"SELECT process_id FROM processes WHERE process_id IN {names}") == ["collected"]


@pytest.mark.parametrize("target", ["micromegas_jupyter", "micromegas_jupyter.audit"])
def test_a_key_cannot_forge_what_the_server_records(server: LakeServer, target: str) -> None:
    rows = pa.Table.from_batches([log_batch([1], writer=target), log_batch([2], writer="micromegas_jupyter_app")])

    with server.client("collector") as collector, pytest.raises(UsageError, match="what the server itself records"):
        collector.bulk_ingest("log_entries", rows)
    with server.client("alice") as alice:
        answer = alice.bulk_ingest("log_entries", rows)
    with server.client("collector") as collector:
        collector.bulk_ingest("log_entries", pa.Table.from_batches([log_batch([3], writer="micromegas_jupyter_app")]))

    assert answer.record_count == 2


def test_each_ingest_leaves_one_audit_line(
    server: LakeServer, alice: FlightSQLClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "micromegas_jupyter.audit")

    alice.bulk_ingest("processes", sent_processes("told"))
    with pytest.raises(UsageError):
        alice.bulk_ingest("nowhere", sent_processes("told"))

    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    fields = ("action", "user", "table", "mode", "rows", "status")
    logged = [tuple(line[field] for field in fields) for line in lines]
    assert logged == [
        ("ingest", "alice", "processes", "append", 1, "ok"),
        ("ingest", "alice", "nowhere", "append", 0, "error"),
    ]
    assert lines[1]["error_class"] == "user"
    assert lines[0]["received_bytes"] > 0


def test_each_ingest_is_counted(server: LakeServer, alice: FlightSQLClient) -> None:
    def count(name: str, **labels: str) -> float:
        registry = server.flight.server.metrics.registry
        return registry.get_sample_value(f"micromegas_server_ingest_{name}_total", labels) or 0

    before = (count("rows"), count("bytes"), count("calls", outcome="ok"), count("calls", outcome="error"))
    alice.bulk_ingest("processes", sent_processes("counted"))
    with pytest.raises(UsageError):
        alice.bulk_ingest("nowhere", sent_processes("counted"))

    assert count("rows") == before[0] + 1
    assert count("bytes") > before[1]
    assert (count("calls", outcome="ok"), count("calls", outcome="error")) == (before[2] + 1, before[3] + 1)
