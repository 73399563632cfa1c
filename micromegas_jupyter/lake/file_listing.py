"""The files of a lake's tables with what the log says of each, for `list_partitions()`."""

from typing import Final
from urllib.parse import unquote

import pyarrow as pa

from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.lake.delta_log import TIME, TableGone, live_files, open_delta, times_of_files
from micromegas_jupyter.lake.tables import DEFINITIONS

_INSERT: Final = "insert_time"
_BEGINS: Final = ("time", "start_time", "begin_time")
_ENDS: Final = ("time", "end_time")
_SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("rows", pa.int64()),
        ("written", TIME),
        ("first_insert", TIME),
        ("last_insert", TIME),
        ("first_event", TIME),
        ("last_event", TIME),
    ]
)


def list_files(storage: Storage, table: str) -> pa.Table:
    """Return a row for each file of a table as it stands, as `engine.contract.FileSource` describes it."""
    try:
        with storage_errors(f"The files of the table {table} could not be listed."):
            found = live_files(open_delta(storage, table))
    except TableGone:
        return _SCHEMA.empty_table()
    begin, end = _event_columns(table, found)
    columns = {
        "path": pa.array(map(unquote, found.column("path").to_pylist()), pa.string()),
        "size": found.column("size_bytes"),
        "rows": found.column("num_records") if "num_records" in found.column_names else pa.nulls(found.num_rows),
        "written": found.column("modification_time").cast(pa.timestamp("ms", "UTC")),
        "first_insert": times_of_files(found, f"min.{_INSERT}"),
        "last_insert": times_of_files(found, f"max.{_INSERT}"),
        "first_event": times_of_files(found, f"min.{begin}"),
        "last_event": times_of_files(found, f"max.{end}"),
    }
    return pa.table([columns[field.name] for field in _SCHEMA], names=_SCHEMA.names).cast(_SCHEMA)


def _event_columns(table: str, found: pa.Table) -> tuple[str, str]:
    definition = DEFINITIONS.get(table)
    if definition is not None and definition.merge_rule is not None:
        return definition.range_columns
    begin = next((name for name in _BEGINS if f"min.{name}" in found.column_names), _BEGINS[0])
    return begin, next((name for name in _ENDS if f"max.{name}" in found.column_names), _ENDS[0])
