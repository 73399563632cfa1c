"""Placeholders and the values for them.

Finds a statement's placeholders, writes `?` as DataFusion's `$1`, brings what various clients send into one form
(columns named "0", "1", … or by name, of plain types), and runs a statement once for each row of values. Which type a
placeholder has, only the plan knows (`plan_checks`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.engine.contract import QueryStatistics
from micromegas_jupyter.engine.planning.scanner import Kind, Scan, Token, place_of
from micromegas_jupyter.errors import InternalError, InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from micromegas_jupyter.engine.contract import PlannedQuery, StatementRequest

_MOST_PLACEHOLDERS = 1000
_LONGEST_POSITION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholders:
    """What a statement wants bound.

    Attributes:
        sql: The statement with every `?` written as `$1`, `$2`, ….
        columns: The column of a parameter batch for each placeholder, in order: "0" for `?` or `$1`, else the name.
        written: How each of them stands in the statement, for messages: `?` is told by its position.
        optional: Columns that count only when the caller sends them, where quoting is not certain.
        insertions: Offsets in `sql` at which a `?` grew, each with the number of characters added.
    """

    sql: str
    columns: tuple[str, ...]
    written: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    insertions: tuple[tuple[int, int], ...] = ()

    @property
    def bound_names(self) -> tuple[str, ...]:
        """Return the name of each placeholder in DataFusion's `param_values`."""
        return tuple(map(_bound_name, self.columns))

    def original_column(self, line: int, column: int) -> int:
        """Return the column in the statement as the caller sent it for a place in `sql` (both from 1)."""
        shift = 0
        for offset, added in self.insertions:
            found_line, found_column = place_of(self.sql, offset)
            if found_line == line and found_column < column:
                shift += added
        return max(1, column - shift)

    def bind(self, parameters: pa.RecordBatch) -> dict[str, pa.Scalar]:
        """Return DataFusion's `param_values` for the first row of values, types kept."""
        if not parameters.num_rows:
            raise InvalidStatement("The parameters hold no row of values.")
        names = parameters.schema.names
        known = set(self.columns) | self.optional
        for name in names:
            if name not in known or names.count(name) > 1:
                raise InvalidStatement(f"The statement has no parameter for the value {_shown(name)}.")
        missing = [text for column, text in zip(self.columns, self.written, strict=True) if column not in names]
        if missing:
            raise missing_parameter(missing)
        return {_bound_name(name): _bindable(parameters.column(index)[0], name) for index, name in enumerate(names)}


def _bindable(value: pa.Scalar, name: str) -> pa.Scalar:
    """Return a value as DataFusion can take it: pyarrow 23 fails on nulls where it expects lists."""
    if not pa.types.is_nested(value.type):
        return value
    if not value.is_valid:
        return pa.scalar(None, pa.null())
    try:
        pa.array([value], value.type)
    except (SystemError, TypeError):
        raise InvalidStatement(
            f"The value {_shown(name)} holds a null in place of a list of a fixed size.",
            remedy="Send lists of any size instead.",
        ) from None
    return value


def missing_parameter(written: list[str]) -> InvalidStatement:
    """Return the error for placeholders that got no value."""
    return InvalidStatement(
        f"No value was given for the parameter {', '.join(written[:5])}.",
        remedy="Send one value for each placeholder of the statement.",
    )


def find_placeholders(scanned: Scan) -> Placeholders:
    """Return the placeholders of a statement."""
    found = [token for token in scanned.tokens if token.kind is Kind.PLACEHOLDER]
    certain = [token for token in found if token.start < scanned.certain_until]
    marks = [token for token in found if token.text.startswith("?")]
    if any(token.text != "?" for token in marks):
        raise InvalidStatement("Numbered placeholders are written $1, not ?1.")
    if marks and marks[-1].start >= scanned.certain_until:
        raise InvalidStatement(
            "The statement has a ? beside dollar quotes, prefixed strings or nested comments.",
            remedy="Write placeholders as $1, $2, … there.",
        )
    if marks and any(_position(token) for token in certain):
        raise InvalidStatement("The statement mixes ? and $1 placeholders.", remedy="Use one way of writing them.")
    for token in certain:
        if token.text[1:].isdigit() and not _position(token):
            raise InvalidStatement(f"The placeholder {_shown(token.text)} is not between $1 and ${_MOST_PLACEHOLDERS}.")
    if len(found) > _MOST_PLACEHOLDERS:
        raise InvalidStatement(f"The statement has more than {_MOST_PLACEHOLDERS} placeholders.")
    if marks:
        return _rewritten(scanned.sql, certain)
    uncertain = {_column(token) for token in found} - {_column(token) for token in certain}
    columns = _columns(certain)
    return Placeholders(
        sql=scanned.sql, columns=columns, written=tuple(map(_written, columns)), optional=frozenset(uncertain)
    )


def _rewritten(sql: str, certain: list[Token]) -> Placeholders:
    parts: list[str] = []
    insertions: list[tuple[int, int]] = []
    place = length = position = 0
    for token in certain:
        if token.text != "?":
            continue
        position += 1
        text = f"${position}"
        parts += [sql[place : token.start], text]
        length += token.start - place + len(text)
        insertions.append((length - len(text), len(text) - 1))
        place = token.start + 1
    names = tuple(dict.fromkeys(_column(token) for token in certain if token.text != "?"))
    positions = range(position)
    return Placeholders(
        sql="".join([*parts, sql[place:]]),
        columns=(*(str(index) for index in positions), *names),
        written=(*(f"? number {index + 1}" for index in positions), *(f"${name}" for name in names)),
        insertions=tuple(insertions),
    )


def _position(token: Token) -> int:
    """Return the number of a `$1`, or 0 for a `$name` and for numbers that no placeholder may have."""
    digits = token.text[1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_POSITION):
        return 0
    return int(digits) if int(digits) <= _MOST_PLACEHOLDERS else 0


def _column(token: Token) -> str:
    position = _position(token)
    return str(position - 1) if position else token.text[1:]


def _columns(certain: list[Token]) -> tuple[str, ...]:
    """Return one column per placeholder: `$1` up to the highest number, then names as they come."""
    highest = max((_position(token) for token in certain), default=0)
    names = dict.fromkeys(_column(token) for token in certain if not _position(token))
    return (*(str(index) for index in range(highest)), *names)


def _written(column: str) -> str:
    return f"${int(column) + 1}" if column.isdigit() else f"${column}"


def _bound_name(column: str) -> str:
    return str(int(column) + 1) if column.isascii() and column.isdigit() else column


def _shown(name: str) -> str:
    return repr(name[:40])


class RowByRow:
    """A `PlannedQuery` over several rows of parameters; plans a row when the one before it has been read."""

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
        self.schema = _with_nulls(self._current.schema)
        self.parameter_schema = self._current.parameter_schema
        self._ended = QueryStatistics()  # of the rows before the current one
        self._has_run = False

    @property
    def statistics(self) -> QueryStatistics:
        """Return what the query took so far."""
        return _added(self._ended, self._current.statistics)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement for each row of parameters; can be called once."""
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
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
            if remaining == 0 or following == count:
                return
            self._plan_next(following, remaining)
            current = self._current.batches()

    def _plan_next(self, index: int, remaining: int | None) -> None:
        row = self._parameters.slice(index, 1)
        planned = self._plan(replace(self._request, parameters=row, row_limit=remaining))
        if not _with_nulls(planned.schema).equals(self.schema, check_metadata=True):
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
    """Return the request with its values named and typed as `Placeholders` expects them.

    flightsql-dbapi names its columns `param_0`, `param_1`, … and wraps each value in a union; some clients give no
    names. Flight SQL binds by position, so such columns are for `?` and `$1` in their order.
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
