"""A call that is made again under its own name stores nothing more, whatever became of the first one."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from tests.fakes.telemetry_rows import log_batch, sent_processes
from tests.integration.flight_harness import ALICE, FLIGHT
from tests.integration.ingest.lake_server import create_command, ingest_frames

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from tests.integration.ingest.lake_server import LakeServer

pytestmark = pytest.mark.integration


def test_rows_of_one_id_are_stored_once(server: LakeServer, alice: FlightSQLClient) -> None:
    rows = pa.Table.from_batches([log_batch([1, 2], writer="repeated")])
    ingest_id = str(uuid.uuid4())

    counts = [alice.bulk_ingest("log_entries", rows, ingest_id=ingest_id).record_count for _ in range(3)]
    others = alice.bulk_ingest("log_entries", rows, ingest_id=str(uuid.uuid4())).record_count

    assert (counts, others) == ([2, 2, 2], 2)
    assert server.column("SELECT count(*) FROM log_entries WHERE target = 'repeated'") == [4]


@pytest.mark.parametrize("mode", ["append", "create", "create_append"])
def test_calls_of_one_id_at_once_store_one(server: LakeServer, mode: str) -> None:
    name, callers = f"raced_by_{mode}", 4
    ingest_id = str(uuid.uuid4())
    together = threading.Barrier(callers)
    if mode == "append":
        with server.client("alice") as client:
            client.bulk_ingest(name, pa.table({"id": pa.array([], pa.int64())}), mode="create")

    def send() -> int:
        with server.client("alice") as client:
            together.wait(60)
            count: int = client.bulk_ingest(name, pa.table({"id": [1]}), mode=mode, ingest_id=ingest_id).record_count
        return count

    with ThreadPoolExecutor(callers) as threads:
        counts = [future.result() for future in [threads.submit(send) for _ in range(callers)]]

    assert counts == [1] * callers
    assert server.column(f"SELECT id FROM {name}") == [1]


def test_an_id_is_for_one_set_of_rows(alice: FlightSQLClient) -> None:
    ingest_id = str(uuid.uuid4())
    alice.bulk_ingest("processes", sent_processes("a"), ingest_id=ingest_id)

    with pytest.raises(UsageError, match="1 rows were stored under this id before, and these are 2"):
        alice.bulk_ingest("processes", sent_processes("a", "b"), ingest_id=ingest_id)


def test_an_id_is_one_callers_own(server: LakeServer, alice: FlightSQLClient) -> None:
    rows = pa.Table.from_batches([log_batch([1], writer="two callers")])

    alice.bulk_ingest("log_entries", rows, ingest_id="the-same")
    with server.client("collector") as collector:
        collector.bulk_ingest("log_entries", rows, ingest_id="the-same")

    assert server.column("SELECT count(*) FROM log_entries WHERE target = 'two callers'") == [2]


@pytest.mark.parametrize(
    "header",
    [
        ("x-micromegas-ingest-id", "with blank"),
        ("x-micromegas-ingest-id", "x" * 129),
        ("x-micromegas-ingest-rows", "-1"),
    ],
    ids=lambda header: f"{header[0]}={header[1][:12]}",
)
def test_headers_that_cannot_be_read_are_refused(server: LakeServer, header: tuple[str, str]) -> None:
    frames = ingest_frames(create_command("never_made"), pa.table({"id": [1]}))

    answer = server.flight.call(FLIGHT + "DoPut", *frames, metadata=(*ALICE, header))

    assert type(answer.error) is UsageError
    assert "never_made" not in server.column("SELECT table_name FROM information_schema.tables")


def test_rows_that_do_not_all_come_are_not_stored(server: LakeServer) -> None:
    frames = ingest_frames(create_command("cut_off"), pa.table({"id": [1, 2]}))

    answer = server.flight.call(FLIGHT + "DoPut", *frames, metadata=(*ALICE, ("x-micromegas-ingest-rows", "3")))

    assert type(answer.error) is UsageError
    assert answer.error.what == "2 of 3 rows have arrived; none is stored."
    assert "cut_off" not in server.column("SELECT table_name FROM information_schema.tables")
