"""Materialized views in an executor: checks their definitions, and adds new rows of their sources.

Their queries run like the engine's statements, over one table with the selected files.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.file_list import NO_FILES, FileList
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine, DataFusionQuery
from micromegas_jupyter.engine.functions.denials import DENIAL_NAMES
from micromegas_jupyter.engine.functions.identity import IDENTITY_NAMES
from micromegas_jupyter.engine.functions.listings import LISTING_NAMES
from micromegas_jupyter.engine.functions.time_travel import TIME_TRAVEL
from micromegas_jupyter.engine.partition_calls import PARTITION_NAMES
from micromegas_jupyter.engine.scanner import quoted, scan
from micromegas_jupyter.engine.views import VIEW_FUNCTIONS
from micromegas_jupyter.errors import InvalidStatement, QueryError, UsageError
from micromegas_jupyter.lake.lake import MERGE, REFRESH, Lake, View, commit_view
from micromegas_jupyter.lake.snapshot import view_snapshot
from micromegas_jupyter.lake.tables import check_name, no_table
from micromegas_jupyter.lake.types import stored_schema
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

_MERGE_FILES: Final = 16
_SMALL_BYTES: Final = 32 * 1024 * 1024
#: Functions whose value depends on the caller or may change between refreshes.
_UNFIT_FUNCTIONS: Final = (
    DENIAL_NAMES | IDENTITY_NAMES | LISTING_NAMES | TIME_TRAVEL | PARTITION_NAMES | VIEW_FUNCTIONS
    | {"now", "current_timestamp", "current_date", "current_time", "today", "random", "uuid", "rand"}
)  # fmt: skip
#: Steps that return the union of the files' rows when applied to each file.
_STEPS: Final = frozenset({"Aggregate", "Distinct", "Filter", "Projection", "Sort", "SubqueryAlias", "TableScan"})
_MAINTAINER: Final = AuthContext(subject="maintenance", issuer="none", auth_type=AuthType.NONE, is_admin=True)


class _Source:
    """The only table that a view's query reads."""

    def __init__(self, *tables: TableSnapshot) -> None:
        self._tables = tables

    def snapshot(self, sql: str | None = None) -> Sequence[TableSnapshot]:  # noqa: ARG002 - a `TableSource`
        return self._tables


def check_definition(tables: Sequence[TableSnapshot], settings: EngineSettings, view: ViewDefinition) -> dict[str, str]:
    """Check a view's definition; return its source and, in hexadecimal digits, the IPC schema of its table."""
    check_name(view.name)
    empty = [replace(one, files=NO_FILES, bounds=None) for one in tables if one.problem is None]
    table = TableSnapshot(name=view.name, schema=pa.schema([]), files=NO_FILES)
    facts = view_snapshot(table, view, {})
    assert facts.materialized is not None  # noqa: S101
    query = _plan(facts.materialized.extract_sql, settings, *empty, name="extract_query")
    source = _find_source(query, tables)
    stored = stored_schema(pa.schema([pa.field(one.name, one.type) for one in query.schema]))
    raw = TableSnapshot(name=str(facts.raw_name), schema=stored, files=NO_FILES)
    merged = _plan(str(facts.merge_sql), settings, raw, name="merge_partitions_query")
    found = stored_schema(pa.schema([pa.field(one.name, one.type) for one in merged.schema]))
    if found != stored:
        raise _unfit(
            "merge_partitions_query", f"returns the columns {_listed(found)}, and the extract_query {_listed(stored)}"
        )
    for name in view.range_columns:
        if name not in stored.names or not pa.types.is_timestamp(stored.field(name).type):
            raise InvalidStatement(
                f"The time column {name[:80]!r} is not a timestamp in the result of the extract_query.",
                remedy="Specify one of the result's time columns.",
            )
    return {"source": source, "schema": stored.serialize().to_pybytes().hex()}


def refresh_view(
    storage: Storage, settings: EngineSettings, name: str, rebuilt: tuple[datetime, datetime] | None = None
) -> dict[str, object]:
    """Add the source rows that a view lacks, and merge its files if there are many; return a summary.

    Recomputes rows in the `rebuilt` range of times (end excluded).
    """
    lake = Lake(storage)
    view = lake.view(name)
    if view is None:
        raise no_table(name)
    if view.source is None:
        problem = view.snapshot.problem
        raise UsageError("The view cannot be refreshed." if problem is None else problem.what)
    is_stored, merged = True, 0
    if rebuilt is not None or view.facts.is_stale or view.watermark != view.source.version:
        if rebuilt is None:
            runs = _run(view.facts.extract_sql, settings, view.facts.source, view.table.snapshot.schema)
        else:
            runs = _rebuilt_rows(view, settings, view.source.snapshot, rebuilt)
        is_whole = rebuilt is not None or view.facts.is_stale
        is_stored = commit_view(storage, view, runs, operation=REFRESH, removed=None if is_whole else ())
    after = lake.view(name)
    if is_stored and after is not None and (small := _small_files(after)):
        files = FileList.of(one for one in after.snapshot.files if one.path.rpartition("/")[2] in small)
        runs = _run(str(after.snapshot.merge_sql), settings, _own_rows(after, files), after.table.snapshot.schema)
        merged = len(small) if commit_view(storage, after, runs, operation=MERGE, removed=small) else 0
    return {"is_stored": is_stored, "merged_files": merged}


def _rebuilt_rows(
    view: View, settings: EngineSettings, source: TableSnapshot, times: tuple[datetime, datetime]
) -> Iterator[pa.Table]:
    """Return all rows of a view: those in a time range from the current source, and the others unchanged."""
    schema, columns = view.table.snapshot.schema, view.snapshot.range_columns or ("", "")
    begin, end = (f"'{one.isoformat()}'" for one in times)
    inside = f"{quoted(columns[0])} < {end} AND {quoted(columns[1])} >= {begin}"
    outside = f"({inside}) IS NOT TRUE"
    everything = f"SELECT * FROM ({view.facts.extract_sql}\n) AS computed WHERE "  # noqa: S608
    own = _own_rows(view, FileList.of(view.snapshot.files))
    return itertools.chain(
        _run(f"SELECT * FROM {own.name} WHERE {outside}", settings, own, schema),  # noqa: S608
        _run(f"{everything}{outside}", settings, view.facts.source, schema),
        _run(f"{everything}{inside}", settings, replace(source, bounds=None), schema),
    )


def _own_rows(view: View, files: FileList) -> TableSnapshot:
    """Return the stored rows of a view's table."""
    return TableSnapshot(name=str(view.snapshot.raw_name), schema=view.table.snapshot.schema, files=files)


def _small_files(view: View) -> set[str]:
    """Return the names of a view's small files, if there are many."""
    snapshot = view.snapshot
    if view.facts.is_stale or snapshot.bounds is None or len(snapshot.files) < _MERGE_FILES:
        return set()
    sizes = snapshot.bounds.column("bytes").to_pylist()
    found = zip(FileList.of(snapshot.files).paths, sizes, strict=True)
    small = {path.rpartition("/")[2] for path, size in found if size is not None and size < _SMALL_BYTES}
    return small if len(small) >= _MERGE_FILES else set()


def _run(sql: str, settings: EngineSettings, table: TableSnapshot, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a query over a table, with the columns of a view."""
    if not len(table.files):
        return
    with closing(DataFusionEngine(_Source(table), settings)) as engine:
        query = engine.plan(StatementRequest(sql=sql), _MAINTAINER)
        for batch in query.batches():
            rows = pa.Table.from_batches([batch])
            yield pa.table([_stored(rows.column(one.name), one.type) for one in schema], schema=schema)


def _stored(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(kind, safe=not pa.types.is_timestamp(kind))


def _plan(sql: str, settings: EngineSettings, *tables: TableSnapshot, name: str) -> DataFusionQuery:
    names = scan(sql).names & _UNFIT_FUNCTIONS
    if names:
        raise _unfit(name, f"calls or mentions {', '.join(sorted(names))}, which changes or depends on the caller")
    engine = DataFusionEngine(_Source(*tables), settings)
    try:
        query = engine.plan(StatementRequest(sql=sql), _MAINTAINER)
    except QueryError as error:
        raise _unfit(name, f"cannot be planned: {error.what}") from error
    if not isinstance(query, DataFusionQuery):
        raise _unfit(name, "has parameters")
    return query


def _find_source(query: DataFusionQuery, tables: Sequence[TableSnapshot]) -> str:
    """Return the table that a view is computed from, which must be read row by row."""
    known = {one.name: one for one in tables}
    steps = [re.split(r"[:\s]", line.strip(), maxsplit=1)[0] for line in query.text.splitlines()]
    names = [name for name in query.reads if name in known]
    if (
        len(query.reads) != 1
        or len(names) != 1
        or steps.count("TableScan") != 1
        or "subquery" in query.text.lower().replace("subqueryalias", "")
    ):
        raise _unfit("extract_query", "does not read exactly one table exactly once")
    if others := sorted(set(steps) - _STEPS):
        raise _unfit("extract_query", f"has {', '.join(others)}, and so can't be computed for new rows alone")
    source = known[names[0]]
    if source.merge_sql is not None or source.source is not None or source.materialized is not None:
        raise _unfit("extract_query", f"reads {source.name}, which is itself a computed table")
    return source.name


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{one.name} {one.type}" for one in schema)[:300]


def _unfit(query: str, reason: str) -> InvalidStatement:
    return InvalidStatement(
        f"The {query} of the view {reason}.", remedy="Change the definition; see docs/sql-reference.md."
    )
