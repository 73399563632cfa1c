"""Arrow data as `FlightData` messages: a stream of batches out, a few parameter batches in.

Which batches, and over which call, is decided by the server and client packages.
"""

import io
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.flightsql.decoding import DecodeLimits, HeaderKind, IpcHeader, StreamDecoder, read_header

# A Go gRPC client refuses messages above 4 MiB by default, ADBC above 16 MiB.
DEFAULT_MESSAGE_BYTES: Final = 2 * 1024 * 1024
# What cannot be cut (a row, a dictionary) may be larger, up to this.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

_DATA_HEADER_TAG: Final = b"\x12"  # field 2, length-delimited
_DATA_BODY_TAG: Final = b"\xc2\x3e"  # field 1000, length-delimited
_PREFIX_BYTES: Final = 8
# Up to here to copy the rows twice takes less time than to look for the ends of their messages.
_SMALL_BYTES: Final = 64 * 1024


Compression = Literal["lz4", "zstd"]


class _Pieces(io.RawIOBase):
    """Takes what an IPC writer writes, and gives it out again, without copying buffers that Arrow hands over whole."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: deque[Any] = deque()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._pieces.append(data)
        return len(data)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def take(self, count: int) -> list[Any]:
        """Return the next `count` bytes, which are there, as they came."""
        taken: list[Any] = []
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                whole = memoryview(piece)
                self._pieces.appendleft(whole[count:])
                piece = whole[:count]
            count -= len(piece)
            taken.append(piece)
        return taken

    def take_message(self) -> tuple[bytes, IpcHeader, list[Any]]:
        """Return the next message: its metadata, what these say, its body.

        Source: Arrow IPC, "Encapsulated message format": a continuation, the length of the metadata, metadata, body.
        """
        size = int.from_bytes(b"".join(self.take(_PREFIX_BYTES))[4:], "little")
        metadata = b"".join(self.take(size))
        header = read_header(metadata)
        return metadata, header, self.take(header.body_length)


class FlightDataEncoder:
    """Turns one stream of batches into serialised `FlightData` messages; remembers the dictionaries that were sent.

    Args:
        schema: The schema of every batch of the stream.
        max_message_bytes: Batches are cut so that a message stays near this size; one row, and one dictionary, is
            never cut.
        compression: How the bodies of messages are compressed (Arrow IPC, `BodyCompression`); None for not at all.
    """

    def __init__(
        self,
        schema: pa.Schema,
        *,
        max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
        compression: Compression | None = None,
    ) -> None:
        self._schema = schema
        self._max_message_bytes = max_message_bytes
        self._is_plain = compression is None and all(_is_plain(field.type) for field in schema)
        self._pieces = _Pieces()
        self._options = pa.ipc.IpcWriteOptions(compression=compression)
        self._writer: Any = None

    def encode_schema(self) -> bytes:
        """Return the message that opens the stream."""
        return b"".join(_frame_whole(self._schema.serialize()))

    def encode_batch(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Yield the messages of one batch: dictionaries where the receiver lacks them, then the rows.

        Raises:
            ValueError: The batch does not have the stream's schema.
            ResourcesExhausted: One row, or one dictionary, is larger than any message.
        """
        return map(b"".join, self.encode_pieces(batch))

    def encode_pieces(self, batch: pa.RecordBatch) -> Iterator[list[Any]]:
        """Yield the messages of one batch as `encode_batch` does, each in pieces that are not joined."""
        if self._is_plain and pa.ipc.get_record_batch_size(batch) <= min(_SMALL_BYTES, self._max_message_bytes):
            if batch.schema != self._schema:
                raise ValueError("a batch has another schema than its stream")
            yield _frame_whole(batch.serialize())
            return
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._pieces, self._schema, options=self._options)
        for part in split_batch(batch, max_bytes=self._max_message_bytes):
            if part.num_rows == 1:
                _check_message_size(pa.ipc.get_record_batch_size(part))
            self._writer.write_batch(part)
            while self._pieces:
                metadata, header, body = self._pieces.take_message()
                if header.kind is not HeaderKind.SCHEMA:  # the writer repeats it before the first batch
                    _check_message_size(len(metadata) + header.body_length)
                    yield _frame(metadata, header.body_length, body)


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether columns of a type bring no dictionaries along, whatever is in them."""
    return kind.num_fields == 0 and not pa.types.is_dictionary(kind) and not isinstance(kind, pa.BaseExtensionType)


def _frame_whole(message: pa.Buffer) -> list[Any]:
    """Return the `FlightData` of one encapsulated message, which has no dictionaries before it."""
    whole = memoryview(message)
    body_at = _PREFIX_BYTES + int.from_bytes(whole[4:_PREFIX_BYTES], "little")
    body = whole[body_at:]
    return _frame(whole[_PREFIX_BYTES:body_at], len(body), [body])


def _check_message_size(size: int) -> None:
    if size > MAX_MESSAGE_BYTES:
        mib = 1024 * 1024
        raise ResourcesExhausted(
            f"One row or dictionary of the result takes {size / mib:,.0f} MiB, more than the "
            f"{MAX_MESSAGE_BYTES // mib} MiB that one message may have.",
            remedy="Ask for a part of the value, such as substr(column, 1, 1000000), or for fewer columns.",
        )


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


def _frame(metadata: bytes | memoryview, body_length: int, body: list[Any]) -> list[Any]:
    """Return the pieces of a `FlightData`."""
    head: list[Any] = [_DATA_HEADER_TAG, _varint(len(metadata)), metadata]
    if body_length:
        head += [_DATA_BODY_TAG, _varint(body_length)]
    return head + body


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
    decoder = StreamDecoder(
        DecodeLimits(
            max_columns=limits.max_columns, max_batch_rows=limits.max_rows, max_dictionary_bytes=limits.max_bytes
        )
    )
    batches = [batch for batch in map(decoder.decode, frames) if batch is not None and batch.num_rows]
    _check_size(sum(batch.num_rows for batch in batches) <= limits.max_rows)
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0] if batches else None


def _check_size(within: bool) -> None:  # noqa: FBT001 - a guard reads best with its condition in place
    if not within:
        raise ResourcesExhausted("The parameters are larger than this server takes.", remedy="Bind fewer values.")
