"""Determines which tables exist for a caller, and registers them in a session, as views under their SQL names.

Only tables that the statement mentions are built. Rights are determined where the caller is identified.
"""

import functools
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet
from cachetools import LRUCache
from datafusion import CsvReadOptions, DataFrame, SessionConfig, SessionContext, col, lit
from datafusion.expr import Expr
from datafusion.object_store import AmazonS3
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.deletion_vectors import DamagedVector
from micromegas_jupyter.core.file_list import NO_FILES, FileList
from micromegas_jupyter.core.protocols import (
    FIELD_ID,
    AuthContext,
    DataFile,
    DeletionVector,
    FileFormat,
    Materialized,
    TableAccess,
    TableSnapshot,
    ViewSource,
    find_table_access,
)
from micromegas_jupyter.core.storage import S3_SCHEME, Storage
from micromegas_jupyter.engine.contract import TimeRange, VisibleTable
from micromegas_jupyter.engine.errors import damaged_vector, file_gone, files_removed, is_engine_failure
from micromegas_jupyter.engine.functions.identity import with_caller_in_condition
from micromegas_jupyter.engine.functions.query_functions import visible_schema
from micromegas_jupyter.engine.plans.counts import find_total
from micromegas_jupyter.engine.plans.live_rows import (
    Fits,
    Vectors,
    all_of,
    fit_to_file,
    has_structs,
    has_structs_in_maps,
    live_rows,
    with_names,
)
from micromegas_jupyter.engine.plans.pruning import (
    Candidates,
    FilesByTable,
    bounded_columns,
    files_in_range,
    partition_value,
    prune,
)
from micromegas_jupyter.engine.scanner import Mention, quoted
from micromegas_jupyter.engine.schemas import (
    cut_times,
    flat_schema,
    no_rows,
    rows_without_values,
    stored_times,
    whole_times,
    wire_schema,
)
from micromegas_jupyter.engine.security import apply_conditions, behind_barrier, condition_problem, reveals_nothing
from micromegas_jupyter.engine.sessions import DYNAMIC_FILTERS, READ_ONLY
from micromegas_jupyter.engine.view_rights import view_condition
from micromegas_jupyter.engine.views import with_views
from micromegas_jupyter.engine.workarounds.plan_messages import message_class
from micromegas_jupyter.engine.workarounds.scan_folders import FoundFile, ScanFolders, mark_of
from micromegas_jupyter.errors import InternalError, UnsupportedStatement
from micromegas_jupyter.telemetry.tables import MODEL_NAMES

_log = logging.getLogger(__name__)

# Splitting fewer bytes into several partitions costs more than it saves.
_SMALL_BYTES: Final = 4 * 1024 * 1024
# Filters in the decoder cost 0.7 ms per file. They save more in larger files, where lookups take 60% of the time.
_FRAGMENT_BYTES: Final = 64 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64: Final = (-(1 << 63), (1 << 63) - 1)
# A file that is excluded only when it is opened costs 0.3 ms; planning a statement twice costs 1 ms.
_MIN_PRUNED: Final = 32
#: Functions whose values change when a statement is planned again.
_CLOCKS: Final = frozenset({"now", "current_timestamp", "current_date", "current_time", "today"})
# Other steps benefit from statistics in footers (25 MB for 500 files); filters use them to exclude files.
_STEPS_WITHOUT_STATISTICS: Final = ("Aggregate:", "Projection:", "Sort:", "SubqueryAlias:", "TableScan:")
_PUSHDOWN: Final = "datafusion.execution.parquet.pushdown_filters"
# A scan's options are part of its plan. A footer is a few kilobytes, but DataFusion would read 512 KB of each file.
_SCAN_OPTIONS: Final = {
    "datafusion.execution.parquet.metadata_size_hint": "32768",
    "datafusion.execution.parquet.schema_force_view_types": "false",
    "datafusion.execution.parquet.coerce_int96": "us",
}
#: Words that can show the type of a column.
_TYPE_QUESTIONS: Final = frozenset({"arrow_typeof", "describe", "desc"})
#: Words that can list tables that a statement does not mention.
LISTS: Final = frozenset({"show", "information_schema"})
_NOTHING: Final = Mention(names=frozenset())
_NO_LIMITS: Final[Mapping[str, Expr]] = MappingProxyType({})
_NO_FILE: Final = "file:///none"
_MAX_REQUESTS: Final = 32  # concurrent requests to a bucket
_MAX_SCHEMAS: Final = 4096  # for files with column IDs
_FOOTER_BYTES: Final = 64 * 1024
_MAX_REASON: Final = 300
_TAIL_BYTES: Final = 8  # a footer's size, and a magic number
_Scan = Callable[[Sequence[FoundFile], pa.Schema], DataFrame]
_ScanKey = tuple[str, pa.Schema, FileFormat, bool, tuple[str, ...]]


def find_visible_tables(
    snapshots: Iterable[TableSnapshot], caller: AuthContext, default_conditions: Mapping[str, str]
) -> list[VisibleTable]:
    """Return the tables that exist for `caller`, in order, according to `find_table_access`."""
    access = find_table_access(caller, default_conditions)
    snapshots = with_views(snapshots)
    if access is None:
        return [
            VisibleTable(snapshot=snapshot, raw_name=snapshot.raw_name if snapshot.source is None else None)
            for snapshot in snapshots
        ]
    found = (_restrict(snapshot, access, caller) for snapshot in snapshots if _exists(snapshot, access))
    return [table for table in found if table is not None]


def restrict_past(snapshot: TableSnapshot, caller: AuthContext, default_conditions: Mapping[str, str]) -> VisibleTable:
    """Return an earlier version of a table that exists for `caller`; its conditions must fit that version's columns."""
    table = next(iter(find_visible_tables([snapshot], caller, default_conditions)), None)
    columns = flat_schema(visible_schema(snapshot))
    if table is None or any(condition_problem(one, columns) for one in table.conditions):
        raise UnsupportedStatement(
            f"This version of the table {snapshot.name} has different columns, so the server can't "
            "determine which rows you may read.",
            remedy="Read a later version.",
        )
    return table


def _exists(snapshot: TableSnapshot, access: TableAccess) -> bool:
    """Whether a table exists for a caller; views exist only if their source does."""
    source_name = snapshot.source.table if snapshot.source is not None else None
    if snapshot.materialized is not None:
        source_name = snapshot.materialized.source.name
    return access.may_read(snapshot.name) and (source_name is None or access.may_read(source_name))


def _restrict(snapshot: TableSnapshot, access: TableAccess, caller: AuthContext) -> VisibleTable | None:
    if snapshot.source is not None:
        return _restrict_view(snapshot, snapshot.source, access, caller)
    is_view = snapshot.materialized is not None  # a condition for all tables may not fit its columns
    conditions = access.filters.get(snapshot.name, ()) if is_view else tuple(access.conditions(snapshot.name))
    if conditions:
        # Conditions apply to merged rows, which may have other column names.
        columns = visible_schema(snapshot).names if snapshot.merge_sql is not None else snapshot.schema.names
        conditions = tuple(with_caller_in_condition(one, caller, columns=columns) for one in conditions)
    of_source: tuple[str, ...] = ()
    if snapshot.materialized is not None:
        source = snapshot.materialized.source
        on_source = access.conditions(source.name)
        of_source = tuple(with_caller_in_condition(one, caller, columns=source.schema.names) for one in on_source)
        if view_condition(snapshot, of_source, condition_problem) is None:
            return None
    raw_name = snapshot.raw_name
    # Conditions apply to merged rows; on partial states, they would have a different meaning.
    if conditions or of_source or (raw_name is not None and access.filters.get(raw_name)):
        raw_name = None
    return VisibleTable(snapshot=snapshot, conditions=conditions, source_conditions=of_source, raw_name=raw_name)


def _restrict_view(
    snapshot: TableSnapshot, source: ViewSource, access: TableAccess, caller: AuthContext
) -> VisibleTable:
    """Return a view; conditions for all tables apply to its source."""
    own, of_source = access.filters.get(snapshot.name, ()), snapshot.schema.names
    of_rows = visible_schema(snapshot).names if own and snapshot.problem is None else ()
    return VisibleTable(
        snapshot=snapshot,
        conditions=tuple(with_caller_in_condition(one, caller, columns=of_rows) for one in own),
        source_conditions=tuple(
            with_caller_in_condition(one, caller, columns=of_source) for one in access.conditions(source.table)
        ),
    )


class TableBuilder:
    """Builds tables in sessions; caches the last scans, which contain the files' statistics."""

    def __init__(self) -> None:
        self._scans: LRUCache[_ScanKey, LogicalPlan] = LRUCache(64)
        self._buckets: dict[str, tuple[Storage, AmazonS3]] = {}
        self._folders = ScanFolders()
        self._vectors = Vectors()
        self._schemas: LRUCache[FoundFile, pa.Schema] = LRUCache(_MAX_SCHEMAS)
        # For the last registered tables: the size of their files (unless they hide rows), and their location.
        self._bytes: int | None = 0
        self.is_remote = False
        # Whether filters may stay out of the decoder for small files, and whether this was used.
        self._allows_fragments = self.has_fragments = False

    def register(  # noqa: PLR0913 - what a table is built from
        self,
        context: SessionContext,
        tables: Sequence[VisibleTable],
        *,
        mentions: Mention,
        time_range: TimeRange | None,
        is_behind_barrier: bool,
        files: FilesByTable | None = None,
        limits: Mapping[str, Expr] = _NO_LIMITS,
        stored_limits: Mapping[str, Expr] = _NO_LIMITS,
        counted: Collection[str] = (),
        is_flat: bool = False,
        allows_fragments: bool = False,
    ) -> list[VisibleTable]:
        """Register the mentioned tables and return them; `files` contains the files of a table that are sufficient.

        Skips rows that don't meet the `limits` of their table, and stored rows that don't meet `stored_limits`. The
        rows of `counted` tables have no values.

        With `allows_fragments`, filters on small files stay out of the decoder; see `has_fragments`.

        With `is_flat`, dictionary columns of text become plain text, unless the statement requests types.

        A statement over information_schema also sees the other tables, as names and schemas without rows. Raw rows are
        never listed; they are available by name.
        """
        self._bytes, self.is_remote, self.has_fragments = 0, False, False
        self._allows_fragments = allows_fragments
        lists_names = bool(mentions.among(LISTS))
        is_flat = is_flat and not lists_names and not mentions.among(_TYPE_QUESTIONS)
        registered: list[VisibleTable] = []
        # Materialized views come first, because their queries need their source's name.
        for table in sorted(tables, key=lambda one: one.snapshot.materialized is None):
            snapshot = table.snapshot
            # Grouping by plain strings takes two-thirds as long.
            is_flattened = is_flat and not table.needs_barrier
            schema = flat_schema(snapshot.schema, keeps_properties=True) if is_flattened else scanned_schema(table)
            if any(map(mentions.has, table.names)):
                needed = (files or {}).get(snapshot.name)
                if needed is None:
                    needed = find_files_in_range(table, time_range)
                is_counted, split = snapshot.name in counted, snapshot.split_times
                stored = stored_times(schema, split) if split else schema
                rows = self.read(
                    context, snapshot, needed, stored, shows_values=not table.needs_barrier, is_counted=is_counted
                )
                if split:
                    rows = _with_whole_times(rows, table, time_range, schema, stored_limits.get(snapshot.name))
                if snapshot.materialized is not None:
                    rows = self._with_new_rows(context, table, snapshot.materialized, rows)
                limit = limits.get(snapshot.name)
                rows = _build(
                    context,
                    table,
                    rows,
                    mentions=mentions,
                    time_range=time_range,
                    limit=limit,
                    holds_back=is_behind_barrier and table.has_deleted_rows,
                )
                if is_behind_barrier and table.hides_rows:
                    rows = behind_barrier(rows)
                if table.needs_barrier:
                    self._bytes = None  # the order of rows must not depend on hidden ones
                registered.append(replace(table, needed=needed))
            elif lists_names:
                unfiltered = replace(table, conditions=(), source_conditions=(), raw_name=None)
                if snapshot.materialized is not None:  # its queries may fail
                    unfiltered = replace(unfiltered, snapshot=replace(snapshot, merge_sql=None, raw_name=None))
                rows = _build(context, unfiltered, no_rows(context, schema), mentions=mentions, time_range=None)
            else:
                continue
            context.register_table(quoted(snapshot.name), rows.into_view())
        return registered

    def _with_new_rows(
        self, context: SessionContext, table: VisibleTable, view: Materialized, rows: DataFrame
    ) -> DataFrame:
        """Return the rows of a materialized view and the newer rows of its source."""
        if not len(view.source.files):
            return rows
        with _definition_errors(table):
            return rows.union(self.extract(context, table, view, rows.schema()))

    def extract(
        self, context: SessionContext, table: VisibleTable, view: Materialized, columns: pa.Schema
    ) -> DataFrame:
        """Return the result of a materialized view's query over its source, with the columns of the view."""
        source, name, shows_values = view.source, quoted(view.source.name), not table.needs_barrier
        files = FileList.of(source.files)
        schema = source.schema if shows_values else flat_schema(source.schema)
        stored = stored_times(schema, source.split_times) if source.split_times else schema
        rows = self.read(context, source, files, stored, shows_values=shows_values)
        if source.split_times:
            rows = rows.select(*whole_times(schema, source.split_times))
        if files.has_vectors:
            rows = all_of(rows)
        if table.source_conditions:
            # The view's query may fail on a hidden row.
            rows = behind_barrier(apply_conditions(rows, table.source_conditions, table=source.name))
        context.register_table(name, rows.into_view())
        try:
            found = context.sql_with_options(view.extract_sql, READ_ONLY)
        finally:
            context.deregister_table(name)
        return found.select(*[col(quoted(one.name)).cast(one.type).alias(one.name) for one in columns])

    @property
    def partitions(self) -> int | None:
        """The best number of partitions for the last registered tables, or None if unknown."""
        return 1 if self._bytes is not None and 0 < self._bytes <= _SMALL_BYTES else None

    @contextmanager
    def outline(
        self,
        context: SessionContext,
        tables: Sequence[VisibleTable],
        *,
        mentions: Mention,
        time_range: TimeRange | None,
    ) -> Iterator[Mapping[str, VisibleTable]]:
        """Register tables over scans without files, and return the mentioned ones by scan name.

        In a plan over these, DataFusion itself moves the conditions of a statement down to the scans, and nothing
        depends on stored data.
        """
        scans: dict[str, VisibleTable] = {}
        for position, table in enumerate(tables):
            if not table.snapshot.schema.names or not any(map(mentions.has, table.names)):
                continue
            name = f"scan_of_table_{position:04d}"
            rows = _named_scan(context, scanned_schema(table), name)
            rows = _build(context, table, rows, mentions=mentions, time_range=time_range)
            context.register_table(quoted(table.snapshot.name), rows.into_view())
            scans[name] = table
        others = [table for table in tables if table.snapshot.name not in {one.snapshot.name for one in scans.values()}]
        nothing = {table.snapshot.name: NO_FILES for table in others}
        self.register(context, others, mentions=mentions, time_range=time_range, is_behind_barrier=False, files=nothing)
        try:
            yield scans
        finally:
            for table in tables:
                for shown in filter(None, (table.snapshot.name, table.snapshot.raw_name)):
                    context.deregister_table(quoted(shown))

    def files_behind_barrier(
        self,
        context: SessionContext,
        scans: Mapping[str, VisibleTable],
        limits: Mapping[str, Expr],
        *,
        mentions: Mention,
        time_range: TimeRange | None,
    ) -> FilesByTable:
        """Return, for large tables with hidden rows, the files with rows that meet their conditions and `limits`."""
        needed: dict[str, FileList] = {}
        for name, table in scans.items():
            if table.needs_barrier and is_large(table, mentions, time_range):
                rows = _named_scan(context, scanned_schema(table), name)
                limit = limits.get(table.snapshot.name)
                rows = _build(context, table, rows, mentions=_NOTHING, time_range=time_range, limit=limit)
                candidates = {name: Candidates(table.snapshot, _stored_range(table, time_range))}
                needed |= prune(rows.optimized_logical_plan(), candidates, may_change=False)
        return needed

    def read(  # noqa: PLR0913 - what a scan is
        self,
        context: SessionContext,
        snapshot: TableSnapshot,
        files: FileList,
        schema: pa.Schema,
        *,
        shows_values: bool = True,
        is_counted: bool = False,
    ) -> DataFrame:
        """Return the plan of native scans over explicit files, one per set of visible partition values.

        Unless it `shows_values`, columns are nullable regardless of values. Rows that are only counted come from the
        log if it has their number.
        """
        shown = [name for name in snapshot.partition_columns if name in schema.names]
        try:
            found = self._locate(context, files.paths)
            live = self._vectors.load(files.vectors, self._read_parts)
        except FileNotFoundError as error:
            raise (file_gone() if snapshot.bounds is None else files_removed(snapshot.name)) from error
        except DamagedVector as error:
            raise damaged_vector(snapshot.name, str(error)) from error
        count = find_total(snapshot, files, "rows") if is_counted else None
        if count is not None and (counted := rows_without_values(context, schema, count)) is not None:
            return counted
        sizes = [file.size for file in found]
        # The rows that a filter is evaluated on must not depend on hidden rows, either.
        are_large = None in sizes or sum(filter(None, sizes)) > _FRAGMENT_BYTES * len(sizes)
        pushes_down = are_large or not shows_values or not self._allows_fragments
        self.has_fragments |= not pushes_down
        scan: _Scan = functools.partial(self._scan, context, snapshot, pushes_down=pushes_down)
        if live or snapshot.stored_schema is not None or _has_files_to_fit(snapshot, schema):
            scan = functools.partial(self._scan_live, scan, snapshot, live)
        if not found or not shown:
            return scan(found, schema)
        texts = [files.partition(snapshot.partition_columns.index(name)).to_pylist() for name in shown]
        groups: dict[tuple[str | None, ...], list[FoundFile]] = {}
        for file, *values in zip(found, *texts, strict=True):
            groups.setdefault(tuple(values), []).append(file)
        stored = pa.schema([field for field in schema if field.name not in shown])
        # Unlike other plans, a scan can't be optimized away.
        scans = [] if shows_values else [scan([], schema)]
        for group, of_group in groups.items():
            constants = {
                name: lit(partition_value(value, schema.field(name).type)).alias(name)
                for name, value in zip(shown, group, strict=True)
            }
            rows = scan(of_group, stored)
            scans.append(rows.select(*[constants.get(name, col(quoted(name))) for name in schema.names]))
        return functools.reduce(DataFrame.union, scans)

    def _scan_live(
        self,
        scan: _Scan,
        snapshot: TableSnapshot,
        live: Mapping[str, pa.BooleanArray],
        files: Sequence[FoundFile],
        schema: pa.Schema,
    ) -> DataFrame:
        """Return the live rows of files, under the names that SQL sees."""
        stored, names = snapshot.stored_schema, snapshot.schema.names
        wanted = schema if stored is None else pa.schema([stored.field(names.index(name)) for name in schema.names])
        groups: dict[tuple[pa.Schema, Fits], list[FoundFile]] = {}
        footers = self._footers(files) if _has_files_to_fit(snapshot, wanted) else itertools.repeat(None)
        for file, found in zip(files, footers, strict=False):
            of_file, fits = (wanted, ()) if found is None else fit_to_file(wanted, found)
            if stored is None and all(fit is None for fit in fits):
                of_file, fits = wanted, ()
            groups.setdefault((of_file, fits), []).append(file)
        parts = []
        for (of_group, fits), group in (groups or {(wanted.remove_metadata(), ()): []}).items():
            whole = [file for file in group if file.path not in live]
            cut = [file for file in group if file.path in live]
            rows = [scan(whole, of_group)] if whole or not cut else []
            if cut:
                paths = [file.path for file in cut]
                rows.append(live_rows(scan(cut, of_group), paths, self._folders.urls(cut), live))
            parts += rows if stored is None and not fits else [with_names(one, of_group, schema, fits) for one in rows]
        return functools.reduce(DataFrame.union, parts)

    def _footers(self, files: Sequence[FoundFile]) -> Iterable[pa.Schema]:
        """Return the schemas of files."""
        missing = [file for file in files if file not in self._schemas]
        with ThreadPoolExecutor(_MAX_REQUESTS if self.is_remote else 1) as pool:
            self._schemas.update(zip(missing, pool.map(self._footer, missing), strict=True))
        return [self._schemas[file] for file in files]

    def _footer(self, file: FoundFile) -> pa.Schema:
        return self.read_footer(file.path).schema.to_arrow_schema()

    def read_footer(self, location: str) -> pyarrow.parquet.FileMetaData:
        """Return the footer of a file."""
        if not location.startswith(S3_SCHEME):
            return pyarrow.parquet.read_metadata(location)
        storage, path = self._object(location)
        size = _FOOTER_BYTES
        while (content := storage.read_end(path, size)) is not None:
            needed = int.from_bytes(content[-_TAIL_BYTES:-4], "little") + _TAIL_BYTES
            if needed <= len(content) or len(content) < size:
                return pyarrow.parquet.read_metadata(pa.BufferReader(content))
            size = needed
        raise FileNotFoundError(location)

    def _read_parts(self, location: str, offsets: Sequence[int], sizes: Sequence[int]) -> Sequence[bytes]:
        storage, path = self._object(location)
        if (parts := storage.read_parts(path, offsets, sizes)) is None:
            raise FileNotFoundError(location)
        return parts

    def _object(self, location: str) -> tuple[Storage, str]:
        """Return a file's storage and the path in it."""
        if not location.startswith(S3_SCHEME):
            path = Path(location)
            return Storage(path.parent), path.name
        bucket, _, key = location.removeprefix(S3_SCHEME).partition("/")
        return self._bucket(bucket)[0], unquote(key)

    def _scan(
        self,
        context: SessionContext,
        snapshot: TableSnapshot,
        files: Sequence[FoundFile],
        schema: pa.Schema,
        *,
        pushes_down: bool,
    ) -> DataFrame:
        """Return the plan of one native scan over an explicit list of files, with a given schema.

        DataFusion-Python can read one path or a folder, but not a list of files. Its logical plans can be encoded as
        protobuf, though, and a listing scan's paths are a repeated field. The paths are appended to the plan without
        files, because protobuf merges concatenated messages. `check_scans` and tests verify this.
        """
        kind = snapshot.file_format
        urls = self._folders.urls(files) if kind is FileFormat.PARQUET else [file.url for file in files]
        key = (snapshot.name, schema, kind, pushes_down, tuple(urls))
        scan = self._scans.get(key)
        if scan is None:
            scan = _scan_named(snapshot.name, context, schema, kind, urls=urls, pushes_down=pushes_down)
            self._scans[key] = scan
        return context.create_dataframe_from_logical_plan(scan)

    def _locate(self, context: SessionContext, paths: Sequence[str]) -> list[FoundFile]:
        """Return the current files; DataFusion would treat a missing file as empty."""
        keys: dict[str, list[str]] = {}
        if not paths or not paths[0].startswith(S3_SCHEME):
            found = list(map(FoundFile, paths, map(mark_of, map(os.stat, paths))))
            self._bytes = None if self._bytes is None else self._bytes + sum(file.size or 0 for file in found)
            return found
        for path in paths:
            bucket, _, key = path.removeprefix(S3_SCHEME).partition("/")
            keys.setdefault(bucket, []).append(unquote(key))
        self._bytes, self.is_remote = None, True
        for bucket, wanted in keys.items():
            storage, store = self._bucket(bucket)
            if not storage.has_all(wanted):
                raise FileNotFoundError(bucket)
            context.register_object_store(S3_SCHEME, store, host=bucket)
        return list(map(FoundFile, paths))

    def _bucket(self, name: str) -> tuple[Storage, AmazonS3]:
        if name not in self._buckets:
            storage = Storage(f"{S3_SCHEME}{name}")
            self._buckets[name] = storage, _object_store(name, storage.options)
        return self._buckets[name]


def _has_files_to_fit(snapshot: TableSnapshot, stored: pa.Schema) -> bool:
    """Return whether files may have columns with fields or IDs that a scan would not match to the table's.

    DataFusion matches fields by name, but those in maps by position.
    """
    if snapshot.stored_schema is not None:
        return any(FIELD_ID in (field.metadata or {}) or has_structs(field.type) for field in stored)
    return snapshot.file_format is FileFormat.PARQUET and any(has_structs_in_maps(field.type) for field in stored)


def _cuts_last(table: VisibleTable) -> bool:
    """Whether a time range applies to the merged rows.

    A condition applies to complete merged rows: if rows were cut before the merge, they would contain only the range's
    states, and a hidden row could appear as it was at a different time. The merge of a materialized view may change
    times.
    """
    snapshot = table.snapshot
    is_merged = snapshot.merge_sql is not None and snapshot.raw_name is not None and snapshot.source is None
    return is_merged and (bool(table.conditions) or snapshot.materialized is not None)


def _stored_range(table: VisibleTable, time_range: TimeRange | None) -> TimeRange | None:
    """Return the range for stored rows; a merge or a view computes the table's rows from them."""
    if time_range is None or _cuts_last(table):
        return None
    source = table.snapshot.source
    if source is None:
        return time_range
    try:
        begin = time_range.begin - timedelta(seconds=source.lookback_seconds)
        return replace(time_range, begin=begin, end=time_range.end + timedelta(seconds=source.slack_seconds))
    except OverflowError:
        return time_range


def scanned_schema(table: VisibleTable) -> pa.Schema:
    """Return the schema for reading files: the dictionary of a batch may contain values of hidden rows."""
    return flat_schema(table.snapshot.schema) if table.needs_barrier else table.snapshot.schema


def is_large(table: VisibleTable, mentions: Mention, time_range: TimeRange | None) -> bool:
    """Return whether a statement may read only some of a table's many files."""
    snapshot = table.snapshot
    # A statement over deleted rows is planned twice anyway.
    is_planned_twice = table.has_deleted_rows and not table.hides_rows
    # DataFusion doesn't exclude files by times that combine two columns.
    most = 1 if is_planned_twice or any(map(mentions.has, snapshot.split_times)) else _MIN_PRUNED - 1
    if len(snapshot.files) <= most or not any(map(mentions.has, table.names)):
        return False
    columns = {*bounded_columns(snapshot), *snapshot.partition_columns} & set(snapshot.schema.names)
    if snapshot.source is not None:
        columns.add(snapshot.source.time_column)
    has_conditions = table.hides_rows or bool(table.equal) or any(map(mentions.has, columns))
    return has_conditions and len(find_files_in_range(table, time_range)) > most


def has_constants(table: VisibleTable) -> bool:
    """Return whether a table's columns become constants in plans, which then differ by stored values."""
    return not set(table.snapshot.partition_columns).isdisjoint(table.snapshot.schema.names)


def needed_files(
    optimized: LogicalPlan,
    scans: Mapping[str, VisibleTable],
    *,
    mentions: Mention,
    time_range: TimeRange | None,
    is_estimated: bool = False,
) -> FilesByTable:
    """Return, for large tables, the files that may have rows that meet the conditions in an outline's scans.

    If the reads are estimated (`is_estimated`), all tables count as large. A file that every scan of its table excludes
    cannot change the result.
    """
    candidates = {
        name: Candidates(table.snapshot, _stored_range(table, time_range))
        for name, table in scans.items()
        if is_estimated or is_large(table, mentions, time_range)
    }
    return prune(optimized, candidates, may_change=may_change(mentions)) if candidates else {}


def needs_statistics(text: str) -> bool:
    """Return whether statistics from the files' footers are useful before a plan with this text runs."""
    return "groupBy=[[]]" in text or not all(
        line.lstrip().startswith(_STEPS_WITHOUT_STATISTICS) for line in text.splitlines()
    )


def may_change(mentions: Mention) -> bool:
    """Return whether a statement may have different constants when it's planned again."""
    return bool(mentions.among(_CLOCKS))


def find_files_in_range(table: VisibleTable, time_range: TimeRange | None) -> FileList:
    """Return the files of a table that may have rows in a range."""
    return files_in_range(table.snapshot, _stored_range(table, time_range))


def _build(  # noqa: PLR0913 - what a table is built from
    context: SessionContext,
    table: VisibleTable,
    rows: DataFrame,
    *,
    mentions: Mention,
    time_range: TimeRange | None,
    limit: Expr | None = None,
    holds_back: bool = False,
) -> DataFrame:
    """Return a table's rows as the caller sees them; mentioned raw rows remain registered.

    A `limit` is a condition on stored rows; other rows are not needed. With `holds_back`, no other expression is
    evaluated on deleted rows.
    """
    snapshot = table.snapshot
    rows = _cut(rows, snapshot, _stored_range(table, time_range), columns=snapshot.range_columns)
    if limit is not None:
        rows = rows.filter(limit)
    rows = _without_deleted(rows, table, holds_back=holds_back)
    if table.source_conditions:
        rows = apply_conditions(rows, table.source_conditions, table=snapshot.name)
        if snapshot.materialized is not None:
            rows = behind_barrier(rows)
    if snapshot.merge_sql is not None and snapshot.raw_name is not None:
        context.register_table(quoted(snapshot.raw_name), rows.into_view())
        with _definition_errors(table):
            rows = context.sql_with_options(snapshot.merge_sql, READ_ONLY)
        if table.raw_name is None or not mentions.has(table.raw_name):
            context.deregister_table(quoted(snapshot.raw_name))
    if table.conditions:
        rows = apply_conditions(rows, table.conditions, table=snapshot.name)
    for name, value in table.equal:
        # A string of this type is converted to the column's dictionary; lit(value) would cast the column instead.
        rows = rows.filter(col(quoted(name)) == lit(pa.scalar(value, pa.utf8())))
    if table.cuts_times:
        rows = cut_times(rows, snapshot.split_times)
    if snapshot.source is not None:
        return _cut(rows, snapshot, time_range, columns=(snapshot.source.time_column,) * 2)
    return _cut(rows, snapshot, time_range, columns=snapshot.range_columns) if _cuts_last(table) else rows


@contextmanager
def _definition_errors(table: VisibleTable) -> Iterator[None]:
    """Report errors in a materialized view's definition as such."""
    try:
        yield
    except BaseException as error:
        if table.snapshot.materialized is None or not is_engine_failure(error):
            raise
        reason = "" if table.needs_barrier else f": {' '.join(str(error).split())[:_MAX_REASON]}"
        raise UnsupportedStatement(
            f"The definition of the materialized view {table.snapshot.name} no longer fits its source{reason}",
            remedy="Ask one of the server's administrators to replace or drop the view.",
        ) from error


def _without_deleted(rows: DataFrame, table: VisibleTable, *, holds_back: bool) -> DataFrame:
    if table.retained is not None:
        rows = apply_conditions(rows, (table.retained,), table=table.read_as)
    if holds_back:
        return all_of(rows) if table.retained is None else behind_barrier(rows)
    return rows


def check_scans() -> None:
    """Check that this version of DataFusion scans a list of files as planned here; takes a few milliseconds."""
    rows = pa.table({"n": [1, 2], "word": ["x", None]})
    schema = rows.schema.append(pa.field("day", pa.date32()))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(4):
            path = f"{folder}/{number}"
            pyarrow.parquet.write_table(rows, path)
            files.append(DataFile(path, ("2026-11-01" if number % 2 else None,)))
        table = TableSnapshot(name="t", schema=schema, files=tuple(files), partition_columns=("day",))
        builder = TableBuilder()
        read = builder.read(SessionContext(), table, FileList.of(files[1:]), schema)
        found = sorted((row["n"], row["word"] or "", str(row["day"])) for row in read.to_pylist())
    days = ("2026-11-01", "2026-11-01", "None")
    if found != [(1, "x", day) for day in days] + [(2, "", day) for day in days]:
        raise InternalError("This server doesn't support this DataFusion version.")


#: Rows 3, 4, 7, 11, 18, and 29 are deleted: the example from PROTOCOL.md.
_EXAMPLE: Final = DeletionVector("^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", None, 44, 6, 40)
_LIVE: Final = [number for number in range(40) if number not in {3, 4, 7, 11, 18, 29}]


def hides_deleted_rows(context: SessionContext | None = None) -> bool:
    """Return whether statements on a sample return its live rows without failing on deleted ones."""
    context = SessionContext() if context is None else context
    for name in DYNAMIC_FILTERS.values():
        context.sql(f"SET {name} = false")
    texts = [str(number) if number in _LIVE else "hidden" for number in range(40)]
    rows = pa.table({"text": texts, "number": [int(number in _LIVE) for number in range(40)], "shown": range(40)})
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 6):  # a file in a separate scan, and files in one scan, which are found by links
            paths = [f"{folder}/{count}.{number}" for number in range(count)]
            for path in paths:
                pyarrow.parquet.write_table(rows, path, row_group_size=20)
            files = FileList.of([DataFile(path, deleted=_EXAMPLE) for path in paths])
            table = TableSnapshot(name="t", schema=rows.schema, files=files)
            read = TableBuilder().read(context, table, files, rows.schema, shows_values=False)
            try:
                if not reveals_nothing(context, all_of(read)):
                    return False
                found = read.sort(col("shown")).to_pylist()
            except Exception:  # noqa: BLE001 - DataFusion has no class for it
                found = []
            if [row["shown"] for row in found] != [number for number in _LIVE for _ in range(count)]:
                _log.error("tables with deleted rows are rejected: the engine failed a self-test")
                return False
    return True


def listed_schema(snapshot: TableSnapshot) -> pa.Schema:
    """Return the schema of `SELECT *` over a table."""
    return wire_schema(
        visible_schema(snapshot), preserve_dictionary=False, keeps_units=snapshot.name not in MODEL_NAMES
    )


@functools.lru_cache(maxsize=64)
def _template(schema: pa.Schema, file_format: FileFormat, *, pushes_down: bool) -> bytes:
    """Return the plan of a scan without files."""
    options = _SCAN_OPTIONS | {_PUSHDOWN: str(pushes_down).lower()}
    context, place = SessionContext(SessionConfig(options)), f"{_NO_FILE}.{file_format.value}"
    match file_format:
        case FileFormat.PARQUET:
            rows = context.read_parquet(place, schema=schema)
        case FileFormat.CSV:
            # Values may contain line breaks, so the file must not be read in pieces.
            rows = context.read_csv(place, options=CsvReadOptions(schema=schema, newlines_in_values=True))
        case FileFormat.JSON_LINES:
            rows = context.read_json(place, schema=schema)
        case FileFormat.ARROW:
            rows = context.read_arrow(place, schema=schema)
    node = message_class("Node").FromString(rows.logical_plan().to_bytes())
    scan = node.f1[0]
    del scan.f2[:]
    del scan.f3[:]  # the extension, because files with a different one would be skipped
    return bytes(node.SerializeToString())


def _named_scan(context: SessionContext, schema: pa.Schema, name: str) -> DataFrame:
    """Return a scan that has a name in plans, and is not meant to run."""
    plan = _scan_named(name, context, schema, FileFormat.PARQUET, urls=[f"{_NO_FILE}.parquet"])
    return context.create_dataframe_from_logical_plan(plan)


def _scan_named(  # noqa: PLR0913 - what a scan is
    name: str,
    context: SessionContext,
    schema: pa.Schema,
    file_format: FileFormat,
    *,
    urls: Iterable[str],
    pushes_down: bool = True,
) -> LogicalPlan:
    """Return the plan of a scan that has a name in plans."""
    more = message_class("Node")(f1=[{"f2": urls, "f14": [{"f1": [{"f1": [name]}]}]}])
    return LogicalPlan.from_bytes(
        context, _template(schema, file_format, pushes_down=pushes_down) + more.SerializeToString()
    )


def _object_store(bucket: str, options: Mapping[str, str]) -> AmazonS3:
    return AmazonS3(
        bucket_name=bucket,
        region=options.get("aws_region"),
        access_key_id=options.get("aws_access_key_id"),
        secret_access_key=options.get("aws_secret_access_key"),
        session_token=options.get("aws_session_token"),
        endpoint=options.get("aws_endpoint_url"),
        allow_http=options["allow_http"] == "true",
    )


def _with_whole_times(
    rows: DataFrame, table: VisibleTable, time_range: TimeRange | None, schema: pa.Schema, limit: Expr | None
) -> DataFrame:
    """Return rows with times in nanoseconds, after conditions on the stored times, which have statistics."""
    snapshot = table.snapshot
    rows = _cut(rows, snapshot, _stored_range(table, time_range), columns=snapshot.range_columns)
    if limit is not None:
        rows = rows.filter(limit)
    return rows.select(*whole_times(schema, snapshot.split_times))


def _cut(
    rows: DataFrame, snapshot: TableSnapshot, time_range: TimeRange | None, *, columns: tuple[str, str] | None
) -> DataFrame:
    """Return the rows in the range."""
    if time_range is None or columns is None:
        return rows
    first, last = columns
    schema = rows.schema()
    if first not in schema.names or last not in schema.names:
        _log.error("a merged table lacks the columns of its time range", extra={"table": snapshot.name})
        raise InternalError("A table cannot be restricted to a time range, so the statement wasn't run.")
    return rows.filter(
        (col(quoted(first)) <= lit(_bound(time_range.end, schema.field(first).type, round_up=False)))
        & (col(quoted(last)) >= lit(_bound(time_range.begin, schema.field(last).type, round_up=True)))
    )


def _bound(time: datetime, column: pa.DataType, *, round_up: bool) -> pa.Scalar:
    """Return `time` in the column's own type, because a cast would prevent the use of file statistics."""
    stamp = column if pa.types.is_timestamp(column) else pa.timestamp("ns", "UTC")
    microseconds = (time - _EPOCH) // timedelta(microseconds=1)
    scaled = microseconds * _TICKS_PER_SECOND[stamp.unit]
    ticks = -(-scaled // 10**6) if round_up else scaled // 10**6
    return pa.scalar(min(max(ticks, _INT64[0]), _INT64[1]), stamp)
