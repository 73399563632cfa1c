"""The values of a statement's parameters as bytes that travel with a ticket or a handle, when they are few.

Reading what a client sends is `flightsql.framing`'s job; these bytes are the server's own, under its mark.
"""

from typing import Final

import pyarrow as pa

_MOST_BYTES: Final = 64 * 1024


def pack_values(values: pa.RecordBatch) -> bytes | None:
    """Return `values` as bytes, or None when they are too large to travel."""
    if pa.ipc.get_record_batch_size(values) > _MOST_BYTES:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, values.schema) as writer:
        writer.write_batch(values)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed if len(packed) <= _MOST_BYTES else None


def unpack_values(packed: bytes) -> pa.RecordBatch | None:
    """Return what `pack_values` packed; no bytes are no values."""
    if not packed:
        return None
    with pa.ipc.open_stream(packed) as reader:
        return reader.read_next_batch()
