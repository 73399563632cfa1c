"""What a person types into a column's filter field, as an exact condition on its values.

`> 90000`, `1..9`, `= x`, `!= x`, `in a, b`, `null`, `not null`, `/pattern/`; anything else is looked for in texts and
equal to other values. A time stands for all that it leaves open: `= 2026-11-27` is that whole day.
"""

from __future__ import annotations

import csv
import re
from contextlib import suppress
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal, localcontext
from functools import reduce
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.formats import DURATION_NANOSECONDS, NANOSECONDS, Kind, decoded
from micromegas_jupyter.notebook.shell import cut, printable

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.results.formats import ColumnFormat

HINTS: Final = {
    Kind.NUMBER: "> 5, 1..9, null",
    Kind.TIME: "> 2026-11-27 12:00",
    Kind.TEXT: "contains, = x, in a, b",
    Kind.BOOLEAN: "true, false, null",
    **dict.fromkeys((Kind.NESTED, Kind.BINARY, Kind.OTHER), "null, not null"),
}
"""What the filter field of each kind of column shows while it is empty."""

MAX_TYPED_CHARACTERS: Final = 1000
_MAX_SHOWN = 40
_COMPARISON = re.compile(r"(<=|>=|<>|!=|<|>|=|before\b|after\b)\s*(.+)", re.IGNORECASE | re.DOTALL)
_RANGE = re.compile(r"(?:between\s+(.+?)\s+and\s+(.+))|(?:(.+?)\s*\.\.\s*(.+))", re.IGNORECASE)
_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?)?)?"
    r"\s*(Z|UTC|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_OFFSET = re.compile(r"\d\s*(?:Z|UTC)\b|[ T]\d.*?[+-]\d\d:?\d\d\b", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?")
_QUANTITY = re.compile(r"([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*(h|min|s|ms|µs|us|ns)?", re.IGNORECASE)
_DAY_NANOSECONDS = 86_400 * 10**9
_DIGITS = 120
_DAY, _HOUR, _MINUTE, _SECOND = 86_400, 3600, 60, 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUE_TEXTS = frozenset({"true", "t", "yes", "1"})
_FALSE_TEXTS = frozenset({"false", "f", "no", "0"})
_EXAMPLES = HINTS | {
    Kind.NUMBER: "> 90000, 1..9, != 0, in 1, 2, null",
    Kind.TIME: "2026-11-27, > 2026-11-27 12:00, 2026-11-01..2026-11-07, null",
    Kind.TEXT: "a part of the text, = x, in a, b, /pattern/, null",
}
_FUNCTIONS = {
    "<": "less",
    "before": "less",
    "<=": "less_equal",
    ">": "greater",
    "after": "greater",
    ">=": "greater_equal",
    "=": "equal",
    "!=": "not_equal",
    "<>": "not_equal",
}
_BETWEEN = {"less": "less_equal", "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater"}
# Where what was typed is below, or above, all that the type can hold.
_IS_TRUE_ABOVE = {function: function in ("greater", "greater_equal", "not_equal") for function in _FUNCTIONS.values()}
_IS_TRUE_BELOW = {function: function in ("less", "less_equal", "not_equal") for function in _FUNCTIONS.values()}


class _Span(NamedTuple):
    """All that a typed value stands for: from `first` on and below `end`; of a single value both are the same."""

    first: Decimal
    end: Decimal


def condition(column: pa.ChunkedArray, form: ColumnFormat, typed: str) -> pa.ChunkedArray:
    """Return which values of a column a filter lets through, null where a value is null.

    Raises:
        UsageError: What was typed cannot be compared with these values; the remedy says what can.
    """
    text = typed.strip()
    if len(text) > MAX_TYPED_CHARACTERS:
        raise UsageError("This filter is too long.", remedy=f"Use at most {MAX_TYPED_CHARACTERS} characters.")
    words = " ".join(text.lower().split())
    if words in ("null", "is null"):
        return column.is_null()
    if words in ("not null", "is not null"):
        return column.is_valid()
    try:
        match form.kind:
            case Kind.TEXT if pa.types.is_dictionary(column.type):
                # The few values instead of the many rows.
                parts = [(pa.chunked_array([chunk.dictionary]), chunk.indices) for chunk in column.chunks]
                found = [condition(values, form, text).combine_chunks().take(places) for values, places in parts]
                return pa.chunked_array(found, pa.bool_())
            case Kind.TEXT:
                return _text_condition(decoded(column), text)
            case Kind.BOOLEAN:
                return pc.equal(decoded(column), _boolean(words.removeprefix("=").strip()))
            case Kind.NUMBER | Kind.TIME:
                return _ordered_condition(_Ordered(decoded(column), form, text), text)
    except (ValueError, ArithmeticError) as error:
        raise _refusal(text, form.kind) from error
    raise _refusal(text, form.kind)


def _refusal(text: str, kind: Kind) -> UsageError:
    shown = cut(printable(text), _MAX_SHOWN)
    return UsageError(f'"{shown}" does not fit this column.', remedy=f"Try: {_EXAMPLES[kind]}.")


def _boolean(word: str) -> bool:
    if word not in _TRUE_TEXTS | _FALSE_TEXTS:
        raise ValueError
    return word in _TRUE_TEXTS


def _text_condition(column: pa.ChunkedArray, text: str) -> pa.ChunkedArray:
    if found := _COMPARISON.fullmatch(text):
        name = _FUNCTIONS[found[1].lower()]
        return pc.call_function(name, [column, pa.scalar(_unquoted(found[2]), column.type)])
    if text.lower().startswith("in "):
        return _one_of(column, pa.array(_listed(text[3:]), column.type))
    if len(text) > 2 and text[0] == text[-1] == "/":  # noqa: PLR2004 - two slashes and something between them
        try:
            return pc.match_substring_regex(column, text[1:-1], ignore_case=True)
        except pa.ArrowInvalid as error:
            what = "This is not a valid regular expression."
            raise UsageError(what, remedy="Use RE2 syntax: /time.*out/.") from error
    if text.lower().startswith("not "):
        return pc.invert(pc.match_substring(column, _unquoted(text[4:]), ignore_case=True))
    return pc.match_substring(column, _unquoted(text), ignore_case=True)


def _one_of(column: pa.ChunkedArray, values: pa.Array) -> pa.ChunkedArray:
    return pc.if_else(column.is_valid(), pc.is_in(column, values), None)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _listed(text: str) -> list[str]:
    """Return the values of a list: `a, "b, c"`, with or without brackets."""
    text = text.strip()
    inner = text[1:-1] if text[:1] == "(" and text[-1:] == ")" else text
    quote = "'" if "'" in inner and '"' not in inner else '"'
    return [value.strip() for value in next(csv.reader([inner], quotechar=quote, skipinitialspace=True), [])]


def _ordered_condition(values: _Ordered, text: str) -> pa.ChunkedArray:
    if found := _COMPARISON.fullmatch(text):
        return values.compared(_FUNCTIONS[found[1].lower()], values.parse(found[2]))
    if text.lower().startswith("in "):
        found_in = [values.compared("equal", values.parse(each)) for each in _listed(text[3:])]
        return reduce(pc.or_kleene, found_in)
    if found := _RANGE.fullmatch(text):
        low, high = (values.parse(found[1] or found[3]), values.parse(found[2] or found[4]))
        return pc.and_kleene(values.compared("greater_equal", low), values.compared("less_equal", high))
    return values.compared("equal", values.parse(text))


class _Ordered:
    """A column of numbers or times, compared without rounding: as whole steps of its type, decimals or floats."""

    def __init__(self, column: pa.ChunkedArray, form: ColumnFormat, typed: str) -> None:
        kind, types = column.type, pa.types
        self._kind, self._form = kind, form
        self._step = Decimal(1)
        self._has_offset = types.is_timestamp(kind) and _OFFSET.search(typed) is not None
        if types.is_timestamp(kind) and not self._has_offset:
            # As the grid shows them: an hour that a clock shows twice is found twice.
            with suppress(pa.ArrowException):  # a zone that nobody knows is shown in UTC
                column = column if kind.tz is None else pc.local_timestamp(column)
        if types.is_timestamp(kind) or types.is_duration(kind) or types.is_time(kind):
            self._step = Decimal(NANOSECONDS[kind.unit])
            column = column.cast(pa.int32() if types.is_time32(kind) else pa.int64())
        elif types.is_date(kind):
            self._step = Decimal(_DAY_NANOSECONDS if types.is_date32(kind) else NANOSECONDS["ms"])
            column = column.cast(pa.int32() if types.is_date32(kind) else pa.int64())
        elif types.is_decimal(kind):
            self._step = Decimal(1).scaleb(-kind.scale)
        self._column = column

    def parse(self, text: str) -> _Span:
        """Return what a text stands for, in the unit of `_step`: a number itself, nanoseconds of a time."""
        text = _unquoted(text)
        types = pa.types
        if types.is_timestamp(self._kind) or types.is_date(self._kind):
            if self._has_offset and not _OFFSET.search(text):
                raise ValueError  # one with an offset from UTC, the other without
            return _parse_time(text)
        if types.is_time(self._kind):
            return _parse_clock(text)
        if types.is_duration(self._kind):
            found = _QUANTITY.fullmatch(text)
            if found is None:
                raise ValueError
            unit = (found[2] or self._form.unit).lower().replace("us", "µs")
            number = Decimal(found[1].replace(",", "")) * DURATION_NANOSECONDS[unit]
        else:
            number = Decimal(text.replace(",", "").replace("_", ""))
            if not number.is_finite() and not types.is_floating(self._kind):
                raise ValueError
        return _Span(number, number)

    def compared(self, function: str, span: _Span) -> pa.ChunkedArray:
        """Compare all values with what was typed: below the beginning of it, or from its end on."""
        first, end = span
        if first == end or first.is_nan():
            return self._compare(function, first)
        match function:
            case "less":
                return self._compare("less", first)
            case "less_equal":
                return self._compare("less", end)
            case "greater":
                return self._compare("greater_equal", end)
            case "greater_equal":
                return self._compare("greater_equal", first)
        within = pc.and_kleene(self._compare("greater_equal", first), self._compare("less", end))
        return within if function == "equal" else pc.invert(within)

    def _compare(self, function: str, bound: Decimal) -> pa.ChunkedArray:
        column = self._column
        if pa.types.is_floating(column.type):
            if bound.is_nan():
                is_nan = pc.is_nan(column)
                return is_nan if function == "equal" else pc.invert(is_nan)
            return pc.call_function(function, [column, pa.scalar(float(bound)).cast(column.type)])
        with localcontext(prec=_DIGITS):
            steps = (bound / self._step).to_integral_value(ROUND_FLOOR)
            is_exact = steps * self._step == bound
            low, high = self._limits()
            if steps < low or steps > high:
                is_true = _IS_TRUE_ABOVE[function] if steps < low else _IS_TRUE_BELOW[function]
                return pc.if_else(column.is_valid(), is_true, pa.scalar(None, pa.bool_()))
            if not is_exact and function in ("equal", "not_equal"):
                return pc.if_else(column.is_valid(), function == "not_equal", pa.scalar(None, pa.bool_()))
            # Between two values of the type: above the lower one is above both, and so on.
            name = function if is_exact else _BETWEEN[function]
            value = steps * self._step if pa.types.is_decimal(self._kind) else int(steps)
            return pc.call_function(name, [column, pa.scalar(value, column.type)])

    def _limits(self) -> tuple[int, int]:
        kind = self._column.type
        if pa.types.is_decimal(kind):
            return 1 - 10**kind.precision, 10**kind.precision - 1
        if pa.types.is_unsigned_integer(kind):
            return 0, 2**kind.bit_width - 1
        return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1


def _parse_time(text: str) -> _Span:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    time = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    # What the text leaves open: a day, an hour, a minute, a second, or the digits that are missing.
    length = next(size for part, size in ((hour, _DAY), (minute, _HOUR), (second, _MINUTE), ("", _SECOND)) if not part)
    first = ((time - _EPOCH).days * 86_400 + (time - _EPOCH).seconds) * 10**9 - _offset_nanoseconds(offset)
    if fraction:
        step = 10 ** (9 - len(fraction))
        first += int(fraction) * step
        return _Span(Decimal(first), Decimal(first + step))
    return _Span(Decimal(first), Decimal(first + length * 10**9))


def _offset_nanoseconds(offset: str | None) -> int:
    """Return how far a zone that was typed (`Z`, `+02:00`) is before UTC."""
    if offset is None or offset.upper() in ("Z", "UTC"):
        return 0
    return int(f"{offset[0]}1") * (int(offset[1:3]) * 60 + int(offset[-2:])) * 60 * 10**9


def _parse_clock(text: str) -> _Span:
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError
    hour, minute, second, fraction = found.groups()
    first = (int(hour) * 3600 + int(minute) * 60 + int(second or 0)) * 10**9
    step = 60 * 10**9 if second is None else 10**9 if fraction is None else 10 ** (9 - len(fraction))
    first += int(fraction or 0) * step if fraction else 0
    return _Span(Decimal(first), Decimal(first + step))
