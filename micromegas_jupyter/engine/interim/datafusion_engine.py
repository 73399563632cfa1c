"""The embedded engine: DataFusion over the tables of a `TableSource`, in this process.

What stops when its caller goes: scans, sorts, aggregates, windows and recursive queries, mostly within a second.
Nested-loop joins and hash joins that multiply rows do not look for the end while they work; only the end of the
process stops those.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.engine.interim.context import READ_ONLY, ContextFactory
from micromegas_jupyter.engine.interim.explain import is_explain, scrub_paths
from micromegas_jupyter.engine.interim.failures import translate_failure
from micromegas_jupyter.engine.interim.guard import check_statement, words_of
from micromegas_jupyter.engine.interim.placeholders import Numbered, number_placeholders, parameter_values
from micromegas_jupyter.engine.interim.result_schema import to_wire, wire_schema
from micromegas_jupyter.engine.settings import EngineSettings
from micromegas_jupyter.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from datafusion import DataFrame, SessionContext

    from micromegas_jupyter.contracts import AuthContext, TableSource
    from micromegas_jupyter.engine.contract import StatementRequest

# The engine's planner recurses: the deepest statement that the guard lets through needs a fraction of this.
_PLANNING_STACK_BYTES: Final = 64 * 1024 * 1024
_STACK_SIZE_LOCK = threading.Lock()


class DataFusionEngine:
    """Runs reading statements over Parquet files; safe to use from several tasks of one loop.

    Args:
        tables: Where the tables come from; asked for each statement.
        settings: Limits.
    """

    def __init__(self, tables: TableSource, settings: EngineSettings | None = None) -> None:
        self._tables = tables
        self._settings = settings or EngineSettings()
        self._spill_folder = tempfile.mkdtemp(prefix="micromegas-spill-", dir=self._settings.spill_directory)
        self._contexts = ContextFactory(self._settings, self._spill_folder)
        self._planners = _planning_threads(self._settings.planning_threads)

    async def plan(self, request: StatementRequest, caller: AuthContext) -> DataFusionQuery:
        """Check and plan `request` off the loop; errors as in `Engine.plan`."""
        del caller  # every caller reads every table; roles narrow this later
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._planners, self._plan, request)
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            raise InternalError("The engine is closed.", remedy="Connect again.") from None

    def tables(self, caller: AuthContext) -> Sequence[tuple[str, pa.Schema]]:
        """Return each table and its schema as a query without options would give it."""
        del caller
        context = self._contexts.build(self._tables.snapshot(), mentioned=frozenset(), time_range=None)
        return [
            (table.name, wire_schema(context.table(table.name).schema(), preserve_dictionary=False))
            for table in self._tables.snapshot()
        ]

    def close(self) -> None:
        """Release planning threads and the spill folder."""
        self._planners.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._spill_folder, ignore_errors=True)

    def _plan(self, request: StatementRequest) -> DataFusionQuery:
        check_statement(request.sql, max_bytes=self._settings.max_statement_bytes)
        numbered = number_placeholders(request.sql)
        values = parameter_values(numbered, request.parameters)
        tables = self._tables.snapshot()
        names = tuple(table.name for table in tables)
        try:
            context = self._contexts.build(tables, mentioned=words_of(numbered.sql), time_range=request.time_range)
            frame = _plan_frame(context, numbered.sql, values)
            if request.row_limit is not None:
                frame = frame.limit(request.row_limit)
            schema = wire_schema(frame.schema(), preserve_dictionary=request.preserve_dictionary)
        except BaseException as error:
            # A panic of the engine is a BaseException; anything that is not the interpreter's own end is an answer.
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            raise translate_failure(error, request.sql, table_names=names) from error
        return DataFusionQuery(frame, schema, numbered, sql=request.sql)


class DataFusionQuery:
    """A planned statement; see `PlannedQuery`."""

    def __init__(self, frame: DataFrame, schema: pa.Schema, numbered: Numbered, *, sql: str) -> None:
        self._frame = frame
        self._schema = schema
        self._numbered = numbered
        self._sql = sql

    @property
    def schema(self) -> pa.Schema:
        """The exact schema of every batch."""
        return self._schema

    @property
    def parameter_schema(self) -> pa.Schema:
        """One field per placeholder; the engine does not tell their types."""
        return pa.schema([pa.field(name, pa.null()) for name in self._numbered.fields])

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Run the query and yield its batches; errors as in `PlannedQuery.batches`."""
        hide_paths = is_explain(self._sql)
        try:
            stream = self._frame.execute_stream()
            async for batch in stream:
                found = to_wire(batch.to_pyarrow(), self._schema)
                yield scrub_paths(found) if hide_paths else found
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise translate_failure(error, self._sql) from error


def _plan_frame(context: SessionContext, sql: str, values: Mapping[str, pa.Scalar]) -> DataFrame:
    if not values:
        return context.sql_with_options(sql, READ_ONLY)
    return context.sql_with_options(sql, READ_ONLY, param_values=dict(values))


def _planning_threads(count: int) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix="micromegas-plan")
    with _STACK_SIZE_LOCK:
        previous = threading.stack_size(_PLANNING_STACK_BYTES)
        try:
            barrier = threading.Barrier(count + 1)
            for _ in range(count):
                executor.submit(barrier.wait)
            barrier.wait(timeout=30)
        finally:
            threading.stack_size(previous)
    return executor
