"""Which tables exist for a caller, and how they get into a session.

Files, time range, merge and conditions become views under the tables' SQL names. Only tables that the statement names
are built; nothing here reads a file's content. Who has which rights is decided where the caller is identified.
"""

from __future__ import annotations

import functools
import logging
import os
import urllib.parse
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet
from datafusion import DataFrame, SessionContext, col, lit
from datafusion.catalog import Table
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.protocols import TableAccess, TableSnapshot
from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.engine.errors import file_gone, is_engine_failure
from micromegas_jupyter.engine.functions.identity import with_caller_in_condition
from micromegas_jupyter.engine.planning.scanner import quoted
from micromegas_jupyter.engine.schemas import flat_schema, no_rows, visible_schema, wire_schema
from micromegas_jupyter.engine.security.barrier import behind_barrier
from micromegas_jupyter.engine.security.conditions import apply_conditions
from micromegas_jupyter.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from micromegas_jupyter.core.protocols import AuthContext
    from micromegas_jupyter.engine.contract import TimeRange
    from micromegas_jupyter.engine.planning.scanner import Mention

_log = logging.getLogger(__name__)

_EVERY_TABLE: Final = "*"
_NAMES_ALL: Final = frozenset({"show", "information_schema"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# DataFusion 55 answers `max(x)` from the files' footers, and takes one whose type is not the table's for one of nulls.
_USE_FOOTERS: Final = "SET datafusion.execution.collect_statistics = {}"
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


class Visibility:
    """Decides what a caller sees.

    Args:
        default_conditions: By table, what its rows must meet for callers whose rights nothing else limits and who are
            not administrators.
    """

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
        return [_seen(snapshot, access, caller) for snapshot in snapshots if access.may_read(snapshot.name)]


def _seen(snapshot: TableSnapshot, access: TableAccess, caller: AuthContext) -> VisibleTable:
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


def mentions_any(mentions: Mention, tables: Sequence[VisibleTable]) -> bool:
    """Return whether a statement may refer to any of the tables."""
    return any(mentions.has(name) for table in tables for name in table.names)


@dataclass(frozen=True, slots=True)
class TableBuilder:
    """Builds tables in sessions; `reader` reads their files."""

    reader: FileReader

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

        A statement over information_schema sees the others too, as names and schemas without rows; raw rows are listed
        nowhere, for they are there for those who know of them.

        Args:
            context: The session.
            tables: All tables of the caller.
            mentions: The names in the statement.
            time_range: What tables with a time are cut to; None for all rows.
            is_behind_barrier: Whether what the caller wrote sees filtered rows from behind the barrier only.
        """
        _choose_footers(context, tables, mentions)
        wants_names = any(mentions.has(name) for name in _NAMES_ALL)
        registered: list[VisibleTable] = []
        for table in tables:
            if any(mentions.has(name) for name in table.names):
                _check_files(table.snapshot)
                rows = self._rows(context, table.snapshot, _read_schema(table))
                shows_raw = table.raw_name is not None and mentions.has(table.raw_name)
                self._register(
                    context,
                    table if shows_raw or table.raw_name is None else replace(table, raw_name=None),
                    rows,
                    time_range=time_range,
                    is_behind_barrier=is_behind_barrier and bool(table.conditions),
                )
                registered.append(table)
            elif wants_names:
                unfiltered = replace(table, conditions=(), raw_name=None)
                rows = no_rows(context, _read_schema(table))
                self._register(context, unfiltered, rows, time_range=None, is_behind_barrier=False)
        return registered

    def _rows(self, context: SessionContext, snapshot: TableSnapshot, schema: pa.Schema) -> DataFrame:
        return self.reader.read(context, snapshot.files, schema) if snapshot.files else no_rows(context, schema)

    def _register(
        self,
        context: SessionContext,
        table: VisibleTable,
        rows: DataFrame,
        *,
        time_range: TimeRange | None,
        is_behind_barrier: bool,
    ) -> None:
        snapshot = table.snapshot
        is_merged = snapshot.merge_sql is not None and snapshot.raw_name is not None
        # A condition is about whole merged rows: cut before the merge, they would be made of the range's states only,
        # and a row that is hidden could show itself as it was at another time.
        cut_last = is_merged and bool(table.conditions)
        if not cut_last:
            rows = _cut(rows, snapshot, time_range)
        if snapshot.merge_sql is not None and snapshot.raw_name is not None:
            context.register_table(quoted(snapshot.raw_name), rows.into_view())
            rows = context.sql(snapshot.merge_sql)
            if table.raw_name is None:
                context.deregister_table(quoted(snapshot.raw_name))
        if table.conditions:
            rows = apply_conditions(rows, table.conditions, table=snapshot.name)
            if cut_last:
                rows = _cut(rows, snapshot, time_range)
        if is_behind_barrier:
            rows = behind_barrier(rows)
        context.register_table(quoted(snapshot.name), rows.into_view())


def _choose_footers(context: SessionContext, tables: Sequence[VisibleTable], mentions: Mention) -> None:
    """Let footers answer only where they are right; a session that is used again may come from another statement."""
    mixed = [table for table in tables if table.snapshot.has_mixed_types]
    if mixed:
        context.sql(_USE_FOOTERS.format("false" if mentions_any(mentions, mixed) else "true"))


def _read_schema(table: VisibleTable) -> pa.Schema:
    """Return the schema that the table's files are read with."""
    return flat_schema(table.snapshot.schema) if table.conditions else table.snapshot.schema


def listed_schema(snapshot: TableSnapshot) -> pa.Schema:
    """Return the schema of `SELECT *` over a table; kept per schema."""
    return _wire_schema(visible_schema(snapshot))


@functools.lru_cache(maxsize=512)
def _wire_schema(schema: pa.Schema) -> pa.Schema:
    return wire_schema(schema, preserve_dictionary=False)


def names_of(tables: Sequence[VisibleTable]) -> tuple[str, ...]:
    """Return the names of all visible tables; those of raw rows are told to nobody."""
    return tuple(table.snapshot.name for table in tables)


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
        (col(quoted(first)) <= lit(_moment(time_range.end, schema.field(first).type, round_up=False)))
        & (col(quoted(last)) >= lit(_moment(time_range.begin, schema.field(last).type, round_up=True)))
    )


def _moment(moment: datetime, column: pa.DataType, *, round_up: bool) -> pa.Scalar:
    """Return `moment` in the column's own type, so that no cast stands between the filter and the files' statistics."""
    stamp = column if pa.types.is_timestamp(column) else pa.timestamp("ns", "UTC")
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    scaled = microseconds * _TICKS_PER_SECOND[stamp.unit]
    ticks = -(-scaled // 10**6) if round_up else scaled // 10**6
    return pa.scalar(min(max(ticks, _INT64[0]), _INT64[1]), stamp)


# Tags of `LogicalPlanNode.listing_scan` (field 1) and `ListingTableScanNode.paths` (field 2), both length-delimited, in
# DataFusion's datafusion.proto.
_LISTING_SCAN: Final = b"\x0a"
_PATHS: Final = b"\x12"
_MAX_SCANS: Final = 64


class NativeReader:
    """The native scan.

    It keeps the last scan of each schema, in which DataFusion keeps what the files' footers said.
    """

    def __init__(self) -> None:
        self._first = functools.lru_cache(maxsize=256)(_plan_of_one)
        self._scans: dict[pa.Schema, tuple[tuple[str, ...], LogicalPlan]] = {}

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return the plan of one scan over all files."""
        names = tuple(files)
        kept, scan = self._scans.pop(schema, (None, None))
        if scan is None or kept != names:
            scan = self._decode(context, files, schema)
        self._scans[schema] = names, scan  # the least recently used stands first
        if len(self._scans) > _MAX_SCANS:
            del self._scans[next(iter(self._scans))]
        return context.create_dataframe_from_logical_plan(scan)

    def _decode(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> LogicalPlan:
        others = b"".join(_delimited(_PATHS, file_url(file).encode()) for file in files[1:])
        return LogicalPlan.from_bytes(context, self._first(schema, files[0]) + _delimited(_LISTING_SCAN, others))


class DatasetReader:
    """The stand-in: pyarrow reads the files, with fewer filters pushed down."""

    def read(self, context: SessionContext, files: Sequence[str], schema: pa.Schema) -> DataFrame:
        """Return the plan of a scan over a pyarrow dataset."""
        import pyarrow.dataset  # loads pandas, which the native reader does not need

        return context.read_table(Table(pyarrow.dataset.dataset(list(files), schema=schema, format="parquet")))


FileReader = NativeReader | DatasetReader


def choose_reader(folder: Path) -> FileReader:
    """Return the native reader if it reads a sample that is written below `folder` correctly, else the stand-in."""
    try:
        passed = _reads_sample(NativeReader(), folder)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.warning("the native scan failed its self-test", exc_info=error)
        passed = False
    if passed:
        return NativeReader()
    _log.warning("files are read through pyarrow datasets, which is slower than the native scan")
    return DatasetReader()


def file_url(file: str) -> str:
    """Return the URL of an absolute path, so that no character of it is a pattern; a URL stays as it is."""
    return file if "://" in file else "file://" + urllib.parse.quote(file)


def _plan_of_one(schema: pa.Schema, file: str) -> bytes:
    plan: bytes = SessionContext().read_parquet(file_url(file), schema=schema).logical_plan().to_bytes()
    return plan


def _delimited(tag: bytes, value: bytes) -> bytes:
    """Return a length-delimited field (protobuf encoding guide, "Length-Delimited Records")."""
    length, written = len(value), bytearray()
    while length > 0x7F:  # noqa: PLR2004 - seven bits of a varint
        written.append(length & 0x7F | 0x80)
        length >>= 7
    return b"".join((tag, written, bytes([length]), value))


def _reads_sample(reader: FileReader, folder: Path) -> bool:
    """Return whether three files give their rows, through a filter and with the declared schema."""
    dictionary = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([pa.field("time", pa.timestamp("ns", "+00:00"), nullable=False), pa.field("name", dictionary)])
    files = []
    for index in range(3):
        rows = pa.table({"time": [index, index + 10], "name": ["a", "b"]}).cast(schema)
        path = folder / f"sample {index}.parquet"
        pyarrow.parquet.write_table(rows, path)
        files.append(str(path))
    context = SessionContext()
    found = reader.read(context, files, schema)
    late = found.filter(col("time") >= lit(pa.scalar(10, pa.timestamp("ns", "+00:00"))))
    return bool(found.count() == 6 and late.count() == 3 and found.schema().equals(schema))  # noqa: PLR2004 - the sample's
