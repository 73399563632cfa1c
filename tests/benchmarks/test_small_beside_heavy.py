"""How long a small query takes beside sixteen others, heavy or of 0.1 s, against an idle server; printed, never judged.

One server answers in its own process, the other one with two worker processes, as `micromegas serve` does by default.
"""

from __future__ import annotations

import os
import statistics
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.integration.workers.serving import Serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = 4_000_000
SOME_ROWS = 1_000_000
HEAVY_CLIENTS = 16
# Each client is a connection of its own, and with it may reach another worker; they take turns.
SMALL_CLIENTS = 4
REPEATS = 200
SMALL = {"SELECT 1": "SELECT 1 AS one", "look-up in Parquet": "SELECT * FROM few WHERE key = 77"}
HEAVY = (
    "SELECT key, count(*), avg(amount) FROM many GROUP BY key ORDER BY 2 DESC LIMIT 10",
    "SELECT key % 1000, count(DISTINCT key) FROM many GROUP BY 1",
    "SELECT a.key, count(*) FROM many a JOIN many b ON a.key = b.key GROUP BY 1 LIMIT 5",
    "SELECT * FROM many ORDER BY amount LIMIT 100000",
)
# A tenth of a second alone, and small by the size of what it reads.
MIDDLING = (
    "SELECT key % 1000, count(*), avg(amount) FROM some GROUP BY 1",
    "SELECT key % 77, count(DISTINCT key) FROM some GROUP BY 1",
)
BESIDE = {"heavy": HEAVY, "0.1 s": MIDDLING}


def _write(folder: Path, name: str, rows: int) -> None:
    order = pa.array(range(rows), pa.int64())
    # Keys in no order, each about four times.
    keys = pc.bit_wise_and(pc.multiply(order, 2654435761), 0xFFFFF)
    table = pa.table(
        {"key": order if rows < SOME_ROWS else keys, "amount": pc.divide(pc.cast(keys, pa.float64()), 7.0)}
    )
    (folder / name).mkdir()
    pq.write_table(table, folder / name / "rows.parquet", row_group_size=200_000)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    _write(folder, "many", ROWS)
    _write(folder, "some", SOME_ROWS)
    _write(folder, "few", 10_000)
    return folder


def _run_heavy(uri: str, sql: str, stop: threading.Event, done: list[str]) -> None:
    with FlightSQLClient(uri) as client:
        while not stop.is_set():
            try:
                client.query_arrow(sql)
            except MicromegasError as error:
                done.append(error.code)
            else:
                done.append("ok")


def _milliseconds(clients: list[FlightSQLClient], sql: str) -> list[float]:
    found = []
    for client in clients:
        client.query_arrow(sql)
    for number in range(REPEATS):
        started = SYSTEM_CLOCK.monotonic()
        clients[number % len(clients)].query_arrow(sql)
        found.append((SYSTEM_CLOCK.monotonic() - started) * 1e3)
    return sorted(found)


def _p99(sorted_values: list[float]) -> float:
    return sorted_values[int(len(sorted_values) * 0.99) - 1]


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_small_query_beside_others(
    tables: Path, capsys: pytest.CaptureFixture[str], workers: int, beside: str
) -> None:
    with Serving(
        tables, "--disable-auth", "--no-http", "--no-telemetry", "--drain-seconds", "0", "--workers", str(workers)
    ) as server:
        _compare(server.uri, capsys, "in one process" if workers == 0 else f"{workers} workers", beside)


def _compare(uri: str, capsys: pytest.CaptureFixture[str], name_of_server: str, beside: str) -> None:
    clients = [FlightSQLClient(uri) for _ in range(SMALL_CLIENTS)]
    idle = {name: _milliseconds(clients, sql) for name, sql in SMALL.items()}
    stop, done = threading.Event(), []
    heavy = [
        threading.Thread(
            target=_run_heavy, args=(uri, BESIDE[beside][number % len(BESIDE[beside])], stop, done), daemon=True
        )
        for number in range(HEAVY_CLIENTS)
    ]
    for thread in heavy:
        thread.start()

    started = SYSTEM_CLOCK.monotonic()
    busy = {name: _milliseconds(clients, sql) for name, sql in SMALL.items()}
    seconds = SYSTEM_CLOCK.monotonic() - started
    stop.set()

    assert all(len(found) == REPEATS for found in busy.values())
    with capsys.disabled():
        print(
            f"\n{name_of_server} (load {os.getloadavg()[0]:.1f}): {HEAVY_CLIENTS} clients of {beside} ones "
            f"meanwhile: {len(done) / seconds:.1f} queries a second, {len(done) - done.count('ok')} of them not well"
        )
        for name in SMALL:
            ratio = _p99(busy[name]) / _p99(idle[name])
            print(
                f"{name}: idle p50 {statistics.median(idle[name]):.1f}, p99 {_p99(idle[name]):.1f} ms; "
                f"busy p50 {statistics.median(busy[name]):.1f}, p99 {_p99(busy[name]):.1f} ms; ratio of p99 {ratio:.1f}"
            )
    for client in clients:
        client.close()
