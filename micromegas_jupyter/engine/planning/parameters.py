"""Placeholders and their values.

Finds a statement's placeholders, writes `?` as DataFusion's `$1`, brings what various clients send into one form
(columns named "0", "1", … or by name, of plain types), and runs a statement once for each row of values. Only the plan
knows a placeholder's type (`checks`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.engine.contract import QueryStatistics
from micromegas_jupyter.engine.errors import missing_parameter
from micromegas_jupyter.engine.scanner import Kind, Scan, Token
from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from micromegas_jupyter.engine.contract import PlannedQuery, StatementRequest

_MAX_PLACEHOLDERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholders:
    """What a statement wants bound; in `sql` every `?` is written as `$1`, `$2`, ….

    `columns` of a parameter batch are in the order of placeholders: "0" for `?` or `$1`, else the name; `written` is
    how the statement has them. Where quoting is not certain, they are `optional`.
    """

    sql: str
    columns: tuple[str, ...]
    written: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    has_question_marks: bool = False

    def bind(self, parameters: pa.RecordBatch) -> dict[str, pa.Scalar]:
        """Return DataFusion's `param_values` for the first row of values, types kept."""
        if not parameters.num_rows:
            raise InvalidStatement("The parameters contain no row of values.")
        names = parameters.schema.names
        known = set(self.columns) | self.optional
        for name in names:
            if name not in known or names.count(name) > 1:
                raise InvalidStatement(f"The statement has no parameter for the value {name[:40]!r}.")
        missing = [text for column, text in zip(self.columns, self.written, strict=True) if column not in names]
        if missing:
            raise missing_parameter(missing)
        values = (parameters.column(index)[0] for index in range(len(names)))
        # pyarrow 23 fails on a null where it expects a list.
        plain = (pa.scalar(None) if pa.types.is_nested(one.type) and not one.is_valid else one for one in values)
        return dict(zip(map(bound_name, names), plain, strict=True))


def find_placeholders(scanned: Scan) -> Placeholders:
    """Return the placeholders of a statement."""
    found = [token for token in scanned.tokens if token.kind is Kind.PLACEHOLDER]
    certain = [token for token in found if token.start < scanned.certain_until]
    question_marks = [token for token in found if token.text.startswith("?")]
    if any(token.text != "?" for token in question_marks):
        raise InvalidStatement("Write numbered placeholders as $1, not ?1.")
    if question_marks and question_marks[-1].start >= scanned.certain_until:
        raise InvalidStatement(
            "The statement has a ? beside dollar quotes, prefixed strings or nested comments.",
            remedy="Write placeholders as $1, $2, … there.",
        )
    numbers = [_number(token) for token in certain if token.text[1:].isdigit()]
    if question_marks and any(numbers):
        raise InvalidStatement("The statement mixes ? and $1 placeholders.", remedy="Use one style.")
    if not all(numbers):
        raise InvalidStatement(f"A placeholder's number is not between $1 and ${_MAX_PLACEHOLDERS}.")
    if len(found) > _MAX_PLACEHOLDERS:
        raise InvalidStatement(f"The statement has more than {_MAX_PLACEHOLDERS} placeholders.")
    names = tuple(dict.fromkeys(_column(token) for token in certain if token.text != "?" and not _number(token)))
    count = len(question_marks) or max(numbers, default=0)
    written = (f"? number {index + 1}" if question_marks else f"${index + 1}" for index in range(count))
    return Placeholders(
        sql=scanned.with_replaced([(mark, f"${number}") for number, mark in enumerate(question_marks, start=1)]),
        columns=(*map(str, range(count)), *names),
        written=(*written, *(f"${name}" for name in names)),
        optional=frozenset({_column(token) for token in found} - {_column(token) for token in certain}),
        has_question_marks=bool(question_marks),
    )


def _number(token: Token) -> int:
    """Return the number of a `$1`, or 0 for a `$name` and for numbers that no placeholder may have."""
    digits = token.text[1:]
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MAX_PLACEHOLDERS))
    return int(digits) if is_number and int(digits) <= _MAX_PLACEHOLDERS else 0


def _column(token: Token) -> str:
    return str(_number(token) - 1) if _number(token) else token.text[1:]


def bound_name(column: str) -> str:
    """Return a placeholder's name in DataFusion's `param_values`."""
    return str(int(column) + 1) if column.isascii() and column.isdigit() else column


class RowByRow:
    """A `PlannedQuery` over several rows of parameters; plans a row when the previous one has been read."""

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
        self.schema = _nullable(self._current.schema)
        self.parameter_schema = self._current.parameter_schema
        self._ended = QueryStatistics()  # of the rows before the current one

    @property
    def statistics(self) -> QueryStatistics:
        """What the query took so far."""
        return _sum(self._ended, self._current.statistics)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement for each row of parameters; can be called once."""
        return self._rows(self._current.batches())

    def _rows(self, current: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        remaining = self._request.row_limit
        for following in range(1, self._parameters.num_rows + 1):
            for batch in current:
                if remaining is not None:
                    remaining -= batch.num_rows
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
            if remaining == 0 or following == self._parameters.num_rows:
                return
            row = self._parameters.slice(following, 1)
            planned = self._plan(replace(self._request, parameters=row, row_limit=remaining))
            if not _nullable(planned.schema).equals(self.schema, check_metadata=True):
                raise InvalidStatement(
                    f"Row {following + 1} of the parameters gives other columns than the first.",
                    remedy="Run the statement for each row alone.",
                )
            # Only the statistics are kept: with very many rows the plans would add up.
            self._ended = _sum(self._ended, self._current.statistics)
            self._current = planned
            current = planned.batches()


def _nullable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with every column nullable: a value in one row may be null in the next."""
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)


def _sum(first: QueryStatistics, second: QueryStatistics) -> QueryStatistics:
    facts: dict[str, Any] = asdict(first)
    for name, value in asdict(second).items():
        facts[name] = None if value is None or facts[name] is None else facts[name] + value
    return QueryStatistics(**facts)


def with_plain_parameters(request: StatementRequest, columns: tuple[str, ...]) -> StatementRequest:
    """Return the request with its values named and typed as `Placeholders` expects them.

    flightsql-dbapi names its columns `param_0`, `param_1`, … and wraps each value in a union; some clients give no
    names. Flight SQL binds by position, so such columns are for `?` and `$1` in their order.
    """
    batch = request.parameters
    if batch is None:
        return request
    names = batch.schema.names
    is_generated = all(name in {"", f"param_{index}"} for index, name in enumerate(names))
    if is_generated and not set(names) & set(columns):
        names = [str(index) for index in range(len(names))]
    if names == batch.schema.names and not any(map(pa.types.is_union, batch.schema.types)):
        return request
    arrays = [_without_union(array) for array in batch.columns]
    fields = [
        pa.field(name, array.type, field.nullable)
        for name, array, field in zip(names, arrays, batch.schema, strict=True)
    ]
    return replace(request, parameters=pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


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
