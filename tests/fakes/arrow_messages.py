"""Arrow data as the messages of a Flight call, also as the package's own encoder would never write it."""

from __future__ import annotations

import pyarrow as pa

from micromegas_jupyter.flightsql.commands import messages


def encode_stream(
    *rows: pa.RecordBatch | pa.Table,
    schema: pa.Schema | None = None,
    compression: str | None = None,
    deltas: bool = False,
) -> list[bytes]:
    """Return the messages: schema, then dictionaries and rows as pyarrow writes them."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(sink, rows[0].schema if schema is None else schema, options=options) as writer:
        for part in rows:
            writer.write(part)
    return [
        messages.FlightData(
            data_header=message.metadata.to_pybytes(), data_body=message.body.to_pybytes() if message.body else b""
        ).SerializeToString()
        for message in pa.ipc.MessageReader.open_stream(sink.getvalue())
    ]
