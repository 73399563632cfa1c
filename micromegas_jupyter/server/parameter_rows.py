"""A statement with several rows of parameters: run once for each row, the results one after another.

Binding one row is the engine's job.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pyarrow as pa

from micromegas_jupyter.contracts import AuthContext
from micromegas_jupyter.engine import Engine, PlannedQuery, StatementRequest, WorkClass
from micromegas_jupyter.engine.figures import QueryFigures
from micromegas_jupyter.errors import InvalidStatement


async def plan_rows(engine: Engine, request: StatementRequest, caller: AuthContext) -> PlannedQuery:
    """Plan a statement for all its rows of parameters; none or one row is the engine's own plan.

    Raises:
        MicromegasError: As in `Engine.plan`.
    """
    parameters = request.parameters
    if parameters is None or parameters.num_rows == 1:
        return await engine.plan(request, caller)
    first = await engine.plan(replace(request, parameters=parameters.slice(0, 1)), caller)
    return _RowByRow(engine, request, caller, first)


class _RowByRow:
    """Implements `engine.PlannedQuery`; plans a row when the one before it has been read."""

    def __init__(self, engine: Engine, request: StatementRequest, caller: AuthContext, first: PlannedQuery) -> None:
        self._engine = engine
        self._request = request
        self._caller = caller
        self._current = first
        self._ended: list[QueryFigures] = []  # of the rows before the current one
        self._schema = _with_nulls(first.schema)

    @property
    def figures(self) -> QueryFigures:
        found = [*self._ended, self._current.figures]
        peaks = [figures.peak_memory_bytes for figures in found if figures.peak_memory_bytes is not None]
        return QueryFigures(
            context_init_seconds=sum(figures.context_init_seconds for figures in found),
            execution_seconds=sum(figures.execution_seconds for figures in found),
            bytes_scanned=_add(figures.bytes_scanned for figures in found),
            peak_memory_bytes=max(peaks, default=None),
            spilled_bytes=_add(figures.spilled_bytes for figures in found),
            spill_count=_add(figures.spill_count for figures in found),
            busy_seconds=sum(figures.busy_seconds or 0.0 for figures in found),
        )

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def parameter_schema(self) -> pa.Schema:
        return self._current.parameter_schema

    @property
    def work_class(self) -> WorkClass:
        return self._current.work_class

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        remaining = self._request.row_limit
        parameters = self._request.parameters
        for index in range(0 if parameters is None else parameters.num_rows):
            if remaining == 0:
                return
            planned = self._current if index == 0 else await self._plan(index, remaining)
            inner = planned.batches()
            try:
                async for batch in inner:
                    if remaining is not None:
                        remaining -= batch.num_rows
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
            finally:
                close = getattr(inner, "aclose", None)
                if close is not None:
                    await close()

    async def _plan(self, index: int, remaining: int | None) -> PlannedQuery:
        assert self._request.parameters is not None  # noqa: S101 - for the type checker; `plan_rows` looked
        row = self._request.parameters.slice(index, 1)
        planned = await self._engine.plan(replace(self._request, parameters=row, row_limit=remaining), self._caller)
        if not _with_nulls(planned.schema).equals(self._schema, check_metadata=True):
            raise InvalidStatement(
                f"Row {index + 1} of the parameters gives other columns than the first.",
                remedy="Run the statement for each row alone.",
            )
        # Only the figures stay: with very many rows the plans would add up.
        self._ended.append(self._current.figures)
        self._current = planned
        return planned


def _with_nulls(schema: pa.Schema) -> pa.Schema:
    """Return the schema with every column nullable: a value in one row may be null in the next."""
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)


def _add(counts: Iterable[int | None]) -> int | None:
    """Return the sum, None when one is not known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
