"""Filters of the grid's columns: parse the input and return exactly the matching values.

Words are values: strings match if they contain them; numbers, times, and booleans if they equal them. Everything else
has an operator: `=`, `!=`, `>`, `>=`, `<`, `<=`, `a..b`, `a..<b`, `/regex/`, and `!` to negate what follows. `=` alone
matches nulls, and `!=` alone all other values. A time without seconds, minutes, or hours is that whole minute, hour,
or day.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, localcontext
from functools import reduce
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import (
    DURATION_NANOSECONDS,
    NANOSECONDS,
    UTC_NAMES,
    Kind,
    decoded,
    whole_steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from micromegas_jupyter.notebook.formats import ColumnFormat

MAX_TYPED_CHARACTERS: Final = 1000
_HINTS: Final = {Kind.TEXT: "contains, = exact, !not, /regex/", Kind.BOOLEAN: "true, false"}
_SAMPLE_ROWS = 1000
_MAX_SHOWN = 40
_COMPARISON = re.compile(r"(<=|>=|<>|!=|==|<|>|=)\s*(.*)", re.DOTALL)
_RANGE = re.compile(r"(.+?)\s*\.\.(<?)\s*(.+)")
# Messages contain dots, so unquoted bounds of a text range contain neither spaces nor dots next to the operator.
_TEXT_RANGE = re.compile(r"""("[^"]+"|'[^']+'|[^\s"']*[^\s"'.])\.\.(<?)("[^"]+"|'[^']+'|[^\s"'.][^\s"']*)""")
_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?)?)?"
    r"\s*(Z|UTC|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_QUANTITY = re.compile(r"([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*(h|min|s|ms|µs|us|ns)?", re.IGNORECASE)
_DAY_NANOSECONDS = 86_400 * 10**9
# The duration of the unspecified part of a time: a day, an hour, a minute, or a second.
_LENGTHS = (_DAY_NANOSECONDS, 3600 * 10**9, 60 * 10**9, 10**9)
DIGITS: Final = 120
"""The precision of numbers when they are compared with filters."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BOOLEANS = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, move a cursor, reorder text, or cannot be encoded, except the line feed."""

_NULL_TESTS = {"=": "is_null", "==": "is_null", "!=": "is_valid", "<>": "is_valid"}
_FUNCTIONS = {
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
    "=": "equal",
    "==": "equal",
    "!=": "not_equal",
    "<>": "not_equal",
}


class Term(NamedTuple):
    """A comparison in a filter: its Arrow name, `contains`, or `matches`, and the text after the operator."""

    function: str
    value: str = ""


def parse_filter(typed: str, form: ColumnFormat) -> tuple[bool, list[Term]]:
    """Return a filter's terms, all of which must match, and whether the filter is negated.

    Raises:
        UsageError: The filter is too long.
    """
    text = typed.strip()
    if len(text) > MAX_TYPED_CHARACTERS:
        raise UsageError("This filter is too long.", remedy=f"Use at most {MAX_TYPED_CHARACTERS} characters.")
    if text in _NULL_TESTS:
        return False, [Term(_NULL_TESTS[text])]
    is_negated = text.startswith("!") and not _COMPARISON.fullmatch(text)
    text = text[1:].strip() if is_negated else text
    is_text = form.kind is Kind.TEXT
    if found := _COMPARISON.fullmatch(text):
        return is_negated, [Term(_FUNCTIONS[found[1]], found[2])]
    if found := (_TEXT_RANGE if is_text else _RANGE).fullmatch(text):
        end = Term("less" if found[2] else "less_equal", found[3])
        return is_negated, [Term("greater_equal", found[1]), end]
    if not is_text:
        return is_negated, [Term("equal", text)]
    if len(text) > 2 and text[0] == text[-1] == "/":  # noqa: PLR2004 - two slashes and something between them
        return is_negated, [Term("matches", text[1:-1])]
    return is_negated, [Term("contains", unquoted(text))]


def condition(column: pa.ChunkedArray, form: ColumnFormat, typed: str) -> pa.ChunkedArray:
    """Return which values of a column match a filter; the result is null for null values, except in null tests.

    Raises:
        UsageError: The filter is incomplete or does not suit the column's type; the remedy has examples that do.
    """
    is_negated, terms = parse_filter(typed, form)
    if terms[0].function in _NULL_TESTS.values():
        return pc.call_function(terms[0].function, [column])
    try:
        if form.kind is Kind.TEXT and types.is_dictionary(column.type):
            # Compares the few distinct values instead of the many rows.
            parts = [(pa.chunked_array([chunk.dictionary]), chunk.indices) for chunk in column.chunks]
            found = [condition(values, form, typed).combine_chunks().take(places) for values, places in parts]
            return pa.chunked_array(found, pa.bool_())
        values = decoded(column)
        matching = reduce(pc.and_kleene, [_COMPARE[form.kind](values, form, term) for term in terms])
        return pc.invert(matching) if is_negated else matching
    except (ValueError, LookupError, ArithmeticError) as error:
        text = typed.strip()
        shown = cut(printable(text), _MAX_SHOWN)
        what = f'"{shown}" does not fit this column.' if text.strip("=<>!") else f"A value is missing after {shown}."
        raise UsageError(what, remedy=f"Try: {hint(column, form)}.") from error


def hint(column: pa.ChunkedArray, form: ColumnFormat) -> str:
    """Return example filters for a column; those for numbers and times use values from the column."""
    values = decoded(column.slice(0, _SAMPLE_ROWS)).drop_null()
    if form.kind not in (Kind.NUMBER, Kind.TIME) or not len(values):
        return _HINTS.get(form.kind, "= for null, != for others")
    order = pc.sort_indices(values)
    low, high = form.texts(values.take(order.take([len(order) // 4, 3 * len(order) // 4])))
    if form.kind is Kind.TIME:  # without fractions of seconds, these are short enough to be readable
        low, high = (str(text).split(".")[0] for text in (low, high))
    return f"> {low}, {low}..{high}"


def unquoted(text: str) -> str:
    """Return the input without surrounding quotes."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _compare_texts(column: pa.ChunkedArray, _form: ColumnFormat, term: Term) -> pa.ChunkedArray:
    if not term.value:
        raise ValueError
    if term.function == "contains":
        return pc.match_substring(column, term.value, ignore_case=True)
    if term.function == "matches":
        try:
            return pc.match_substring_regex(column, term.value, ignore_case=True)
        except pa.ArrowInvalid as error:
            what = "This is not a valid regular expression."
            raise UsageError(what, remedy="Use RE2 syntax: /time.*out/. Or quote the text to find it.") from error
    return pc.call_function(term.function, [column, pa.scalar(unquoted(term.value), column.type)])


def _compare_booleans(column: pa.ChunkedArray, _form: ColumnFormat, term: Term) -> pa.ChunkedArray:
    if term.function not in ("equal", "not_equal"):
        raise ValueError
    return pc.call_function(term.function, [column, BOOLEANS[term.value.lower()]])


def _compare_ordered(column: pa.ChunkedArray, form: ColumnFormat, term: Term) -> pa.ChunkedArray:
    """Compare numbers or times with the input without rounding, as floats or as whole steps of their type."""
    first, end, is_wall_clock = parse_value(column.type, form, term.value)
    if types.is_floating(column.type):
        if first.is_nan():
            return pc.invert(pc.is_nan(column)) if term.function == "not_equal" else pc.is_nan(column)
        return pc.call_function(term.function, [column, pa.scalar(float(first)).cast(column.type)])
    if is_wall_clock and column.type.tz is not None:
        # Compare times as the grid shows them: an hour that occurs twice on a clock matches twice.
        column = pc.local_timestamp(column)
    with localcontext(prec=DIGITS):
        first_step, end_step = whole_step_bounds(column.type, first, end)
        steps = whole_steps(column) if types.is_temporal(column.type) else column
        is_below, is_not_above = _is_below(steps, first_step), _is_below(steps, end_step)
    is_equal = pc.and_not(is_not_above, is_below)
    return {
        "less": is_below,
        "less_equal": is_not_above,
        "greater": pc.invert(is_not_above),
        "greater_equal": pc.invert(is_below),
        "equal": is_equal,
        "not_equal": pc.invert(is_equal),
    }[term.function]


def whole_step_bounds(kind: pa.DataType, first: Decimal, end: Decimal) -> tuple[Decimal, Decimal]:
    """Return the first step of a type that a value covers, and the first step after the value."""
    step = step_of(kind)
    first_step = (first / step).to_integral_value(ROUND_CEILING)
    return first_step, (end / step).to_integral_value(ROUND_CEILING) + (first == end == first_step * step)


def step_of(kind: pa.DataType) -> Decimal:
    """Return the distance between adjacent values of a type, in nanoseconds for times and durations."""
    if types.is_decimal(kind):
        return Decimal(1).scaleb(-kind.scale)
    if types.is_date32(kind):
        return Decimal(_DAY_NANOSECONDS)
    unit = "ms" if types.is_date64(kind) else getattr(kind, "unit", "ns")
    return Decimal(NANOSECONDS[unit])


def step_limits(kind: pa.DataType) -> tuple[int, int]:
    """Return the lowest and highest step of a type."""
    if types.is_decimal(kind):
        return 1 - 10**kind.precision, 10**kind.precision - 1
    if types.is_unsigned_integer(kind):
        return 0, 2**kind.bit_width - 1
    return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1


def _is_below(column: pa.ChunkedArray, steps: Decimal) -> pa.ChunkedArray:
    """Return which values are below a number of steps, even one outside the type's range."""
    kind = column.type
    if not steps.is_finite():
        raise ValueError
    low, high = step_limits(kind)
    if low <= steps <= high:
        # Convert only now, because converting 1e999999 to an integer takes most of a minute.
        value = steps.scaleb(-kind.scale) if types.is_decimal(kind) else int(steps)
        return pc.less(column, pa.scalar(value, kind))
    return pc.if_else(column.is_valid(), steps > high, pa.scalar(None, pa.bool_()))


def parse_value(kind: pa.DataType, form: ColumnFormat, typed: str) -> tuple[Decimal, Decimal, bool]:
    """Return the range that a number or a time (in nanoseconds) covers, and whether the time is local."""
    text = unquoted(typed)
    if types.is_timestamp(kind) or types.is_date(kind):
        first, end, has_offset = _parse_time(text)
        return first, end, types.is_timestamp(kind) and not has_offset
    if types.is_time(kind):
        return *_parse_time(f"1970-01-01 {text}")[:2], False
    if not types.is_duration(kind):
        number = Decimal(text.replace(",", "").replace("_", ""))
        return number, number, False
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError
    unit = (found[2] or form.unit).lower().replace("us", "µs")
    number = Decimal(found[1].replace(",", "")) * DURATION_NANOSECONDS[unit]
    return number, number, False


def _parse_time(text: str) -> tuple[Decimal, Decimal, bool]:
    """Return the range that a time covers, in nanoseconds since 1970, and whether it has an offset."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError
    *whole, fraction, offset = found.groups()
    time = datetime(*(int(part or 0) for part in whole), tzinfo=UTC)  # type: ignore[arg-type, misc] # six numbers
    if offset and offset.upper() not in ("Z", "UTC"):
        time = time.replace(tzinfo=datetime.strptime(offset, "%z").tzinfo)
    length = _LENGTHS[sum(part is not None for part in whole[3:])]
    first = (time - _EPOCH) // timedelta(seconds=1) * 10**9
    if fraction:
        length = 10 ** (9 - len(fraction))
        first += int(fraction) * length
    return Decimal(first), Decimal(first + length), offset is not None


def time_text(nanoseconds: int, kind: pa.DataType) -> str:
    """Return a time as filter input with all digits of the type, but without a fraction if it is zero.

    Raises:
        UsageError: The time is out of range.
    """
    seconds, fraction = divmod(nanoseconds, 10**9)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(" ")
    except OverflowError as error:
        raise UsageError("A filter cannot contain this time.", remedy="Filter another column.") from error
    digits = {"ms": 3, "us": 6, "ns": 9}.get(getattr(kind, "unit", "s"), 0)
    text += f".{fraction:09}"[: digits + 1] if fraction and digits else ""
    is_elsewhere = types.is_timestamp(kind) and kind.tz is not None and kind.tz not in UTC_NAMES
    return f"{text}Z" if is_elsewhere else text


def value_filter(part: pa.ChunkedArray, form: ColumnFormat, text: str | None, *, sign: str = "=") -> str:
    """Return the filter for one value, given its exact text (None for null)."""
    if text is None:
        return sign
    values = decoded(part)
    if form.kind is Kind.TEXT:
        typed = f'{sign} "{text}"'
    elif types.is_floating(values.type):
        typed = f"{sign} {values[0].as_py()!r}"
    elif types.is_timestamp(values.type):
        (step,) = whole_steps(values).to_pylist()
        typed = f"{sign} {time_text(step * NANOSECONDS[values.type.unit], values.type)}"
    elif form.kind in (Kind.NUMBER, Kind.TIME, Kind.BOOLEAN):
        typed = f"{sign} {text}"
    else:
        raise UsageError("Values of this type cannot be filtered.", remedy="Filter another column.")
    if CONTROL.search(typed) or "\n" in typed:
        raise UsageError("A filter cannot contain control characters.", remedy="Filter another column.")
    condition(values.slice(0, 0), form, typed)  # checks the length
    return typed


def range_filter(edges: Sequence[str], first: int, last: int, *, is_open: bool) -> str:
    """Return the filter for the slots `first` to `last`; if `is_open`, the outermost include all values beyond."""
    first, last = sorted((max(first, 0), min(last, len(edges) - 2)))
    has_start, has_end = not (is_open and first == 0), not (is_open and last == len(edges) - 2)
    if has_start and has_end:
        return f"{edges[first]}..<{edges[last + 1]}"
    return f">= {edges[first]}" if has_start else f"< {edges[last + 1]}" if has_end else ""


_COMPARE: Final[dict[Kind, Callable[..., pa.ChunkedArray]]] = {
    Kind.TEXT: _compare_texts,
    Kind.BOOLEAN: _compare_booleans,
    Kind.NUMBER: _compare_ordered,
    Kind.TIME: _compare_ordered,
}
"""The comparison function of each kind; other kinds can't be compared."""
