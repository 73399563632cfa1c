"""Supports times outside the years 1677 to 2262 in statements, as in `valid_to = TIMESTAMP '9999-12-31'`.

DataFusion 55 parses `TIMESTAMP '…'`, and everything that is compared with text or a date, as nanoseconds, which can't
represent such times. A statement with such a time uses microseconds instead.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.engine.scanner import Kind, Scan, Token, find_brackets, find_calls, scan

_YEARS: Final = range(1678, 2262)  # the years that nanoseconds cover completely
_DATE: Final = re.compile(r"'\s*([0-9]{4})-[0-9]{2}-[0-9]{2}(?:[ T][^']*)?'")
_FINER: Final = re.compile(r"\.[0-9]{6}[0-9]*[1-9]")
_MICROSECONDS: Final = "TIMESTAMP(6)"
_WITH_ZONE: Final = f"{_MICROSECONDS} WITH TIME ZONE"
_TYPES: Final = {"timestamp": _MICROSECONDS, "timestamptz": _WITH_ZONE}
_CASTS: Final = frozenset({"cast", "try_cast"})
_NOW: Final = frozenset({"now", "current_timestamp"})
_COMPARISONS: Final = frozenset({"=", "<", ">", "<=", ">=", "<>", "!=", "=="})
_NAMES: Final = frozenset({Kind.WORD, Kind.QUOTED})


def has_far_times(sql: str, parameters: pa.RecordBatch | None) -> bool:
    """Return whether a statement or its parameters may have a time that nanoseconds can't represent."""
    dates = list(_DATE.finditer(sql))
    if any(_FINER.search(found[0]) for found in dates):
        return False
    columns = () if parameters is None else [column for column in parameters.columns if _is_time(column.type)]
    try:
        in_parameters = [_has_far_value(column.cast(pa.timestamp("us"))) for column in columns]
    except pa.ArrowInvalid:  # a finer time
        return False
    return any(in_parameters) or any(int(found[1]) not in _YEARS for found in dates)


def with_far_times(scanned: Scan, schemas: Iterable[pa.Schema]) -> Scan:
    """Rewrite a statement to use microseconds; `schemas` are those of the tables that it mentions.

    Strings and dates are times if they're compared with a column that is a time in every table that has it.
    """
    fields = [field for schema in schemas for field in schema]
    columns = {one.name for one in fields} - {one.name for one in fields if not pa.types.is_timestamp(one.type)}
    changes = _Changes(scanned, columns).find() if scanned.is_certain else {}
    return scan(scanned.with_replaced(sorted(changes.items(), key=lambda one: one[0].start))) if changes else scanned


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _has_far_value(column: pa.Array) -> bool:
    return bool(pc.any(pc.invert(pc.is_in(pc.year(column), pa.array(_YEARS, pa.int64()), skip_nulls=True))).as_py())


class _Changes:
    """Finds the tokens to replace in a statement, and their replacements."""

    def __init__(self, scanned: Scan, columns: set[str]) -> None:
        self._scanned = scanned
        self._tokens = scanned.tokens
        self._columns = columns
        self._opened_by = {
            inner: opened for opened, closed in find_brackets(scanned).items() for inner in range(opened + 1, closed)
        }

    def find(self) -> dict[Token, str]:
        found = dict(self._types())
        for first, last in self._values():
            if not self._is_compared(first, last):
                continue
            tokens = self._tokens[first : last + 1]
            if tokens[0].kind is Kind.PLACEHOLDER:
                found[tokens[0]] = f"CAST({tokens[0].text} AS {_MICROSECONDS})"
                continue
            text = next(token.text for token in tokens if token.kind is Kind.STRING)
            found |= dict.fromkeys(tokens, "") | {tokens[0]: f"{_MICROSECONDS} {text}"}
        return found

    def _name(self, position: int) -> str:
        return self._tokens[position].name if 0 <= position < len(self._tokens) else ""

    def _types(self) -> Iterator[tuple[Token, str]]:
        """Yield replacements for type names and current-time functions, which have nanoseconds."""
        tokens = self._tokens
        casts = {
            position
            for _, last in find_calls(self._scanned, _CASTS)
            for position in (last - 1, last - 4)
            if self._name(position - 1) == "as"
        }
        for position, token in enumerate(tokens):
            if token.kind is not Kind.WORD:
                continue
            following = tokens[position + 1 : position + 2]
            is_literal = bool(following) and (following[0].kind is Kind.STRING or self._name(position + 3) == "zone")
            is_type = position in casts or self._name(position - 1) == "::" or is_literal
            if token.name in _TYPES and is_type and self._name(position + 1) != "(":
                yield token, _TYPES[token.name]
            elif token.name in _NOW and self._name(position - 1) != ".":
                has_brackets = self._name(position + 1) == "(" and self._name(position + 2) == ")"
                if has_brackets:
                    yield token, f"CAST({token.text}"
                    yield tokens[position + 2], f") AS {_WITH_ZONE})"
                elif token.name == "current_timestamp":
                    yield token, f"CAST({token.text} AS {_WITH_ZONE})"

    def _values(self) -> Iterator[tuple[int, int]]:
        """Yield the first and last token of each string, date, and placeholder."""
        for position, token in enumerate(self._tokens):
            if token.kind is Kind.PLACEHOLDER:
                yield position, position
            if token.kind is not Kind.STRING or not _DATE.fullmatch(token.text):
                continue
            before, after, then = (self._name(position + by) for by in (-1, 1, 2))
            if before == "date":
                yield position - 1, position
            elif after == "::" and then == "date":
                yield position, position + 2
            elif before == "(" and self._name(position - 2) in _CASTS and then == "date":
                yield position - 2, position + 3
            elif before not in {"timestamp", "timestamptz", "zone"} and after not in {"::", "as"}:
                yield position, position

    def _is_compared(self, first: int, last: int) -> bool:
        """Return whether a value is compared with a time column."""
        before = self._name(first - 1)
        if before in _COMPARISONS | {"between"}:
            return self._is_column(first - 2)
        if before == "and" and (start := _last(self._tokens[: first - 1], "between")) is not None:
            return _last(self._tokens[start : first - 1], "and") is None and self._is_column(start - 1)
        if before in {"(", ","} and self._name(opened := self._opened_by.get(first, 0) - 1) == "in":
            return self._is_column(opened - 1)
        if self._name(last + 1) in _COMPARISONS:
            position = last + 2
            while self._name(position + 1) == ".":
                position += 2
            return self._is_column(position)
        return False

    def _is_column(self, position: int) -> bool:
        position -= self._name(position) == "not"
        is_name = 0 <= position < len(self._tokens) and self._tokens[position].kind in _NAMES
        return is_name and self._name(position) in self._columns


def _last(tokens: Sequence[Token], name: str) -> int | None:
    return next((position for position in reversed(range(len(tokens))) if tokens[position].name == name), None)
