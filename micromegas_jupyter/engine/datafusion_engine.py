"""The engine that is embedded in an executor: DataFusion over Parquet files, one statement at a time.

It plans on the calling thread, which needs a large stack because planning recurses with the statement. The process that
started it limits its time and memory, and may kill it at any time.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import datafusion
import pyarrow as pa
from datafusion import DataFrame, SessionContext
from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.protocols import AuthContext, TableProblem, TableSource
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.calls import Call, lift_calls, with_stand_ins
from micromegas_jupyter.engine.contract import (
    ANY,
    EngineSettings,
    FileSource,
    PlannedQuery,
    QueryStatistics,
    Reads,
    ScanProgress,
    StatementRequest,
    TableFiles,
    VisibleTable,
)
from micromegas_jupyter.engine.errors import Context, damaged_vector, is_engine_failure, missing_parameter, translated
from micromegas_jupyter.engine.functions.administration import ADMINISTRATION_NAMES, AdministrationCalls
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.engine.functions.denials import LIST, register_denial_functions, with_denial_as_rows
from micromegas_jupyter.engine.functions.identity import (
    IDENTITY_NAMES,
    register_identity_functions,
    with_identity_syntax,
)
from micromegas_jupyter.engine.functions.listings import LISTING_NAMES, register_listing_functions
from micromegas_jupyter.engine.functions.query_functions import (
    FUNCTION_LISTS,
    QueryFunctions,
    with_functions_as_rows,
    without_numbers,
)
from micromegas_jupyter.engine.functions.time_travel import TABLE_AT, TABLE_HISTORY, TIME_TRAVEL, TimeTravel
from micromegas_jupyter.engine.partition_calls import PartitionCall
from micromegas_jupyter.engine.planning import (
    Placeholders,
    RowByRow,
    check_no_ignored_clause,
    check_plan,
    check_statement,
    find_placeholders,
    is_explain,
    is_run,
    parameter_schema,
    reads_tables,
    with_plain_parameters,
    without_paths,
)
from micromegas_jupyter.engine.plans.constants import check_constants
from micromegas_jupyter.engine.plans.cost import Footers, TableCost, check_cost, estimate, whole_days, whole_files
from micromegas_jupyter.engine.plans.counts import find_progress, with_counts, without_counts
from micromegas_jupyter.engine.plans.pruning import FilesByTable, counted_scans, row_limits, stored_limits
from micromegas_jupyter.engine.plans.reads import are_plain, find_reads, merged, unknown_reads, without_rows
from micromegas_jupyter.engine.plans.roles import with_roles
from micromegas_jupyter.engine.plans.tail import FileByFile, check_followable, read_instead
from micromegas_jupyter.engine.plans.terms import is_leakproof
from micromegas_jupyter.engine.scanner import Mention, Scan, find_mentions, quoted, scan
from micromegas_jupyter.engine.schemas import to_wire, wire_schema, with_sql_constants
from micromegas_jupyter.engine.security import barrier_holds
from micromegas_jupyter.engine.sessions import DYNAMIC_FILTERS, READ_ONLY, LentSession, Sessions
from micromegas_jupyter.engine.tables import (
    LISTS,
    TableBuilder,
    find_files_in_range,
    find_visible_tables,
    has_constants,
    hides_deleted_rows,
    is_large,
    listed_schema,
    may_change,
    needed_files,
    needs_statistics,
    restrict_past,
    scanned_schema,
)
from micromegas_jupyter.engine.views import VIEW_FUNCTIONS, instance_tables
from micromegas_jupyter.engine.workarounds.far_times import has_far_times, with_far_times
from micromegas_jupyter.engine.workarounds.in_lists import with_null_safe_lists
from micromegas_jupyter.engine.workarounds.joins import find_dynamic_filters, has_nested_loops, may_join, plan_joins
from micromegas_jupyter.engine.workarounds.subqueries import needs_rewrite, rewrite_subqueries
from micromegas_jupyter.errors import InternalError, MicromegasError, QueryError, StatementRefused
from micromegas_jupyter.telemetry.tables import MODEL_NAMES

_log = logging.getLogger(__name__)
_CALLED: Final = VIEW_FUNCTIONS | TIME_TRAVEL
_FUNCTIONS: Final = IDENTITY_NAMES | ADMINISTRATION_NAMES | LISTING_NAMES
_TABLE_FUNCTIONS: Final = LISTING_NAMES | {LIST}
_SCAN: Final = "TableScan"
_EXPLAIN: Final = frozenset({"explain"})
#: With these, EXPLAIN shows row counts and value bounds.
_DETAILS: Final = frozenset({"analyze", "verbose"})
_ANALYZE: Final = frozenset({"analyze"})
_MAX_PLANNING_SECONDS: Final = 2.0


@dataclass(slots=True, kw_only=True)
class _Statement:
    """One request with its parsed text, and the tables that its caller sees."""

    request: StatementRequest
    caller: AuthContext
    placeholders: Placeholders
    mentions: Mention
    values: dict[str, pa.Scalar] = field(repr=False)
    tables: list[VisibleTable] = field(repr=False)
    instances: list[VisibleTable] = field(repr=False)
    calls: Sequence[Call]
    init_seconds: float
    histories: dict[str, tuple[str, pa.RecordBatch]] = field(default_factory=dict, repr=False)
    cpu_started: float = field(default_factory=time.process_time)
    outline: "_Outline | None" = field(default=None, repr=False)
    failures: list[MicromegasError] = field(default_factory=list, repr=False)
    administration: AdministrationCalls = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.administration = AdministrationCalls(request=self.request, caller=self.caller, failures=self.failures)

    @property
    def is_estimated(self) -> bool:
        """Whether its reads must be estimated."""
        is_wanted = self.request.is_estimated or self.caller.max_scan_bytes is not None
        return is_wanted or bool(self.mentions.among(_EXPLAIN))

    @property
    def is_bound(self) -> bool:
        """Whether it has all required values."""
        return self.request.parameters is not None or not self.placeholders.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outline:
    """Facts about a statement before its tables are read: the needed `files`, and `limits` on rows.

    For `counted` tables with deleted rows, only the number of rows is needed, not their values. The caller's
    expressions must be behind the barrier, unless all of them are leakproof. Constants may have been checked.
    `optimized` is its plan over `scans` without files. An estimate also has the plan's `text`, and the `charged` files
    of tables with rows that don't exist for the caller.
    """

    is_checked: bool = False
    needs_barrier: bool = False
    counted: Collection[str] = ()
    files: FilesByTable = field(default_factory=dict, repr=False)
    limits: Mapping[str, Expr] = field(default_factory=dict, repr=False)
    stored_limits: Mapping[str, Expr] = field(default_factory=dict, repr=False)
    optimized: LogicalPlan | None = field(default=None, repr=False)
    scans: Mapping[str, VisibleTable] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)
    charged: FilesByTable = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A statement's plan, and the tables in its session.

    `optimized` was derived from the plan `written`, and `text` shows it; it is None for EXPLAIN, or if a value is
    missing. `costs` are its estimated reads, if requested. `change` is the change that it makes.
    """

    lent: LentSession
    sql: str
    written: LogicalPlan
    text: str
    optimized: LogicalPlan | None
    tables: Sequence[VisibleTable]
    costs: Sequence[TableCost] = ()
    change: PartitionCall | None = None


class DataFusionEngine:
    """Plans statements over tables, for one thread at a time; administrators can change the `denials`, if any."""

    def __init__(
        self,
        tables: TableSource,
        settings: EngineSettings,
        *,
        denials: DenialStore | None = None,
        files: FileSource | None = None,
    ) -> None:
        self._denials = denials
        self._files = files
        self._tables = tables
        self._settings = settings
        self._sessions = Sessions(settings)
        self._builder = TableBuilder()
        self._footers = Footers(self._builder.read_footer)
        self._barrier_holds = False
        self._hides_deleted_rows: bool | None = None

    def warm(self) -> None:
        """Start DataFusion's threads and create the sessions for the first statements."""
        for lent in (self._sessions.lend(), self._sessions.lend()):
            lent.session.sql("SELECT 1").collect()
            lent.release()

    def plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        """Check and plan `request`, possibly without parameters, over the tables that `caller` sees; doesn't run it."""
        scanned = check_statement(request.sql, max_bytes=self._settings.max_statement_bytes)
        check_no_ignored_clause(scanned)
        scanned = with_identity_syntax(scanned)
        if self._denials is not None and caller.is_admin:
            scanned = with_denial_as_rows(scanned)
        scanned = with_functions_as_rows(scanned)
        if has_far_times(scanned.sql, request.parameters):
            scanned = self._with_far_times(scanned, caller)
        placeholders, mentions = find_placeholders(scanned), find_mentions(scanned)
        calls = lift_calls(scan(placeholders.sql), _CALLED) if mentions.among(_CALLED) else []
        if calls:
            scanned = with_stand_ins(placeholders.sql, calls)
            placeholders, mentions = replace(placeholders, sql=scanned.sql), find_mentions(scanned)
        request = with_plain_parameters(request, placeholders)
        rows, tail, spent = request.parameters, request.tail, list[int]()
        if tail is not None:
            caller = replace(caller, max_scan_bytes=None)  # a rejection would reveal hidden rows in a file

        def plan_part(part: StatementRequest) -> PlannedQuery:
            return self._plan_row(part, caller, placeholders, mentions, calls, spent=spent)

        if rows is not None and rows.num_rows > 1:
            return RowByRow(plan_part, request, rows)
        return plan_part(request) if tail is None else FileByFile(plan_part, request, tail)

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        """Return each table that `caller` sees with the schema of `SELECT *`."""
        visible = self._visible_tables(caller)
        return [(table.snapshot.name, listed_schema(table.snapshot)) for table in visible if table.snapshot.schema]

    def close(self) -> None:
        """Drop unused sessions."""
        self._sessions.free.clear()

    def _with_far_times(self, scanned: Scan, caller: AuthContext) -> Scan:
        mentions = find_mentions(scanned)
        visible = self._visible_tables(caller)
        return with_far_times(scanned, (one.snapshot.schema for one in visible if any(map(mentions.has, one.names))))

    def _visible_tables(self, caller: AuthContext) -> list[VisibleTable]:
        return find_visible_tables(self._tables.snapshot(), caller, self._settings.default_conditions)

    def _plan_row(  # noqa: PLR0913 - what is known of a statement
        self,
        request: StatementRequest,
        caller: AuthContext,
        placeholders: Placeholders,
        mentions: Mention,
        calls: Sequence[Call],
        *,
        spent: list[int],
    ) -> "DataFusionQuery":
        """Plan a request with at most one row of parameters; earlier rows may have `spent` part of its byte limit."""
        values = placeholders.bind(request.parameters) if request.parameters is not None else {}
        started = SYSTEM_CLOCK.monotonic()
        visible = self._visible_tables(caller)
        if request.tail is not None:
            visible = read_instead(visible, request.tail)
        split = [one.snapshot.name for one in visible if one.snapshot.split_times]
        if any(map(mentions.has, split)) and has_far_times(placeholders.sql, request.parameters):
            visible = [replace(one, cuts_times=bool(one.snapshot.split_times)) for one in visible]
        stand_ins = {call.stand_in for call in calls}
        tables, problems = _without_problems([one for one in visible if one.snapshot.name not in stand_ins], mentions)
        statement = _Statement(
            request=request,
            caller=caller,
            placeholders=placeholders,
            mentions=mentions,
            values=values,
            tables=tables,
            instances=[],
            calls=calls,
            init_seconds=SYSTEM_CLOCK.monotonic() - started,
        )
        context = Context(
            sql=placeholders.sql,
            tables=tuple(table.snapshot.name for table in tables),
            problems=problems,
            own_errors=statement.failures,
        )
        try:
            with translated(context):
                bound = values if statement.is_bound else None
                statement.instances = instance_tables(calls, visible, values=bound, sql=placeholders.sql)
                self._travel(statement, visible, values=bound)
                plan = self._plan(statement)
                context.hides_values = any(table.hides_rows for table in plan.tables)
                plan = self._with_workarounds(plan, statement)
                if caller.max_scan_bytes is not None and statement.is_bound and _is_run(plan, mentions):
                    allowed = caller.max_scan_bytes - sum(spent)
                    names_costs = not any(table.needs_barrier for table in plan.tables)
                    limit = caller.max_scan_bytes
                    spent.append(check_cost(plan.costs, allowed=allowed, limit=limit, names_costs=names_costs))
                of_history = {name: () for name, _ in statement.histories.values()}
                return DataFusionQuery(plan, statement, context, reads=merged(_find_reads(plan, statement), of_history))
        except MicromegasError as error:
            for call in calls:
                error.what = error.what.replace(call.stand_in, f"{call.function}(…)")
            if isinstance(error, QueryError) and placeholders.has_question_marks:
                error.line = error.column = None  # DataFusion's positions refer to the text with `$1`
            raise

    def _travel(
        self, statement: _Statement, visible: Sequence[VisibleTable], *, values: Mapping[str, pa.Scalar] | None
    ) -> None:
        """Read the earlier versions of tables, and their histories, for a statement's calls."""
        calls = [call for call in statement.calls if call.function in TIME_TRAVEL]
        if not calls:
            return
        travel = TimeTravel(
            files=self._files,
            caller=statement.caller,
            tables={table.snapshot.name: table for table in visible},
            restrict=lambda table: restrict_past(table, statement.caller, self._settings.default_conditions),
            values=values,
            sql=statement.placeholders.sql,
        )
        statement.instances += [travel.table_at(call) for call in calls if call.function == TABLE_AT]
        statement.histories |= {
            call.stand_in: travel.table_history(call) for call in calls if call.function == TABLE_HISTORY
        }

    def _plan(self, statement: _Statement, *, can_spill: bool = True, allows_fragments: bool = True) -> _Plan:
        """Plan a statement in a session with everything that it mentions, and check the plan before optimization."""
        started = SYSTEM_CLOCK.monotonic()
        request, caller, mentions = statement.request, statement.caller, statement.mentions
        # A function with the caller's values must not remain in a session, and is listed only in a later copy of it.
        is_shared = mentions.text is None and not mentions.among(_FUNCTIONS | FUNCTION_LISTS)
        sources = [*statement.tables, *statement.instances]
        mentioned = [table for table in sources if any(map(mentions.has, table.names))]
        reuses_names = any(table.reuses_names for table in mentioned)
        if not is_shared or not can_spill or reuses_names:
            lent = LentSession(self._sessions.open(can_spill=can_spill, reuses_names=reuses_names))
        else:
            lent = self._sessions.lend()
        session = lent.session
        administration = statement.administration
        if self._denials is not None and caller.is_admin:
            register_denial_functions(session, self._denials, administration, mentions=mentions)
        register_identity_functions(session, caller, tables=statement.tables, mentions=mentions)
        register_listing_functions(
            session, statement.tables, files=self._files, running=request.running, mentions=mentions
        )
        administration.register(session, statement.placeholders.sql, mentions)
        for name, (_, rows) in statement.histories.items():
            session.register_table(quoted(name), session.read_batch(rows).into_view())
        sources = sources if mentions.among(LISTS) else mentioned
        functions = QueryFunctions(
            session,
            statement.placeholders.sql,
            mentions=mentions,
            tables=mentioned,
            registered=sources,
            failures=statement.failures,
        )
        lent.clean_up = functions.remove

        def plan() -> tuple[DataFrame, str]:
            return _plan_in(session, functions, statement)

        self._check_deleted_rows(mentioned)
        outline = statement.outline or self._outline(statement, session, sources, plan)
        statement.outline = outline
        if outline.needs_barrier:
            self._check_barrier()
        tables = self._builder.register(
            session,
            sources,
            mentions=mentions,
            time_range=request.time_range,
            is_behind_barrier=outline.needs_barrier,
            files=outline.files,
            limits=outline.limits,
            stored_limits=outline.stored_limits,
            counted=outline.counted,
            is_flat=not request.preserve_dictionary,
            allows_fragments=allows_fragments and len(mentioned) == 1,
        )
        statement.init_seconds += SYSTEM_CLOCK.monotonic() - started
        frame, text = plan()
        check_plan(text)
        administration.is_explained, change = is_explain(text), administration.check(is_run=is_run(text))
        if self._builder.has_fragments and may_join(text):
            # The join rewrites are valid only with filters in the decoder.
            lent.release()
            return self._plan(statement, can_spill=can_spill, allows_fragments=False)
        has_mixed_types = any(table.snapshot.has_mixed_types for table in mentioned)
        lent.configure(
            partitions=1 if request.tail else self._find_partitions(request),
            uses_footers=not has_mixed_types and (request.row_limit is not None or needs_statistics(text)),
            is_remote=self._builder.is_remote,
            has_floats=any(_has_floats(one.type) for table in tables for one in table.snapshot.schema),
        )
        optimized = None
        if not is_explain(text):
            frame = _limit(frame, request)
            optimized = _optimize(frame, is_bound=statement.is_bound)
            administration.check(is_run=is_run(text))
            if optimized is not None and not outline.is_checked:
                check_constants(session, optimized)
        else:
            _check_explained(tables, has_details=bool(mentions.among(_DETAILS)), is_admin=caller.is_admin)
        written = frame.logical_plan()
        return _Plan(
            lent=lent,
            sql=functions.sql,
            written=written,
            text=text,
            optimized=optimized,
            tables=tables,
            costs=self._estimate(statement, outline, tables) if statement.is_estimated else (),
            change=change,
        )

    def _estimate(self, statement: _Statement, outline: _Outline, tables: Sequence[VisibleTable]) -> list[TableCost]:
        """Return the estimated reads of a statement over registered tables."""
        by_name = {table.snapshot.name: table for table in tables}
        scans: dict[str, VisibleTable] = {}
        hidden: dict[str, VisibleTable] = {}
        for name, table in outline.scans.items():
            charged = outline.charged.get(table.snapshot.name)
            needed = by_name[table.snapshot.name].needed if charged is None else charged
            (hidden if table.hides_rows else scans)[name] = replace(table, needed=needed)
        partitions = self._settings.target_partitions or statement.request.partitions or os.cpu_count() or 1
        seen = estimate(outline.text, scans, self._footers, partitions=partitions)
        return seen + whole_files(outline.text, hidden)

    def _outline(
        self,
        statement: _Statement,
        session: SessionContext,
        sources: Sequence[VisibleTable],
        plan: Callable[[], tuple[DataFrame, str]],
    ) -> _Outline:
        """Plan a statement over scans without files, check its constants, and find what it needs from its tables."""
        mentions, time_range = statement.mentions, statement.request.time_range
        hides_rows = any(table.needs_barrier and any(map(mentions.has, table.names)) for table in sources)
        tail, is_estimated = statement.request.tail, statement.is_estimated
        is_simple = not any(is_large(one, mentions, time_range) or has_constants(one) for one in sources)
        if is_simple and not hides_rows and not is_estimated and tail is None:
            return _Outline()
        with self._builder.outline(session, sources, mentions=mentions, time_range=time_range) as scans:
            try:
                frame, text = plan()
                if tail is not None:
                    is_plain = not statement.calls and not is_explain(text)
                    check_followable(text, [*scans.values()], mentions, is_plain=is_plain, table=tail.table)
                optimized = frame.optimized_logical_plan()
            except BaseException as error:
                if tail is not None or not is_engine_failure(error):
                    raise
                # Planning it over the tables, or running it, will raise the error.
                scan_all = "\n".join(f"TableScan: {name}" for name in scans)
                return _Outline(needs_barrier=hides_rows, scans=scans, text=scan_all)
            if not is_explain(text):
                check_constants(session, optimized)
            files = needed_files(optimized, scans, mentions=mentions, time_range=time_range, is_estimated=is_estimated)
            shown = optimized.display_indent() if is_estimated else ""
            schemas = {name: scanned_schema(table) for name, table in scans.items()}
            if not hides_rows or is_leakproof(session, frame.logical_plan(), optimized, schemas):
                with_deleted = [name for name, table in scans.items() if table.has_deleted_rows]
                counted = {scans[name].snapshot.name for name in counted_scans(optimized, with_deleted)}
                split = {name: one.snapshot for name, one in scans.items() if one.snapshot.split_times}
                split = {name: one for name, one in split.items() if not scans[name].needs_barrier}
                found = stored_limits(optimized, split, may_change=may_change(mentions))
                charged = self._charged(statement, session, scans) if is_estimated and hides_rows else {}
                return _Outline(
                    is_checked=True,
                    counted=counted,
                    files=files,
                    stored_limits={scans[name].snapshot.name: limit for name, limit in found.items()},
                    optimized=optimized,
                    scans=scans,
                    text=shown,
                    charged=charged,
                )
        charged = self._charged(statement, session, scans) if is_estimated else {}
        hidden = {name: table for name, table in scans.items() if table.needs_barrier}
        found = row_limits(optimized, {name: schemas[name] for name in hidden}, may_change=may_change(mentions))
        limits = {scans[name].snapshot.name: limit for name, limit in found.items()}
        of_hidden = self._builder.files_behind_barrier(
            session, hidden, limits, mentions=mentions, time_range=time_range
        )
        seen = {name: of for name, of in files.items() if name not in {one.snapshot.name for one in hidden.values()}}
        return _Outline(
            is_checked=True,
            needs_barrier=True,
            files={**seen, **of_hidden},
            limits=limits,
            scans=scans,
            text=shown,
            charged=charged,
        )

    def _charged(
        self, statement: _Statement, session: SessionContext, scans: Mapping[str, VisibleTable]
    ) -> FilesByTable:
        """Return the files that count toward a caller's limit if some rows don't exist for the caller.

        Only the time range of the call, in whole days, and the conditions of the caller's roles exclude files. If the
        statement's own conditions did, a caller could use them to search for hidden values.
        """
        caller, mentions = statement.caller, statement.mentions
        hidden = {name: one for name, one in scans.items() if one.needs_barrier and not caller.is_admin}
        days = whole_days(statement.request.time_range)
        of_large = self._builder.files_behind_barrier(session, hidden, {}, mentions=mentions, time_range=days)
        return {one.snapshot.name: find_files_in_range(one, days) for one in hidden.values()} | dict(of_large)

    def _check_deleted_rows(self, tables: Sequence[VisibleTable]) -> None:
        """Check, once per process, that deleted rows are hidden, before a table with deleted rows is read."""
        with_some = [table.read_as for table in tables if table.has_deleted_rows]
        if with_some and self._hides_deleted_rows is None:
            self._hides_deleted_rows = hides_deleted_rows(self._sessions.open())
        if with_some and not self._hides_deleted_rows:
            raise damaged_vector(with_some[0], "cannot be used with this version of the engine")

    def _find_partitions(self, request: StatementRequest) -> int:
        return self._settings.target_partitions or self._builder.partitions or request.partitions or 0

    def _check_barrier(self) -> None:
        self._barrier_holds = self._barrier_holds or barrier_holds(self._sessions.open())
        if not self._barrier_holds:
            raise InternalError("The server can't run this statement safely on part of a table, so it wasn't run.")

    def _with_workarounds(self, plan: _Plan, statement: _Statement, *, can_spill: bool = True) -> _Plan:
        """Return a plan that returns correct rows where DataFusion would return wrong ones."""
        has_joins = may_join(plan.text)
        # Their filter expressions may fail on a deleted row.
        is_held_back = any(table.needs_barrier for table in plan.tables) and bool(
            statement.outline and statement.outline.needs_barrier
        )
        plan.lent.set_dynamic_filters(() if has_joins or is_held_back else DYNAMIC_FILTERS)
        if plan.optimized is None:
            return plan
        floats = [one.name for table in plan.tables for one in table.snapshot.schema if _has_floats(one.type)]
        if not has_joins:
            if floats and "Sort: " in plan.text and not is_held_back:
                plan.lent.set_dynamic_filters(find_dynamic_filters(plan.optimized, floats))
            return plan

        def explain() -> list[pa.RecordBatch]:
            sql = f"EXPLAIN VERBOSE {plan.sql}"
            frame = plan.lent.session.sql_with_options(sql, READ_ONLY, param_values=statement.values)
            return plan.lent.frame(frame.logical_plan()).collect()

        if can_spill and has_nested_loops(plan.optimized):
            plan.lent.release()
            return self._with_workarounds(self._plan(statement, can_spill=False), statement, can_spill=False)
        optimized = plan_joins(plan.lent.session, plan.written, plan.optimized, explain=explain)
        hides_rows = any(table.needs_barrier for table in plan.tables)
        plan.lent.set_dynamic_filters(() if hides_rows else find_dynamic_filters(optimized, floats))
        return replace(plan, optimized=optimized)


class DataFusionQuery:
    """A `PlannedQuery` of the embedded engine; its session lives as long as it does.

    Closing the iterator of `batches` drops DataFusion's stream. Most operators then stop within a second or two, but
    others, such as cross joins, do not; only killing the process stops them.
    """

    def __init__(self, plan: _Plan, statement: _Statement, context: Context, *, reads: Reads) -> None:
        self.reads = reads
        self.change = plan.change
        #: The plan before optimization.
        self.text = plan.text
        request, placeholders = statement.request, statement.placeholders
        frame = plan.lent.frame(plan.written, plan.optimized)
        self._frame: DataFrame | None = frame
        # Upstream's client expects the data model's times in nanoseconds.
        keeps_units = not plan.tables or any(one.read_as not in MODEL_NAMES for one in plan.tables)
        schema = wire_schema(frame.schema(), preserve_dictionary=request.preserve_dictionary, keeps_units=keeps_units)
        self.schema = with_roles(schema, plan.written, plan.tables) if plan.tables else schema
        own = {name for table in plan.tables for name in table.snapshot.schema.names}
        names = [name if name in own or name in request.sql else with_sql_constants(name) for name in schema.names]
        names = schema.names if len({*names}) < len({*schema.names}) else names
        if (names := list(map(without_numbers, names))) != schema.names:
            self.schema = pa.schema([field.with_name(name) for field, name in zip(self.schema, names, strict=True)])
        self.parameter_schema = parameter_schema(placeholders, request.parameters, plan.written)
        self.reads_tables = bool(plan.tables or statement.histories) or reads_tables(plan.text)
        is_admin = statement.caller.is_admin
        self.hides_rows = any(one.hides_rows or (one.needs_barrier and not is_admin) for one in plan.tables)
        # A column may have the same name as a table.
        self._tables = [table for table in plan.tables if table.read_as in reads or ANY in reads]
        total = sum(len(table.snapshot.files) for table in self._tables)
        self.statistics = QueryStatistics(context_init_seconds=statement.init_seconds, files_total=total)
        self._running: DataFrame | None = None
        self._unbound = () if request.parameters is not None else placeholders.written
        self._is_explain = is_explain(plan.text)
        is_shown = self._is_explain or request.is_estimated
        self.explained: Sequence[TableFiles] = [cost.counts() for cost in plan.costs] if is_shown else []
        # A described plan must remain the root, so its limit is applied to the rows.
        self._row_limit = request.row_limit if self._is_explain else None
        self._context = context
        self._lent = plan.lent
        self.reached: tuple[int, int] | None = None

    def progress(self) -> ScanProgress | None:
        """Return the scan progress, from any thread; None if the query isn't running or hides rows."""
        running = self._running
        if running is None or self.hides_rows:
            return None
        return find_progress(running.execution_plan(), self._tables)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Optimize and start the plan, then yield its batches; can be called once."""
        if self._unbound:
            raise missing_parameter(list(self._unbound))
        frame, self._frame = self._frame, None
        if frame is None:
            raise InternalError("A planned query was run twice.")
        started = SYSTEM_CLOCK.monotonic()
        with translated(self._context):
            source = frame.execute_stream()
        self.statistics = replace(self.statistics, execution_seconds=SYSTEM_CLOCK.monotonic() - started)
        return self._rows(frame, source)

    def _rows(self, frame: DataFrame, source: Iterable[datafusion.RecordBatch]) -> Iterator[pa.RecordBatch]:
        remaining = self._row_limit
        is_whole = False
        self._running = frame
        try:
            with translated(self._context):
                for found in source:
                    batch = found.to_pyarrow()
                    batch = to_wire(without_paths(batch) if self._is_explain else batch, self.schema)
                    if remaining is not None:
                        batch = batch.slice(0, remaining)
                        remaining -= batch.num_rows
                    yield batch
                    if remaining == 0:
                        return
            is_whole = True
        finally:
            # Tracebacks keep this frame alive; the work stops only when the stream is dropped.
            del source
            self._running = None
            self._count(frame)
            del frame
            if is_whole:
                self._lent.release()

    def _count(self, frame: DataFrame) -> None:
        try:
            # DataFusion keeps the executed plan, with its counters, separately from the frame.
            self.statistics = with_counts(self.statistics, frame.execution_plan())
        except Exception:  # noqa: BLE001 - the rows were given
            _log.warning("the engine's counters cannot be read", exc_info=True)
            self.statistics = without_counts(self.statistics)


def _is_run(plan: _Plan, mentions: Mention) -> bool:
    """Return whether running a statement reads its tables."""
    return not is_explain(plan.text) or bool(mentions.among(_ANALYZE))


def _has_floats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _plan_in(session: SessionContext, functions: QueryFunctions, statement: _Statement) -> tuple[DataFrame, str]:
    """Plan a statement in a session, rewritten if DataFusion would return wrong rows; also return the plan's text."""

    def plan_text(sql: str) -> DataFrame:
        statement.administration.forget()
        return session.sql_with_options(sql, READ_ONLY, param_values=statement.values)

    frame = functions.plan(plan_text)
    text = frame.logical_plan().display_indent()
    if is_explain(text):
        return frame, text
    if needs_rewrite(frame.logical_plan(), text):
        functions.sql = rewrite_subqueries(functions.sql, frame, plan_text)
        frame = functions.plan(plan_text)
        text = frame.logical_plan().display_indent()
    safe = with_null_safe_lists(session, frame, text)
    return safe, text if safe is frame else safe.logical_plan().display_indent()


def _check_explained(tables: Sequence[VisibleTable], *, has_details: bool, is_admin: bool) -> None:
    """Check that the plan of a statement reveals nothing about rows that don't exist for its caller."""
    if any(table.hides_rows for table in tables):
        raise StatementRefused(
            "The plan and cost estimate of this statement aren't shown because you may read only some rows of one of "
            "its tables.",
            remedy="Run the statement without EXPLAIN.",
        )
    if has_details and not is_admin and any(table.has_deleted_rows for table in tables):
        raise StatementRefused(
            "The details of this statement's plan aren't shown because one of its tables contains deleted rows.",
            remedy="Use EXPLAIN without ANALYZE or VERBOSE.",
        )


def _limit(frame: DataFrame, request: StatementRequest) -> DataFrame:
    if request.tail is not None:
        return frame.limit(request.tail.max_rows, request.tail.offset)
    return frame if request.row_limit is None else frame.limit(request.row_limit)


def _optimize(frame: DataFrame, *, is_bound: bool) -> LogicalPlan | None:
    try:
        return frame.optimized_logical_plan()
    except BaseException as error:
        if is_bound or not is_engine_failure(error):
            raise
        return None


def _without_problems(
    tables: Sequence[VisibleTable], mentions: Mention
) -> tuple[list[VisibleTable], dict[str, TableProblem]]:
    """Return the tables that a statement may read, or list by their known columns, and the problems with the others.

    A column may have the same name as a table with a problem, so a statement that mentions it fails only if it reads
    the table.
    """
    readable: list[VisibleTable] = []
    problems: dict[str, TableProblem] = {}
    for table in tables:
        if (problem := table.snapshot.problem) is None:
            readable.append(table)
        elif any(map(mentions.has, table.names)):
            problems |= dict.fromkeys(table.names, problem)
        elif table.snapshot.schema:
            readable.append(table)
    return readable, problems


def _find_reads(plan: _Plan, statement: _Statement) -> Reads:
    """Return the reads of a planned statement; may consume the tables in its session."""
    if _SCAN not in plan.text:
        return {}
    time_range, outline = statement.request.time_range, statement.outline
    optimized = plan.optimized
    scans: Mapping[str, VisibleTable] = {name: table for table in plan.tables for name in table.names}
    columns: Mapping[str, Sequence[str]] = {name: table.snapshot.schema.names for name, table in scans.items()}
    try:
        if (
            outline
            and outline.optimized
            and optimized
            and are_plain(outline.scans.values(), time_range, is_outline=True)
        ):
            optimized, scans = outline.optimized, outline.scans
            columns = {name: table.snapshot.schema.names for name, table in scans.items()}
        elif optimized is None or not are_plain(plan.tables, time_range):
            if time.process_time() - statement.cpu_started > _MAX_PLANNING_SECONDS:
                return unknown_reads(plan.tables)  # planning again would take just as long
            session = plan.lent.session
            columns = without_rows(session, plan.tables)
            frame = session.sql_with_options(plan.sql, READ_ONLY, param_values=statement.values)
            optimized = frame.optimized_logical_plan()
        functions = sorted(statement.mentions.among(_TABLE_FUNCTIONS))
        return find_reads(optimized, scans, columns, functions=functions)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.warning("the columns that a statement reads cannot be determined", exc_info=True)
        return unknown_reads(plan.tables)
