"""Serves 10M rows of five columns from memory: `python -m tests.benchmarks.stream_child ours|pyarrow`.

The first line is the address; each line that is read is answered by the processor seconds that the process took so far.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.flight

from micromegas_jupyter.server import FlightServerSettings, ServerThread
from tests.fakes.engine import FakeEngine, FakePlannedQuery
from tests.fakes.validator import FakeValidator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BATCHES = 153
BATCH_ROWS = 65_536
ROWS = BATCHES * BATCH_ROWS


def make_batch() -> pa.RecordBatch:
    numbers = np.arange(BATCH_ROWS)
    return pa.record_batch(
        {
            "id": numbers,
            "part": numbers % 1000,
            "amount": numbers / 3,
            "time": pa.array(numbers * 1000, pa.timestamp("ns", "+00:00")),
            "name": pa.array([f"name-{number % 5000}" for number in range(BATCH_ROWS)]),
        }
    )


class MemoryEngine(FakeEngine):
    """Gives the same rows for every statement."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        super().__init__()
        self._batch = batch

    async def plan(self, request, caller):  # type: ignore[no-untyped-def]
        return FakePlannedQuery(self._batch.schema, self._stream)

    async def _stream(self) -> AsyncIterator[pa.RecordBatch]:
        for _ in range(BATCHES):
            yield self._batch


class RawServer(pyarrow.flight.FlightServerBase):
    """pyarrow's own server, without authentication, audit or a way to stop a query."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._batch = batch

    def do_get(self, _context: object, _ticket: object) -> pyarrow.flight.RecordBatchStream:
        reader = pa.RecordBatchReader.from_batches(self._batch.schema, [self._batch] * BATCHES)
        return pyarrow.flight.RecordBatchStream(reader)


def _tell_until_closed(uri: str) -> None:
    print(uri, flush=True)
    for _ in sys.stdin:
        times = os.times()
        print(times.user + times.system, flush=True)


def main() -> None:
    batch = make_batch()
    if sys.argv[1] == "pyarrow":
        raw = RawServer(batch)
        _tell_until_closed(f"grpc://127.0.0.1:{raw.port}")
        os._exit(0)  # its own way to stop waits for clients
    server = ServerThread(engine=MemoryEngine(batch), validator=FakeValidator(), settings=FlightServerSettings(port=0))
    server.start()
    _tell_until_closed(server.uri)
    server.stop(grace_seconds=0)


if __name__ == "__main__":
    main()
