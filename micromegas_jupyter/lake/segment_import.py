"""Copies a lake of the segments that versions before Delta wrote into a lake of Delta tables.

All that is left of the segments' format is here, for reading: a table's folder holds `WRITER-FIRST-LAST.parquet`, the
rows of a range of one writer's flushes, hidden by any other file of that writer whose range covers it; `.dropped`
files hide a range and hold nothing. Tables that callers made are described in `.tables`.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.lake.delta_log import open_delta
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.types import PARTITION_DATE
from micromegas_jupyter.telemetry.tables import TABLES

_SEGMENT: Final = re.compile(r"([A-Za-z0-9]{1,64})-(\d{12})-(\d{12})(\.parquet|\.dropped)", re.ASCII)
_USER_TABLES: Final = ".tables"
_USER_TABLE: Final = "*.table"
_MAX_COMMIT_BYTES: Final = 64 * 1024 * 1024
_MAX_COMMIT_SEGMENTS: Final = 500
_WIDER: Final = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
}


class ImportedTable(NamedTuple):
    """What became of one table: rows stored now, rows stored by earlier runs, or why it could not be copied."""

    name: str
    new_rows: int = 0
    known_rows: int = 0
    error: str | None = None


class _Segment(NamedTuple):
    path: Path
    writer: str
    first: int
    last: int


class _OldTable(NamedTuple):
    name: str
    folder: Path
    schema: pa.Schema
    day_column: str | None = None
    owner: str = ""


def is_segment_lake(folder: Path) -> bool:
    """Whether a folder is a lake of a version before Delta."""
    with storage_errors("The lake's folder cannot be read."):
        if (folder / _USER_TABLES).is_dir() or (folder / ".writers").is_dir():
            return True
        paths = (path for table in TABLES for path in (folder / table.name).glob("*"))
        return any(_SEGMENT.fullmatch(path.name) for path in paths)


def import_segments(
    old: Path, new: Storage, *, on_table: Callable[[ImportedTable], None] = lambda _table: None
) -> list[ImportedTable]:
    """Copy all tables; what an earlier run has copied is not copied again. No server may use the old folder meanwhile.

    Times lose what is below a microsecond, and unsigned numbers become wider signed ones. A table that cannot be copied
    is named in the result, and the others are copied.
    """
    if not is_segment_lake(old):
        raise UsageError("The first folder is not a lake of an earlier version.", remedy="Name the folder of --lake.")
    results = []
    for table in _list_tables(old):
        try:
            with storage_errors(f"The table {table.name} could not be copied."):
                result = _import_table(table, new)
        except MicromegasError as error:
            result = ImportedTable(table.name, error=error.what)
        results.append(result)
        on_table(result)
    return results


def _list_tables(old: Path) -> Iterator[_OldTable]:
    for definition in TABLES:
        if (old / definition.name).is_dir():
            yield _OldTable(definition.name, old / definition.name, definition.schema, definition.range_columns[0])
    for path in sorted((old / _USER_TABLES).glob(_USER_TABLE)):
        with storage_errors("The description of a table cannot be read."):
            schema = pa.ipc.read_schema(pa.py_buffer(path.read_bytes()))
        facts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        folder = path.parent / "rows" / Path(facts["folder"]).name
        yield _OldTable(facts["name"], folder, schema.remove_metadata(), owner=facts.get("maker", ""))


def _import_table(table: _OldTable, new: Storage) -> ImportedTable:
    from deltalake import CommitProperties, Transaction, write_deltalake

    schema = pa.schema([_stored_field(field) for field in table.schema])
    tables = Tables(new)
    if table.day_column is not None:
        tables.create_defined(table.name)
        schema = schema.append(pa.field(PARTITION_DATE, pa.date32()))
    else:
        tables.add(table.name, schema, owner=table.owner or None)
    delta = open_delta(new, table.name)
    new_rows = known_rows = 0
    pending: list[_Segment] = []
    for segment in _visible_segments(table.folder):
        rows = pq.read_metadata(segment.path).num_rows
        copied = delta.transaction_version(_transaction(segment))
        if copied is None or copied < segment.first:
            pending.append(segment)
            new_rows += rows
        elif copied >= segment.last:
            known_rows += rows
        else:
            raise UsageError(
                f"Files of {table.name} were merged after a part of them had been copied.",
                remedy="Import into a new lake.",
            )
    for group in _groups(pending):
        latest = {_transaction(segment): segment.last for segment in group}
        done = CommitProperties(app_transactions=[Transaction(name, last) for name, last in latest.items()])
        rows_of_group = pa.RecordBatchReader.from_batches(schema, _read(group, table, schema))
        write_deltalake(delta, rows_of_group, mode="append", commit_properties=done)
        delta.update_incremental()
    for entry in new.list(table.name):
        new.sync_file(entry.path)  # deltalake does not
    for folder in {entry.path.rpartition("/")[0] for entry in new.list(table.name)}:
        new.sync_folder(folder)
    return ImportedTable(table.name, new_rows, known_rows)


def _transaction(segment: _Segment) -> str:
    return f"import-{segment.writer}"


def _visible_segments(folder: Path) -> list[_Segment]:
    """Return the segments that together hold each row once, in the order of their writers and flushes."""
    found = []
    for path in folder.glob("*"):
        match = _SEGMENT.fullmatch(path.name)
        if match is not None:
            found.append((match[1], int(match[2]), -int(match[3]), match[4] != ".dropped", path))
    visible: list[_Segment] = []
    writer, covered_to = "", -1
    # The widest of those that begin together comes first, and a tombstone before rows of its range.
    for name, first, negative_last, has_rows, path in sorted(found):
        if name != writer:
            writer, covered_to = name, -1
        if -negative_last > covered_to:
            covered_to = -negative_last
            if has_rows:
                visible.append(_Segment(path, name, first, covered_to))
    return visible


def _groups(segments: list[_Segment]) -> Iterator[list[_Segment]]:
    group: list[_Segment] = []
    group_bytes = 0
    for segment in segments:
        size_bytes = segment.path.stat().st_size
        if group and (group_bytes + size_bytes > _MAX_COMMIT_BYTES or len(group) >= _MAX_COMMIT_SEGMENTS):
            yield group
            group, group_bytes = [], 0
        group.append(segment)
        group_bytes += size_bytes
    if group:
        yield group


def _read(group: list[_Segment], table: _OldTable, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for segment in group:
        with pq.ParquetFile(segment.path) as file:
            for batch in file.iter_batches(batch_size=16 * 1024, use_threads=False):
                columns = [_convert(batch.column(field.name), schema.field(field.name).type) for field in table.schema]
                if table.day_column is not None:
                    columns.append(columns[table.schema.get_field_index(table.day_column)].cast(pa.date32()))
                yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _stored_field(field: pa.Field) -> pa.Field:
    kind = _stored_type(field.type)
    if kind is None:
        raise UsageError(
            f"The column {field.name!r} has the type {str(field.type)[:80]}, which Delta has no place for.",
            remedy="Query it with the earlier version, and send the rows again with the column as numbers or text.",
        )
    return pa.field(field.name, kind, field.nullable)


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        return _stored_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_nested(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        if pa.types.is_map(kind):
            fields = [pa.field("key", kind.key_type), pa.field("value", kind.item_type)]
        children = [_stored_type(field.type) for field in fields]
        return None if None in children else _stored_nested(kind, fields, children)
    has_no_place = (pa.types.is_time, pa.types.is_duration, pa.types.is_decimal256, pa.types.is_interval)
    return None if any(is_kind(kind) for is_kind in has_no_place) else _WIDER.get(kind, kind)


def _stored_nested(kind: pa.DataType, fields: list[pa.Field], children: list[pa.DataType]) -> pa.DataType:
    if pa.types.is_map(kind):
        return pa.map_(*children)
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, child) for field, child in zip(fields, children, strict=True)])
    return pa.list_(children[0])


def _convert(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        # Rounds down, as the other writers do: a cast rounds times before 1970 up.
        column = pc.floor_temporal(column, unit="microsecond")
    return column.cast(wanted, safe=not pa.types.is_timestamp(wanted))
