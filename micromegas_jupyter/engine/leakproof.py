"""Defines which predicates may be evaluated on rows that a caller must not see.

An error about a hidden row reveals something about it, so only expressions that have a value for every row are listed:
no casts of columns, no arithmetic, no functions. Each engine has an adapter that describes its expressions as `Term`s
(`engine.plans.terms`, `gateway.terms`). Adapters return None for unknown expressions, which are not leakproof.

A comparison is leakproof if all its columns have one kind and its constants can be converted to that kind. The engine
then doesn't convert columns, which could fail.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import pyarrow as pa

#: The longest LIKE pattern, in characters. A pattern 10 times as long can always be compiled to a regular expression;
#: one 20 times as long may be too large and fail when a row is read.
MAX_PATTERN: Final = 1000
#: The maximum number of constants in an IN list.
MAX_LISTED: Final = 1000

COLUMN: Final = "column"
LITERAL: Final = "literal"
CAST: Final = "cast"
INTERVAL: Final = "interval"
NOW: Final = "now"

BOOLEAN: Final = "boolean"
INTEGER: Final = "integer"
FLOAT: Final = "float"
TEXT: Final = "text"
DATE: Final = "date"
TIMESTAMP: Final = "timestamp"  # columns also have the unit, as in "timestamp(6)"
TIMESTAMPTZ: Final = "timestamptz"
NULL: Final = "null"
#: Decimals, bytes, and nested values, which are never leakproof to compare.
OTHER: Final = "other"

#: Constants that can be converted to a column's kind. Text that is a time (`is_time`) can also be converted to the last
#: three kinds.
CONSTANTS: Final[Mapping[str, frozenset[str]]] = {
    BOOLEAN: frozenset({BOOLEAN, NULL}),
    INTEGER: frozenset({INTEGER, NULL}),
    FLOAT: frozenset({INTEGER, FLOAT, NULL}),
    TEXT: frozenset({TEXT, NULL}),
    DATE: frozenset({DATE, NULL}),
    TIMESTAMP: frozenset({TIMESTAMP, DATE, NULL}),
    TIMESTAMPTZ: frozenset({TIMESTAMP, TIMESTAMPTZ, DATE, NULL}),
}
#: IN with a subquery compares values with the subquery's column; EXISTS is represented as an IN without operands.
COMPARISONS: Final = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM", "BETWEEN", "IN"}
)
#: Leakproof only with a constant pattern and the default escape character.
PATTERNS: Final = frozenset({"LIKE", "ILIKE"})
LOGIC: Final = frozenset({"AND", "OR", "NOT", "IS TRUE", "IS FALSE", "IS UNKNOWN"})
#: Tests on operands of any kind.
TESTS: Final = frozenset({"IS NULL"})
#: Aggregates, leakproof without FILTER and ORDER BY: their argument kinds, and the result's kind if it differs.
AGGREGATES: Final[Mapping[str, tuple[frozenset[str], str | None]]] = {
    "count": (frozenset({*CONSTANTS, NULL, OTHER}), INTEGER),
    "min": (frozenset(CONSTANTS), None),
    "max": (frozenset(CONSTANTS), None),
    "sum": (frozenset({INTEGER, FLOAT}), None),
    "avg": (frozenset({INTEGER, FLOAT}), FLOAT),
}

_NUMBER: Final = re.compile(r"-?(?:[0-9]{1,18})(?:\.[0-9]{0,99})?")
_SUMMAND: Final = re.compile(r"-?(?:[0-9]{1,15})(?:\.[0-9]{0,15})?")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_DATE_CHARACTERS: Final = 10
_YEARS: Final = range(1800, 2150)  # nanoseconds cover 1677 to 2262
#: The maximum total of the intervals added to a constant time, in days.
_MAX_MOVED_DAYS: Final = 100 * 372


@dataclass(frozen=True, slots=True)
class Term:
    """An expression in an engine-independent form.

    Attributes:
        operator: One of the names above, an aggregate, or `+` and `-` of constants.
        operands: Its operands; an IN list and an AND or OR chain are flattened.
        kind: The kind of a column or a literal, or the kind that a literal is cast to.
        text: A literal's text; for an interval, the number of days.
    """

    operator: str
    operands: "tuple[Term | None, ...]" = ()
    kind: str = ""
    text: str = ""


def is_leakproof(term: Term | None) -> bool:
    """Return whether an expression has a value for every row."""
    return kind_of(term) is not None


def is_leakproof_condition(term: Term | None) -> bool:
    """Return whether a condition is true, false, or unknown for every row."""
    return kind_of(term) in {BOOLEAN, NULL}


def kind_of(term: Term | None) -> str | None:  # noqa: PLR0911 - one per kind
    """Return the kind of a leakproof expression's values, or None for any other expression."""
    if term is None:
        return None
    if (constant := constant_kind(term)) is not None:
        return constant
    operator, operands = term.operator, term.operands
    if operator == COLUMN:
        return term.kind or None
    if operator in COMPARISONS:
        return BOOLEAN if _are_comparable(operands) and len(operands) <= 1 + MAX_LISTED else None
    kinds = [kind_of(one) for one in operands]
    if operator in PATTERNS:
        return BOOLEAN if kinds == [TEXT, TEXT] and _is_pattern(operands[1]) else None
    if operator in LOGIC:
        return BOOLEAN if {BOOLEAN, NULL}.issuperset(kinds) else None
    if operator in TESTS:
        return BOOLEAN if None not in kinds else None
    if operator in AGGREGATES and len(kinds) == 1 and kinds[0] is not None:
        allowed, result = AGGREGATES[operator]
        return result or kinds[0] if _base(kinds[0]) in allowed else None
    return None


def _are_comparable(operands: Sequence[Term | None]) -> bool:
    constants = [(one, None if one is None else constant_kind(one)) for one in operands]
    kinds = {kind_of(one) for one, constant in constants if constant is None}
    if not kinds:
        return len({constant for _, constant in constants} - {NULL}) <= 1
    (kind, *others) = kinds
    if others or kind is None or _base(kind) not in CONSTANTS:
        return False
    return all(_becomes(one, constant, _base(kind)) for one, constant in constants if one is not None and constant)


def _becomes(term: Term, constant: str, kind: str) -> bool:
    """Return whether a constant can be converted to a column's kind."""
    if constant in CONSTANTS[kind]:
        # Engines disagree on whether TIMESTAMP '…' has a zone; some would convert a column without a zone to that type.
        return kind != TIMESTAMP or constant != TIMESTAMP or term.operator == LITERAL
    is_plain_text = constant == TEXT and term.operator == LITERAL
    if not is_plain_text or kind not in {DATE, TIMESTAMP, TIMESTAMPTZ}:
        return False
    return is_time(term.text) and (kind != DATE or len(term.text) == _DATE_CHARACTERS)


def _is_pattern(term: Term | None) -> bool:
    return term is not None and constant_kind(term) == TEXT and len(_text(term)) <= MAX_PATTERN


def _text(term: Term) -> str:
    (inner,) = term.operands if term.operator == CAST else (term,)
    return "" if inner is None else inner.text


def _base(kind: str) -> str:
    return kind.partition("(")[0]


def constant_kind(term: Term) -> str | None:
    """Return the kind of a constant that every engine can evaluate, or None for any other expression."""
    kind, moved_days = _constant(term)
    return kind if moved_days <= _MAX_MOVED_DAYS else None


def _constant(term: Term | None) -> tuple[str | None, float]:  # noqa: PLR0911 - one per kind
    """Return the kind of a constant, and the number of days that its intervals add."""
    match term:
        case Term(operator="literal", kind=kind, text=text):
            is_known = kind not in {INTEGER, FLOAT} or bool(_NUMBER.fullmatch(text))
            return (kind or None) if is_known else None, 0
        case Term(operator="cast", operands=(Term(operator="literal") as value,), kind=kind):
            return (kind if _is_cast(value, kind) else None), 0
        case Term(operator="now"):
            return TIMESTAMPTZ, 0
        case Term(operator="interval", text=text):
            return INTERVAL, abs(float(text))
        case Term(operator="-", operands=(Term(operator="literal", text=text, kind=kind),)):
            return (kind if kind in {INTEGER, FLOAT} and _NUMBER.fullmatch(text) else None), 0
        case Term(operator="+" | "-", operands=(left, right)):
            return _sum(left, right)
    return None, 0


def _is_cast(value: Term, kind: str) -> bool:
    if kind in {DATE, TIMESTAMP, TIMESTAMPTZ}:
        return value.kind == TEXT and is_time(value.text)
    if kind == TEXT:
        return value.kind == TEXT
    return value.kind in {INTEGER, FLOAT} and kind in {value.kind, FLOAT} and bool(_NUMBER.fullmatch(value.text))


def _sum(left: Term | None, right: Term | None) -> tuple[str | None, float]:
    (kind, moved), (other, moved_more) = _constant(left), _constant(right)
    if kind in {INTEGER, FLOAT} and other in {INTEGER, FLOAT}:
        is_short = all(_is_short(one) for one in (left, right))
        return (FLOAT if FLOAT in {kind, other} else INTEGER) if is_short else None, 0
    if other == INTERVAL and kind in {DATE, TIMESTAMP, TIMESTAMPTZ}:
        # Engines disagree on whether a date plus an interval is still a date.
        return TIMESTAMP if kind == DATE else kind, moved + moved_more
    return None, 0


def _is_short(term: Term | None) -> bool:
    if term is None or term.operator in {CAST, INTERVAL}:
        return False
    return bool(_SUMMAND.fullmatch(term.text)) if term.operator == LITERAL else all(map(_is_short, term.operands))


def is_time(text: str) -> bool:
    """Return whether every engine parses a string as a time that nanoseconds can represent."""
    if not _TIME.fullmatch(text) or int(text[:4]) not in _YEARS:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def number(value: float) -> Term:
    """Return the term for an int or a float, with the number's text in decimal notation."""
    if isinstance(value, int):
        return Term(LITERAL, kind=INTEGER, text=str(value))
    return Term(LITERAL, kind=FLOAT, text=format(Decimal(repr(value)), "f"))


def column_kind(found: pa.DataType) -> str:
    """Return the kind of a column's values."""
    if pa.types.is_dictionary(found):
        return column_kind(found.value_type)
    if pa.types.is_timestamp(found):
        unit = {"s": 0, "ms": 3, "us": 6, "ns": 9}[found.unit]
        return f"{TIMESTAMP if found.tz is None else TIMESTAMPTZ}({unit})"
    return next((kind for matches, kind in _KINDS if matches(found)), OTHER)


_KINDS: Final = (
    (pa.types.is_uint64, OTHER),  # engines compare it with signed integers using a cast that can fail
    (pa.types.is_integer, INTEGER),
    (pa.types.is_float16, OTHER),
    (pa.types.is_floating, FLOAT),
    (pa.types.is_boolean, BOOLEAN),
    (pa.types.is_date32, DATE),
    (pa.types.is_string, TEXT),
    (pa.types.is_large_string, TEXT),
    (pa.types.is_string_view, TEXT),
    (pa.types.is_null, NULL),
    (pa.types.is_nested, ""),  # can't even be read
)


def is_total_cast(value: pa.DataType, to: pa.DataType) -> bool:
    """Return whether every value of one type can be cast to the other; engines add such casts to comparisons."""
    types = pa.types
    if types.is_integer(value):
        if types.is_float64(to):
            return True
        is_signed = types.is_signed_integer(value)
        wider = types.is_integer(to) and to.bit_width > value.bit_width
        return wider and (types.is_signed_integer(to) or not is_signed)
    if types.is_float32(value):
        return bool(types.is_float64(to))
    if types.is_timestamp(value) and types.is_timestamp(to):
        return value.unit == to.unit and value.tz is not None and to.tz is not None
    return bool(types.is_string(value) and (types.is_large_string(to) or types.is_string_view(to)))
