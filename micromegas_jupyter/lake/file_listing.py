"""The files of a lake's tables with what the log says of each, for `list_partitions()`."""

from typing import Final
from urllib.parse import unquote

import pyarrow as pa

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.lake.delta_log import TableGone, open_delta
from micromegas_jupyter.lake.tables import DEFINITIONS

_TIME: Final = pa.timestamp("us", "UTC")
_INSERT: Final = "insert_time"
_BEGINS: Final = ("time", "start_time", "begin_time")
_ENDS: Final = ("time", "end_time")


_SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("rows", pa.int64()),
        ("written", _TIME),
        ("first_insert", _TIME),
        ("last_insert", _TIME),
        ("first_event", _TIME),
        ("last_event", _TIME),
    ]
)


def list_files(storage: Storage, table: str) -> pa.Table:
    """Return a row for each file of a table as it stands, as `engine.contract.FileSource` describes it."""
    try:
        with storage_errors(f"The files of the table {table} could not be listed."):
            found = pa.table(open_delta(storage, table).get_add_actions(flatten=True))
    except TableGone:
        return _SCHEMA.empty_table()
    begin, end = _event_columns(table, found)
    columns = {
        "path": pa.array(map(unquote, found.column("path").to_pylist()), pa.string()),
        "size": found.column("size_bytes"),
        "rows": _column(found, "num_records", pa.int64()),
        "written": found.column("modification_time").cast(pa.timestamp("ms", "UTC")),
        "first_insert": _column(found, f"min.{_INSERT}", _TIME),
        "last_insert": _column(found, f"max.{_INSERT}", _TIME),
        "first_event": _column(found, f"min.{begin}", _TIME),
        "last_event": _column(found, f"max.{end}", _TIME),
    }
    return pa.table([columns[field.name] for field in _SCHEMA], names=_SCHEMA.names).cast(_SCHEMA)


def _event_columns(table: str, found: pa.Table) -> tuple[str, str]:
    definition = DEFINITIONS.get(table)
    if definition is not None and definition.merge_rule is not None:
        return definition.range_columns
    begin = next((name for name in _BEGINS if f"min.{name}" in found.column_names), _BEGINS[0])
    return begin, next((name for name in _ENDS if f"max.{name}" in found.column_names), _ENDS[0])


def _column(found: pa.Table, name: str, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Return a column of what the log says, null when it says nothing, or of another type."""
    if name in found.column_names and type(found.column(name).type) is type(kind):
        return found.column(name)
    return pa.nulls(found.num_rows, kind)
