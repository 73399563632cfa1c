"""The engine that is embedded in this process: DataFusion over files of Parquet.

One call of `plan` goes through guard, placeholders, session, tables, DataFusion's planner and the plan's checks, in
this order. Authentication and admission came before; status codes and framing come after.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.engine.datafusion_query import DataFusionQuery, Parameters, Result
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.explain import PathScrubber
from micromegas_jupyter.engine.guard import check_statement
from micromegas_jupyter.engine.native_scan import choose_reader
from micromegas_jupyter.engine.placeholders import Placeholders, find_placeholders
from micromegas_jupyter.engine.plan_checks import check_plan, is_explain, placeholder_types
from micromegas_jupyter.engine.pool import PlanningPool
from micromegas_jupyter.engine.sessions import READ_ONLY, Sessions
from micromegas_jupyter.engine.tables import find_mentions, names_of, register_tables, visible_schemas
from micromegas_jupyter.engine.wire_schema import wire_schema
from micromegas_jupyter.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datafusion import DataFrame
    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.contracts import AuthContext, TableSnapshot, TableSource
    from micromegas_jupyter.engine.contract import PlannedQuery, StatementRequest
    from micromegas_jupyter.engine.scanner import Scan
    from micromegas_jupyter.engine.settings import EngineSettings


class DataFusionEngine:
    """An `Engine` over `tables`. It holds threads, a memory pool and a temporary folder until `close`.

    All methods are safe to call from several threads and event loops.
    """

    def __init__(self, tables: TableSource, settings: EngineSettings) -> None:
        self._tables = tables
        self._settings = settings
        self._sessions = Sessions(settings)
        self._reader = choose_reader(self._sessions.folder)
        self._pool = PlanningPool(settings.planning_threads)

    async def plan(self, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
        """Check and plan `request`; nothing of it runs yet.

        Raises:
            InvalidStatement: The SQL, a name, a type or a parameter is wrong.
            StatementRefused: The statement would write or set, or is larger or deeper than the limits.
            UnsupportedStatement: The SQL is valid, but the engine does not implement it.
            ResourcesExhausted: Too many statements wait to be planned.
            Unavailable: A file of a table is gone, or the tables cannot be listed.
            InternalError: A defect.
        """
        del caller  # every caller sees the same tables so far
        return await self._pool.run(lambda: self._plan(request))

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        """Return each visible table with the schema that `SELECT *` gives."""
        del caller
        return [shown for snapshot in self._tables.snapshot() for shown in visible_schemas(snapshot)]

    def close(self) -> None:
        """Stop planning and remove the temporary folder."""
        self._pool.close()
        self._sessions.close()

    def _plan(self, request: StatementRequest) -> PlannedQuery:
        scanned = check_statement(request.sql, max_bytes=self._settings.max_statement_bytes)
        placeholders = find_placeholders(scanned)
        values = placeholders.bind(request.parameters) if request.parameters is not None else {}
        snapshots = self._tables.snapshot()
        context = Context(sql=placeholders.sql, tables=names_of(snapshots))
        try:
            frame, registered = self._frame(request, scanned, placeholders.sql, values, snapshots)
            return self._query(frame, request, placeholders, registered, context)
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            raise _placed(translate(error, context), placeholders) from error

    def _frame(
        self,
        request: StatementRequest,
        scanned: Scan,
        sql: str,
        values: dict[str, pa.Scalar],
        snapshots: Sequence[TableSnapshot],
    ) -> tuple[DataFrame, list[TableSnapshot]]:
        session = self._sessions.open()
        registered = register_tables(
            session,
            snapshots,
            reader=self._reader,
            mentions=find_mentions(scanned),
            time_range=request.time_range,
        )
        return session.sql_with_options(sql, READ_ONLY, param_values=values), registered

    def _query(
        self,
        frame: DataFrame,
        request: StatementRequest,
        placeholders: Placeholders,
        registered: list[TableSnapshot],
        context: Context,
    ) -> DataFusionQuery:
        plan = frame.logical_plan()
        check_plan(plan)
        result = Result(schema=wire_schema(frame.schema(), preserve_dictionary=request.preserve_dictionary))
        if is_explain(plan):
            # A described plan must stay the root of its plan, so its limit is kept while the rows pass.
            scrubber = PathScrubber(snapshot.files for snapshot in registered)
            result = replace(result, row_limit=request.row_limit, scrubber=scrubber)
        elif request.row_limit is not None:
            frame = frame.limit(request.row_limit)
        is_bound = request.parameters is not None
        return DataFusionQuery(
            frame,
            result,
            parameters=Parameters(
                schema=_parameter_schema(placeholders, request.parameters, plan),
                unbound=() if is_bound else placeholders.written,
            ),
            pool=self._pool,
            context=context,
        )


def _parameter_schema(placeholders: Placeholders, parameters: pa.RecordBatch | None, plan: LogicalPlan) -> pa.Schema:
    """Return the types of the values sent, else those that the plan inferred, else null."""
    if not placeholders.columns:
        return pa.schema([])
    if parameters is not None:
        return pa.schema([pa.field(name, parameters.schema.field(name).type) for name in placeholders.columns])
    types = placeholder_types(plan)
    return pa.schema(
        [
            pa.field(column, types.get(written, pa.null()))
            for column, written in zip(placeholders.columns, placeholders.bound_names, strict=True)
        ]
    )


def _placed(error: Exception, placeholders: Placeholders) -> Exception:
    """Return `error` with its column as in the statement that the caller sent."""
    if isinstance(error, QueryError) and error.line is not None and error.column is not None:
        error.column = placeholders.original_column(error.line, error.column)
    return error
