"""One upload's messages into one write: decoded, measured, handed to the storage. All of it blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.decoding import StreamDecoder, split_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.core.protocols import TableSink, TableWrite
    from micromegas_jupyter.executors.requests import Upload

_SEND_LESS: Final = "Send them in several calls."


class UploadStream:
    """Takes the messages of one upload in their order. Ends with `commit` or `abandon`.

    Args:
        sink: Where the rows go.
        upload: Into which table, and how much of it.
    """

    def __init__(self, sink: TableSink, upload: Upload) -> None:
        self._sink = sink
        self._upload = upload
        self._decoder = StreamDecoder(upload.decoding)
        self._write: TableWrite | None = None
        self._unpacked_bytes = 0
        self.rows = 0

    def take(self, frame: bytes) -> None:
        """Take one serialized `FlightData`.

        Raises:
            UsageError: It is not valid, or does not fit the table.
            UnsupportedRequest: A type or a compression that is not accepted.
            ResourcesExhausted: Over a limit, or there is no room.
            Unavailable: The storage cannot be used now.
        """
        batch = self._decoder.decode(frame)
        if self._write is None and self._decoder.schema is not None:
            self._write = self._sink.open_write(self._upload.request, _checked(self._decoder.schema))
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
        promised = self._upload.row_count
        if promised is not None and promised != self.rows:
            raise UsageError(
                f"{self.rows:,} rows have come of {promised:,}; none is stored.", remedy="Send them again."
            )
        return self._write.commit()

    def abandon(self) -> None:
        """Forget what has come; does nothing after a `commit`."""
        if self._write is not None:
            self._write.abandon()

    def _store(self, batch: pa.RecordBatch, write: TableWrite) -> None:
        self.rows += batch.num_rows
        if self.rows > self._upload.max_rows:
            raise ResourcesExhausted(
                f"There are more than {self._upload.max_rows:,} rows.", remedy=_SEND_LESS, limit="ingest"
            )
        for part, size in split_rows(batch, max_bytes=self._upload.max_row_bytes):
            self._unpacked_bytes += size
            if self._unpacked_bytes > self._upload.max_bytes:
                raise ResourcesExhausted(
                    f"The rows take more than {self._upload.max_bytes:,} bytes.", remedy=_SEND_LESS, limit="ingest"
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
