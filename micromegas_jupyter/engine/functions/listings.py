"""Table functions such as `list_view_sets()` and `list_partitions()`, with upstream's columns, and `running_queries()`.

They list what can be queried, where it is stored, and what is running. If a caller may read only some rows of a table,
files are listed without facts about their rows.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
from datafusion import SessionContext

from micromegas_jupyter.engine.contract import RUNNING_QUERIES, FileSource, VisibleTable
from micromegas_jupyter.engine.functions.query_functions import visible_schema
from micromegas_jupyter.engine.scanner import Mention
from micromegas_jupyter.engine.schemas import register_rows
from micromegas_jupyter.engine.views import GLOBAL, VIEW_SETS
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

VIEW_SETS_FUNCTION: Final = "list_view_sets"
PARTITIONS_FUNCTION: Final = "list_partitions"
#: For administrators.
VIEW_DEFINITIONS_FUNCTION: Final = "list_view_set_definitions"
LISTING_NAMES: Final = frozenset({VIEW_SETS_FUNCTION, PARTITIONS_FUNCTION, RUNNING_QUERIES, VIEW_DEFINITIONS_FUNCTION})
_TIME: Final = pa.timestamp("ns", "+00:00")
_FORMAT_VERSION: Final = 1
_HASH_BYTES: Final = 8


def _schema(*nullable: str, **columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in nullable) for name, kind in columns.items()])


_VIEW_SETS: Final = _schema(
    view_set_name=pa.string(), current_schema_hash=pa.binary(), schema=pa.string(), has_view_maker=pa.bool_(),
    global_instance_available=pa.bool_(),
)  # fmt: skip
_VIEW_DEFINITIONS: Final = _schema(
    view_set_name=pa.string(), definition_sql=pa.string(), update_group=pa.int32(), updated_at=_TIME,
    updated_by=pa.string(),
)  # fmt: skip
# Upstream always lists file sizes and row counts, but here they are nullable, because they would reveal hidden rows.
_PARTITIONS: Final = _schema(
    "min_event_time", "max_event_time", "file_path", "file_size", "num_rows", "sort_order", "max_sort_key_time",
    view_set_name=pa.string(), view_instance_id=pa.string(), begin_insert_time=_TIME, end_insert_time=_TIME,
    min_event_time=_TIME, max_event_time=_TIME, updated=_TIME, file_path=pa.string(), file_size=pa.int64(),
    file_schema_hash=pa.binary(), source_data_hash=pa.binary(), num_rows=pa.int64(),
    partition_format_version=pa.int32(), sort_order=pa.list_(pa.string()), max_sort_key_time=_TIME,
)  # fmt: skip
_RUNNING: Final = _schema(
    "client", "entrypoint", "files", "scanned",
    query_id=pa.string(), user=pa.string(), email=pa.string(), client_ip=pa.string(), client=pa.string(),
    entrypoint=pa.string(), began_at=_TIME, seconds=pa.float64(), is_running=pa.bool_(),
    peak_memory_bytes=pa.int64(), sql=pa.string(), files=pa.int64(), scanned=pa.float64(),
)  # fmt: skip


def register_listing_functions(
    session: SessionContext,
    tables: Sequence[VisibleTable],
    *,
    files: FileSource | None,
    running: Sequence[Mapping[str, object]],
    mentions: Mention,
) -> None:
    """Register the functions that the statement mentions; they list the tables that its caller sees."""
    if mentions.has(VIEW_SETS_FUNCTION):
        register_rows(session, VIEW_SETS_FUNCTION, _view_sets(tables), _VIEW_SETS)
    if mentions.has(VIEW_DEFINITIONS_FUNCTION):
        register_rows(session, VIEW_DEFINITIONS_FUNCTION, _view_definitions(tables), _VIEW_DEFINITIONS)
    if mentions.has(PARTITIONS_FUNCTION):
        rows = (row for table in tables if files is not None for row in _partitions(table, files))
        register_rows(session, PARTITIONS_FUNCTION, rows, _PARTITIONS)
    if mentions.has(RUNNING_QUERIES):
        register_rows(session, RUNNING_QUERIES, running, _RUNNING)


def _view_sets(tables: Sequence[VisibleTable]) -> Iterator[dict[str, Any]]:
    found = [(name, one.definition.schema, one.of is not None, one.has_global) for name, one in VIEW_SETS.items()]
    views = (one.snapshot for one in tables if one.snapshot.materialized is not None)
    for name, schema, has_maker, has_global in (*found, *((one.name, one.schema, False, True) for one in views)):
        yield {
            "view_set_name": name,
            "current_schema_hash": _schema_hash(schema),
            "schema": "\n".join(
                f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema
            ),
            "has_view_maker": has_maker,
            "global_instance_available": has_global,
        }


def _view_definitions(tables: Sequence[VisibleTable]) -> Iterator[dict[str, Any]]:
    for table in tables:
        facts = table.snapshot.materialized
        view = None if facts is None else ViewDefinition.from_properties(facts.properties)
        if facts is not None and view is not None:
            yield {
                "view_set_name": table.snapshot.name,
                "definition_sql": view.sql,
                "update_group": view.update_group,
                "updated_at": datetime.fromisoformat(facts.updated_at),
                "updated_by": facts.updated_by,
            }


def _schema_hash(schema: pa.Schema) -> bytes:
    text = "\n".join(f"{field.name} {field.type} {field.nullable}" for field in schema)
    return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]


def _partitions(table: VisibleTable, source: FileSource) -> Iterator[dict[str, Any]]:
    snapshot = table.snapshot
    if snapshot.source is not None or snapshot.problem is not None:
        return
    name, hides_rows = snapshot.name, table.needs_barrier
    view_set = VIEW_SETS.get(name)
    schema = visible_schema(snapshot) if view_set is None else view_set.definition.schema
    for file in source.files(name).to_pylist():
        written, path = file["written"], file["path"]
        row: dict[str, Any] = {
            "view_set_name": name,
            "view_instance_id": GLOBAL,
            "begin_insert_time": written,
            "end_insert_time": written,
            "updated": written,
            "file_schema_hash": _schema_hash(schema),
            "source_data_hash": b"",
            "partition_format_version": _FORMAT_VERSION,
        }
        if not hides_rows:
            row |= {
                "begin_insert_time": file["first_insert"] or written,
                "end_insert_time": file["last_insert"] or written,
                "min_event_time": file["first_event"],
                "max_event_time": file["last_event"],
                "file_path": f"{name}/{path}",
                "file_size": file["size"],
                "source_data_hash": hashlib.sha256(path.encode()).digest()[:_HASH_BYTES],
                "num_rows": file["rows"],
            }
        yield row
