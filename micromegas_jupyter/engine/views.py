"""Views that are computed from tables on demand, and `view_instance`.

`view_instance(set, id)` returns the rows of one process (or stream) in a view set. In upstream's SQL, it is a table
function. Here, a name replaces it in the statement, and the engine registers the caller's own table, restricted to the
ID, under this name. Row conditions, the barrier, the time range, and file pruning thus work as for the table.
"""

import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
from datafusion import SessionContext

from micromegas_jupyter.core.protocols import TableSnapshot, ViewSource
from micromegas_jupyter.engine.calls import Call, refused
from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.engine.errors import is_engine_failure, missing_parameter
from micromegas_jupyter.engine.planning import SUBQUERY_KEYWORDS
from micromegas_jupyter.engine.scanner import Kind, scan
from micromegas_jupyter.engine.sessions import READ_ONLY
from micromegas_jupyter.errors import MicromegasError, Unavailable
from micromegas_jupyter.telemetry.tables import (
    BLOCKS,
    COUNTER_INCREASES,
    EMPTY_SETS,
    HISTOGRAM_INCREASES,
    HISTOGRAMS,
    INCREASE_LOOKBACK_SECONDS,
    LOG_ENTRIES,
    LOG_STATS,
    LOG_STATS_BIN,
    MEASURES,
    OTEL_SPANS,
    PERFETTO_CHUNKS,
    PROCESS_SPANS,
    PROCESSES,
    STREAMS,
    VIEW_INSTANCE,
    VIEW_SOURCES,
    VIEWS,
    TableDefinition,
)

GLOBAL: Final = "global"
#: The functions for which `instance_tables` handles calls.
VIEW_FUNCTIONS: Final = frozenset({VIEW_INSTANCE, PROCESS_SPANS.name, PERFETTO_CHUNKS.name})
_SPAN_KINDS: Final = ("thread", "async", "both")
#: Functions that take a process and a span kind, with their table and their other arguments.
_OF_SPANS: Final = {
    PROCESS_SPANS.name: (PROCESS_SPANS, ()),
    PERFETTO_CHUNKS.name: (PERFETTO_CHUNKS, ("begin", "end")),
}
_PROCESS: Final = "process_id"
_MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A data model view; `sql` computes it from the rows of its source; the source's name replaces `{}`."""

    definition: TableDefinition
    columns: tuple[str, ...]
    sql: str
    slack_seconds: int = 0
    lookback_seconds: int = 0

    def over(self, table: TableSnapshot) -> TableSnapshot:
        """Return the view as a table with the files of its source."""
        raw_name, time_column = f"__{self.definition.name}__rows", self.definition.range_columns[0]
        source = ViewSource(
            table=table.name,
            columns=self.columns,
            time_column=time_column,
            slack_seconds=self.slack_seconds,
            lookback_seconds=self.lookback_seconds,
        )
        sql = self.sql.format(f'"{raw_name}"')
        return replace(table, name=self.definition.name, merge_sql=sql, raw_name=raw_name, source=source)

    def is_possible(self, table: TableSnapshot) -> bool:
        """Return whether a table has the columns that the view requires."""
        if table.problem is not None:
            return not table.problem.is_elsewhere
        schema = table.schema
        return set(self.columns) <= set(schema.names) and pa.types.is_timestamp(schema.field("time").type)


_STATS_KEYS: Final = ("process_id", "level", "target")
_STATS: Final = _View(
    definition=LOG_STATS,
    columns=("time", *_STATS_KEYS),
    # Keeps the time's unit; date_bin would change it to one with a shorter range.
    sql=f"SELECT date_trunc('{LOG_STATS_BIN}', time) AS time_bin, {', '.join(_STATS_KEYS)}, count(*) AS count "  # noqa: S608
    f"FROM {{}} GROUP BY 1, {', '.join(_STATS_KEYS)}",
    slack_seconds=60,
)
_LOOKBACK: Final = f"INTERVAL '{INCREASE_LOOKBACK_SECONDS} seconds'"


def _seconds(end: str, begin: str) -> str:
    """Return an SQL expression for the seconds between two times."""
    end, begin = (f"CAST(arrow_cast({one}, 'Timestamp(Nanosecond, None)') AS BIGINT)" for one in (end, begin))
    return f"({end} - {begin}) / 1e9"


def _listed(definition: TableDefinition, **computed: str) -> str:
    """Return the SELECT list of a view's columns; columns that aren't computed are the source's own."""
    return ", ".join(f"{computed[name]} AS {name}" if name in computed else name for name in definition.schema.names)


# The first point of a cumulative series that began within the lookback counts completely; for others, it is unknown. It
# is also unknown if the start equals the time of the first point, which is how OpenTelemetry marks an unknown start.
_HISTOGRAM_INCREASES: Final = _View(
    definition=HISTOGRAM_INCREASES,
    columns=tuple(HISTOGRAMS.schema.names),
    sql="SELECT "  # noqa: S608
    + _listed(
        HISTOGRAM_INCREASES,
        histogram="CASE WHEN is_first THEN histogram "
        "ELSE histogram_increase(histogram, start_time, previous, previous_start) END",
        seconds=_seconds(
            "time", "CASE WHEN is_first OR start_time > previous_time THEN start_time ELSE previous_time END"
        ),
    )
    + " FROM (SELECT *, NOT is_cumulative OR previous_time IS NULL AND "
    "coalesce(start_time < time AND start_time >= time - "
    + _LOOKBACK
    + ", false) AS is_first FROM (SELECT *, lag(histogram) OVER series_points AS previous, "
    "lag(start_time) OVER series_points AS previous_start, lag(time) OVER series_points AS previous_time FROM {} "
    "WINDOW series_points AS (PARTITION BY name, series ORDER BY time)) AS points) AS compared",
    lookback_seconds=INCREASE_LOOKBACK_SECONDS,
)
_FACT: Final = "property_get(arrow_cast(properties, 'Binary'), 'otel.metric.{}')"
_COUNTER_INCREASES: Final = _View(
    definition=COUNTER_INCREASES,
    columns=tuple(MEASURES.schema.names),
    sql="SELECT "  # noqa: S608
    + _listed(COUNTER_INCREASES, rate="increase / nullif(seconds, 0.0)")
    + " FROM (SELECT *, CASE WHEN is_delta OR value < previous THEN value ELSE value - previous END AS increase, "
    + _seconds("time", "previous_time")
    + " AS seconds FROM (SELECT *, "
    + _FACT.format("aggregation_temporality")
    + " = '1' AS is_delta, lag(value) OVER series_values AS previous, lag(time) OVER series_values AS previous_time "
    "FROM {} WHERE "
    + _FACT.format("kind")
    + " = 'sum' AND "
    + _FACT.format("is_monotonic")
    + " = 'true' WINDOW series_values AS (PARTITION BY name, stream_id, target, unit, properties ORDER BY time)"
    ") AS values_in_order) AS compared",
    lookback_seconds=INCREASE_LOOKBACK_SECONDS,
)
_VIEWS: Final = (_STATS, _HISTOGRAM_INCREASES, _COUNTER_INCREASES)


def with_views(snapshots: Iterable[TableSnapshot]) -> list[TableSnapshot]:
    """Return the tables, followed by the views that can be computed from them."""
    tables = list(snapshots)
    names = {table.name for table in tables}
    views = [
        view.over(table)
        for table in tables
        for view in _VIEWS
        if table.name == VIEW_SOURCES[view.definition.name]
        and view.definition.name not in names
        and view.is_possible(table)
    ]
    return [*tables, *views]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSet:
    """A view set, and the meaning of its IDs: a process or a stream, everything (`global`), or either."""

    definition: TableDefinition
    of: str | None  # "process", "stream"
    has_global: bool = False
    is_empty: bool = False


VIEW_SETS: Final[Mapping[str, ViewSet]] = {
    one.definition.name: one
    for one in (
        *(ViewSet(definition=table, of="process", has_global=True) for table in (LOG_ENTRIES, MEASURES, HISTOGRAMS)),
        *(ViewSet(definition=table, of=None, has_global=True) for table in (PROCESSES, STREAMS, BLOCKS, *VIEWS)),
        ViewSet(definition=OTEL_SPANS, of="process"),
        *(
            ViewSet(definition=table, of="stream" if table.name == "thread_spans" else "process", is_empty=True)
            for table in EMPTY_SETS
        ),
    )
}


def instance_tables(
    calls: Sequence[Call], tables: Sequence[VisibleTable], *, values: Mapping[str, pa.Scalar] | None, sql: str
) -> list[VisibleTable]:
    """Return the tables that replace calls to `view_instance`, from those that the caller sees.

    `values` are the statement's parameters; None if it is planned without them.
    """
    known = {table.snapshot.name: table for table in tables}
    make = {VIEW_INSTANCE: _instance_table, **dict.fromkeys(_OF_SPANS, _spans_of_process)}
    return [
        make[call.function](call, known, values=values, sql=sql) for call in calls if call.function in VIEW_FUNCTIONS
    ]


def _instance_table(
    call: Call, known: Mapping[str, VisibleTable], *, values: Mapping[str, pa.Scalar] | None, sql: str
) -> VisibleTable:
    if len(call.arguments) != 2:  # noqa: PLR2004 - a view set and an id
        raise refused(
            sql,
            call.start,
            f"{VIEW_INSTANCE} takes a view set and an ID.",
            f"Use {VIEW_INSTANCE}('log_entries', '…').",
        )
    (set_text, set_at), (id_text, id_at) = call.arguments
    name = _fold(set_text, values, sql=sql, at=set_at)
    if name is None:
        raise missing_parameter([set_text])
    view_set = VIEW_SETS.get(name)
    if view_set is None:
        listed = ", ".join(VIEW_SETS)
        raise refused(sql, set_at, f"There is no view set named {name[:_MAX_SHOWN]!r}.", f"Known here: {listed}.")
    instance = _fold(id_text, values, sql=sql, at=id_at)
    equal = _equal(view_set, instance, sql=sql, at=id_at)
    if view_set.is_empty:
        snapshot = TableSnapshot(name=call.stand_in, schema=view_set.definition.schema, files=())
        return VisibleTable(snapshot=snapshot, instance_of=name)
    table = known.get(name)
    if table is not None and (problem := table.snapshot.problem) is not None:
        raise Unavailable(problem.what, remedy=problem.remedy, retryable=problem.retryable)
    if table is None:
        raise refused(sql, set_at, f"There is no table named {name}.", "SHOW TABLES lists those that you may read.")
    snapshot = replace(table.snapshot, name=call.stand_in)
    return replace(table, snapshot=snapshot, raw_name=None, equal=equal, instance_of=name)


def _spans_of_process(
    call: Call, _known: Mapping[str, VisibleTable], *, values: Mapping[str, pa.Scalar] | None, sql: str
) -> VisibleTable:
    """Return the empty table that replaces a call for a process's spans, which this server never receives."""
    definition, more = _OF_SPANS[call.function]
    kinds = ", ".join(map(repr, _SPAN_KINDS))
    if len(call.arguments) != 2 + len(more):
        what = "".join(f", {name}" for name in more)
        raise refused(
            sql, call.start, f"{call.function} takes an ID and one of {kinds}{what}.", "Specify a process by its ID."
        )
    (process, process_at), (kind, kind_at), *_ = call.arguments
    _equal(VIEW_SETS["async_events"], _fold(process, values, sql=sql, at=process_at), sql=sql, at=process_at)
    if _fold(kind, values, sql=sql, at=kind_at) not in {None, *_SPAN_KINDS}:
        raise refused(sql, kind_at, f"{call.function} doesn't support this kind of span.", f"Use one of {kinds}.")
    snapshot = TableSnapshot(name=call.stand_in, schema=definition.schema, files=())
    return VisibleTable(snapshot=snapshot, instance_of=f"{call.function}()")


def _equal(view_set: ViewSet, instance: str | None, *, sql: str, at: int) -> tuple[tuple[str, str | None], ...]:
    """Return the columns and values that identify an instance's rows."""
    name = view_set.definition.name
    if instance is None:  # an unbound parameter
        return ((_PROCESS, None),) if view_set.of == "process" else ()
    if instance == GLOBAL and view_set.has_global:
        return ()
    if view_set.of is None:
        raise refused(sql, at, f"The only instance of {name} is {GLOBAL!r}.", f"Query the table: FROM {name}.")
    if instance == GLOBAL:
        what = f"{name} doesn't have an instance {GLOBAL!r}."
        remedy = f"Query the table: FROM {name}." if not view_set.is_empty else f"Specify a {view_set.of} by its ID."
        raise refused(sql, at, what, remedy)
    try:
        found = str(uuid.UUID(instance))
    except ValueError:
        raise refused(
            sql,
            at,
            f"{instance[:_MAX_SHOWN]!r} is not the ID of a {view_set.of}: IDs are UUIDs.",
            f"Get it from the table {PROCESSES.name if view_set.of == 'process' else STREAMS.name}.",
        ) from None
    return ((_PROCESS, found),)


_CONSTANTS: Final = "Use a string, a parameter, or an expression of these."
_context: Final = functools.cache(SessionContext)


def _fold(text: str, values: Mapping[str, pa.Scalar] | None, *, sql: str, at: int) -> str | None:
    """Return the text of a constant expression; None for an unbound parameter."""
    found = fold(text, values, sql=sql, at=at)
    if found is not None and not isinstance(found, str):
        raise refused(sql, at, "A view argument is not a string.", _CONSTANTS)
    return found


def fold(text: str, values: Mapping[str, pa.Scalar] | None, *, sql: str, at: int) -> object:
    """Return the value of a constant expression, with timezone-aware times; None for an unbound parameter."""
    tokens = scan(text).tokens
    if len(tokens) == 1 and tokens[0].kind is Kind.STRING and text[0] == "'":
        return text[1:-1].replace("''", "'")
    if values is None and any(token.kind is Kind.PLACEHOLDER for token in tokens):
        return None
    if any(token.kind is Kind.WORD and token.name in SUBQUERY_KEYWORDS for token in tokens):
        raise refused(sql, at, "A view argument is not a constant.", _CONSTANTS)
    try:
        rows = _context().sql_with_options(f"SELECT ({text}\n) AS value", READ_ONLY, param_values=dict(values or {}))
        found = pa.chunked_array([one.column(0) for one in rows.collect()])
        if pa.types.is_timestamp(found.type) or pa.types.is_date(found.type):
            found = found.cast(pa.timestamp("us"), safe=False).cast(pa.timestamp("us", "UTC"))
        value = found[0].as_py()
    except BaseException as error:
        if isinstance(error, MicromegasError) or not is_engine_failure(error):
            raise
        raise refused(sql, at, "A view argument is not a constant.", _CONSTANTS) from error
    if value is None:
        raise refused(sql, at, "A view argument is null.", _CONSTANTS)
    return value
