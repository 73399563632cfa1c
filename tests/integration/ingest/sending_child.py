"""A client that sends rows and then waits, until it is killed.

Arguments: address, bearer token, table, how many batches. It prints a line once it has sent them.
"""

import sys
import threading

import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any

ROWS = 1000


def main(uri: str, token: str, table: str, batches: str) -> None:
    command = messages.CommandStatementIngest(table=table)
    command.table_definition_options.if_not_exist = command.table_definition_options.if_exists = 1
    batch = pa.record_batch({"id": pa.array(range(ROWS), pa.int64())})
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
    client = flight.FlightClient(uri)
    descriptor = flight.FlightDescriptor.for_command(pack_any(command))
    writer, _reader = client.do_put(descriptor, batch.schema, options)
    for _ in range(int(batches)):
        writer.write_batch(batch)
    print("sent", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
