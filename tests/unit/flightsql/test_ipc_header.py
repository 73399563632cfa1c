"""A message header tells its kind, body and compression, and noise is refused."""

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.decoding import HeaderKind, IpcHeader, read_header


def _headers(batch: pa.RecordBatch, *, compression: str | None = None) -> list[IpcHeader]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return [read_header(message.metadata.to_pybytes()) for message in reader]


def test_plain_messages_are_told_apart() -> None:
    found = _headers(pa.record_batch({"word": pa.array(["a", "b"]).dictionary_encode()}))

    assert found == [
        IpcHeader(kind=HeaderKind.SCHEMA, body_length=0, is_compressed=False),
        IpcHeader(kind=HeaderKind.DICTIONARY_BATCH, body_length=24, is_compressed=False, row_count=2),
        IpcHeader(kind=HeaderKind.RECORD_BATCH, body_length=8, is_compressed=False, row_count=2),
    ]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compression_is_seen_in_rows_and_dictionaries(compression: str) -> None:
    batch = pa.record_batch({"word": pa.array(["a", "b"]).dictionary_encode()})

    found = _headers(batch, compression=compression)

    assert [header.is_compressed for header in found] == [False, True, True]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0" * 64,
        b"\xff" * 64,
        b"\x04\0\0\0" + b"\xff" * 60,
        b"\x04\0\0\0" + b"\x64\0\0\0" + b"\0" * 56,
    ],
    ids=["nothing", "one byte", "zeros", "ones", "a table after its fields", "a table before the start"],
)
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        read_header(data)


def test_a_cut_header_is_refused_wherever_it_is_cut() -> None:
    whole = pa.ipc.read_message(pa.schema({"n": pa.int64()}).serialize()).metadata.to_pybytes()

    for length in range(16):
        with pytest.raises(UsageError):
            read_header(whole[:length])
