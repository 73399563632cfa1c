"""Processes that tests of ingest start and kill: `python -m tests.integration.ingest.child ROLE ARGUMENTS`."""

import json
import random
import resource
import sys
import threading
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.flightsql.commands import pack_any
from micromegas_jupyter.lake.writer import LakeWriter
from tests.integration.ingest.lake_server import create_command, lake_server

_NOISE = random.Random(1).randbytes(4 * 1024 * 1024)
_ROWS = 1000


def serve(root):
    """Run a server over a lake until its input ends; it prints its address."""
    with lake_server(Path(root)) as server:
        print(server.uri, flush=True)
        sys.stdin.read()


def send(uri, token, table, batches):
    """Send rows, print a line once they are sent, and wait to be killed."""
    batch = pa.record_batch({"id": pa.array(range(_ROWS), pa.int64())})
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
    descriptor = flight.FlightDescriptor.for_command(pack_any(create_command(table)))
    writer, _reader = flight.FlightClient(uri).do_put(descriptor, batch.schema, options)
    for _ in range(int(batches)):
        writer.write_batch(batch)
    print("sent", flush=True)
    threading.Event().wait()


def fill(root, file_bytes):
    """Store rows where files may not grow beyond a bound, as on a full disk, and print the outcomes as JSON."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
    folder = Path(root)
    outcomes = [
        store(folder, "kept", WriteMode.CREATE, pa.record_batch({"data": [b"before"]})),
        store(folder, "kept", WriteMode.APPEND, noise()),
        store(folder, "other", WriteMode.CREATE, noise()),
        store(folder, "kept", WriteMode.APPEND, pa.record_batch({"data": [b"after"]})),
    ]
    print(json.dumps(outcomes))


def noise():
    return pa.record_batch({"data": [_NOISE[start : start + 1024] for start in range(0, len(_NOISE), 1024)]})


def store(folder, table, mode, rows):
    writer = LakeWriter(Storage(folder))
    try:
        write = writer.open_write(WriteRequest(table=table, mode=mode), rows.schema)
        write.write(rows)
        outcome = write.commit()
    except MicromegasError as error:
        outcome = f"{error.code} {error.what}"
    finally:
        writer.close()
    return {"outcome": outcome, "files": sum(path.is_file() for path in folder.rglob("*"))}


if __name__ == "__main__":
    {"serve": serve, "send": send, "fill": fill}[sys.argv[1]](*sys.argv[2:])
