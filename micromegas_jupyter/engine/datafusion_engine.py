"""The engine that is embedded in an executor: DataFusion over files of Parquet, one statement at a time.

One call of `plan` goes through guard, placeholders, the caller's visible tables, session, DataFusion's planner and the
plan's checks, in this order; a plan that could tell about hidden rows is made again behind the barrier. It plans on the
calling thread, which needs a large stack since planning recurses with the statement. How long a statement takes and how
much memory it needs is limited by whoever started the process, and may end it at any moment.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.contract import QueryStatistics
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.functions.denials import DENIAL_NAMES, register_denial_functions, with_denial_as_rows
from micromegas_jupyter.engine.functions.identity import (
    IDENTITY_NAMES,
    register_identity_functions,
    with_identity_syntax,
)
from micromegas_jupyter.engine.planning.guard import check_nothing_is_left_out, check_statement
from micromegas_jupyter.engine.planning.parameters import (
    Placeholders,
    RowByRow,
    find_placeholders,
    missing_parameter,
    with_plain_parameters,
)
from micromegas_jupyter.engine.planning.plan_checks import (
    PathScrubber,
    check_plan,
    is_explain,
    is_one_row,
    parameter_schema,
)
from micromegas_jupyter.engine.planning.scanner import Mention, find_mentions
from micromegas_jupyter.engine.schemas import to_wire, wire_schema
from micromegas_jupyter.engine.security.barrier import barrier_holds, is_leakproof
from micromegas_jupyter.engine.sessions import READ_ONLY, LentSession, SessionPool, Sessions
from micromegas_jupyter.engine.tables import TableBuilder, Visibility, choose_reader, listed_schema, names_of
from micromegas_jupyter.engine.workarounds.joins import may_join, plan_joins
from micromegas_jupyter.engine.workarounds.result_types import may_mix_types, with_result_types
from micromegas_jupyter.errors import InternalError, QueryError, StatementRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import datafusion
    from datafusion import DataFrame
    from datafusion.plan import ExecutionPlan, LogicalPlan

    from micromegas_jupyter.core.protocols import AuthContext, TableSource
    from micromegas_jupyter.engine.contract import EngineSettings, PlannedQuery, StatementRequest, VisibleTable
    from micromegas_jupyter.engine.functions.denial_store import DenialStore
    from micromegas_jupyter.engine.planning.parameters import Placeholders
    from micromegas_jupyter.engine.tables import FileReader
    from micromegas_jupyter.errors import MicromegasError


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One request after its text was read, and the tables that its caller sees."""

    request: StatementRequest
    caller: AuthContext
    reading: Reading
    values: dict[str, pa.Scalar] = field(repr=False)
    tables: list[VisibleTable] = field(default_factory=list, repr=False)
    init_seconds: float = 0.0
    failures: list[MicromegasError] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A statement's plan, and the tables in its session."""

    lent: LentSession
    frame: DataFrame = field(repr=False)  # its repr would run the statement
    plan: LogicalPlan
    tables: Sequence[VisibleTable]
    init_seconds: float
    plan_text: str
    is_behind_barrier: bool
    has_joins: bool

    @property
    def is_filtered(self) -> bool:
        """Whether the caller sees only some rows of one of the tables."""
        return any(table.conditions for table in self.tables)


class DataFusionEngine:
    """Plans statements over tables. It is not safe to use from several threads at once.

    Args:
        tables: Where the tables are listed.
        settings: Its limits.
        denials: The denied queries, for administrators; None without denials.
        reader: Reads the tables' files; None for the native one if that passes its self-test.
    """

    def __init__(
        self,
        tables: TableSource,
        settings: EngineSettings,
        *,
        denials: DenialStore | None = None,
        reader: FileReader | None = None,
    ) -> None:
        self._denials = denials
        self._tables = tables
        self._settings = settings
        self._visibility = Visibility(settings.default_conditions)
        self._sessions = Sessions(settings)
        # Those for statements with joins are other ones.
        self._pools = {
            has_joins: SessionPool(functools.partial(self._sessions.open, has_joins=has_joins))
            for has_joins in (False, True)
        }
        self._builder = TableBuilder(reader or _tested_reader())

    def warm(self) -> None:
        """Start DataFusion's threads and open the sessions that the first statements get."""
        for pool in self._pools.values():
            lent = pool.lend()
            lent.session.sql("SELECT 1").collect()
            lent.release()

    def plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        """Check and plan `request` over what `caller` sees; nothing of it runs yet.

        A statement may be planned without its parameters.

        Raises:
            InvalidStatement: The SQL, a name, a type or a parameter is wrong.
            StatementRefused: The statement would write or set, is longer or deeper than the limits, or describes how
                a table of which the caller sees only some rows is read.
            UnsupportedStatement: The SQL is valid, but the engine does not implement it.
            ResourcesExhausted: There is not enough memory to plan it.
            Unavailable: A file of a table is gone, or the tables cannot be listed.
            InternalError: A defect, or a condition on the caller's rows that cannot be used.
        """
        reading = read_statement(
            request.sql,
            max_bytes=self._settings.max_statement_bytes,
            knows_denials=self._denials is not None and caller.is_admin,
        )
        request = with_plain_parameters(request, reading.placeholders.columns)
        rows = request.parameters
        if rows is None or rows.num_rows <= 1:
            return self._plan_row(request, caller, reading)
        return RowByRow(lambda row: self._plan_row(row, caller, reading), request, rows)

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        """Return each table that `caller` sees with the schema that `SELECT *` gives."""
        visible = self._visibility.tables(self._tables.snapshot(), caller)
        return [(table.snapshot.name, listed_schema(table.snapshot)) for table in visible]

    def close(self) -> None:
        """Drop the sessions that no query has."""
        for pool in self._pools.values():
            pool.clear()

    def _plan_row(self, request: StatementRequest, caller: AuthContext, reading: Reading) -> DataFusionQuery:
        """Plan a request without parameters, or with one row of them."""
        placeholders = reading.placeholders
        values = placeholders.bind(request.parameters) if request.parameters is not None else {}
        started = SYSTEM_CLOCK.monotonic()
        tables = self._visibility.tables(self._tables.snapshot(), caller)
        statement = Statement(
            request=request,
            caller=caller,
            reading=reading,
            values=values,
            tables=tables,
            init_seconds=SYSTEM_CLOCK.monotonic() - started,
        )
        context = Context(sql=placeholders.sql, tables=names_of(tables), own_errors=statement.failures)
        try:
            planned = self._planned(statement)
            if planned.is_filtered:
                context = replace(context, hides_values=True)
                planned = self._with_barrier(planned, statement)
            planned = self._kept_right(planned, statement)
            return self._query(planned, statement, context)
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise _placed(translate(error, context), placeholders) from error

    def _planned(
        self,
        statement: Statement,
        *,
        is_behind_barrier: bool = False,
        has_joins: bool = False,
        can_spill: bool = True,
    ) -> Planned:
        """Plan a statement in a session with all that it mentions, and check the plan before it is optimized."""
        started = SYSTEM_CLOCK.monotonic()
        request, reading = statement.request, statement.reading
        has_joins = has_joins or reading.names_join
        if reading.needs_nothing and can_spill:
            lent = self._pools[has_joins].lend()
        else:
            lent = LentSession(self._sessions.open(has_joins=has_joins, can_spill=can_spill))
        session = lent.session
        lent.set_partitions(request.partitions)
        if self._denials is not None and statement.caller.is_admin:
            register_denial_functions(
                session,
                self._denials,
                caller=statement.caller,
                mentions=reading.mentions,
                failures=statement.failures,
            )
        register_identity_functions(session, statement.caller, tables=statement.tables, mentions=reading.mentions)
        tables = self._builder.register(
            session,
            statement.tables,
            mentions=reading.mentions,
            time_range=request.time_range,
            is_behind_barrier=is_behind_barrier,
        )
        init_seconds = SYSTEM_CLOCK.monotonic() - started
        frame = session.sql_with_options(reading.placeholders.sql, READ_ONLY, param_values=statement.values)
        plan = frame.logical_plan()
        return Planned(
            lent=lent,
            frame=frame,
            plan=plan,
            tables=tables,
            init_seconds=init_seconds,
            plan_text=check_plan(plan),
            is_behind_barrier=is_behind_barrier,
            has_joins=has_joins,
        )

    def _with_barrier(self, planned: Planned, statement: Statement) -> Planned:
        """Return a plan that evaluates what the caller wrote on rows that the caller sees, wherever it could tell."""
        if is_explain(planned.plan):
            raise StatementRefused(
                "The plan of this statement is not shown, since you see only some rows of one of its tables.",
                remedy="Run the statement without EXPLAIN.",
            )
        nested = {
            column.name
            for table in planned.tables
            for column in table.snapshot.schema
            if pa.types.is_nested(column.type)
        }
        if is_leakproof(planned.frame, nested_columns=nested):
            return planned
        if not self._barrier_holds:
            raise InternalError("A statement over some rows of a table cannot be run safely, so it is not run.")
        planned.lent.release()
        return self._planned(statement, is_behind_barrier=True)

    def _kept_right(self, planned: Planned, statement: Statement) -> Planned:
        """Return a plan that gives the right rows and types where DataFusion would give others."""
        if not may_join(planned.plan_text):
            return _typed(planned)
        if not planned.has_joins:
            planned.lent.release()
            planned = self._planned(statement, is_behind_barrier=planned.is_behind_barrier, has_joins=True)
        if is_explain(planned.frame.logical_plan()):
            return planned
        sql, values = statement.reading.placeholders.sql, statement.values
        joins = plan_joins(planned.lent.session, planned.frame, sql=sql, values=values)
        if joins.has_nested_loops:
            planned.lent.release()
            planned = self._planned(
                statement, is_behind_barrier=planned.is_behind_barrier, has_joins=True, can_spill=False
            )
            joins = plan_joins(planned.lent.session, planned.frame, sql=sql, values=values)
        return replace(planned, frame=joins.frame)

    @functools.cached_property
    def _barrier_holds(self) -> bool:
        return barrier_holds(self._sessions.open())

    def _query(self, planned: Planned, statement: Statement, context: Context) -> DataFusionQuery:
        frame = planned.frame
        request, placeholders = statement.request, statement.reading.placeholders
        result = Result(
            schema=wire_schema(frame.schema(), preserve_dictionary=request.preserve_dictionary),
            is_one_row=is_one_row(planned.plan_text),
        )
        if is_explain(planned.plan):
            # A described plan must stay the root of its plan, so its limit is kept while the rows pass.
            scrubber = PathScrubber(table.snapshot.files for table in planned.tables)
            result = replace(result, row_limit=request.row_limit, scrubber=scrubber)
        elif request.row_limit is not None:
            frame = frame.limit(request.row_limit)
        parameters = Parameters(
            schema=parameter_schema(placeholders, request.parameters, planned.plan),
            unbound=() if request.parameters is not None else placeholders.written,
        )
        return DataFusionQuery(
            frame,
            result,
            parameters=parameters,
            context=context,
            context_init_seconds=statement.init_seconds + planned.init_seconds,
            lent=planned.lent,
        )


def _tested_reader() -> FileReader:
    with tempfile.TemporaryDirectory() as folder:
        return choose_reader(Path(folder))


def _typed(planned: Planned) -> Planned:
    if not may_mix_types(planned.plan_text) or is_explain(planned.frame.logical_plan()):
        return planned
    return replace(planned, frame=with_result_types(planned.lent.session, planned.frame))


def _placed(error: Exception, placeholders: Placeholders) -> Exception:
    """Return `error` with its column as in the statement that the caller sent."""
    if isinstance(error, QueryError) and error.line is not None and error.column is not None:
        error.column = placeholders.original_column(error.line, error.column)
    return error


_log = logging.getLogger(__name__)
_MAX_STEPS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a plan's own batches become the query's.

    Attributes:
        schema: The schema on the wire.
        row_limit: Rows after which the query ends, for plans that cannot hold a limit themselves; None for all.
        scrubber: Removes paths from a described plan; None for ordinary rows.
        is_one_row: Whether there is one row that is made of nothing.
    """

    schema: pa.Schema
    row_limit: int | None = None
    scrubber: PathScrubber | None = field(default=None, repr=False)
    is_one_row: bool = False

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return one batch as it goes on the wire."""
        if self.scrubber is not None:
            batch = self.scrubber.clean_batch(batch)
        return to_wire(batch, self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a statement's placeholders are, and which of them (as written) have no value yet."""

    schema: pa.Schema
    unbound: tuple[str, ...] = ()


class DataFusionQuery:
    """A `PlannedQuery` of the embedded engine; its session lives as long as it does."""

    def __init__(  # noqa: PLR0913 - options by keyword, all of them parts of one plan
        self,
        frame: DataFrame,
        result: Result,
        *,
        parameters: Parameters,
        context: Context,
        context_init_seconds: float = 0.0,
        lent: LentSession | None = None,
    ) -> None:
        self.schema = result.schema
        self.parameter_schema = parameters.schema
        self.statistics = QueryStatistics(context_init_seconds=context_init_seconds)
        self._lent = lent
        self._frame: DataFrame | None = frame
        self._result = result
        self._parameters = parameters
        self._context = context

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Optimize the plan and start it, then return its batches; can be called once."""
        if self._parameters.unbound:
            raise missing_parameter(list(self._parameters.unbound))
        frame, self._frame = self._frame, None
        if frame is None:
            raise InternalError("A planned query was run twice.")
        started = SYSTEM_CLOCK.monotonic()
        source: Iterable[pa.RecordBatch | datafusion.RecordBatch]
        try:
            # A single row is not worth a stream.
            source = frame.collect() if self._result.is_one_row else frame.execute_stream()
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise translate(error, self._context) from error
        self.statistics = replace(self.statistics, execution_seconds=SYSTEM_CLOCK.monotonic() - started)
        return self._rows(frame, source)

    def _rows(
        self, frame: DataFrame, source: Iterable[pa.RecordBatch | datafusion.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        remaining = self._result.row_limit
        is_whole = False
        try:
            for found in source:
                batch = self._result.convert(found if self._result.is_one_row else found.to_pyarrow())
                if remaining is not None:
                    batch = batch.slice(0, remaining)
                    remaining -= batch.num_rows
                yield batch
                if remaining == 0:
                    return
            is_whole = True
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise translate(error, self._context) from error
        finally:
            # A traceback keeps this frame alive; the work stops when the stream itself is dropped.
            del source
            if not self._result.is_one_row:
                self._count(frame)
            del frame
            lent, self._lent = self._lent, None
            if is_whole and lent is not None:
                lent.release()

    def _count(self, frame: DataFrame) -> None:
        try:
            # The plan that ran, with its counters: DataFusion keeps it beside the frame.
            self.statistics = with_counts(self.statistics, frame.execution_plan())
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            _log.warning("the engine's counters cannot be read", exc_info=error)
            self.statistics = without_counts(self.statistics)


def with_counts(statistics: QueryStatistics, plan: ExecutionPlan) -> QueryStatistics:
    """Return `statistics` with what a plan's steps have counted, while it runs or after.

    The counts of a plan of very many steps are None.
    """
    scanned: int | None = 0
    spilled = spills = 0
    waiting: list[Any] = [plan]
    for _ in range(_MAX_STEPS):
        if not waiting:
            return replace(statistics, bytes_scanned=scanned, spilled_bytes=spilled, spill_count=spills)
        step = waiting.pop()
        inputs = step.children()
        waiting.extend(inputs)
        counters = step.metrics()
        if counters is not None:
            spills += counters.spill_count or 0
            spilled += counters.spilled_bytes or 0
        if not inputs and scanned is not None:
            read = None if counters is None else counters.sum_by_name("bytes_scanned")
            # A scan that is not DataFusion's own reads files without counting.
            scanned = None if read is None and "Dataset" in step.display() else scanned + (read or 0)
    return without_counts(statistics)


def without_counts(statistics: QueryStatistics) -> QueryStatistics:
    """Return `statistics` of a query of which the engine tells no counts."""
    return replace(statistics, bytes_scanned=None, spilled_bytes=None, spill_count=None)


#: Longer texts are read each time, so that what is kept stays below some 25 MiB whatever it is.
_MAX_KEPT_LENGTH: Final = 4096
_MAX_KEPT: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A statement's text, read.

    Attributes:
        placeholders: What it wants bound.
        mentions: What it may refer to.
        needs_nothing: Whether it mentions no function that a caller's session is given.
    """

    placeholders: Placeholders
    mentions: Mention
    needs_nothing: bool

    @property
    def names_join(self) -> bool:
        """Return whether it is likely to have a join; others have one, too, such as sub-queries in conditions."""
        return "join" in self.mentions.names


def read_statement(sql: str, *, max_bytes: int, knows_denials: bool) -> Reading:
    """Return what a text tells."""
    read: Callable[[str, int, bool], Reading] = _read if len(sql) > _MAX_KEPT_LENGTH else _kept
    return read(sql, max_bytes, knows_denials)


def _read(sql: str, max_bytes: int, knows_denials: bool) -> Reading:  # noqa: FBT001 - what is kept is kept by position
    scanned = check_statement(sql, max_bytes=max_bytes)
    check_nothing_is_left_out(scanned)
    scanned = with_identity_syntax(scanned)
    if knows_denials:
        scanned = with_denial_as_rows(scanned)
    mentions = find_mentions(scanned)
    return Reading(
        placeholders=find_placeholders(scanned),
        mentions=mentions,
        needs_nothing=mentions.text is None and mentions.names.isdisjoint(IDENTITY_NAMES | DENIAL_NAMES),
    )


_kept: Final = functools.lru_cache(maxsize=_MAX_KEPT)(_read)
