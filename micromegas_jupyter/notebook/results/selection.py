"""Converts filters to SQL around a statement, and clicks and brushes to filters."""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.parameters import quote_identifier, quote_literal, without_end
from micromegas_jupyter.notebook.formats import (
    UTC_NAMES,
    ColumnFormat,
    Kind,
    decoded,
    whole_steps,
)
from micromegas_jupyter.notebook.results.filters import (
    BOOLEANS,
    CONTROL,
    DIGITS,
    condition,
    parse_filter,
    parse_value,
    step_limits,
    step_of,
    time_text,
    unquoted,
    value_filter,
    whole_step_bounds,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from micromegas_jupyter.notebook.results.filters import Term
    from micromegas_jupyter.notebook.results.view import RowQuery, RowsView

AROUND_NANOSECONDS: Final = 60 * 10**9
"""The maximum distance from a chosen row's time, in either direction."""

_SIGNS = {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "=", "not_equal": "<>"}
_QUOTED_OR_TAB = re.compile(r"""'[^']*'|"[^"]*"|\t""")
_QUERY = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE | re.DOTALL)
_PICKS = {"only": "=", "exclude": "!="}
_LARGEST_PLAIN = 2**53
_REAL_BITS = 32
# Arrow's names, and the number of fractional digits.
_UNITS = {"s": ("Second", 0), "ms": ("Millisecond", 3), "us": ("Microsecond", 6), "ns": ("Nanosecond", 9)}


def selection_sql(
    sql: str, view: RowsView, order: RowQuery, *, limit: int | None = None, hidden: Collection[int] = ()
) -> str:
    """Return a statement that returns a view's rows: the original one, wrapped in the filters and sorts.

    Raises:
        UsageError: A filter has no SQL, or the statement cannot be part of another one.
    """
    names = view.table.schema.names
    where = [sql_condition(names[at], view.comparable(at), view.format_of(at), typed) for at, typed in order.filters]
    keys = [key for at, descending in order.sort for key in _sort_keys(names[at], view, at, descending=descending)]
    inner = _QUOTED_OR_TAB.sub(lambda found: "    " if found[0] == "\t" else found[0], sql)
    inner = "\n".join(inner.strip().splitlines())
    if where or keys or hidden:
        if not _QUERY.match(inner):
            raise UsageError("Only a query can be filtered in SQL.", remedy="Clear the filters and the order first.")
        if len(set(names)) < len(names):
            raise UsageError("Two columns have the same name.", remedy="Rename one with AS.")
        chosen = ", ".join(_identifier(name) for at, name in enumerate(names) if at not in hidden) if hidden else "*"
        inner = without_end(inner)
        if limit is not None:  # a limit must apply before the filters
            inner = _around("*", inner) + f" LIMIT {limit:d}"
        inner = _around(chosen, inner)
        inner += "\nWHERE " + "\n  AND ".join(where) if where else ""
        inner += f"\nORDER BY {', '.join(keys)}" if keys else ""
    return checked_source(inner)


def _around(chosen: str, sql: str) -> str:
    # The parenthesis is on a separate line, because a comment on the last line would hide it.
    return f"SELECT {chosen} FROM (\n{sql}\n) AS result"  # noqa: S608 - quoted names around the user's statement


def checked_source(source: str) -> str:
    """Return a cell's source.

    Raises:
        UsageError: It has control characters other than line feeds.
    """
    if CONTROL.search(source):
        raise UsageError("A cell cannot contain control characters.", remedy="Clear the filter that has them.")
    return source


def sql_condition(name: str, column: pa.ChunkedArray, form: ColumnFormat, typed: str) -> str:
    """Return the SQL equivalent of `filters.condition`.

    Raises:
        UsageError: The filter is invalid, or has no SQL.
    """
    condition(column.slice(0, 0), form, typed)
    is_negated, terms = parse_filter(typed, form)
    field = _identifier(name)
    if terms[0].function in ("is_null", "is_valid"):
        return f"{field} IS {'NOT ' * (terms[0].function == 'is_valid')}NULL"
    values = decoded(column)
    if form.is_jsonb or types.is_duration(values.type) or types.is_time(values.type) or types.is_date64(values.type):
        what = f"A filter on {cut(printable(name), 40)} has no SQL."
        raise UsageError(what, remedy="Clear it, or convert the column in the statement.")
    parts = [_text_term(field, term) if form.kind is Kind.TEXT else _term(field, values, form, term) for term in terms]
    text = " AND ".join(parts)
    return f"NOT ({text})" if is_negated else text


def _identifier(name: str) -> str:
    if "\n" in name:
        raise UsageError("A column's name contains a line break.", remedy="Rename it with AS.")
    return quote_identifier(name)


def _literal(text: str) -> str:
    if "\n" in text:
        raise UsageError("A filter's value contains a line break.", remedy="Clear the filter.")
    return quote_literal(text)


def _text_term(field: str, term: Term) -> str:
    if term.function == "contains":
        pattern = re.sub(r"([\\%_])", r"\\\1", term.value)
        return f"{field} ILIKE {_literal(f'%{pattern}%')}"
    if term.function == "matches":
        return f"{field} ~* {_literal(term.value)}"
    return f"{field} {_SIGNS[term.function]} {_literal(unquoted(term.value))}"


def _term(field: str, values: pa.ChunkedArray, form: ColumnFormat, term: Term) -> str:
    if form.kind is Kind.BOOLEAN:
        return field if BOOLEANS[term.value.lower()] is (term.function == "equal") else f"NOT {field}"
    kind = values.type
    first, end, is_wall_clock = parse_value(kind, form, term.value)
    if types.is_floating(kind):
        return _float_term(field, values, term.function, first)
    if types.is_timestamp(kind) and kind.tz is not None and kind.tz not in UTC_NAMES:
        # The engine compares times with a time zone by their local time.
        utc = f"arrow_cast({field}, 'Timestamp({_UNITS[kind.unit][0]}, Some(\"UTC\"))')"
        field, kind = (f"to_local_time({field})", pa.timestamp(kind.unit)) if is_wall_clock else (utc, kind)
    with localcontext(prec=DIGITS):
        first_step, end_step = whole_step_bounds(kind, first, end)
        low, high = step_limits(kind)
        if term.function in ("equal", "not_equal") and end_step == first_step + 1 and low <= first_step <= high:
            return f"{field} {_SIGNS[term.function]} {_step_literal(kind, first_step)}"
        below, above = _bound(field, kind, "<", first_step), _bound(field, kind, ">=", end_step)
        from_first, not_above = _bound(field, kind, ">=", first_step), _bound(field, kind, "<", end_step)
    return {
        "less": below,
        "less_equal": not_above,
        "greater": above,
        "greater_equal": from_first,
        "equal": f"({from_first} AND {not_above})",
        "not_equal": f"({below} OR {above})",
    }[term.function]


def _bound(field: str, kind: pa.DataType, sign: str, step: Decimal) -> str:
    """Return a comparison, even with a step outside the type's range."""
    low, high = step_limits(kind)
    if low <= step <= high:
        return f"{field} {sign} {_step_literal(kind, step)}"
    return f"{field} {'=' if (step > high) is (sign == '<') else '<>'} {field}"


def _step_literal(kind: pa.DataType, steps: Decimal) -> str:
    if types.is_decimal(kind):
        return f"CAST('{steps.scaleb(-kind.scale):f}' AS DECIMAL({kind.precision}, {kind.scale}))"
    if not types.is_temporal(kind):
        name = "BIGINT UNSIGNED" if types.is_unsigned_integer(kind) else "BIGINT"
        return f"{steps:.0f}" if abs(steps) <= _LARGEST_PLAIN else f"CAST('{steps:.0f}' AS {name})"
    nanoseconds = int(steps * step_of(kind))
    if types.is_date(kind):
        return f"DATE '{time_text(nanoseconds, kind)[:10]}'"
    text = time_text(nanoseconds, kind).removesuffix("Z") + "Z" * (kind.tz is not None)
    if -(2**63) <= nanoseconds < 2**63:
        return f"TIMESTAMP '{text}'"
    return f"CAST('{text}' AS TIMESTAMP({_UNITS[kind.unit][1]}))"


def _float_term(field: str, values: pa.ChunkedArray, function: str, number: Decimal) -> str:
    if number.is_nan():
        return f"{'NOT ' * (function == 'not_equal')}isnan({field})"
    value = pa.scalar(float(number)).cast(values.type).as_py()
    text = repr(float(value))
    if values.type.bit_width <= _REAL_BITS:
        text = f"CAST('{text}' AS REAL)"
    elif not re.fullmatch(r"-?\d+\.\d+", text):
        text = f"CAST('{text}' AS DOUBLE)"
    compared = f"{field} {_SIGNS[function]} {text}"
    # In SQL, NaN is greater than all numbers.
    is_wrong = function.startswith("greater") and _has_nan(values)
    return f"({compared} AND NOT isnan({field}))" if is_wrong else compared


def _has_nan(values: pa.ChunkedArray) -> bool:
    return bool(types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py())


def _sort_keys(name: str, view: RowsView, index: int, *, descending: bool) -> list[str]:
    field, column = _identifier(name), decoded(view.table.column(index))
    # In the grid, NaN follows the numbers in either sort direction.
    last = [f"isnan({field}) NULLS LAST"] if descending and _has_nan(column) else []
    return [*last, f"{field}{' DESC' * descending} NULLS LAST"]


def picked_filters(view: RowsView, order: RowQuery, row: int, column: int, *, what: str) -> dict[int, str]:
    """Return the filters for a cell's menu item: `only` its value, `exclude` it, or rows `around` its time.

    Raises:
        UsageError: The value cannot be part of a filter.
    """
    part = view.rows(order, row, 1).column(column)
    name = cut(printable(view.table.schema.names[column]), 40)
    if what == "around":
        if part.null_count:
            raise UsageError(f"This row has no {name}.", remedy="Choose another row.")
        kind = decoded(part).type
        (step,) = whole_steps(decoded(part)).to_pylist()
        time = step * int(step_of(kind))
        low, high = (time_text(time + span, kind) for span in (-AROUND_NANOSECONDS, AROUND_NANOSECONDS))
        return {column: f"{low}..{high}"}
    return {column: value_filter(part, view.format_of(column), view.exact_texts(part, column)[0], sign=_PICKS[what])}
