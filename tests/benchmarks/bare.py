"""A program that serves a folder of Parquet tables with pyarrow.flight and DataFusion: `FOLDER BATCH_ROWS`.

It prints its address, then serves until its standard input ends. It knows no caller, guards nothing, cannot be
cancelled, and keeps no record: what a statement costs here is what the two libraries take.
"""

import sys
from pathlib import Path

import pyarrow as pa
from datafusion import SessionConfig, SessionContext
from google.protobuf.any_pb2 import Any
from pyarrow import flight

from micromegas_jupyter.flightsql.commands import messages

_OPTIONS = {
    "datafusion.execution.parquet.schema_force_view_types": "false",
    "datafusion.execution.parquet.pushdown_filters": "true",
}


class BareServer(flight.FlightServerBase):
    """Runs the statement in a ticket."""

    def __init__(self, folder, batch_rows):
        super().__init__("grpc://127.0.0.1:0")
        config = SessionConfig(_OPTIONS).with_batch_size(batch_rows).with_target_partitions(2)
        self._context = SessionContext(config)
        for table in folder.iterdir():
            self._context.register_parquet(table.stem, str(table))

    def do_get(self, _context, ticket):
        packed, statement = Any.FromString(ticket.ticket), messages.TicketStatementQuery()
        statement.ParseFromString(packed.value)
        frame = self._context.sql(statement.statement_handle.decode())
        batches = (batch.to_pyarrow() for batch in frame.execute_stream())
        return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(frame.schema(), batches))


if __name__ == "__main__":
    with BareServer(Path(sys.argv[1]), int(sys.argv[2])) as server:
        print(f"grpc://127.0.0.1:{server.port}", flush=True)
        sys.stdin.read()
