"""One engine context for one statement: the caller's tables and nothing else, from shared memory and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions, col, lit

from micromegas_jupyter.engine.interim.file_scan import FileScans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.contracts import TableSnapshot
    from micromegas_jupyter.engine.contract import TimeRange
    from micromegas_jupyter.engine.settings import EngineSettings

READ_ONLY = SQLOptions().with_allow_ddl(allow=False).with_allow_dml(allow=False).with_allow_statements(allow=False)

_SETTINGS = {
    # Half as many rows decoded for a look-up; see the measurements in the design documents.
    "datafusion.execution.parquet.pushdown_filters": "true",
    # Views cost on the wire what they save here; other clients cannot read them.
    "datafusion.execution.parquet.schema_force_view_types": "false",
    "datafusion.sql_parser.map_string_types_to_utf8view": "false",
    "datafusion.sql_parser.collect_spans": "true",
    "datafusion.catalog.information_schema": "true",
}

_MAX_MERGED_SCHEMAS = 64


class ContextFactory:
    """Makes contexts that share one memory pool.

    Args:
        settings: The engine's limits.
        spill_folder: Where large intermediate results go.
    """

    def __init__(self, settings: EngineSettings, spill_folder: str) -> None:
        config = SessionConfig().with_batch_size(settings.batch_rows)
        if settings.target_partitions is not None:
            config = config.with_target_partitions(settings.target_partitions)
        for name, value in _SETTINGS.items():
            config = config.set(name, value)
        self._config = config
        self._runtime = (
            RuntimeEnvBuilder()
            .with_fair_spill_pool(settings.memory_limit_bytes)
            .with_disk_manager_specified(spill_folder)
        )
        self._scans = FileScans(SessionContext(self._config, self._runtime))
        self._merged_schemas: dict[str, pa.Schema] = {}

    def build(
        self, tables: Sequence[TableSnapshot], *, mentioned: frozenset[str] | None, time_range: TimeRange | None
    ) -> SessionContext:
        """Return a context with the given tables.

        Args:
            tables: What the caller may read.
            mentioned: Lower-case words of the statement: tables that are not among them are registered without
                rows, for the information schema only. None registers all.
            time_range: What tables with a time are cut to.
        """
        context = SessionContext(self._config, self._runtime)
        for table in tables:
            self._register(context, table, mentioned, time_range)
        return context

    def _register(
        self,
        context: SessionContext,
        table: TableSnapshot,
        mentioned: frozenset[str] | None,
        time_range: TimeRange | None,
    ) -> None:
        raw_name = table.name if table.merge_sql is None else (table.raw_name or f"__{table.name}__partitions")
        is_needed = mentioned is None or table.name in mentioned or raw_name in mentioned
        self._scans.register(context, raw_name, table.schema, table.files if is_needed else ())
        if is_needed and time_range is not None and table.range_columns is not None:
            _cut_to_range(context, raw_name, table.range_columns, time_range)
        if table.merge_sql is None:
            return
        known = self._merged_schemas.get(table.merge_sql)
        if known is not None and not is_needed:
            self._scans.register(context, table.name, known, ())
            return
        merged = context.sql(table.merge_sql)
        if len(self._merged_schemas) < _MAX_MERGED_SCHEMAS:
            self._merged_schemas[table.merge_sql] = merged.schema()
        context.register_table(table.name, merged.into_view())


def _cut_to_range(context: SessionContext, name: str, range_columns: tuple[str, str], time_range: TimeRange) -> None:
    first, last = range_columns
    kind = pa.timestamp("ns", "UTC")
    rows = context.table(name).filter(
        (col(first) <= lit(pa.scalar(time_range.end, kind))) & (col(last) >= lit(pa.scalar(time_range.begin, kind)))
    )
    view = rows.into_view()
    context.deregister_table(name)
    context.register_table(name, view)
