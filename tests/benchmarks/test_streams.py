"""What the server costs when the rows are there already, beside pyarrow's own Flight server; printed, never judged."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.flight
import pytest

from micromegas_jupyter.flightsql.commands import statement_ticket
from tests.benchmarks.measuring import load_text
from tests.benchmarks.stream_child import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

LONG_TRIES = 15
WAIT_SECONDS = 60


class Child:
    """A server in a process of its own."""

    def __init__(self, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.stream_child", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.client = pyarrow.flight.connect(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def processor_seconds(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def read(self, headers: list[tuple[bytes, bytes]]) -> tuple[float, float, float]:
        """Read all rows; return seconds, the server's processor seconds and MB/s."""
        options = pyarrow.flight.FlightCallOptions(
            headers=[(b"authorization", b"Bearer alice"), *headers], timeout=WAIT_SECONDS * 5
        )
        used, started = self.processor_seconds(), time.perf_counter()
        rows = size = 0
        for chunk in self.client.do_get(pyarrow.flight.Ticket(statement_ticket("SELECT rows")), options):
            rows += chunk.data.num_rows
            size += chunk.data.nbytes
        seconds = time.perf_counter() - started
        assert rows == ROWS
        return seconds, self.processor_seconds() - used, size / seconds / 1e6

    def close(self) -> None:
        self.client.close()
        self.process.communicate(timeout=WAIT_SECONDS)


@contextmanager
def children() -> Iterator[dict[str, Child]]:
    found = {kind: Child(kind) for kind in ("pyarrow", "ours")}
    try:
        yield found
    finally:
        for child in found.values():
            child.close()


def test_rows_from_memory_beside_pyarrows_server(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    is_long = request.config.getoption("--long")
    ways: dict[str, tuple[str, list[tuple[bytes, bytes]]]] = {"pyarrow": ("pyarrow", []), "ours": ("ours", [])}
    if is_long:
        ways |= {f"ours, {name}": ("ours", [(b"x-micromegas-compression", name.encode())]) for name in ("lz4", "zstd")}
    costs: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    with children() as servers:
        for _ in range(LONG_TRIES if is_long else 1):
            for way, (kind, headers) in ways.items():
                costs[way].append(servers[kind].read(headers))

    medians = {way: [statistics.median(column) for column in zip(*found, strict=True)] for way, found in costs.items()}
    base = medians["pyarrow"]
    lines = [
        f"  {way}: {rate:.0f} MB/s ({rate / base[2]:.2f}), server CPU {cpu * 1e3:.0f} ms ({cpu / base[1]:.1f})"
        for way, (_, cpu, rate) in medians.items()
    ]
    with capsys.disabled():
        print(
            "\n".join([f"\n10M rows x 5 columns from memory, {load_text()}; in brackets the ratio to pyarrow:", *lines])
        )
