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

from micromegas_jupyter.engine.barrier import Barrier, barrier_holds
from micromegas_jupyter.engine.datafusion_query import DataFusionQuery, Parameters, Result
from micromegas_jupyter.engine.denials import register_denial_functions
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.identity import register_identity_functions
from micromegas_jupyter.engine.leakproof import is_leakproof
from micromegas_jupyter.engine.native_scan import choose_reader
from micromegas_jupyter.engine.parameters import RowByRow, with_plain_parameters
from micromegas_jupyter.engine.plan_checks import PathScrubber, check_plan, is_explain, is_one_row, parameter_schema
from micromegas_jupyter.engine.reading import read_statement
from micromegas_jupyter.engine.schemas import wire_schema
from micromegas_jupyter.engine.sessions import READ_ONLY, SessionPool, Sessions, set_partitions
from micromegas_jupyter.engine.tables import TableBuilder, Visibility, listed_schema, mentions_any, names_of
from micromegas_jupyter.engine.workarounds.joins import may_join, plan_joins
from micromegas_jupyter.engine.workarounds.result_types import may_mix_types, with_result_types
from micromegas_jupyter.errors import InternalError, QueryError, StatementRefused
from micromegas_jupyter.seams import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from datafusion import DataFrame, SessionContext
    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.contracts import AuthContext, TableSource
    from micromegas_jupyter.engine.contract import PlannedQuery, StatementRequest, VisibleTable
    from micromegas_jupyter.engine.denial_store import DenialStore
    from micromegas_jupyter.engine.native_scan import FileReader
    from micromegas_jupyter.engine.parameters import Placeholders
    from micromegas_jupyter.engine.reading import Reading
    from micromegas_jupyter.engine.sessions import LentSession
    from micromegas_jupyter.engine.settings import EngineSettings
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

    session: SessionContext
    frame: DataFrame = field(repr=False)  # its repr would run the statement
    plan: LogicalPlan
    tables: Sequence[VisibleTable]
    init_seconds: float
    plan_text: str
    barrier: Barrier = Barrier.NONE
    is_for_joins: bool = False
    lent: LentSession | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether the caller sees only some rows of one of the tables."""
        return any(table.conditions for table in self.tables)

    def give_back(self) -> None:
        """Release the session; this plan will not run."""
        if self.lent is not None:
            self.lent.release()


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
        self._lending = SessionPool(self._sessions.open)
        self._lending_for_joins = SessionPool(self._sessions.open_for_joins)
        self._builder = TableBuilder(reader or _tested_reader())

    def warm(self) -> None:
        """Start DataFusion's threads and open the sessions that the first statements get."""
        self._sessions.bare.sql("SELECT 1").collect()
        for lending in (self._lending, self._lending_for_joins):
            lending.lend().release()

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
        self._lending.clear()
        self._lending_for_joins.clear()

    def _plan_row(self, request: StatementRequest, caller: AuthContext, reading: Reading) -> DataFusionQuery:
        """Plan a request without parameters, or with one row of them."""
        placeholders = reading.placeholders
        values = placeholders.bind(request.parameters) if request.parameters is not None else {}
        if reading.may_stand_alone:
            alone = self._alone(Statement(request=request, caller=caller, reading=reading, values=values))
            if alone is not None:
                return alone
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
            planned = self._planned(statement, barrier=Barrier.NONE)
            if planned.is_filtered:
                context = replace(context, hides_values=True)
                planned = self._with_barrier(planned, statement)
            planned = self._kept_right(planned, statement)
            return self._query(planned, statement, context)
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise _placed(translate(error, context), placeholders) from error

    def _alone(self, statement: Statement) -> DataFusionQuery | None:
        """Return the query of a statement that is one row made of nothing, without a look at the tables.

        None for any other, and where planning fails: with the tables it fails again, and is explained better.
        """
        try:
            planned = _planned_in(self._sessions.bare, statement)
            if not is_one_row(planned.plan_text):
                return None
            return self._query(_typed(planned), statement, Context(sql=statement.reading.placeholders.sql))
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            return None

    def _planned(self, statement: Statement, *, barrier: Barrier, joins: bool = False) -> Planned:
        reading = statement.reading
        if reading.may_be_one_row and not mentions_any(reading.mentions, statement.tables):
            planned = (
                _planned_in(self._sessions.bare, statement)
                if reading.needs_nothing
                else self._planned_with(self._sessions.open_diskless, statement, barrier=barrier)
            )
            if is_one_row(planned.plan_text):
                return planned
        joins = joins or reading.names_join
        if not reading.needs_nothing:
            open_session = self._sessions.open_for_joins if joins else self._sessions.open
            return self._planned_with(open_session, statement, barrier=barrier, is_for_joins=joins)
        lent = (self._lending_for_joins if joins else self._lending).lend()
        return self._planned_with(lambda: lent.session, statement, barrier=barrier, is_for_joins=joins, lent=lent)

    def _planned_with(
        self,
        open_session: Callable[[], SessionContext],
        statement: Statement,
        *,
        barrier: Barrier,
        is_for_joins: bool = False,
        lent: LentSession | None = None,
    ) -> Planned:
        """Return a plan in a session with all that the statement mentions."""
        started = SYSTEM_CLOCK.monotonic()
        mentions = statement.reading.mentions
        session = open_session()
        partitions = statement.request.partitions
        if lent is not None:
            lent.set_partitions(partitions)
        elif partitions is not None:
            set_partitions(session, partitions)
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
            barrier=barrier,
        )
        init_seconds = SYSTEM_CLOCK.monotonic() - started
        return _planned_in(
            session,
            statement,
            tables=tables,
            init_seconds=init_seconds,
            barrier=barrier,
            is_for_joins=is_for_joins,
            lent=lent,
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
        planned.give_back()
        return self._planned(statement, barrier=Barrier.FILTERED)

    def _kept_right(self, planned: Planned, statement: Statement) -> Planned:
        """Return a plan that gives the right rows and types where DataFusion would give others.

        Raises:
            UnsupportedStatement: There is none.
        """
        if not may_join(planned.plan_text):
            return _typed(planned)
        if not planned.is_for_joins:
            planned.give_back()
            planned = self._planned(statement, barrier=planned.barrier, joins=True)
        if is_explain(planned.frame.logical_plan()):
            return planned
        sql, values = statement.reading.placeholders.sql, statement.values
        joins = plan_joins(planned.session, planned.frame, sql=sql, values=values)
        if joins.has_nested_loops:
            planned.give_back()
            planned = self._planned_with(self._sessions.open_diskless_for_joins, statement, barrier=planned.barrier)
            joins = plan_joins(planned.session, planned.frame, sql=sql, values=values)
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


def _planned_in(  # noqa: PLR0913 - options by keyword, all of them facts of one plan
    session: SessionContext,
    statement: Statement,
    *,
    tables: Sequence[VisibleTable] = (),
    init_seconds: float = 0.0,
    barrier: Barrier = Barrier.NONE,
    is_for_joins: bool = False,
    lent: LentSession | None = None,
) -> Planned:
    """Plan a statement and check the plan, before anything of it is optimized.

    Args:
        session: Where it would run, with all that it mentions.
        statement: What is planned.
        tables: Those that are in the session.
        init_seconds: How long it took to fill the session.
        barrier: Which of these tables are behind the barrier.
        is_for_joins: Whether the session is one for statements with joins.
        lent: The session, when it is to be released.

    Raises:
        StatementRefused: It would write, or reads what is not shown.
        Exception: DataFusion's own, where it cannot be planned; see `errors.translate`.
    """
    frame = session.sql_with_options(statement.reading.placeholders.sql, READ_ONLY, param_values=statement.values)
    plan = frame.logical_plan()
    return Planned(
        session=session,
        frame=frame,
        plan=plan,
        tables=tables,
        init_seconds=init_seconds,
        plan_text=check_plan(plan),
        barrier=barrier,
        is_for_joins=is_for_joins,
        lent=lent,
    )


def _tested_reader() -> FileReader:
    with tempfile.TemporaryDirectory() as folder:
        return choose_reader(Path(folder))


def _typed(planned: Planned) -> Planned:
    if not may_mix_types(planned.plan_text) or is_explain(planned.frame.logical_plan()):
        return planned
    return replace(planned, frame=with_result_types(planned.session, planned.frame))


def _placed(error: Exception, placeholders: Placeholders) -> Exception:
    """Return `error` with its column as in the statement that the caller sent."""
    if isinstance(error, QueryError) and error.line is not None and error.column is not None:
        error.column = placeholders.original_column(error.line, error.column)
    return error
