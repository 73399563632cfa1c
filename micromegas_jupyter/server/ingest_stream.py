"""One ingest's messages into one write: decoded, measured, handed to the storage. All of it blocks.

Reading the messages from the call is `ingest`'s job.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import pyarrow as pa

from micromegas_jupyter.contracts import TableSink, TableWrite, WriteRequest
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.decoding import StreamDecoder
from micromegas_jupyter.flightsql.row_sizes import split_rows
from micromegas_jupyter.server.admission import CallerKey
from micromegas_jupyter.server.headers import Headers
from micromegas_jupyter.server.ingest_settings import IngestSettings

INGEST_ID_HEADER: Final = "x-micromegas-ingest-id"
INGEST_ROWS_HEADER: Final = "x-micromegas-ingest-rows"
_INGEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_ROWS: Final = re.compile(r"[0-9]{1,18}")
_SEND_LESS: Final = "Send them in several calls."


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestHeaders:
    """What an ingest's headers say: its own name, and how many rows will come; None for what they do not say."""

    ingest_id: str | None = None
    row_count: int | None = None


def parse_ingest_headers(headers: Headers) -> IngestHeaders:
    """Read the headers of an ingest.

    Raises:
        UsageError: One of them is there several times or cannot be read.
    """
    ingest_id = _only(headers, INGEST_ID_HEADER)
    if ingest_id is not None and _INGEST_ID.fullmatch(ingest_id) is None:
        raise UsageError(
            f"The header {INGEST_ID_HEADER} is not 1 to 128 printable characters.", remedy="Send a UUID, for instance."
        )
    rows = _only(headers, INGEST_ROWS_HEADER)
    if rows is not None and _ROWS.fullmatch(rows) is None:
        raise UsageError(f"The header {INGEST_ROWS_HEADER} is not a whole number.", remedy="Send decimal digits.")
    return IngestHeaders(ingest_id=ingest_id, row_count=None if rows is None else int(rows))


def build_write_id(caller: CallerKey, table: str, ingest_id: str) -> str:
    """Return what names a caller's write in a table: hexadecimal digits that tell nothing of the parts."""
    parts = b"".join(
        len(part).to_bytes(4, "big") + part for part in (text.encode() for text in (*caller, table, ingest_id))
    )
    return sha256(parts).hexdigest()


class IngestStream:
    """Takes the messages of one ingest in their order; one thread at a time. Ends with `commit` or `abandon`.

    Args:
        sink: Where the rows go.
        request: Into which table, and how.
        settings: The limits.
        row_count: How many rows the caller promised, when they did.
    """

    def __init__(
        self, sink: TableSink, request: WriteRequest, *, settings: IngestSettings, row_count: int | None
    ) -> None:
        self._sink = sink
        self._request = request
        self._settings = settings
        self._promised_rows = row_count
        self._decoder = StreamDecoder(settings.decode_limits())
        self._write: TableWrite | None = None
        self._unpacked_bytes = 0
        self.rows = 0

    def take(self, frame: bytes) -> None:
        """Take one serialised `FlightData`.

        Raises:
            UsageError: It is not valid, or does not fit the table.
            UnsupportedRequest: A type or a compression that is not accepted.
            ResourcesExhausted: Over a limit, or there is no room.
            Unavailable: The storage cannot be used now.
        """
        batch = self._decoder.decode(frame)
        if self._write is None and self._decoder.schema is not None:
            self._write = self._sink.open_write(self._request, _checked(self._decoder.schema))
        if batch is not None and self._write is not None:
            self._store(batch, self._write)

    def commit(self) -> int:
        """Make all rows durable and visible; return how many.

        Raises:
            UsageError: No schema came, or fewer or more rows than promised.
            ResourcesExhausted: There is no room; nothing is stored.
            Unavailable: The storage cannot be used now; nothing is stored.
        """
        if self._write is None:
            raise UsageError("The call carries no schema.", remedy="Send an Arrow table, which may be empty.")
        if self._promised_rows is not None and self._promised_rows != self.rows:
            raise UsageError(
                f"{self.rows:,} rows have come of {self._promised_rows:,}; none is stored.", remedy="Send them again."
            )
        return self._write.commit()

    def abandon(self) -> None:
        """Forget what has come; does nothing after a `commit`."""
        if self._write is not None:
            self._write.abandon()

    def _store(self, batch: pa.RecordBatch, write: TableWrite) -> None:
        self.rows += batch.num_rows
        if self.rows > self._settings.max_rows:
            raise ResourcesExhausted(f"There are more than {self._settings.max_rows:,} rows.", remedy=_SEND_LESS)
        for part, size in split_rows(batch, max_bytes=self._settings.max_row_bytes):
            self._unpacked_bytes += size
            if self._unpacked_bytes > self._settings.max_bytes:
                raise ResourcesExhausted(
                    f"The rows take more than {self._settings.max_bytes:,} bytes.", remedy=_SEND_LESS
                )
            write.write(part)


def _checked(schema: pa.Schema) -> pa.Schema:
    """Return the schema if each column can be told from the others.

    Raises:
        UsageError: Two columns have one name, or there is none.
    """
    if not schema.names:
        raise UsageError("The rows have no columns.", remedy="Send at least one.")
    seen: set[str] = set()
    for name in schema.names:
        if name in seen:
            raise UsageError(f"Two columns have the name {name[:80]!r}.", remedy="Rename one of them.")
        seen.add(name)
    return schema


def _only(headers: Headers, name: str) -> str | None:
    values = headers.get(name, ())
    if len(values) > 1:
        raise UsageError(f"The header {name} is there more than once.", remedy="Send it once.")
    return values[0] if values else None
