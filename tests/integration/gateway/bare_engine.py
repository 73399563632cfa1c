"""A program that serves a folder of Parquet tables by Flight SQL: pyarrow's own server over one DataFusion session.

It prints its address, then serves until its standard input ends. It knows statements and nothing else of Flight SQL.
"""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from datafusion import SessionConfig, SessionContext
from google.protobuf import any_pb2
from pyarrow import flight

from micromegas_jupyter.flightsql.commands import messages

ROOT = Path(__file__).parents[3]


class BareServer(flight.FlightServerBase):
    """Plans a statement when it is asked about, and again when its ticket, which is the statement, comes."""

    def __init__(self, folder):
        super().__init__("grpc://127.0.0.1:0")
        self._context = SessionContext(SessionConfig().with_information_schema(enabled=True))
        for table in sorted(folder.iterdir()):
            self._context.register_parquet(table.stem, str(table))

    def get_flight_info(self, _context, descriptor):
        envelope = any_pb2.Any.FromString(descriptor.command)
        if not envelope.type_url.endswith(".CommandStatementQuery"):
            raise NotImplementedError(envelope.type_url)
        sql = messages.CommandStatementQuery.FromString(envelope.value).query
        return flight.FlightInfo(
            self._reader(sql).schema, descriptor, [flight.FlightEndpoint(sql.encode(), [])], -1, -1
        )

    def do_get(self, _context, ticket):
        return flight.RecordBatchStream(self._reader(ticket.ticket.decode()))

    def list_actions(self, _context):
        return []

    def _reader(self, sql):
        return pa.RecordBatchReader.from_stream(self._context.sql(sql))


@contextmanager
def running(folder):
    """Run it in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.integration.gateway.bare_engine", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


if __name__ == "__main__":
    with BareServer(Path(sys.argv[1])) as server:
        print(f"grpc://127.0.0.1:{server.port}", flush=True)
        sys.stdin.read()
