"""The tables that a server shows its caller, asked for over the wire: names, columns, types and remarks.

Source: Flight SQL, `CommandGetTables`: GetFlightInfo with the command, then DoGet with the ticket of the answer.
"""

from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.client.prepared import only_ticket
from micromegas_jupyter.client.transport import FlightStream, Transport
from micromegas_jupyter.errors import InternalError, UnsupportedRequest, UnsupportedStatement
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any

_MAX_TABLES: Final = 10_000
_MAX_BYTES: Final = 64 * 1024 * 1024


def fetch_tables(transport: Transport, call: Call) -> dict[str, pa.Schema]:
    """Return the schema of each table by its name.

    Raises:
        MicromegasError: The call failed.
        UnsupportedRequest: The server does not list its tables.
        InternalError: The answer cannot be read, or is larger than any list of tables that is of use.
    """
    command = pack_any(messages.CommandGetTables(include_schema=True))
    try:
        stream = transport.do_get(only_ticket(transport.get_flight_info(command, call)), call)
    except UnsupportedStatement as error:
        raise UnsupportedRequest(
            "The server does not list its tables.", remedy="Query information_schema.tables.", query_id=error.query_id
        ) from error
    try:
        return {name: _read_schema(data) for name, data in _rows(stream)}
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        stream.cancel()
        raise InternalError("The server's list of tables cannot be read.") from error


def _rows(stream: FlightStream) -> Iterator[tuple[str, bytes]]:
    tables = size_bytes = 0
    while (batch := stream.read_batch()) is not None:
        tables += batch.num_rows
        size_bytes += batch.nbytes
        if tables > _MAX_TABLES or size_bytes > _MAX_BYTES:
            stream.cancel()
            raise InternalError("The server's list of tables is larger than it may be.")
        yield from zip(batch.column("table_name").to_pylist(), batch.column("table_schema").to_pylist(), strict=True)


def _read_schema(data: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.BufferReader(data))
