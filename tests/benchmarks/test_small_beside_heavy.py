"""How long a small query takes beside sixteen heavy ones, against an idle server; printed, never judged."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = 4_000_000
HEAVY_CLIENTS = 16
REPEATS = 200
SMALL = {"SELECT 1": "SELECT 1 AS one", "look-up in Parquet": "SELECT * FROM few WHERE key = 77"}
HEAVY = (
    "SELECT key, count(*), avg(amount) FROM many GROUP BY key ORDER BY 2 DESC LIMIT 10",
    "SELECT key % 1000, count(DISTINCT key) FROM many GROUP BY 1",
    "SELECT a.key, count(*) FROM many a JOIN many b ON a.key = b.key GROUP BY 1 LIMIT 5",
    "SELECT * FROM many ORDER BY amount LIMIT 100000",
)


def _write(folder: Path, name: str, rows: int) -> None:
    order = pa.array(range(rows), pa.int64())
    # Keys in no order, each about four times.
    keys = pc.bit_wise_and(pc.multiply(order, 2654435761), 0xFFFFF)
    table = pa.table({"key": order if rows < ROWS else keys, "amount": pc.divide(pc.cast(keys, pa.float64()), 7.0)})
    (folder / name).mkdir()
    pq.write_table(table, folder / name / "rows.parquet", row_group_size=200_000)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tables")
    _write(folder, "many", ROWS)
    _write(folder, "few", 10_000)
    command = [sys.executable, "-m", "tests.benchmarks.serving_child", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()


def _run_heavy(uri: str, sql: str, stop: threading.Event, done: list[str]) -> None:
    with FlightSQLClient(uri) as client:
        while not stop.is_set():
            try:
                client.query_arrow(sql)
            except MicromegasError as error:
                done.append(error.code)
            else:
                done.append("ok")


def _milliseconds(uri: str, sql: str) -> list[float]:
    found = []
    with FlightSQLClient(uri) as client:
        client.query_arrow(sql)
        for _ in range(REPEATS):
            started = SYSTEM_CLOCK.monotonic()
            client.query_arrow(sql)
            found.append((SYSTEM_CLOCK.monotonic() - started) * 1e3)
    return sorted(found)


def _p99(sorted_values: list[float]) -> float:
    return sorted_values[int(len(sorted_values) * 0.99) - 1]


def test_a_small_query_beside_heavy_ones(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    idle = {name: _milliseconds(uri, sql) for name, sql in SMALL.items()}
    stop, done = threading.Event(), []
    heavy = [
        threading.Thread(target=_run_heavy, args=(uri, HEAVY[number % len(HEAVY)], stop, done), daemon=True)
        for number in range(HEAVY_CLIENTS)
    ]
    for thread in heavy:
        thread.start()

    busy = {name: _milliseconds(uri, sql) for name, sql in SMALL.items()}
    stop.set()

    assert all(len(found) == REPEATS for found in busy.values())
    with capsys.disabled():
        print(f"\n{HEAVY_CLIENTS} heavy clients meanwhile: {len(done)} queries ended, {done.count('ok')} of them well")
        for name in SMALL:
            ratio = _p99(busy[name]) / _p99(idle[name])
            print(
                f"{name}: idle p50 {statistics.median(idle[name]):.1f}, p99 {_p99(idle[name]):.1f} ms; "
                f"busy p50 {statistics.median(busy[name]):.1f}, p99 {_p99(busy[name]):.1f} ms; ratio of p99 {ratio:.1f}"
            )
