"""A program that serves a folder of Parquet tables with pyarrow's own Flight server, over one DataFusion session.

It prints its address, then serves until its standard input ends. It knows no caller, guards nothing, cannot be
cancelled and keeps no record.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from datafusion import SessionContext
from pyarrow import flight

# A ticket for rows that are in memory: as many columns of equal numbers.
MEMORY_TICKET = "memory {rows} {columns}"
_BATCH_ROWS = 65_536


class PyarrowServer(flight.FlightServerBase):
    """Answers a ticket with rows from memory, or with what DataFusion makes of it as a statement."""

    def __init__(self, folder):
        super().__init__("grpc://127.0.0.1:0")
        self._context = SessionContext()
        for table in folder.iterdir():
            self._context.register_parquet(table.name, str(table))
        self._kept = {}

    def do_get(self, _context, ticket):
        kind, *sizes = ticket.ticket.decode().split()
        if kind == "memory":
            if ticket.ticket not in self._kept:
                rows, columns = map(int, sizes)
                self._kept[ticket.ticket] = pa.table({f"c{number}": np.arange(rows) for number in range(columns)})
            return flight.RecordBatchStream(self._kept[ticket.ticket].to_reader(max_chunksize=_BATCH_ROWS))
        frame = self._context.sql(ticket.ticket.decode())
        return flight.RecordBatchStream(pa.RecordBatchReader.from_stream(frame))


if __name__ == "__main__":
    with PyarrowServer(Path(sys.argv[1])) as peer:
        print(f"grpc://127.0.0.1:{peer.port}", flush=True)
        sys.stdin.read()
