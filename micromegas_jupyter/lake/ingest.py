"""Takes rows that callers send, whole writes at a time, into the tables of a lake; a `core.protocols.TableSink`."""

import base64
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import TableWrite, WriteMode, WriteRequest
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Randomness
from micromegas_jupyter.errors import InternalError, ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.lake.files import (
    COMPRESSION,
    TEMPORARY_SUFFIX,
    Segment,
    is_writer_id,
    make_private_folder,
    name_once,
    rename_durably,
    sort_rows,
    storage_errors,
)
from micromegas_jupyter.lake.maintenance import LakeSetup
from micromegas_jupyter.lake.user_tables import (
    MAX_TABLES,
    UserTable,
    UserTables,
    check_fits,
    check_name,
    shown,
    stored_schema,
)
from micromegas_jupyter.lake.user_tables import convert_rows as convert_user_rows
from micromegas_jupyter.telemetry.conversion import check_columns, check_targets, convert_rows
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, TableDefinition


class LakeSink:
    """Writes into the lake's tables; safe to use from several threads."""

    def __init__(
        self, setup: LakeSetup, user_tables: UserTables, *, randomness: Randomness = SYSTEM_RANDOMNESS
    ) -> None:
        self._setup = setup
        self._user_tables = user_tables
        self._randomness = randomness
        self._definitions = {definition.name: definition for definition in setup.tables}

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        """Begin a write."""
        definition = self._definitions.get(request.table)
        if definition is None:
            return self._open_user_write(request, schema)
        if request.mode is WriteMode.CREATE:
            raise exists_already(request.table)
        check_columns(schema, definition)
        return SegmentWrite(
            self._setup.folder(definition),
            definition.schema,
            convert=partial(_convert, definition=definition, is_trusted=request.is_trusted),
            arrange=partial(sort_rows, definition=definition),
            write_id=request.write_id,
            randomness=self._randomness,
        )

    def _open_user_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        found = self._user_tables.find(request.table)
        if found is None and request.mode is WriteMode.APPEND:
            raise UsageError(
                f"There is no table {shown(request.table)} to add rows to.",
                remedy="Name an existing table, or create it in the same call.",
            )
        if found is None:
            return self._open_creation(request, schema)
        is_repeated = request.write_id is not None and found.write_id == request.write_id
        if request.mode is WriteMode.CREATE and not is_repeated:
            raise exists_already(request.table)
        check_fits(schema, found.schema, is_known=request.may_read)
        return self._segment(found, request)

    def _open_creation(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        check_name(request.table)
        stored = stored_schema(schema)
        self._check_capacity(request)
        folder = self._user_tables.rows_folder(new_id(self._randomness))
        table = UserTable(
            name=request.table, schema=stored, folder=folder, write_id=request.write_id, maker=request.maker
        )
        return CreatingWrite(self._user_tables, table, self._segment(table, request), request)

    def _check_capacity(self, request: WriteRequest) -> None:
        tables = self._user_tables.list()
        if len(tables) >= MAX_TABLES:
            raise ResourcesExhausted(
                f"There are {MAX_TABLES:,} tables already, the most that are allowed.",
                remedy="Append to one of them.",
                limit="ingest",
            )
        most = request.most_tables
        if most is not None and sum(table.maker == request.maker for table in tables) >= most:
            raise ResourcesExhausted(
                f"You have created {most:,} tables, the most that one caller may create.",
                remedy="Append to one of them, or ask the server's administrator for more.",
                limit="ingest",
            )

    def _segment(self, table: UserTable, request: WriteRequest) -> "SegmentWrite":
        return SegmentWrite(
            table.folder,
            table.schema,
            convert=partial(convert_user_rows, stored=table.schema, is_known=request.may_read),
            arrange=lambda rows: rows,
            write_id=request.write_id,
            randomness=self._randomness,
        )


def _convert(rows: pa.RecordBatch, *, definition: TableDefinition, is_trusted: bool) -> pa.RecordBatch:
    converted = convert_rows(rows, definition)
    if definition is LOG_ENTRIES and not is_trusted:
        check_targets(converted)
    return converted


ROWS_PER_GROUP: Final = 128 * 1024
BYTES_PER_GROUP: Final = 16 * 1024 * 1024
_DISK_FULL_CODES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_WHAT: Final = "The rows could not be stored."


@contextlib.contextmanager
def write_errors() -> Iterator[None]:
    """Turn errors of the file system into those that cross packages, a full one apart from the others."""
    try:
        with storage_errors(_WHAT):
            yield
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _DISK_FULL_CODES:
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


Convert = Callable[[pa.RecordBatch], pa.RecordBatch]
Arrange = Callable[[pa.Table], pa.Table]


def new_id(randomness: Randomness) -> str:
    """Return 32 hexadecimal digits that nobody has drawn before."""
    return base64.urlsafe_b64decode(f"{randomness.token_urlsafe(16)}==").hex()


class SegmentWrite:
    """Writes one segment; implements `core.protocols.TableWrite`.

    A write with an id of its own has that id's file, whose name nobody can take twice: that is what makes a repeated
    write store nothing more, also when both run at once, in two processes.
    """

    def __init__(  # noqa: PLR0913 - options by keyword, each a part that differs between tables
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        convert: Convert,
        arrange: Arrange,
        write_id: str | None,
        randomness: Randomness,
    ) -> None:
        drawn = new_id(randomness)
        if write_id is not None and not is_writer_id(write_id):
            raise InternalError("A write's id is not made of at most 64 letters and digits.")
        self._folder = folder
        self._schema = schema
        self._convert = convert
        self._arrange = arrange
        self._has_id = write_id is not None
        self._segment = Segment(write_id or drawn, 0, 0)
        self._temporary = folder / f".{drawn}{TEMPORARY_SUFFIX}"
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = self._row_count = 0
        self._stream: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows."""
        converted = self._convert(batch)
        self._waiting.append(converted)
        self._row_count += converted.num_rows
        self._waiting_rows += converted.num_rows
        self._waiting_bytes += converted.nbytes
        if self._waiting_rows >= ROWS_PER_GROUP or self._waiting_bytes >= BYTES_PER_GROUP:
            with write_errors():
                self._write_group()

    def commit(self) -> int:
        """Make the rows durable and visible, unless a write with this id did so before; return how many."""
        if self._row_count == 0 or self._was_dropped():
            self.abandon()
        elif not self._publish():
            with write_errors():
                stored = pq.read_metadata(self._folder / self._segment.file_name).num_rows
            if stored != self._row_count:
                raise UsageError(
                    f"{stored:,} rows were stored under this id before, and these are {self._row_count:,}.",
                    remedy="Use a new id for each call, and the same one only to repeat it.",
                )
        return self._row_count

    def move_to(self, folder: Path) -> None:
        """Put rows that were committed into another table's folder, unless a write with this id did so before."""
        if self._row_count:
            make_private_folder(folder)
            name = self._segment.file_name
            name_once(self._folder / name, folder / name)

    def abandon(self) -> None:
        """Leave nothing behind; does nothing after a `commit`, and never raises."""
        self._waiting.clear()
        # Closing writes what is still to be written, which fails where writing has failed.
        for one in (self._writer, self._stream):
            with contextlib.suppress(OSError, pa.ArrowException):
                if one is not None:
                    one.close()
        self._writer = self._stream = None
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _was_dropped(self) -> bool:
        """Whether rows of this id were stored and have outlived the table's limits since."""
        tombstone = self._segment._replace(is_tombstone=True)
        return self._has_id and (self._folder / tombstone.file_name).exists()

    def _write_group(self) -> None:
        if self._writer is None:
            make_private_folder(self._folder)
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
            self._writer = pq.ParquetWriter(self._stream, self._schema, compression=COMPRESSION)
        if self._waiting:
            rows = self._arrange(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
            self._writer.write_table(rows, row_group_size=max(1, rows.num_rows))

    def _publish(self) -> bool:
        """Put the file on disk in full and give it its name; return False when there is such a file already."""
        with write_errors():
            self._write_group()
            if self._writer is None or self._stream is None:
                raise OSError("the file has been closed before")
            self._writer.close()
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            target = self._folder / self._segment.file_name
            if self._has_id:
                return name_once(self._temporary, target)
            rename_durably(self._temporary, target)
        return True


class CreatingWrite:
    """Writes rows into a folder that no table has yet, then makes the table; implements `core.protocols.TableWrite`."""

    def __init__(self, tables: UserTables, table: UserTable, rows: SegmentWrite, request: WriteRequest) -> None:
        self._tables = tables
        self._table = table
        self._rows = rows
        self._request = request
        self._is_made = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows."""
        self._rows.write(batch)

    def commit(self) -> int:
        """Make the table with its rows and return how many those are.

        When somebody made a table of that name meanwhile, the rows go there if that was asked for and the columns are
        the same.
        """
        row_count = self._rows.commit()
        with write_errors():
            self._is_made = self._tables.add(self._table)
            if not self._is_made:
                self._join(self._tables.find(self._table.name))
        return row_count

    def abandon(self) -> None:
        """Leave nothing behind; does nothing once the table is made."""
        self._rows.abandon()
        if not self._is_made:
            # Nobody else knows this folder: its name was drawn for this write.
            with contextlib.suppress(OSError):
                shutil.rmtree(self._table.folder)

    def _join(self, other: UserTable | None) -> None:
        write_id = self._request.write_id
        if other is not None and write_id is not None and other.write_id == write_id:
            return  # the same write, sent twice at once
        if other is None or self._request.mode is WriteMode.CREATE:
            raise exists_already(self._table.name)
        if not other.schema.equals(self._table.schema):
            raise UsageError(
                f"The table {other.name} was created by another call, with other columns.",
                remedy="Send the rows again.",
            )
        self._rows.move_to(other.folder)


def exists_already(name: str) -> UsageError:
    """Return the error for a table that is not to be there."""
    return UsageError(
        f"There is a table {name} already.", remedy='Append to it (mode "append"), or choose another name.'
    )
