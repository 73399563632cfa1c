"""What the server costs beside pyarrow's own Flight server over the same rows and engine; printed, never judged.

On a busy machine the rates say little. What the servers' processes take of the processors for each query is steadier.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil
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
_HEADERS = [(b"authorization", f"Bearer {KEY}".encode())]
_ALL = f"SELECT * FROM {TABLE}"
_ONE = "SELECT 1 AS one"
# A SELECT of literals is answered from memory the second time; this one is planned and run each time.
_COMPUTED = "SELECT 1 + 1 AS two"


@dataclass(frozen=True)
class Served:
    """A server in processes of its own."""

    uri: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return what its processes took so far, in user mode and for them in the kernel."""
        own = psutil.Process(self.pid)
        times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
        return sum(found.user + found.system for found in times)


@dataclass(frozen=True)
class Way:
    """How rows are asked for."""

    served: Served
    ticket: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def options(self) -> flight.FlightCallOptions:
        return flight.FlightCallOptions(headers=[*_HEADERS, *self.headers], timeout=600)

    def drain(self, client: flight.FlightClient) -> tuple[int, int]:
        """Read all rows; return how many there are, and their bytes."""
        chunks = [chunk.data for chunk in client.do_get(flight.Ticket(self.ticket), self.options)]
        return sum(chunk.num_rows for chunk in chunks), sum(chunk.get_total_buffer_size() for chunk in chunks)


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
def servers(rows: Path) -> Iterator[dict[str, Served]]:
    """pyarrow's server, ours over memory and `micromegas serve` over the folder."""
    peer = [sys.executable, "-m", "tests.benchmarks.flight_peer"]
    serve = [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--lake", str(rows), "--port", "0"]
    keys = json.dumps([{"name": "bench", "key": KEY}])
    with ExitStack() as stack:

        def start(command: list[str], *, is_json: bool = False) -> Served:
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
            line = child.stdout.readline().strip()
            return Served(json.loads(line)["uri"] if is_json else line, child.pid)

        yield {
            "pyarrow": start([*peer, "pyarrow", str(rows)]),
            "ours, from memory": start([*peer, "ours", str(rows)]),
            "micromegas serve": start(
                [*serve, "--ready-json", "--no-telemetry", "--no-http", "--spare-workers", "0"], is_json=True
            ),
        }


def _costs(ways: dict[str, Way], *, tries: int, expected: int) -> dict[str, tuple[float, float, float]]:
    """Return each way's median time to take all rows, MB/s and processor seconds, one after the other in turn."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(tries):
        for name, way in ways.items():
            with flight.connect(way.served.uri) as client:
                used, started = way.served.cpu_seconds(), SYSTEM_CLOCK.monotonic()
                rows, size = way.drain(client)
                seconds = SYSTEM_CLOCK.monotonic() - started
            assert rows == expected
            found[name].append((seconds, size / seconds / 1e6, way.served.cpu_seconds() - used))
    return {
        name: tuple(statistics.median(column) for column in zip(*values, strict=True))  # type: ignore[misc]
        for name, values in found.items()
    }


def _rate(way: Way, *, clients: int, calls: int) -> tuple[float, float]:
    """Return how many calls a second `clients` get answered at once, and the server's processor seconds for one.

    Each client has a connection of its own.
    """
    ready = threading.Barrier(clients + 1)

    def run(number: int) -> None:
        # Without this all clients of a process share one connection, and so one worker.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.client_number", number)]
        with flight.connect(way.served.uri, generic_options=options) as client:
            way.drain(client)
            ready.wait()
            for _ in range(calls):
                way.drain(client)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    used = way.served.cpu_seconds()
    for thread in threads:
        thread.start()
    ready.wait()
    started = SYSTEM_CLOCK.monotonic()
    for thread in threads:
        thread.join()
    seconds = SYSTEM_CLOCK.monotonic() - started
    return clients * calls / seconds, (way.served.cpu_seconds() - used) / (clients * (calls + 1))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text} ({load_text()})")

    return say


def test_all_rows_from_memory_and_from_parquet(
    servers: dict[str, Served], row_count: int, pytestconfig: pytest.Config, say: Callable[[str], None]
) -> None:
    is_long = pytestconfig.getoption("--long")
    memory, ours, serve = servers["pyarrow"], servers["ours, from memory"], servers["micromegas serve"]
    ticket = statement_ticket(_ALL)
    ways = {
        "pyarrow, from memory": Way(memory, MEMORY),
        "ours, from memory": Way(ours, ticket),
        "micromegas serve, from Parquet": Way(serve, ticket),
        "pyarrow over DataFusion, from Parquet": Way(memory, _ALL.encode()),
    }
    if is_long:
        ways |= {
            f"ours, from memory, {name}": Way(ours, ticket, ((b"x-micromegas-compression", name.encode()),))
            for name in ("lz4", "zstd")
        }

    costs = _costs(ways, tries=5 if is_long else 1, expected=row_count)

    seconds, _, cpu = costs["pyarrow, from memory"]
    lines = [
        f"{name}: {own * 1000:.0f} ms ({own / seconds:.2f}), {speed:.0f} MB/s, server CPU {used * 1000:.0f} ms "
        f"({used / cpu if cpu else 0:.1f})"
        for name, (own, speed, used) in costs.items()
    ]
    say("\n".join([f"{row_count:,} rows × 5 columns; in brackets the ratio to pyarrow from memory:", *lines]))


@pytest.mark.parametrize(
    ("clients", "sql"), [(1, _ONE), (_CLIENTS, _ONE), (_CLIENTS, _COMPUTED), (_CLIENTS, f"{_ALL} WHERE id = 5")]
)
def test_small_queries(
    clients: int,
    sql: str,
    servers: dict[str, Served],
    pytestconfig: pytest.Config,
    say: Callable[[str], None],
) -> None:
    calls, tries = (400, 5) if pytestconfig.getoption("--long") else (40, 1)
    ways = {
        "pyarrow over DataFusion": Way(servers["pyarrow"], sql.encode()),
        "micromegas serve": Way(servers["micromegas serve"], statement_ticket(sql)),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(tries):
        for name, way in ways.items():
            found[name].append(_rate(way, clients=clients, calls=calls // 8 if sql.startswith(_ALL) else calls))

    rates = {name: statistics.median(rate for rate, _ in values) for name, values in found.items()}
    cpu = {name: statistics.median(used for _, used in values) for name, values in found.items()}
    assert min(rates.values()) > 0
    shown = ", ".join(f"{name} {rate:.0f}/s, {cpu[name] * 1000:.1f} ms CPU each" for name, rate in rates.items())
    rate, used = (each["micromegas serve"] / each["pyarrow over DataFusion"] for each in (rates, cpu))
    say(f"{sql} with {clients} clients: {shown}; ratio of rates {rate:.2f}, of CPU {used:.2f}")
