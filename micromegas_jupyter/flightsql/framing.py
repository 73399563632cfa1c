"""Arrow data as `FlightData` messages: a stream of batches out, a few parameter batches in.

Which batches, and over which call, is decided by the server and client rooms.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message
from micromegas_jupyter.flightsql.ipc_header import HeaderKind, read_header

# A Go gRPC client refuses messages above 4 MiB by default, ADBC above 16 MiB.
DEFAULT_MESSAGE_BYTES: Final = 2 * 1024 * 1024

_DATA_HEADER_TAG: Final = b"\x12"  # field 2, length-delimited
_DATA_BODY_TAG: Final = b"\xc2\x3e"  # field 1000, length-delimited
_CONTINUATION: Final = b"\xff\xff\xff\xff"  # Arrow IPC, encapsulated message format
_END_OF_STREAM: Final = _CONTINUATION + b"\0\0\0\0"
_ALIGNMENT: Final = 8


class _Pieces(io.RawIOBase):
    """Takes what an IPC writer writes, without copying buffers that Arrow hands over whole."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[Any] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._pieces.append(data)
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class FlightDataEncoder:
    """Turns one stream of batches into serialised `FlightData` messages.

    One encoder serves one stream: it remembers which dictionaries the receiver has already been given.

    Args:
        schema: The schema of every batch of the stream.
        max_message_bytes: Batches are cut so that a message stays near this size; one row, and one dictionary, is
            never cut.
    """

    def __init__(self, schema: pa.Schema, *, max_message_bytes: int = DEFAULT_MESSAGE_BYTES) -> None:
        self._schema = schema
        self._max_message_bytes = max_message_bytes
        self._pieces = _Pieces()
        self._writer = pa.ipc.new_stream(self._pieces, schema)

    def encode_schema(self) -> bytes:
        """Return the message that opens the stream."""
        return _frame(pa.ipc.read_message(self._schema.serialize()))

    def encode_batch(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Yield the messages of one batch: dictionaries where the receiver lacks them, then the rows.

        Raises:
            ValueError: The batch does not have the stream's schema.
        """
        for part in split_batch(batch, max_bytes=self._max_message_bytes):
            self._writer.write_batch(part)
            for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(self._pieces.take())):
                if message.type != "schema":  # the writer repeats it before the first batch
                    yield _frame(message)


def split_batch(batch: pa.RecordBatch, *, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Cut a batch into slices of about `max_bytes` each, never below one row.

    Halving copes with rows of very different sizes, which an even cut does not.
    """
    if batch.num_rows <= 1 or pa.ipc.get_record_batch_size(batch) <= max_bytes:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from split_batch(batch.slice(0, middle), max_bytes=max_bytes)
    yield from split_batch(batch.slice(middle), max_bytes=max_bytes)


def _frame(message: pa.Message) -> bytes:
    header = message.metadata
    parts: list[Any] = [_DATA_HEADER_TAG, _varint(header.size), header]
    body = message.body
    if body is not None and body.size:
        parts += [_DATA_BODY_TAG, _varint(body.size), body]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >> 7:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterLimits:
    """How much a caller may bind to a statement."""

    max_rows: int = 1000
    max_columns: int = 256
    max_bytes: int = 4 * 1024 * 1024
    max_messages: int = 1024


def decode_parameters(frames: Sequence[bytes], *, limits: ParameterLimits) -> pa.RecordBatch | None:
    """Read the parameter values of a `DoPut` stream: schema first, then batches, joined into one.

    The bytes are hostile until checked: sizes before Arrow sees them, contents (offsets, dictionaries, text) after.

    Args:
        frames: Serialised `FlightData` messages in the order of arrival.
        limits: What is accepted.

    Returns:
        The rows, or None when the stream held a schema at most.

    Raises:
        UsageError: Not a valid stream of Arrow data.
        UnsupportedRequest: Compressed bodies or extension types.
        ResourcesExhausted: Over a limit.
    """
    _check_size(sum(len(frame) for frame in frames) <= limits.max_bytes and len(frames) <= limits.max_messages)
    stream = b"".join(_encapsulate(frame) for frame in frames)
    if not stream:
        return None
    try:
        with pa.ipc.open_stream(stream + _END_OF_STREAM) as reader:
            _check_types(reader.schema, limits)
            batches = _read_batches(reader, limits)
            if not batches:
                return None
            return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError("The parameters are not valid Arrow data.", remedy="Use a Flight SQL client.") from error


def _read_batches(reader: pa.RecordBatchReader, limits: ParameterLimits) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    row_count = 0
    for batch in reader:
        row_count += batch.num_rows
        _check_size(row_count <= limits.max_rows)
        batch.validate(full=True)
        if batch.num_rows:
            batches.append(batch)
    return batches


def _encapsulate(frame: bytes) -> bytes:
    data = parse_message(messages.FlightData, frame)
    header, body = data.data_header, data.data_body
    if not header:
        return b""  # descriptor or application metadata only
    found = read_header(header)
    if found.kind is not HeaderKind.SCHEMA and found.is_compressed:
        raise UnsupportedRequest("Compressed parameters are not accepted.", remedy="Send them uncompressed.")
    if found.body_length != len(body):
        raise UsageError("The parameters are not valid Arrow data.", remedy="Use a Flight SQL client.")
    padding = -len(header) % _ALIGNMENT
    size = (len(header) + padding).to_bytes(4, "little")
    return b"".join((_CONTINUATION, size, header, bytes(padding), body))


def _check_size(within: bool) -> None:  # noqa: FBT001 - a guard reads best with its condition in place
    if not within:
        raise ResourcesExhausted("The parameters are larger than this server takes.", remedy="Bind fewer values.")


def _check_types(schema: pa.Schema, limits: ParameterLimits) -> None:
    _check_size(len(schema) <= limits.max_columns)
    for field in schema:
        _check_type(field.type)


def _check_type(data_type: pa.DataType) -> None:
    if isinstance(data_type, pa.BaseExtensionType):
        raise UnsupportedRequest("Parameters of extension types are not accepted.", remedy="Bind plain values.")
    for index in range(data_type.num_fields):
        _check_type(data_type.field(index).type)
