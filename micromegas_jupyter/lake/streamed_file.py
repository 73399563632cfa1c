"""One Parquet file that is written row group by row group and then appears whole under its name, or not at all.

Memory holds one row group at a time. What the rows mean and what the name is, is for others.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest
from micromegas_jupyter.lake.files import make_private_folder, name_once, rename_durably, storage_errors
from micromegas_jupyter.lake.segment_writer import COMPRESSION
from micromegas_jupyter.lake.segments import TEMPORARY_SUFFIX

ROWS_PER_GROUP: Final = 128 * 1024
BYTES_PER_GROUP: Final = 16 * 1024 * 1024
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_WHAT: Final = "The rows could not be stored."


@contextlib.contextmanager
def write_errors() -> Iterator[None]:
    """Turn errors of the file system into those that cross packages, a full one apart from the others.

    Raises:
        ResourcesExhausted: There is no room.
        UnsupportedRequest: Parquet cannot hold these rows.
        Unavailable: Anything else.
    """
    try:
        with storage_errors(_WHAT):
            yield
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            raise ResourcesExhausted(
                "There is no room for the rows: the server's storage is full.",
                remedy="Tell the server's administrator, and send them again later. None of them was stored.",
            ) from error
        if isinstance(cause, pa.ArrowNotImplementedError):
            raise UnsupportedRequest(
                "These rows cannot be stored: Parquet cannot hold nulls in place of lists of a fixed size.",
                remedy="Send lists of any size instead.",
            ) from error
        raise


class StreamedFile:
    """A file under way; ends with `publish` or `discard`. For one thread at a time.

    Args:
        folder: Where; made when missing.
        schema: The columns of every batch.
        owner_id: Tells this file's temporary name from all others.
        arrange: Puts the rows of one row group in order.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, *, owner_id: str, arrange: Callable[[pa.Table], pa.Table]
    ) -> None:
        self._folder = folder
        self._schema = schema
        self._temporary = folder / f".{owner_id}{TEMPORARY_SUFFIX}"
        self._arrange = arrange
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._stream: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None
        self.row_count = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows.

        Raises:
            ResourcesExhausted: There is no room for them.
            UnsupportedRequest: Parquet cannot hold them.
            Unavailable: They cannot be written.
        """
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        self.row_count += batch.num_rows
        if self._waiting_rows >= ROWS_PER_GROUP or self._waiting_bytes >= BYTES_PER_GROUP:
            with write_errors():
                self._write_group()

    def publish(self, name: str, *, is_only_once: bool) -> bool:
        """Put the file on disk in full and give it its name; return False when there is such a file already.

        Args:
            name: The file's name.
            is_only_once: Whether another writer may use the name, too; otherwise nobody else has it.

        Raises:
            ResourcesExhausted: There is no room.
            Unavailable: It cannot be written. There is no such file.
        """
        with write_errors():
            stream = self._finish()
            os.fsync(stream.fileno())
            stream.close()
            target = self._folder / name
            if is_only_once:
                return name_once(self._temporary, target)
            rename_durably(self._temporary, target)
        return True

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `publish`, and never raises."""
        self._waiting.clear()
        writer, self._writer = self._writer, None
        stream, self._stream = self._stream, None
        # Closing writes what is still to be written, which fails where writing has failed.
        with contextlib.suppress(OSError, pa.ArrowException):
            if writer is not None:
                writer.close()
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _write_group(self) -> None:
        rows = self._arrange(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        self._open().write_table(rows, row_group_size=max(1, rows.num_rows))

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            make_private_folder(self._folder)
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
            self._writer = pq.ParquetWriter(self._stream, self._schema, compression=COMPRESSION)
        return self._writer

    def _finish(self) -> BinaryIO:
        self._open()
        if self._waiting:
            self._write_group()
        if self._writer is None or self._stream is None:
            raise OSError("the file has been closed before")
        self._writer.close()
        self._writer = None
        self._stream.flush()
        return self._stream
