"""Delta tables as the engine reads them: the files of the present version, with what their statistics tell."""

import datetime as dt
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.lake.delta_log import LOG_FOLDER, TableGone, open_delta
from micromegas_jupyter.telemetry.tables import TableDefinition

_TIME: Final = "time"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class DeltaSnapshots:
    """Keeps tables open, and looks for new versions of those that are asked for."""

    def __init__(self, storage: Storage, *, definitions: Mapping[str, TableDefinition]) -> None:
        self._storage = storage
        self._definitions = definitions
        self._lock = threading.Lock()
        self._open: dict[str, tuple[DeltaTable, TableSnapshot]] = {}

    def list(self, sql: str | None) -> dict[str, TableSnapshot]:
        text = None if sql is None else sql.lower()
        with self._lock:
            names = [name for name in self._storage.list_folders() if not name.startswith(("_", "."))]
            known = {}
            for name in names:
                found = self._open.get(name)
                if found is None or text is None or name in text:
                    found = self._refresh(name, found)
                if found is not None:
                    known[name] = found
            self._open = known
            return {name: snapshot for name, (_, snapshot) in known.items()}

    def _refresh(
        self, name: str, found: tuple[DeltaTable, TableSnapshot] | None
    ) -> tuple[DeltaTable, TableSnapshot] | None:
        with storage_errors(f"The table {name} could not be read."):
            if found is not None:
                table, snapshot = found
                version = table.version()
                try:
                    table.update_incremental()
                except Exception:
                    found = None
                else:
                    if table.version() == version:
                        return found
            try:
                table = table if found is not None else open_delta(self._storage, name)
            except TableGone:
                return None
            return table, self._build(name, table)

    def empty(self, definition: TableDefinition) -> TableSnapshot:
        return _snapshot(definition, ())

    def _build(self, name: str, table: DeltaTable) -> TableSnapshot:
        actions = pa.table(table.get_add_actions(flatten=True))
        schema = pa.schema(table.schema().to_arrow())
        by = tuple(table.metadata().partition_columns)
        definition = self._definitions.get(name)
        first, last = definition.range_columns if definition else (_TIME, _TIME)
        files = tuple(
            DataFile(
                self._storage.child_uri(f"{name}/{unquote(row['path'])}"),
                tuple(None if row[f"partition.{one}"] is None else str(row[f"partition.{one}"]) for one in by),
                _microseconds(row.get(f"min.{first}"), 0),
                _microseconds(row.get(f"max.{last}"), 1000),
            )
            for row in actions.to_pylist()
        )
        if definition is not None:
            return _snapshot(definition, files)
        has_time = _TIME in schema.names and pa.types.is_timestamp(schema.field(_TIME).type)
        return TableSnapshot(
            name=name,
            schema=schema.remove_metadata(),
            files=files,
            partition_columns=by,
            range_columns=(_TIME, _TIME) if has_time else None,
        )


def _snapshot(definition: TableDefinition, files: tuple[DataFile, ...]) -> TableSnapshot:
    schema = pa.schema(
        [
            one.with_type(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(one.type) else one
            for one in definition.schema
        ]
    )
    return TableSnapshot(
        name=definition.name,
        schema=schema,
        files=files,
        partition_columns=("date",),
        range_columns=definition.range_columns,
        merge_sql=definition.merge_sql,
        raw_name=definition.raw_name,
    )


def _microseconds(value: Any, extra: int) -> int | None:
    if not isinstance(value, dt.datetime):
        return None
    value = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    return (value - _EPOCH) // dt.timedelta(microseconds=1) + extra
