"""The engine that is embedded in an executor: DataFusion over files of Parquet, one statement at a time.

One call of `plan` goes through guard, placeholders, the caller's visible tables, session, DataFusion's planner and the
plan's checks, in this order; a plan that could tell about hidden rows is made again behind the barrier. It plans on the
calling thread, which needs a large stack since planning recurses with the statement. How long a statement takes and how
much memory it needs is limited by whoever started the process, and may end it at any moment.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.barrier import barrier_holds, is_leakproof
from micromegas_jupyter.engine.datafusion_query import DataFusionQuery, Parameters, Result
from micromegas_jupyter.engine.denials import register_denial_functions
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.identity import register_identity_functions
from micromegas_jupyter.engine.native_scan import choose_reader
from micromegas_jupyter.engine.parameters import RowByRow, with_plain_parameters
from micromegas_jupyter.engine.plan_checks import PathScrubber, check_plan, is_explain, is_one_row, parameter_schema
from micromegas_jupyter.engine.reading import read_statement
from micromegas_jupyter.engine.schemas import wire_schema
from micromegas_jupyter.engine.sessions import READ_ONLY, LentSession, SessionPool, Sessions
from micromegas_jupyter.engine.tables import TableBuilder, Visibility, listed_schema, names_of
from micromegas_jupyter.engine.workarounds.joins import may_join, plan_joins
from micromegas_jupyter.engine.workarounds.result_types import may_mix_types, with_result_types
from micromegas_jupyter.errors import InternalError, QueryError, StatementRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datafusion import DataFrame
    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.core.protocols import AuthContext, TableSource
    from micromegas_jupyter.engine.contract import EngineSettings, PlannedQuery, StatementRequest, VisibleTable
    from micromegas_jupyter.engine.denial_store import DenialStore
    from micromegas_jupyter.engine.native_scan import FileReader
    from micromegas_jupyter.engine.parameters import Placeholders
    from micromegas_jupyter.engine.reading import Reading
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
