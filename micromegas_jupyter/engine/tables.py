"""Which tables exist for a caller, and how they get into a session, as views under their SQL names.

Only tables that the statement names are built. Who has which rights is decided where the caller is identified.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
from cachetools import LRUCache
from datafusion import DataFrame, SessionContext, col, lit
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.protocols import AuthContext, TableAccess, TableSnapshot
from micromegas_jupyter.engine.contract import TimeRange, VisibleTable
from micromegas_jupyter.engine.errors import file_gone
from micromegas_jupyter.engine.functions.identity import with_caller_in_condition
from micromegas_jupyter.engine.scanner import Mention, quoted
from micromegas_jupyter.engine.schemas import flat_schema, no_rows, visible_schema, wire_schema
from micromegas_jupyter.engine.security import apply_conditions, behind_barrier
from micromegas_jupyter.engine.workarounds.joins import message_class
from micromegas_jupyter.errors import InternalError

_log = logging.getLogger(__name__)

_EVERY_TABLE: Final = "*"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# DataFusion 55 answers `max(x)` from the files' footers, and takes one whose type is not the table's for one of nulls.
_USE_FOOTERS: Final = "SET datafusion.execution.collect_statistics = {}"
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


class Visibility:
    """Decides what a caller sees; the default conditions limit callers without other limits, except administrators."""

    def __init__(self, default_conditions: Mapping[str, str]) -> None:
        limited = {table: (condition,) for table, condition in default_conditions.items()}
        self._default = TableAccess(filters={_EVERY_TABLE: (), **limited}) if limited else None

    def tables(self, snapshots: Iterable[TableSnapshot], caller: AuthContext) -> list[VisibleTable]:
        """Return the tables that exist for `caller`, in order."""
        access = caller.table_access
        if access is None and not caller.is_admin:
            access = self._default
        if access is None:
            return [VisibleTable(snapshot=snapshot, raw_name=snapshot.raw_name) for snapshot in snapshots]
        return [_restrict(snapshot, access, caller) for snapshot in snapshots if access.may_read(snapshot.name)]


def _restrict(snapshot: TableSnapshot, access: TableAccess, caller: AuthContext) -> VisibleTable:
    conditions = tuple(access.conditions(snapshot.name))
    if conditions:
        # A condition is about the merged rows, whose columns may have other names.
        columns = visible_schema(snapshot).names if snapshot.merge_sql is not None else snapshot.schema.names
        conditions = tuple(with_caller_in_condition(one, caller, columns=columns) for one in conditions)
    raw_name = snapshot.raw_name
    # A condition is about the merged rows: it would not mean the same on the states that they are made of.
    if conditions or (raw_name is not None and access.filters.get(raw_name)):
        raw_name = None
    return VisibleTable(snapshot=snapshot, conditions=conditions, raw_name=raw_name)


class TableBuilder:
    """Builds tables in sessions; it caches the last scan of each schema, in which DataFusion keeps files' footers."""

    def __init__(self) -> None:
        self._scans: LRUCache[pa.Schema, tuple[tuple[str, ...], LogicalPlan]] = LRUCache(64)

    def register(
        self,
        context: SessionContext,
        tables: Sequence[VisibleTable],
        *,
        mentions: Mention,
        time_range: TimeRange | None,
        is_behind_barrier: bool,
    ) -> list[VisibleTable]:
        """Register the mentioned tables and return them.

        A statement over information_schema sees the others too, as names and schemas without rows; raw rows are never
        listed, for they are there for those who know of them.
        """
        mixed = [table for table in tables if table.snapshot.has_mixed_types]
        if mixed:  # a reused session may come from another statement
            uses_footers = not any(mentions.has(name) for table in mixed for name in table.names)
            context.sql(_USE_FOOTERS.format(str(uses_footers).lower()))
        lists_names = any(mentions.has(name) for name in ("show", "information_schema"))
        registered: list[VisibleTable] = []
        for table in tables:
            snapshot = table.snapshot
            # The dictionary of a batch may hold values of hidden rows.
            schema = flat_schema(snapshot.schema) if table.conditions else snapshot.schema
            if any(map(mentions.has, table.names)):
                _check_files(snapshot)
                rows = self.read(context, snapshot.files, schema) if snapshot.files else no_rows(context, schema)
                rows = _build(context, table, rows, mentions=mentions, time_range=time_range)
                if is_behind_barrier and table.conditions:
                    rows = behind_barrier(rows)
                registered.append(table)
            elif lists_names:
                unfiltered = replace(table, conditions=(), raw_name=None)
                rows = _build(context, unfiltered, no_rows(context, schema), mentions=mentions, time_range=None)
            else:
                continue
            context.register_table(quoted(snapshot.name), rows.into_view())
        return registered

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return the plan of one native scan over an explicit list of Parquet files, with a schema that is given.

        DataFusion-Python can read one path or a folder, not a list of files. Its logical plans travel as protobuf,
        though, and a listing scan's paths are a repeated field: the other paths are appended to the plan for the first
        one, as protobuf merges messages that follow one another. Tests hold that for each version of DataFusion in the
        range of pyproject.toml.
        """
        names = tuple(files)
        cached, scan = self._scans.get(schema, (None, None))
        if scan is None or cached != names:
            scan = SessionContext().read_parquet(file_url(names[0]), schema=schema).logical_plan()
            others = message_class("Node")(f1=[{"f2": map(file_url, names[1:])}])
            scan = LogicalPlan.from_bytes(context, scan.to_bytes() + others.SerializeToString())
            self._scans[schema] = names, scan
        return context.create_dataframe_from_logical_plan(scan)


def _build(
    context: SessionContext, table: VisibleTable, rows: DataFrame, *, mentions: Mention, time_range: TimeRange | None
) -> DataFrame:
    """Return a table's rows as the caller sees them; raw rows that are mentioned stay registered."""
    snapshot = table.snapshot
    is_merged = snapshot.merge_sql is not None and snapshot.raw_name is not None
    # A condition is about whole merged rows: cut before the merge, they would be made of the range's states only,
    # and a row that is hidden could show itself as it was at another time.
    cuts_last = is_merged and bool(table.conditions)
    if not cuts_last:
        rows = _cut(rows, snapshot, time_range)
    if snapshot.merge_sql is not None and snapshot.raw_name is not None:
        context.register_table(quoted(snapshot.raw_name), rows.into_view())
        rows = context.sql(snapshot.merge_sql)
        if table.raw_name is None or not mentions.has(table.raw_name):
            context.deregister_table(quoted(snapshot.raw_name))
    if table.conditions:
        rows = apply_conditions(rows, table.conditions, table=snapshot.name)
    return _cut(rows, snapshot, time_range) if cuts_last else rows


def listed_schema(snapshot: TableSnapshot) -> pa.Schema:
    """Return the schema of `SELECT *` over a table."""
    return wire_schema(visible_schema(snapshot), preserve_dictionary=False)


def _check_files(snapshot: TableSnapshot) -> None:
    """DataFusion reads a file that is not there as no rows, so a vanished file must be noticed here."""
    for file in snapshot.files:
        if "://" not in file and not os.path.exists(file):  # noqa: PTH110 - 230 paths cost 0.3 ms so, 2 ms as Path
            raise file_gone()


def _cut(rows: DataFrame, snapshot: TableSnapshot, time_range: TimeRange | None) -> DataFrame:
    """Return the rows in the range."""
    if time_range is None or snapshot.range_columns is None:
        return rows
    first, last = snapshot.range_columns
    schema = rows.schema()
    if first not in schema.names or last not in schema.names:
        _log.error("a merged table lacks the columns of its time range", extra={"table": snapshot.name})
        raise InternalError("A table cannot be cut to a time range, so the statement is not run.")
    return rows.filter(
        (col(quoted(first)) <= lit(_bound(time_range.end, schema.field(first).type, round_up=False)))
        & (col(quoted(last)) >= lit(_bound(time_range.begin, schema.field(last).type, round_up=True)))
    )


def _bound(time: datetime, column: pa.DataType, *, round_up: bool) -> pa.Scalar:
    """Return `time` in the column's own type, so that no cast stands between the filter and the files' statistics."""
    stamp = column if pa.types.is_timestamp(column) else pa.timestamp("ns", "UTC")
    microseconds = (time - _EPOCH) // timedelta(microseconds=1)
    scaled = microseconds * _TICKS_PER_SECOND[stamp.unit]
    ticks = -(-scaled // 10**6) if round_up else scaled // 10**6
    return pa.scalar(min(max(ticks, _INT64[0]), _INT64[1]), stamp)


def file_url(file: str) -> str:
    """Return the URL of an absolute path, so that no character of it is a pattern; a URL stays as it is."""
    return file if "://" in file else Path(file).as_uri()
