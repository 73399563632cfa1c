"""Copies a lake of the segments that versions before Delta wrote into a lake of Delta tables.

All that is left of the segments' format is here, for reading: a table's folder holds `WRITER-FIRST-LAST.parquet`, the
rows of a range of one writer's flushes, hidden by any other file of that writer whose range covers it; `.dropped`
files hide a range and hold nothing. Tables that callers made are described in `.tables`.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.lake.tables import DEFINITIONS, Tables
from micromegas_jupyter.lake.writer import LakeWriter

_SEGMENT: Final = re.compile(r"([A-Za-z0-9]{1,64})-(\d{12})-(\d{12})(\.parquet|\.dropped)", re.ASCII)
_USER_TABLES: Final = ".tables"
_WRITE_ID: Final = "import"
_BATCH_ROWS: Final = 16 * 1024
_WIDER: Final = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}


class ImportedTable(NamedTuple):
    """What became of one table: rows stored now, rows stored by an earlier run, or why it could not be copied."""

    name: str
    new_rows: int = 0
    known_rows: int = 0
    error: str | None = None


class _OldTable(NamedTuple):
    name: str
    folder: Path
    schema: pa.Schema
    owner: str | None = None


def is_segment_lake(folder: Path) -> bool:
    """Whether a folder is a lake of a version before Delta."""
    with storage_errors("The lake's folder cannot be read."):
        if (folder / _USER_TABLES).is_dir() or (folder / ".writers").is_dir():
            return True
        return any(_SEGMENT.fullmatch(path.name) for name in DEFINITIONS for path in (folder / name).glob("*"))


def import_segments(old: Path, new: Storage) -> Iterator[ImportedTable]:
    """Copy all tables, each whole or not at all; one that an earlier run has copied is left as it is.

    No server may use the old folder meanwhile. Times lose what is below a microsecond, and columns of unsigned numbers
    become wider signed ones. A table that cannot be copied is told, and the others are copied.
    """
    if not is_segment_lake(old):
        raise UsageError("The first folder is not a lake of an earlier version.", remedy="Name the folder of --lake.")
    with contextlib.closing(LakeWriter(new)) as writer:
        for table in _list_tables(old):
            try:
                with storage_errors(f"The table {table.name} could not be copied."):
                    yield _import_table(table, new, writer)
            except MicromegasError as error:
                yield ImportedTable(table.name, error=error.what)


def _list_tables(old: Path) -> Iterator[_OldTable]:
    for definition in DEFINITIONS.values():
        if (old / definition.name).is_dir():
            yield _OldTable(definition.name, old / definition.name, definition.schema)
    for path in sorted((old / _USER_TABLES).glob("*.table")):
        with storage_errors("The description of a table cannot be read."):
            schema = pa.ipc.read_schema(pa.py_buffer(path.read_bytes()))
        facts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        folder = path.parent / "rows" / Path(facts["folder"]).name
        yield _OldTable(facts["name"], folder, schema.remove_metadata(), facts.get("maker") or None)


def _import_table(table: _OldTable, new: Storage, writer: LakeWriter) -> ImportedTable:
    segments = _visible_segments(table.folder)
    rows = sum(pq.read_metadata(segment).num_rows for segment in segments)
    delta = Tables(new).find(table.name)
    if delta is not None:
        if delta.transaction_version(_WRITE_ID) == rows:
            return ImportedTable(table.name, known_rows=rows)
        if delta.file_uris() or table.name not in DEFINITIONS:
            raise UsageError("The new lake has other rows in a table of that name.", remedy="Import into a new lake.")
    mode = WriteMode.APPEND if table.name in DEFINITIONS else WriteMode.CREATE
    request = WriteRequest(table=table.name, mode=mode, write_id=_WRITE_ID, is_trusted=True, maker=table.owner)
    write = writer.open_write(request, _fit(pa.RecordBatch.from_pylist([], schema=table.schema)).schema)
    for segment in segments:
        with pq.ParquetFile(segment) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                write.write(_fit(batch))
    return ImportedTable(table.name, new_rows=write.commit())


def _visible_segments(folder: Path) -> list[Path]:
    """Return the segments that together hold each row once, in the order of their writers and flushes."""
    found = [(match, path) for path in folder.glob("*") if (match := _SEGMENT.fullmatch(path.name)) is not None]
    # The widest of those that begin together comes first, and a tombstone before rows of its range.
    found.sort(key=lambda one: (one[0][1], one[0][2], -int(one[0][3]), one[0][4]))
    covered_to: dict[str, int] = {}
    visible = []
    for match, path in found:
        writer, last = match[1], int(match[3])
        if last > covered_to.get(writer, -1):
            covered_to[writer] = last
            if match[4] == ".parquet":
                visible.append(path)
    return visible


def _fit(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with columns of types that can be stored, and times of whole microseconds."""
    fields, columns = [], []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            column = pc.floor_temporal(column, unit="microsecond")  # noqa: PLW2901
        kind = _WIDER.get(field.type, field.type)
        fields.append(field.with_type(kind))
        columns.append(column.cast(kind))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
