"""Arrow data that a caller sends, message by message, into batches that are safe to use.

The bytes are hostile until checked: sizes and compression before Arrow sees them, contents (offsets, dictionary
indices, text) after. What the batches are for is the server's job.
"""

import io
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message
from micromegas_jupyter.flightsql.ipc_header import (
    HeaderKind,
    IpcHeader,
    not_arrow_data,
    read_header,
    unpacked_length,
)
from micromegas_jupyter.flightsql.views import clean_views, is_view, view_lengths

_CONTINUATION: Final = b"\xff\xff\xff\xff"  # Arrow IPC, encapsulated message format
_ALIGNMENT: Final = 8
# Arrow makes an extension type's values by code that somebody registered, so such a field must not reach it.
# Source: Arrow columnar format, "Extension Types".
_EXTENSION_KEY: Final = b"ARROW:extension:name"
_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What is accepted of one stream; sizes in bytes.

    Attributes:
        max_columns: Columns of the schema.
        max_fields: Columns and all fields inside them.
        max_depth: How deep types lie in each other; a plain column is 1.
        max_schema_bytes: The schema's message.
        max_batch_rows: Rows of one batch, and entries of one dictionary.
        max_unpacked_bytes: What a compressed message may take once it is decompressed; 0 accepts no compression.
        max_ratio: How many times as large as its compressed body it may be.
        max_dictionary_bytes: All dictionaries that the stream has in use.
        max_view_bytes: What one column of views of one batch takes.
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


class StreamDecoder:
    """Turns the messages of one stream into batches, as they come; for one thread at a time.

    Args:
        limits: What is accepted.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._feed = _Feed()
        self._reader: pa.RecordBatchStreamReader | None = None
        self._schema: pa.Schema | None = None
        self._dictionary_bytes: dict[int, int] = {}
        self._waiting_bytes = 0

    @property
    def schema(self) -> pa.Schema | None:
        """The stream's schema, None before it has come."""
        return self._schema

    def decode(self, frame: bytes) -> pa.RecordBatch | None:
        """Take one serialised `FlightData` and return its batch, None when it holds something else.

        Raises:
            UsageError: Not a valid part of a stream of Arrow data.
            UnsupportedRequest: Compression that is not accepted, or an extension type.
            ResourcesExhausted: Over a limit.
        """
        data = parse_message(messages.FlightData, frame)
        header, body = data.data_header, data.data_body
        if not header:
            return None  # descriptor or application metadata only
        found = read_header(header)
        if found.body_length != len(body) or (found.kind is HeaderKind.SCHEMA) != (self._schema is None):
            raise not_arrow_data()
        if found.kind is HeaderKind.SCHEMA:
            self._check_schema_header(header)
        else:
            self._check_sizes(found, body)
        self._feed.add(header, body)
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
            return None  # Arrow takes it together with the next rows
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
        # Views may all be of the same bytes, which are looked at for each of them.
        if int(view_lengths(cleaned).clip(min=0).sum(dtype="int64")) > self._limits.max_view_bytes:
            raise _too_large("A column of views takes more than", self._limits.max_view_bytes, "bytes")
        return cleaned

    def _check_schema_header(self, header: bytes) -> None:
        if len(header) > self._limits.max_schema_bytes:
            raise _too_large("The schema is larger than", self._limits.max_schema_bytes, "bytes")
        if _EXTENSION_KEY in header:
            raise UnsupportedRequest(
                "Columns of extension types are not accepted.",
                remedy="Send the plain values below them, for example text instead of arrow.uuid or arrow.json.",
            )

    def _check_schema(self, schema: pa.Schema) -> None:
        if len(schema) > self._limits.max_columns:
            raise _too_large("There are more than", self._limits.max_columns, "columns")
        count = sum(self._count_fields(field.type, depth=1) for field in schema)
        if count > self._limits.max_fields:
            raise _too_large("There are more than", self._limits.max_fields, "fields in all columns")
        for name in schema.names:
            _check_text(name)

    def _count_fields(self, kind: pa.DataType, *, depth: int) -> int:
        if depth > self._limits.max_depth:
            raise _too_large("Types lie more than", self._limits.max_depth, "deep in each other")
        if depth > 1 and is_view(kind):
            raise UnsupportedRequest(
                "View types are not accepted inside other types.", remedy="Send plain text or bytes there."
            )
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            _check_text(kind.tz)
        for index in range(kind.num_fields):
            _check_text(kind.field(index).name)
        inner = [kind.field(index).type for index in range(kind.num_fields)]
        if pa.types.is_dictionary(kind):
            inner.append(kind.value_type)
        return 1 + sum(self._count_fields(found, depth=depth + 1) for found in inner)

    def _check_sizes(self, header: IpcHeader, body: bytes) -> None:
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
            # Those that wait for rows are still as they came, even if the next ones take their place.
            self._waiting_bytes += size
            before = self._dictionary_bytes.get(header.dictionary_id, 0) if header.is_delta else 0
            self._dictionary_bytes[header.dictionary_id] = before + size
            in_use = sum(self._dictionary_bytes.values())
            if max(in_use, self._waiting_bytes) > limits.max_dictionary_bytes:
                raise _too_large("The dictionaries take more than", limits.max_dictionary_bytes, "bytes")


class _Feed(io.RawIOBase):
    """The messages that Arrow's reader may read now; its end is no end, only the last that has come."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def add(self, header: bytes, body: bytes) -> None:
        padding = -len(header) % _ALIGNMENT
        size = (len(header) + padding).to_bytes(4, "little")
        self._pieces += [_CONTINUATION, size, header + bytes(padding)]
        if body:
            self._pieces.append(body)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        # Arrow asks for just the pieces that were added, so most are handed over as they are.
        if self._pieces and len(self._pieces[0]) == size:
            return self._pieces.pop(0)
        taken = b"".join(self._pieces)
        self._pieces = [taken[size:]] if 0 <= size < len(taken) else []
        return taken[:size] if size >= 0 else taken


def _check_text(name: str) -> None:
    """Check a name; asking for it has decoded it, which is where text that is not UTF-8 shows."""
    if not name.isprintable():
        raise UsageError("A column's name holds a character that cannot be printed.", remedy="Rename the column.")


def _too_large(what: str, limit: int, unit: str) -> ResourcesExhausted:
    return ResourcesExhausted(f"{what} {limit:,} {unit}.", remedy="Send less at a time.")
