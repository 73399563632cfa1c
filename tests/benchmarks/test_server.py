"""How fast the server is beside pyarrow's own Flight server over the same rows and engine; printed, never judged.

pyarrow's server asks for no credential, guards nothing, cannot be cancelled and writes no audit line.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import flight

from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.benchmarks.flight_peer import KEY, MEMORY, TABLE
from tests.benchmarks.measuring import load_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.slow]

_BATCH = 500_000
_CLIENTS = 8
_OPTIONS = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {KEY}".encode())], timeout=600)
_ALL = f"SELECT * FROM {TABLE}"
Ways = dict[str, tuple[str, bytes]]


@pytest.fixture(scope="module")
def row_count(pytestconfig: pytest.Config) -> int:
    return 10_000_000 if pytestconfig.getoption("--long") else 1_000_000


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, row_count: int) -> Path:
    """A folder with one table: five columns, numbers, a time and texts that repeat."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / TABLE).mkdir()
    writer = None
    for start in range(0, row_count, _BATCH):
        numbers = np.arange(start, start + _BATCH)
        table = pa.table(
            {
                "id": numbers,
                "part": numbers % 1000,
                "amount": numbers / 3,
                "time": pa.array(numbers * 1_000_007).cast(pa.timestamp("ns", "UTC")),
                "name": pa.array([f"name-{number % 5000}" for number in range(start, start + _BATCH)]),
            }
        )
        writer = writer or pq.ParquetWriter(folder / TABLE / "part.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return folder


@pytest.fixture(scope="module")
def ways(rows: Path) -> Iterator[dict[str, str]]:
    """The addresses of pyarrow's server, of ours over memory and of `micromegas serve` over the folder."""
    peer = [sys.executable, "-m", "tests.benchmarks.flight_peer"]
    serve = [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--lake", str(rows), "--port", "0"]
    keys = json.dumps([{"name": "bench", "key": KEY}])
    with ExitStack() as stack:

        def start(command: list[str]) -> str:
            child = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env={**os.environ, "MICROMEGAS_API_KEYS": keys},
                )
            )
            stack.callback(child.terminate)
            assert child.stdout is not None
            return child.stdout.readline().strip()

        yield {
            "pyarrow": start([*peer, "pyarrow", str(rows)]),
            "ours, from memory": start([*peer, "ours", str(rows)]),
            "micromegas serve": json.loads(start([*serve, "--ready-json", "--no-telemetry", "--no-http"]))["uri"],
        }


def _drain(client: flight.FlightClient, ticket: bytes) -> int:
    return sum(chunk.data.num_rows for chunk in client.do_get(flight.Ticket(ticket), _OPTIONS))


def _seconds(ways: Ways, *, tries: int, expected: int) -> dict[str, float]:
    """Return the median time of each way to take all rows, one after the other in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(tries):
        for name, (uri, ticket) in ways.items():
            with flight.connect(uri) as client:
                started = SYSTEM_CLOCK.monotonic()
                assert _drain(client, ticket) == expected
                found[name].append(SYSTEM_CLOCK.monotonic() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def _rate(uri: str, ticket: bytes, *, clients: int, calls: int) -> float:
    """Return how many calls a second `clients` get answered at once, each over a connection of its own."""
    ready = threading.Barrier(clients + 1)

    def run(number: int) -> None:
        # Without this all clients of a process share one connection, and so one worker.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.client_number", number)]
        with flight.connect(uri, generic_options=options) as client:
            _drain(client, ticket)
            ready.wait()
            for _ in range(calls):
                _drain(client, ticket)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = SYSTEM_CLOCK.monotonic()
    for thread in threads:
        thread.join()
    return clients * calls / (SYSTEM_CLOCK.monotonic() - started)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text} ({load_text()})")

    return say


def test_all_rows_from_memory_and_from_parquet(
    ways: dict[str, str], row_count: int, pytestconfig: pytest.Config, say: Callable[[str], None]
) -> None:
    tries = 5 if pytestconfig.getoption("--long") else 1
    seconds = _seconds(
        {
            "pyarrow, from memory": (ways["pyarrow"], MEMORY),
            "ours, from memory": (ways["ours, from memory"], statement_ticket(_ALL)),
            "micromegas serve, from Parquet": (ways["micromegas serve"], statement_ticket(_ALL)),
            "pyarrow over DataFusion, from Parquet": (ways["pyarrow"], _ALL.encode()),
        },
        tries=tries,
        expected=row_count,
    )

    memory = seconds["pyarrow, from memory"]
    lines = [f"{name}: {value * 1000:.0f} ms, rate {memory / value:.2f}" for name, value in seconds.items()]
    say("\n".join([f"{row_count:,} rows × 5 columns, rate of raw pyarrow.flight from memory = 1", *lines]))


@pytest.mark.parametrize("clients", [1, _CLIENTS])
def test_the_smallest_query(
    clients: int, ways: dict[str, str], pytestconfig: pytest.Config, say: Callable[[str], None]
) -> None:
    calls, tries = (400, 5) if pytestconfig.getoption("--long") else (40, 1)
    sql = "SELECT 1 AS one"
    found: dict[str, list[float]] = {"pyarrow over DataFusion": [], "micromegas serve": []}
    for _ in range(tries):
        found["pyarrow over DataFusion"].append(_rate(ways["pyarrow"], sql.encode(), clients=clients, calls=calls))
        found["micromegas serve"].append(
            _rate(ways["micromegas serve"], statement_ticket(sql), clients=clients, calls=calls)
        )

    rates = {name: statistics.median(values) for name, values in found.items()}
    shown = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
    ratio = rates["micromegas serve"] / rates["pyarrow over DataFusion"]
    assert min(rates.values()) > 0
    say(f"SELECT 1 with {clients} clients: {shown}, ratio {ratio:.2f}")
