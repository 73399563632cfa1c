"""Encodes batches as `FlightData` messages, and decodes callers' messages into batches that are safe to use.

Incoming data is untrusted: sizes and compression are checked before Arrow reads it, contents after. Sources: Arrow
format/Message.fbs, the flatbuffers encoding, and "Variable-size Binary View Layout".
"""

import enum
import io
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql.commands import MAX_PARAMETERS

_MESSAGE_HEADER_TYPE: Final = 1
_MESSAGE_HEADER: Final = 2
_MESSAGE_BODY_LENGTH: Final = 3
_DICTIONARY_ID: Final = 0
_DICTIONARY_DATA: Final = 1
_DICTIONARY_IS_DELTA: Final = 2
_BATCH_LENGTH: Final = 0
_BATCH_BUFFERS: Final = 2
_BATCH_COMPRESSION: Final = 3
_BUFFER_BYTES: Final = 16
_PREFIX_BYTES: Final = 8
_NOT_COMPRESSED: Final = -1
_VIEW_BYTES: Final = 16
#: Prefix of each IPC stream message ("Encapsulated message format"); the end of the stream doesn't have a size.
CONTINUATION: Final = b"\xff\xff\xff\xff"
END_OF_STREAM: Final = b"\0\0\0\0"
_ALIGNMENT: Final = 8
# Registered code creates an extension type's values, so Arrow must not see the extension: the key is overwritten, and
# the values have the storage type. A name can't contain the other key, which isn't printable. Source: Arrow columnar
# format, "Extension Types".
_EXTENSION_KEY: Final = b"ARROW:extension:name"
_STORAGE_KEY: Final = b"ARROW:extension\0name"
_EXTENSIONS: Final = frozenset({b"arrow.uuid", b"arrow.json", b"arrow.bool8"})
# Arrow also decompresses the bodies of messages with this metadata, which version 0.17 wrote.
_FORMER_COMPRESSION_KEY: Final = b"ARROW:experimental_compression"
# The limit inside the lists and dictionaries of one batch, because measuring rows takes several numbers per value.
_MAX_VALUES: Final = 8 * 1024 * 1024
_MEBIBYTE: Final = 1024 * 1024
Sizes = npt.NDArray[np.int64]


class HeaderKind(enum.Enum):
    """The kind of an IPC message; the values are those of the `MessageHeader` union."""

    SCHEMA = 1
    DICTIONARY_BATCH = 2
    RECORD_BATCH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcHeader:
    """The contents of a message's header; a dictionary's rows are its entries."""

    kind: HeaderKind
    body_length: int
    is_compressed: bool
    row_count: int = 0
    dictionary_id: int = 0
    is_delta: bool = False  # whether a dictionary extends the previous one instead of replacing it
    buffers: tuple[tuple[int, int], ...] = ()  # offset and length of each buffer, only in compressed bodies


def read_header(data: bytes) -> IpcHeader:
    """Parse the flatbuffer of one IPC message: Arrow allocates the size that a compressed buffer declares."""
    try:
        return _read_header(data)
    except (struct.error, ValueError):
        raise not_arrow_data() from None


def unpacked_length(header: IpcHeader, body: bytes) -> int:
    """Return the total declared size of a compressed body's buffers after decompression."""
    total = 0
    for offset, length in header.buffers:
        if offset < 0 or length < 0 or offset + length > len(body):
            raise not_arrow_data()
        if length == 0:
            continue
        if length < _PREFIX_BYTES:
            raise not_arrow_data()
        announced = int.from_bytes(body[offset : offset + _PREFIX_BYTES], "little", signed=True)
        if announced < _NOT_COMPRESSED:
            raise not_arrow_data()
        total += length if announced == _NOT_COMPRESSED else announced
    return total


def not_arrow_data() -> UsageError:
    """Return the error for malformed data."""
    return UsageError("The request is not valid Arrow data.", remedy="Use a Flight SQL client.")


def read_frame(frame: bytes) -> tuple[bytes, IpcHeader | None, bytes]:
    """Return a serialized `FlightData` reduced to its Arrow data, its parsed header, and the header's bytes.

    The body isn't read. The frame is the same object unless parts are removed; without Arrow data, there is no header.
    """
    try:
        return _read_frame(frame)
    except (struct.error, ValueError, IndexError):
        raise not_arrow_data() from None


def _read_frame(frame: bytes) -> tuple[bytes, IpcHeader | None, bytes]:
    header, body, has_more = _split_frame(frame)
    if not header:
        return frame, None, b""
    found = read_header(header)
    if found.body_length != len(body):
        raise ValueError("a body of a different length")
    if has_more:
        frame = b"".join(_frame(header, len(body), [body] if body else []))
    return frame, found, header


def _split_frame(frame: bytes) -> tuple[bytes, memoryview, bool]:
    """Return the header and body of a serialized `FlightData`, and whether it has other fields (not decoded)."""
    header: bytes | None = None
    body: memoryview | None = None
    has_more = False
    position = 0
    while position < len(frame):
        tag, position = _read_varint(frame, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError("a field that doesn't exist in FlightData")
        length, position = _read_varint(frame, position)
        if position + length > len(frame):
            raise ValueError("a field that extends past the end of the message")
        if tag == _DATA_HEADER and header is None and length <= _MAX_HEADER_BYTES:
            header = frame[position : position + length]
        elif tag == _DATA_BODY and body is None:
            body = memoryview(frame)[position : position + length]
        elif tag in {_DATA_HEADER, _DATA_BODY}:
            raise ValueError("a field that is repeated or too large")
        else:
            has_more = True
        position += length
    return header or b"", memoryview(b"") if body is None else body, has_more


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it."""
    number = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last one has no continuation bit
            return number, position
    raise ValueError("a number of more than 64 bits")


def ipc_message(frame: bytes) -> tuple[bytes, memoryview]:
    """Return a serialized `FlightData` as an encapsulated IPC message: its start, without the marker, and its body.

    Source: Arrow columnar format, "Encapsulated message format".
    """
    try:
        header, body, _ = _split_frame(frame)
    except (ValueError, IndexError):
        raise not_arrow_data() from None
    size = -(-len(header) // _ALIGNMENT) * _ALIGNMENT
    return size.to_bytes(4, "little") + header.ljust(size, b"\0"), body


def frame_of_header(header: bytes) -> bytes:
    """Return the `FlightData` for a message without a body, such as a schema message."""
    return b"".join(_frame(header, 0, []))


def _read_header(data: bytes) -> IpcHeader:
    message = _indirect(data, 0)
    kind = HeaderKind(_scalar(data, message, _MESSAGE_HEADER_TYPE, "<B"))
    body_length = _scalar(data, message, _MESSAGE_BODY_LENGTH, "<q")
    header = _table(data, message, _MESSAGE_HEADER)
    if kind is HeaderKind.SCHEMA:
        return IpcHeader(kind=kind, body_length=body_length, is_compressed=False)
    if _FORMER_COMPRESSION_KEY in data:
        raise ValueError("a compressed body that isn't marked as compressed")
    is_dictionary = kind is HeaderKind.DICTIONARY_BATCH
    batch = _table(data, header, _DICTIONARY_DATA) if is_dictionary else header
    is_compressed = _field(data, batch, _BATCH_COMPRESSION) is not None
    row_count = _scalar(data, batch, _BATCH_LENGTH, "<q")
    if row_count < 0:
        raise ValueError("a negative number of rows")
    return IpcHeader(
        kind=kind,
        body_length=body_length,
        is_compressed=is_compressed,
        row_count=row_count,
        dictionary_id=_scalar(data, header, _DICTIONARY_ID, "<q") if is_dictionary else 0,
        is_delta=is_dictionary and bool(_scalar(data, header, _DICTIONARY_IS_DELTA, "<B")),
        buffers=_read_buffers(data, batch) if is_compressed else (),
    )


def _read_buffers(data: bytes, batch: int) -> tuple[tuple[int, int], ...]:
    position = _field(data, batch, _BATCH_BUFFERS)
    if position is None:
        return ()
    vector = _indirect(data, position)
    count = _read(data, "<I", vector)
    start = vector + 4
    if start + count * _BUFFER_BYTES > len(data):
        raise ValueError("too many buffers")
    return tuple(struct.iter_unpack("<qq", data[start : start + count * _BUFFER_BYTES]))


def _read(data: bytes, form: str, position: int) -> int:
    if position < 0:
        raise ValueError("before the start")
    number: int = struct.unpack_from(form, data, position)[0]
    return number


def _indirect(data: bytes, position: int) -> int:
    return position + _read(data, "<I", position)


def _field(data: bytes, table: int, slot: int) -> int | None:
    """Return the position of a table's field, or None if the field has its default value."""
    vtable = table - _read(data, "<i", table)
    offset_position = 4 + 2 * slot
    if offset_position + 2 > _read(data, "<H", vtable):
        return None
    offset = _read(data, "<H", vtable + offset_position)
    return table + offset if offset else None


def _scalar(data: bytes, table: int, slot: int, form: str) -> int:
    position = _field(data, table, slot)
    return 0 if position is None else _read(data, form, position)


def _table(data: bytes, table: int, slot: int) -> int:
    position = _field(data, table, slot)
    if position is None:
        raise ValueError("a required table is missing")
    return _indirect(data, position)


def is_view(kind: pa.DataType) -> bool:
    """Whether this type's values are views."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def view_lengths(array: pa.Array) -> npt.NDArray[np.int32]:
    """Return the declared length of each view, including those of null values."""
    return _views(array)[:, 0]


def clean_views(array: pa.Array) -> pa.Array:
    """Return the same values with empty views for nulls; null views need not have been validated."""
    views = np.where(array.is_valid().to_numpy(zero_copy_only=False)[:, np.newaxis], _views(array), np.int32(0))
    validity = array.is_valid().buffers()[1] if array.null_count else None
    return pa.Array.from_buffers(
        array.type, len(array), [validity, pa.py_buffer(np.ascontiguousarray(views)), *array.buffers()[2:]]
    )


def _views(array: pa.Array) -> npt.NDArray[np.int32]:
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros((len(array), _VIEW_BYTES // 4), np.int32)
    end = (array.offset + len(array)) * _VIEW_BYTES
    return np.frombuffer(buffer, np.int32, count=end // 4).reshape(-1, _VIEW_BYTES // 4)[array.offset :]


def split_rows(batch: pa.RecordBatch, *, max_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield validated rows in slices of at most `max_bytes`, with each slice's size as if no values were shared."""
    sizes = row_sizes(batch)
    ends = np.cumsum(sizes)
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + max_bytes, side="right"))
        if stop == start:
            raise ResourcesExhausted(f"A row takes more than {max_bytes:,} bytes.", remedy="Send smaller rows.")
        yield batch.slice(start, stop - start), int(ends[stop - 1]) - before
        start = stop


def row_sizes(batch: pa.RecordBatch) -> Sizes:
    """Return the size of each row in bytes; a value counts as at least one byte."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            sizes += _column_sizes(column)
        except _NotAccepted as error:
            raise error.of_column(field.name) from None
    return sizes


def _column_sizes(array: pa.Array) -> Sizes:
    """Return the sizes of a column's values, including types that aren't accepted inside other types."""
    if pa.types.is_run_end_encoded(array.type):
        rows = np.arange(array.offset, array.offset + len(array))
        runs = np.searchsorted(array.run_ends.to_numpy(), rows, side="right")
        found: Sizes = _sizes(array.values)[runs]
        return found
    if isinstance(array.type, pa.ListViewType | pa.LargeListViewType):
        # Several views may reference the same values.
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(_sizes(array.values))])
        is_valid = array.is_valid().to_numpy(zero_copy_only=False)
        first = np.where(is_valid, array.offsets.to_numpy(), 0).astype(np.int64)
        return _one_or_more(ends[first + np.where(is_valid, array.sizes.to_numpy(), 0)] - ends[first])
    return _sizes(array)


def _sizes(array: pa.Array) -> Sizes:  # noqa: PLR0911 - one line for each kind
    kind = array.type
    if len(array) > _MAX_VALUES:
        raise _too_large("The lists or a dictionary of a batch have more than", _MAX_VALUES, "values")
    width = _fixed_width(kind)
    if width is not None:
        return np.full(len(array), width, np.int64)
    if pa.types.is_dictionary(kind):
        return _dictionary_sizes(array)
    if is_view(kind):
        return _one_or_more(view_lengths(array))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _list_sizes(array)
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        inner = _sizes(array.values)[array.offset * kind.list_size :][: len(array) * kind.list_size]
        total: Sizes = inner.reshape(len(array), kind.list_size).sum(axis=1, dtype=np.int64)
        return total
    if pa.types.is_struct(kind) and kind.num_fields:
        fields = [_sizes(array.field(index)) for index in range(kind.num_fields)]
        return sum(fields, np.zeros(len(array), np.int64))
    if any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    ):
        import pyarrow.compute as pc  # clients don't measure rows, and start faster without it

        return _one_or_more(pc.binary_length(array).fill_null(0).to_numpy())
    raise _NotAccepted(str(kind))


class _NotAccepted(Exception):
    """The type is not accepted, for example because its values are empty and could be arbitrarily many."""

    def of_column(self, name: str) -> UnsupportedRequest:
        """Return the error for the column that has this type."""
        return UnsupportedRequest(
            f"The column {name[:80]!r} has the type {str(self)[:80]}, which is not accepted.",
            remedy="Send plain values, lists, or structs.",
        )


def _fixed_width(kind: pa.DataType) -> int | None:
    """Return every value's fixed size, because a short message can contain very many values, or None if sizes vary."""
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return 1
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        return max(1, int(kind.bit_width) // 8)
    if pa.types.is_struct(kind) and kind.num_fields:
        widths = [_fixed_width(kind.field(index).type) for index in range(kind.num_fields)]
        known = [width for width in widths if width is not None]
        return sum(known) if len(known) == len(widths) else None
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        inner = _fixed_width(kind.value_type)
        return None if inner is None else inner * int(kind.list_size)
    return None


def _dictionary_sizes(array: pa.DictionaryArray) -> Sizes:
    values = _sizes(array.dictionary)
    if len(values) == 0:
        return np.ones(len(array), np.int64)  # without values, every row is null
    found: Sizes = values[array.indices.fill_null(0).to_numpy()]
    return found


def _list_sizes(array: pa.ListArray) -> Sizes:
    offsets = array.offsets.to_numpy().astype(np.int64)
    width = _fixed_width(array.type.value_type) if not pa.types.is_map(array.type) else None
    if width is not None:
        return _one_or_more(np.diff(offsets) * width)
    inner = np.concatenate([np.zeros(1, np.int64), np.cumsum(_sizes(array.values))])
    return _one_or_more(np.diff(inner[offsets]))


def _one_or_more(sizes: npt.NDArray[np.generic]) -> Sizes:
    return np.maximum(sizes.astype(np.int64), np.int64(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Limits for one stream; sizes are in bytes.

    `max_fields` counts columns and all nested fields, `max_depth` nested types (a plain column is 1), and
    `max_batch_rows` also a dictionary's entries. `max_schema_bytes` limits each message's metadata.
    `max_unpacked_bytes` limits a compressed message, which may be `max_ratio` times as large as its body; 0 rejects
    compression. `max_view_bytes` limits one column of views per batch.
    """

    max_columns: int
    max_fields: int = 2048
    max_depth: int = 8
    max_schema_bytes: int = _MEBIBYTE
    max_batch_rows: int
    max_unpacked_bytes: int = 0
    max_ratio: int = 1000
    max_dictionary_bytes: int
    max_view_bytes: int = 64 * _MEBIBYTE


class _Pieces(io.RawIOBase):
    """A stream of written bytes, read without copying pieces that are contiguous.

    Connects an IPC writer or a stream's messages to their reader. Reaching its end only means that no more data has
    arrived.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pieces: deque[Any] = deque()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def write(self, data: Any, /) -> int:
        self._pieces.append(data)
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        waiting = sum(map(len, self._pieces))
        return b"".join(self.take(waiting if size < 0 else min(size, waiting)))

    def take(self, count: int) -> list[Any]:
        """Return the next `count` bytes, which must be available, as the original pieces."""
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
        """Return the next encapsulated Arrow IPC message: its metadata, the parsed header, and its body."""
        size = int.from_bytes(b"".join(self.take(_PREFIX_BYTES))[4:], "little")
        metadata = b"".join(self.take(size))
        header = read_header(metadata)
        return metadata, header, self.take(header.body_length)


class StreamDecoder:
    """Decodes the messages of one stream into batches as they arrive; use it from one thread at a time."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._feed = _Pieces()
        self._reader: pa.RecordBatchStreamReader | None = None
        self._schema: pa.Schema | None = None
        self._dictionary_bytes: dict[int, int] = {}
        self._waiting_bytes = 0

    @property
    def schema(self) -> pa.Schema | None:
        """The stream's schema, or None if it hasn't arrived yet."""
        return self._schema

    def decode(self, frame: bytes) -> pa.RecordBatch | None:
        """Return the batch of one serialized `FlightData`, or None if it contains something else."""
        try:
            header, view, _ = _split_frame(frame)
        except (ValueError, IndexError):
            raise not_arrow_data() from None
        if not header:
            return None  # only a descriptor or application metadata
        if len(header) > self._limits.max_schema_bytes:
            what = "The schema or the metadata of a message is larger than"
            raise _too_large(what, self._limits.max_schema_bytes, "bytes")
        body = bytes(view)
        found = read_header(header)
        if found.body_length != len(body) or (found.kind is HeaderKind.SCHEMA) != (self._schema is None):
            raise not_arrow_data()
        if found.kind is not HeaderKind.SCHEMA:
            self._check_sizes(found, header, body)
        else:
            header = header.replace(_EXTENSION_KEY, _STORAGE_KEY)
        padding = bytes(-len(header) % _ALIGNMENT)
        size = (len(header) + len(padding)).to_bytes(4, "little")
        for piece in filter(None, (CONTINUATION, size, header + padding, body)):
            self._feed.write(piece)
        try:
            return self._advance(found)
        except (pa.ArrowException, OSError, ValueError, TypeError, StopIteration) as error:
            raise not_arrow_data() from error

    def _advance(self, header: IpcHeader) -> pa.RecordBatch | None:
        if header.kind is HeaderKind.SCHEMA:
            self._reader = pa.ipc.open_stream(pa.PythonFile(self._feed, mode="r"))
            schema = self._reader.schema
            self._check_schema(schema)
            self._schema = schema
            return None
        if header.kind is HeaderKind.DICTIONARY_BATCH or self._reader is None:
            return None  # Arrow reads it together with the next rows
        self._waiting_bytes = 0
        batch = self._reader.read_next_batch()
        batch.validate()
        if any(is_view(kind) for kind in batch.schema.types):
            columns = [self._safe_column(column) for column in batch.columns]
            batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
        batch.validate(full=True)
        return batch

    def _safe_column(self, column: pa.Array) -> pa.Array:
        if not is_view(column.type):
            return column
        cleaned = clean_views(column)
        # Views may all reference the same bytes, which are read once per view.
        if int(view_lengths(cleaned).clip(min=0).sum(dtype="int64")) > self._limits.max_view_bytes:
            raise _too_large("A column of views takes more than", self._limits.max_view_bytes, "bytes")
        return cleaned

    def _check_schema(self, schema: pa.Schema) -> None:
        if len(schema) > self._limits.max_columns:
            raise _too_large("There are more than", self._limits.max_columns, "columns")
        count = 0
        for field in schema:
            _check_text(field.name)
            try:
                count += self._count_fields(field, depth=1)
            except _NotAccepted as error:
                raise error.of_column(field.name) from None
        if count > self._limits.max_fields:
            raise _too_large("There are more than", self._limits.max_fields, "fields in all columns")

    def _count_fields(self, field: pa.Field, *, depth: int) -> int:
        kind, extension = field.type, (field.metadata or {}).get(_STORAGE_KEY)
        if extension is not None and extension not in _EXTENSIONS:
            raise _NotAccepted(ascii(extension)[2:-1])
        if depth > self._limits.max_depth:
            raise _too_large("Types lie more than", self._limits.max_depth, "deep in each other")
        if depth > 1 and is_view(kind):
            raise _NotAccepted(f"{kind} inside another type")
        if pa.types.is_fixed_size_binary(kind) and not kind.byte_width:
            raise _NotAccepted(str(kind))
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            _check_text(kind.tz)
        inner = [kind.field(index) for index in range(kind.num_fields)]
        for one in inner:
            _check_text(one.name)
        if pa.types.is_dictionary(kind):
            inner.append(pa.field("", kind.value_type))
        return 1 + sum(self._count_fields(found, depth=depth + 1) for found in inner)

    def _check_sizes(self, header: IpcHeader, encoded: bytes, body: bytes) -> None:
        limits = self._limits
        if header.row_count > limits.max_batch_rows:
            raise _too_large("A batch has more than", limits.max_batch_rows, "rows")
        size = len(body)
        if header.is_compressed:
            size = unpacked_length(header, body)
            if limits.max_unpacked_bytes == 0:
                raise UnsupportedRequest("Compressed data is not accepted here.", remedy="Send it uncompressed.")
            allowed = min(limits.max_unpacked_bytes, limits.max_ratio * len(body))
            if size > allowed:
                raise _too_large("A compressed batch takes more than", allowed, "bytes")
        if header.kind is HeaderKind.DICTIONARY_BATCH:
            # Dictionaries waiting for rows are still undecoded, even if the next ones replace them.
            self._waiting_bytes += len(encoded) + size
            before = self._dictionary_bytes.get(header.dictionary_id, 0) if header.is_delta else 0
            self._dictionary_bytes[header.dictionary_id] = before + size
            in_use = sum(self._dictionary_bytes.values())
            if max(in_use, self._waiting_bytes) > limits.max_dictionary_bytes:
                raise _too_large("The dictionaries take more than", limits.max_dictionary_bytes, "bytes")


def _check_text(name: str) -> None:
    """Check a name; accessing it has decoded it, which fails for text that is not UTF-8."""
    if not name.isprintable():
        raise UsageError("A column name contains a character that cannot be printed.", remedy="Rename the column.")


def _too_large(what: str, limit: int, unit: str) -> ResourcesExhausted:
    return ResourcesExhausted(f"{what} {limit:,} {unit}.", remedy="Send less data at a time.")


# By default, Go gRPC clients reject messages larger than 4 MiB, and ADBC rejects messages larger than 16 MiB.
DEFAULT_MESSAGE_BYTES: Final = 2 * 1024 * 1024
# A single row or dictionary, which can't be split, may be larger, up to this size.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

_LENGTH_DELIMITED: Final = 2
_DATA_HEADER: Final = 2 << 3 | _LENGTH_DELIMITED
_DATA_BODY: Final = 1000 << 3 | _LENGTH_DELIMITED
_MAX_HEADER_BYTES: Final = 8 * _MEBIBYTE
_DATA_HEADER_TAG: Final = b"\x12"  # field 2, length-delimited
_DATA_BODY_TAG: Final = b"\xc2\x3e"  # field 1000, length-delimited
# Up to this size, copying the rows twice is faster than finding the ends of their messages.
_SMALL_BYTES: Final = 64 * 1024


Compression = Literal["lz4", "zstd"]


class FlightDataEncoder:
    """Encodes batches as serialized `FlightData` of about `max_message_bytes`; never splits a row or dictionary."""

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
        """Return the first message of the stream."""
        return b"".join(_frame_whole(self._schema.serialize()))

    def encode_batch(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Yield the messages of one batch: dictionaries that the receiver lacks, then the rows."""
        return map(b"".join, self.encode_pieces(batch))

    def encode_pieces(self, batch: pa.RecordBatch) -> Iterator[list[Any]]:
        """Yield the messages of one batch like `encode_batch`, but each as separate pieces."""
        if self._is_plain and pa.ipc.get_record_batch_size(batch) <= min(_SMALL_BYTES, self._max_message_bytes):
            if batch.schema != self._schema:
                raise ValueError("a batch has a different schema from its stream")
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
    """Return whether columns of a type never have dictionaries."""
    return kind.num_fields == 0 and not pa.types.is_dictionary(kind) and not isinstance(kind, pa.BaseExtensionType)


def _frame_whole(message: pa.Buffer) -> list[Any]:
    """Return the `FlightData` of one encapsulated message without preceding dictionaries."""
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
            remedy="Select part of the value, such as substr(column, 1, 1000000), or fewer columns.",
        )


def split_batch(batch: pa.RecordBatch, *, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Split a batch into slices of about `max_bytes` by halving, never below one row."""
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
    """Limits on a statement's parameters."""

    max_rows: int = 1000
    max_columns: int = MAX_PARAMETERS
    max_bytes: int = 4 * 1024 * 1024
    max_messages: int = 1024


def decode_parameters(frames: Sequence[bytes], *, limits: ParameterLimits) -> pa.RecordBatch | None:
    """Return the joined rows of a `DoPut` stream's `FlightData`; None if it contains at most a schema."""
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
        raise ResourcesExhausted("The parameters are larger than this server accepts.", remedy="Bind fewer values.")
