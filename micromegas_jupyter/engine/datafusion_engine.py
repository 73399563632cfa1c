"""The engine that is embedded in this process: DataFusion over files of Parquet.

One call of `plan` goes through guard, placeholders, the caller's visible tables, session, DataFusion's planner and the
plan's checks, in this order; a plan that could tell about hidden rows is made again behind the barrier. Authentication
and admission came before; status codes and framing come after.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.engine.barrier import Apart, barrier_holds
from micromegas_jupyter.engine.conditions import Conditions
from micromegas_jupyter.engine.datafusion_query import DataFusionQuery, Parameters, Result, run_now
from micromegas_jupyter.engine.denial_functions import register_denial_functions
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.explain import PathScrubber
from micromegas_jupyter.engine.harmless import is_harmless, is_quickly_optimised
from micromegas_jupyter.engine.identity import register_identity_functions
from micromegas_jupyter.engine.kept_answers import KeptAnswers
from micromegas_jupyter.engine.leftovers import Leftovers
from micromegas_jupyter.engine.native_scan import choose_reader
from micromegas_jupyter.engine.one_row import ReadyQuery, is_one_row, may_be_one_row
from micromegas_jupyter.engine.parameter_rows import with_plain_parameters
from micromegas_jupyter.engine.plan_checks import is_explain, parameter_schema
from micromegas_jupyter.engine.planned import Planned, Statement, planned_in
from micromegas_jupyter.engine.pool import PlanningPool
from micromegas_jupyter.engine.reading import read_statement
from micromegas_jupyter.engine.role_conditions import check_role_conditions
from micromegas_jupyter.engine.session_pool import SessionPool
from micromegas_jupyter.engine.sessions import Sessions
from micromegas_jupyter.engine.tables import TableBuilder, listed_schema, mentions_any, names_of
from micromegas_jupyter.engine.threads import default_heavy_statements, processor_count, start_threads
from micromegas_jupyter.engine.visibility import Visibility
from micromegas_jupyter.engine.wire_schema import wire_schema
from micromegas_jupyter.engine.work_class import estimate_work
from micromegas_jupyter.engine.workarounds.joins import may_join, plan_joins
from micromegas_jupyter.engine.workarounds.result_types import may_mix_types, with_result_types
from micromegas_jupyter.errors import InternalError, QueryError, StatementRefused
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from datafusion import SessionContext

    from micromegas_jupyter.contracts import AuthContext, TableSource
    from micromegas_jupyter.engine.contract import PlannedQuery, StatementRequest
    from micromegas_jupyter.engine.denials import Denials
    from micromegas_jupyter.engine.leftovers import LeftoverEvents
    from micromegas_jupyter.engine.owner import QueryOwner
    from micromegas_jupyter.engine.placeholders import Placeholders
    from micromegas_jupyter.engine.settings import EngineSettings


class DataFusionEngine:
    """An `Engine` over `tables`. It holds threads, a memory pool and a temporary folder until `close`.

    All methods are safe to call from several threads and event loops.
    """

    def __init__(
        self,
        tables: TableSource,
        settings: EngineSettings,
        *,
        denials: Denials | None = None,
        leftover_events: LeftoverEvents | None = None,
    ) -> None:
        heavy = settings.heavy_statements or default_heavy_statements()
        medium = min(heavy, default_heavy_statements())
        start_threads((heavy + medium) * (settings.target_partitions or processor_count()))
        self._denials = denials
        self._tables = tables
        self._settings = settings
        self._visibility = Visibility(settings.default_conditions)
        self._sessions = Sessions(settings)
        self._lending = SessionPool(self._sessions.open)
        self._lending_for_joins = SessionPool(self._sessions.open_for_joins, most_kept=2)
        self._conditions = Conditions()
        self._builder = TableBuilder(reader=choose_reader(self._sessions.folder), conditions=self._conditions)
        self._pool = PlanningPool(settings.planning_threads)
        self._answers = KeptAnswers()
        self._leftovers = None if leftover_events is None else Leftovers(self._pool, leftover_events)

    async def plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        """Check and plan `request` over what `caller` sees; nothing runs yet unless it `runs_at_once` or is constant.

        Raises:
            InvalidStatement: The SQL, a name, a type or a parameter is wrong.
            StatementRefused: The statement would write or set, is larger or deeper than the limits, or describes how
                a table of which the caller sees some rows only is read.
            UnsupportedStatement: The SQL is valid, but the engine does not implement it.
            ResourcesExhausted: Too many statements wait to be planned.
            Unavailable: A file of a table is gone, or the tables cannot be listed.
            InternalError: A defect, or a condition on the caller's rows that cannot be used.
        """
        kept = self._answers.get(request)
        return await self._pool.run(lambda: self._plan(request, caller)) if kept is None else kept

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        """Return each table that `caller` sees with the schema that `SELECT *` gives."""
        visible = self._visibility.tables(self._tables.snapshot(), caller)
        return [(table.snapshot.name, listed_schema(table.snapshot)) for table in visible]

    def check_conditions(self, filters: Mapping[str, Sequence[str]]) -> None:
        """Check the conditions of roles against the tables that there are now.

        Conditions of tables that do not exist yet, and of `*`, are checked when they are used. This runs in the calling
        thread: callers' statements, which may fill the planning threads, must not keep a configuration waiting.

        Args:
            filters: By table name, conditions of which a row must meet one.

        Raises:
            ConfigurationError: A condition cannot be used; the error names the table and says what is wrong.
            Unavailable: The tables cannot be listed.
        """
        if any(filters.values()):
            check_role_conditions(self._conditions, self._tables, filters)

    def running_queries(self) -> tuple[QueryOwner, ...]:
        """Return the queries that run, where cancelled work is looked after; those of nobody are left out."""
        return () if self._leftovers is None else self._leftovers.running_queries()

    def close(self) -> None:
        """Stop planning and remove the temporary folder."""
        self._pool.close()
        self._answers.clear()
        self._lending.close()
        self._lending_for_joins.close()
        self._sessions.close()

    def _plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        reading = read_statement(
            request.sql,
            max_bytes=self._settings.max_statement_bytes,
            knows_denials=self._denials is not None and caller.is_admin,
        )
        placeholders = reading.placeholders
        request = with_plain_parameters(request, placeholders.columns)
        values = placeholders.bind(request.parameters) if request.parameters is not None else {}
        statement = Statement(request=request, caller=caller, reading=reading, values=values)
        if reading.may_stand_alone and (alone := self._alone(statement)) is not None:
            return alone
        started = SYSTEM_CLOCK.monotonic()
        tables = self._visibility.tables(self._tables.snapshot(), caller)
        statement = replace(statement, tables=tables, init_seconds=SYSTEM_CLOCK.monotonic() - started)
        context = Context(sql=placeholders.sql, tables=names_of(tables), own_errors=statement.failures)
        try:
            planned = self._planned(statement, apart=Apart.NONE)
            if planned.is_filtered:
                context = replace(context, hides_values=True)
                planned = self._kept_apart(planned, statement)
            planned = self._kept_right(planned, statement)
            return self._query(planned, statement, context)
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise _placed(translate(error, context), placeholders) from error

    def _alone(self, statement: Statement) -> PlannedQuery | None:
        """Return the query of a statement that is one row made of nothing, without a look at the tables.

        None for any other, and where planning fails: with the tables it fails again, and is explained better.
        """
        try:
            planned = planned_in(self._sessions.bare, statement)
            if not is_one_row(planned.plan_text):
                return None
            return self._query(_typed(planned), statement, Context(sql=statement.reading.placeholders.sql))
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            return None

    def _planned(self, statement: Statement, *, apart: Apart, joins: bool = False) -> Planned:
        reading = statement.reading
        if may_be_one_row(reading.mentions.names) and not mentions_any(reading.mentions, statement.tables):
            planned = (
                planned_in(self._sessions.bare, statement)
                if reading.needs_nothing
                else self._planned_with(self._sessions.open_diskless, statement, apart=apart)
            )
            if is_one_row(planned.plan_text):
                return planned
        joins = joins or reading.names_join
        if not reading.needs_nothing:
            open_session = self._sessions.open_for_joins if joins else self._sessions.open
            return replace(self._planned_with(open_session, statement, apart=apart), is_for_joins=joins)
        lent = (self._lending_for_joins if joins else self._lending).lend()
        planned = self._planned_with(lambda: lent.session, statement, apart=apart)
        return replace(planned, is_for_joins=joins, lent=lent)

    def _planned_with(
        self, open_session: Callable[[], SessionContext], statement: Statement, *, apart: Apart
    ) -> Planned:
        """Return a plan in a session of its own with all that the statement mentions."""
        started = SYSTEM_CLOCK.monotonic()
        mentions = statement.reading.mentions
        session = open_session()
        if self._denials is not None and statement.caller.is_admin:
            register_denial_functions(
                session,
                self._denials,
                caller=statement.caller,
                mentions=mentions,
                failures=statement.failures,
            )
        register_identity_functions(session, statement.caller, tables=statement.tables, mentions=mentions)
        tables = self._builder.register(
            session,
            statement.tables,
            mentions=mentions,
            time_range=statement.request.time_range,
            apart=apart,
        )
        init_seconds = SYSTEM_CLOCK.monotonic() - started
        return planned_in(session, statement, tables=tables, init_seconds=init_seconds, apart=apart)

    def _kept_apart(self, planned: Planned, statement: Statement) -> Planned:
        """Return a plan that evaluates what the caller wrote on rows that the caller sees, wherever it could tell."""
        if is_explain(planned.frame.logical_plan()):
            raise StatementRefused(
                "The plan of this statement is not shown, since you see some rows of one of its tables only.",
                remedy="Run the statement without EXPLAIN.",
            )
        nested = {
            column.name
            for table in planned.tables
            for column in table.snapshot.schema
            if pa.types.is_nested(column.type)
        }
        is_quick = planned.work is not None and is_quickly_optimised(planned.work)
        if is_quick and is_harmless(planned.frame, nested_columns=nested):
            return planned
        if not self._barrier_holds:
            raise InternalError("A statement over some rows of a table cannot be run safely, so it is not run.")
        return self._planned(statement, apart=Apart.FILTERED)

    def _kept_right(self, planned: Planned, statement: Statement) -> Planned:
        """Return a plan that gives the right rows and types where DataFusion would give others.

        Raises:
            UnsupportedStatement: There is none.
        """
        if not may_join(planned.plan_text):
            return _typed(planned)
        if not planned.is_for_joins:
            planned.give_back()
            planned = self._planned(statement, apart=planned.apart, joins=True)
        if is_explain(planned.frame.logical_plan()):
            return planned
        sql, values = statement.reading.placeholders.sql, statement.values
        joins = plan_joins(planned.session, planned.frame, sql=sql, values=values)
        if joins.has_nested_loops:
            planned.give_back()
            planned = self._planned_with(self._sessions.open_diskless_for_joins, statement, apart=planned.apart)
            joins = plan_joins(planned.session, planned.frame, sql=sql, values=values)
        return replace(planned, frame=joins.frame)

    @functools.cached_property
    def _barrier_holds(self) -> bool:
        return barrier_holds(self._sessions.open())

    def _query(self, planned: Planned, statement: Statement, context: Context) -> PlannedQuery:
        frame = planned.frame
        request, reading = statement.request, statement.reading
        plan = frame.logical_plan()
        result = Result(schema=wire_schema(frame.schema(), preserve_dictionary=request.preserve_dictionary))
        if is_explain(plan):
            # A described plan must stay the root of its plan, so its limit is kept while the rows pass.
            scrubber = PathScrubber(table.snapshot.files for table in planned.tables)
            result = replace(result, row_limit=request.row_limit, scrubber=scrubber)
        elif request.row_limit is not None:
            frame = frame.limit(request.row_limit)
        parameters = Parameters(
            schema=parameter_schema(reading.placeholders, request.parameters, plan),
            unbound=() if request.parameters is not None else reading.placeholders.written,
        )
        init_seconds = statement.init_seconds + planned.init_seconds
        runs_now = request.runs_at_once or reading.is_constant
        if runs_now and not parameters.unbound and is_one_row(planned.plan_text):
            ran = run_now(frame, result, context)
            if reading.is_constant:
                self._answers.keep(request, result.schema, ran)
            return ReadyQuery(
                ran, schema=result.schema, parameter_schema=parameters.schema, context_init_seconds=init_seconds
            )
        return DataFusionQuery(
            frame,
            result,
            parameters=parameters,
            pool=self._pool,
            context=context,
            context_init_seconds=init_seconds,
            work_class=estimate_work(
                planned.plan_text,
                reading.scanned,
                (file for table in planned.tables for file in table.snapshot.files),
            ),
            leftovers=self._leftovers,
            lent=planned.lent,
        )


def _typed(planned: Planned) -> Planned:
    if not may_mix_types(planned.plan_text) or is_explain(planned.frame.logical_plan()):
        return planned
    return replace(planned, frame=with_result_types(planned.session, planned.frame))


def _placed(error: Exception, placeholders: Placeholders) -> Exception:
    """Return `error` with its column as in the statement that the caller sent."""
    if isinstance(error, QueryError) and error.line is not None and error.column is not None:
        error.column = placeholders.original_column(error.line, error.column)
    return error
