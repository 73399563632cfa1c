"""A program that serves the same rows either with pyarrow's own Flight server or with this project's.

It prints its address, then serves until its standard input ends. pyarrow's server knows no caller, cannot be cancelled
and keeps no record; this project's asks for a key, guards each statement and writes its audit line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from datafusion import SessionContext
from pyarrow import flight

from micromegas_jupyter.access import ApiKeyValidator
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.engine import QueryFigures, WorkClass
from micromegas_jupyter.engine.guard import check_statement
from micromegas_jupyter.engine.settings import MAX_STATEMENT_BYTES
from micromegas_jupyter.server import FlightServerSettings, ServerThread
from micromegas_jupyter.settings import ApiKeySetting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine import StatementRequest

KEY = "a-key-for-this-benchmark-only-0123456789"
TABLE = "rows"
MEMORY = b"memory"
_BATCH_ROWS = 65_536


class PyarrowServer(flight.FlightServerBase):
    """Gives the table from memory, or what DataFusion makes of a statement."""

    def __init__(self, folder: Path) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._table = pq.read_table(folder / TABLE)
        self._context = SessionContext()
        self._context.register_parquet(TABLE, str(folder / TABLE))

    def do_get(self, _context: Any, ticket: Any) -> Any:
        if ticket.ticket == MEMORY:
            return flight.RecordBatchStream(self._table.to_reader(max_chunksize=_BATCH_ROWS))
        frame = self._context.sql(ticket.ticket.decode())
        return flight.RecordBatchStream(pa.RecordBatchReader.from_stream(frame))


class InMemory:
    """A planned query that gives the table's batches."""

    parameter_schema = pa.schema([])
    work_class = WorkClass.SMALL
    figures = QueryFigures()

    def __init__(self, table: pa.Table) -> None:
        self.schema = table.schema
        self._table = table

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        for batch in self._table.to_batches(max_chunksize=_BATCH_ROWS):
            yield batch


class MemoryEngine:
    """An engine that gives one table whatever it is asked, after its guard has let the statement pass."""

    def __init__(self, folder: Path) -> None:
        self._table = pq.read_table(folder / TABLE)

    async def plan(self, request: StatementRequest, _caller: AuthContext) -> InMemory:
        check_statement(request.sql, max_bytes=MAX_STATEMENT_BYTES)
        return InMemory(self._table)

    def tables(self, _caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        return [(TABLE, self._table.schema)]

    def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "pyarrow":
        with PyarrowServer(folder) as peer:
            print(f"grpc://127.0.0.1:{peer.port}", flush=True)
            sys.stdin.read()
        return
    keys = ApiKeyValidator([ApiKeySetting(name="bench", key=Secret(KEY))])
    server = ServerThread(engine=MemoryEngine(folder), validator=keys, settings=FlightServerSettings(port=0))
    server.start()
    print(server.uri, flush=True)
    sys.stdin.read()
    server.stop(grace_seconds=0)


if __name__ == "__main__":
    main()
