"""Rows of parameter values: brings what various clients send into one form, and runs a statement once for each row.

The form is columns named "0", "1", …, of plain types; `placeholders` knows which placeholder a column is for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.engine.statistics import QueryStatistics
from micromegas_jupyter.errors import InternalError, InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from micromegas_jupyter.engine.contract import PlannedQuery, StatementRequest


class RowByRow:
    """A `PlannedQuery` over several rows of parameters; plans a row when the one before it has been read.

    Args:
        plan: Plans a request with one row of parameters.
        request: The request.
        parameters: Its plain rows of parameters, at least one.

    Raises:
        MicromegasError: The statement cannot be planned for the first row.
    """

    def __init__(
        self,
        plan: Callable[[StatementRequest], PlannedQuery],
        request: StatementRequest,
        parameters: pa.RecordBatch,
    ) -> None:
        self._plan = plan
        self._request = request
        self._parameters = parameters
        self._current = plan(replace(request, parameters=parameters.slice(0, 1)))
        self._schema = _with_nulls(self._current.schema)
        self._ended = QueryStatistics()  # of the rows before the current one
        self._has_run = False

    @property
    def schema(self) -> pa.Schema:
        """Return the exact schema of every batch."""
        return self._schema

    @property
    def parameter_schema(self) -> pa.Schema:
        """Return one field per placeholder, in order."""
        return self._current.parameter_schema

    @property
    def statistics(self) -> QueryStatistics:
        """Return what the query took so far."""
        return _added(self._ended, self._current.statistics)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement for each row of parameters; can be called once.

        Raises:
            MicromegasError: As in `PlannedQuery.batches`, or a later row cannot be planned.
        """
        if self._has_run:
            raise InternalError("A planned query was run twice.")
        self._has_run = True
        return self._rows(self._current.batches())

    def _rows(self, current: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        remaining = self._request.row_limit
        count = self._parameters.num_rows
        for following in range(1, count + 1):
            for batch in current:
                if remaining is not None:
                    remaining -= batch.num_rows
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
            if remaining == 0 or following == count:
                return
            self._plan_next(following, remaining)
            current = self._current.batches()

    def _plan_next(self, index: int, remaining: int | None) -> None:
        row = self._parameters.slice(index, 1)
        planned = self._plan(replace(self._request, parameters=row, row_limit=remaining))
        if not _with_nulls(planned.schema).equals(self._schema, check_metadata=True):
            raise InvalidStatement(
                f"Row {index + 1} of the parameters gives other columns than the first.",
                remedy="Run the statement for each row alone.",
            )
        # Only the statistics are kept: with very many rows the plans would add up.
        self._ended = _added(self._ended, self._current.statistics)
        self._current = planned


def _with_nulls(schema: pa.Schema) -> pa.Schema:
    """Return the schema with every column nullable: a value in one row may be null in the next."""
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)


def _added(first: QueryStatistics, second: QueryStatistics) -> QueryStatistics:
    peaks = [peak for peak in (first.peak_memory_bytes, second.peak_memory_bytes) if peak is not None]
    return QueryStatistics(
        context_init_seconds=first.context_init_seconds + second.context_init_seconds,
        execution_seconds=first.execution_seconds + second.execution_seconds,
        bytes_scanned=_sum(first.bytes_scanned, second.bytes_scanned),
        peak_memory_bytes=max(peaks, default=None),
        spilled_bytes=_sum(first.spilled_bytes, second.spilled_bytes),
        spill_count=_sum(first.spill_count, second.spill_count),
    )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def with_plain_parameters(request: StatementRequest, columns: tuple[str, ...]) -> StatementRequest:
    """Return the request with its values named and typed as `placeholders` expects them.

    flightsql-dbapi names its columns `param_0`, `param_1`, … and wraps each value in a union; some clients give no
    names. Flight SQL binds by position, so such columns are for `?` and `$1` in their order.

    Args:
        request: The request as it came.
        columns: The columns that the statement's placeholders have.

    Raises:
        InvalidStatement: The values of one parameter are of several types.
    """
    batch = request.parameters
    if batch is None:
        return request
    names = _positions(batch.schema.names, columns)
    if names == batch.schema.names and not any(map(pa.types.is_union, batch.schema.types)):
        return request
    arrays = [_without_union(array) for array in batch.columns]
    fields = [
        pa.field(name, array.type, field.nullable)
        for name, array, field in zip(names, arrays, batch.schema, strict=True)
    ]
    return replace(request, parameters=pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def _positions(names: list[str], columns: tuple[str, ...]) -> list[str]:
    """Return "0", "1", … in place of names that a client made up, unless the statement knows one of them."""
    made_up = all(name in {"", f"param_{index}"} for index, name in enumerate(names))
    return [str(index) for index in range(len(names))] if made_up and not set(names) & set(columns) else names


def _without_union(array: pa.Array) -> pa.Array:
    """Return the values of a union whose rows are all of one type."""
    if not pa.types.is_union(array.type):
        return array
    codes = set(array.type_codes.to_pylist())
    if len(codes) > 1:
        raise InvalidStatement("The values of one parameter are of several types.")
    if not codes:
        return pa.nulls(0)
    position = array.type.type_codes.index(codes.pop())
    values = array.field(position)
    return values.take(array.offsets) if array.type.mode == "dense" else values
