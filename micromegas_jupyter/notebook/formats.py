"""How a column's values are displayed: one notation per column, SQL type names, and one string per value.

Values that Arrow's types don't allow (invalid UTF-8, unknown time zones) are shown as bytes or in UTC.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.core.jsonb import holds_jsonb, is_declared_jsonb, json_texts
from micromegas_jupyter.core.text import cut, printable

MAX_CELL_CHARACTERS: Final = 200
NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DURATION_NANOSECONDS: Final = {"h": 3600 * 10**9, "min": 60 * 10**9, "s": 10**9, "ms": 10**6, "µs": 10**3, "ns": 1}
UTC_NAMES: Final = frozenset({"UTC", "+00:00", "Z", "Etc/UTC"})

_MAX_BYTES_SHOWN = 24
_MAX_ITEMS = 1000
_MAX_DECIMALS = 9
_USUAL_DECIMALS = 5
_SAMPLE_ROWS = 10_000
_SCIENTIFIC_FROM = 1e15
_SCIENTIFIC_BELOW = 1e-4
_DISTINCT_SHARE = 0.95
_MANY_TOO_SMALL = 0.01
# Numbers that identify something; separators would make them harder to read and to search for.
_IDENTIFIER = re.compile(r"(^|_)(id|pid|tid|uid|gid|port|year|line|version|code|hash|key)$", re.IGNORECASE)
_UNIT = re.compile(r"_(bytes|seconds|secs|s|ms|us|ns|percent|hz|celsius)$", re.IGNORECASE)
_TIME_FORMATS: Final = {"day": "%Y-%m-%d", "minute": "%Y-%m-%d %H:%M"}


class Kind(StrEnum):
    """How a column is aligned, compared, and summarized."""

    NUMBER = "number"
    TIME = "time"
    TEXT = "text"
    BOOLEAN = "boolean"
    NESTED = "json"
    BINARY = "binary"
    OTHER = "other"


_KINDS = {
    Kind.BOOLEAN: (types.is_boolean,),
    Kind.NUMBER: (types.is_integer, types.is_floating, types.is_decimal, types.is_duration),
    Kind.TIME: (types.is_timestamp, types.is_date, types.is_time),
    Kind.TEXT: (types.is_string, types.is_large_string, types.is_string_view),
    Kind.NESTED: (types.is_nested,),
    Kind.BINARY: (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view),
}
_WIDER = {"halffloat": pa.float32(), "string_view": pa.large_string(), "binary_view": pa.large_binary()}
_SQL_TYPES = {
    "bool": "boolean",
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "float": "real",
    "double": "double precision",
    "duration": "interval",
    "month_day_nano_interval": "interval",
}


def column_kind(kind: pa.DataType) -> Kind:
    """Return the kind of an Arrow type."""
    kind = _inner(kind)
    return next((found for found, checks in _KINDS.items() if any(check(kind) for check in checks)), Kind.OTHER)


def sql_type(kind: pa.DataType) -> str:
    """Return a type's SQL name: `bigint`, `text`, `timestamp (UTC)`, `decimal(18,4)`, `text[]`."""
    kind = _inner(kind)
    name = re.split(r"[\[<]", str(kind))[0]
    if types.is_timestamp(kind):
        zone = kind.tz if kind.tz is None or _is_known_zone(kind.tz) else "UTC"
        name = "timestamp" if zone is None else f"timestamp ({'UTC' if zone in UTC_NAMES else zone})"
    elif types.is_decimal(kind):
        name = f"decimal({kind.precision},{kind.scale})"
    elif types.is_unsigned_integer(kind):
        name = f"{_SQL_TYPES[name[1:]]} unsigned"
    elif types.is_date(kind) or types.is_time(kind):
        name = name[:4]
    elif hasattr(kind, "value_type"):
        name = f"{sql_type(kind.value_type)}[]"
    else:
        name = {Kind.TEXT: "text", Kind.BINARY: "bytea"}.get(column_kind(kind)) or _SQL_TYPES.get(name, name)
    return _short(name)


def sql_type_of(field: pa.Field) -> str:
    """Return the SQL name of a column's type, which is `jsonb` if the schema marks it so."""
    return "jsonb" if is_declared_jsonb(field) else sql_type(field.type)


def _inner(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values in a dictionary, run-end encoding, or extension type."""
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _inner(kind.value_type)
    return _inner(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _is_known_zone(zone: str) -> bool:
    try:
        pc.local_timestamp(pa.array([0], pa.timestamp("s", zone)))
    except pa.ArrowException:
        return False
    return True


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values as a type that Arrow can compute with; most columns are returned unchanged."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return decoded(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if types.is_run_end_encoded(kind):
        return decoded(pc.run_end_decode(column))
    if types.is_dictionary(kind):
        values = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
        return decoded(pa.chunked_array(values, kind.value_type))
    if types.is_timestamp(kind) and kind.tz is not None and not _is_known_zone(kind.tz):
        return column.cast(pa.timestamp(kind.unit, "UTC"))
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return column.cast(pa.decimal128(kind.precision, kind.scale))
    wider = _WIDER.get(str(kind))
    return column if wider is None else column.cast(wider)


def whole_steps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times and durations as integers, in the unit of their type."""
    return column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())  # noqa: PLR2004 - bits


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFormat:
    """The notation of one column; the header shows `unit` so that the values don't have to repeat it."""

    kind: Kind
    unit: str = ""
    decimals: int = 0
    is_scientific: bool = False
    is_grouped: bool = True
    is_jsonb: bool = False
    """Whether the values are binary JSON, which is shown as JSON text."""

    resolution: str = ""
    """For times: `day`, `minute`, `s`, `ms`, `us`, or `ns`, the coarsest that shows all values in full."""

    def texts(self, column: pa.ChunkedArray) -> list[str | None]:
        """Return a short string for each value, or None for null; meant for a few rows, not for a whole result."""
        column = decoded(json_texts(column) if self.is_jsonb else column)
        if self.kind is Kind.NUMBER:
            return [None if number is None else self.number_text(number) for number in self._numbers(column)]
        if self.resolution in NANOSECONDS:
            # For %S, Arrow writes all digits of the type's unit.
            column = column.cast(pa.timestamp(self.resolution, column.type.tz), safe=False)
        pattern = _TIME_FORMATS.get(self.resolution, "%Y-%m-%d %H:%M:%S")
        texts = pc.strftime(column, pattern).to_pylist() if self.resolution else _plain_texts(column)
        return [None if text is None else _short(text) for text in texts]

    def _numbers(self, column: pa.ChunkedArray) -> list[Any]:
        if types.is_duration(column.type):
            size, unit = NANOSECONDS[column.type.unit], DURATION_NANOSECONDS[self.unit]
            steps = whole_steps(column).to_pylist()
            return [None if number is None else Decimal(number * size) / unit for number in steps]
        if types.is_float32(column.type):
            # Uses the shortest string that represents the value: 0.1, not 0.10000000149.
            column = column.cast(pa.string()).cast(pa.float64())
        return list(column.to_pylist())

    def number_text(self, number: Any) -> str:
        """Format a number."""
        separator = "," if self.is_grouped and not self.is_scientific else ""
        if isinstance(number, int):
            return f"{number:{separator}}"
        return f"{number:{separator}.{self.decimals}{'e' if self.is_scientific else 'f'}}"


def choose_format(field: pa.Field, column: pa.ChunkedArray) -> ColumnFormat:
    """Return the notation that suits all values of a column."""
    kind = column_kind(field.type)
    if kind is Kind.BINARY and holds_jsonb(field, column):
        return ColumnFormat(kind=Kind.TEXT, is_jsonb=True)
    if kind not in (Kind.NUMBER, Kind.TIME):
        return ColumnFormat(kind=kind)
    column = decoded(column)
    if kind is Kind.TIME:
        return ColumnFormat(kind=kind, resolution=_resolution(column))
    if types.is_duration(column.type):
        return _duration_format(column)
    if types.is_floating(column.type):
        return _float_format(column, unit=_unit(field))
    scale = max(column.type.scale, 0) if types.is_decimal(column.type) else 0
    is_grouped = scale > 0 or not _IDENTIFIER.search(field.name)
    return ColumnFormat(kind=kind, unit=_unit(field), decimals=scale, is_grouped=is_grouped)


def _unit(field: pa.Field) -> str:
    """Return the unit in a column's metadata or at the end of its name."""
    said = (field.metadata or {}).get(b"unit")
    if said:
        return _short(said.decode(errors="replace"))[:12]
    found = _UNIT.search(field.name)
    unit = found[1].lower() if found else ""
    return {"seconds": "s", "secs": "s", "us": "µs", "percent": "%", "hz": "Hz", "celsius": "°C"}.get(unit, unit)


@np.errstate(over="ignore", invalid="ignore")  # for the largest floats
def _float_format(column: pa.ChunkedArray, *, unit: str) -> ColumnFormat:
    values = column.drop_null()
    ends = pc.min_max(pc.abs(values)).as_py()
    places = np.linspace(0, len(values) - 1, min(len(values), _SAMPLE_ROWS)).astype(np.int64)
    sample = values.take(pa.array(places)).cast(pa.float64()).to_numpy()
    sample = np.abs(sample[np.isfinite(sample) & (sample != 0)])
    if not len(sample):
        return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=1)
    largest = ends["max"] if np.isfinite(ends["max"] or 0.0) else sample.max()
    usual = float(np.sort(sample)[len(sample) // 2])
    decimals = _decimals(sample, usual, precision=1e-15 if types.is_float64(column.type) else 1e-7)
    is_hidden = np.mean(sample < 0.5 * 10.0**-decimals) > _MANY_TOO_SMALL
    is_scientific = bool(largest >= _SCIENTIFIC_FROM or usual < _SCIENTIFIC_BELOW or is_hidden)
    decimals = 4 if is_scientific else decimals
    return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=decimals, is_scientific=is_scientific)


def _decimals(sample: np.ndarray, usual: float, *, precision: float) -> int:
    """Return the fewest decimals that represent the values exactly, or at least distinguish them."""
    for decimals in range(_USUAL_DECIMALS):
        if np.allclose(sample, np.round(sample, decimals), rtol=precision, atol=0):
            return decimals
    distinct = len(np.unique(sample))
    for decimals in range(max(0, 2 - int(np.floor(np.log10(usual)))), _MAX_DECIMALS):
        if len(np.unique(np.round(sample, decimals))) >= _DISTINCT_SHARE * distinct:
            return decimals
    return _MAX_DECIMALS


def _duration_format(column: pa.ChunkedArray) -> ColumnFormat:
    per_unit = NANOSECONDS[column.type.unit]
    values = np.abs(whole_steps(column.drop_null()).to_numpy())
    values = values[values != 0]
    if not len(values):
        return ColumnFormat(kind=Kind.NUMBER, unit="s")
    usual = float(np.median(values)) * per_unit
    unit = next(name for name, size in DURATION_NANOSECONDS.items() if usual >= size or size == 1)
    steps = [DURATION_NANOSECONDS[unit] // (10**decimals * per_unit) for decimals in range(_MAX_DECIMALS)]
    decimals = next((place for place, step in enumerate(steps) if _are_multiples(values, step)), _MAX_DECIMALS)
    return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=decimals)


def _are_multiples(numbers: np.ndarray, step: int) -> bool:
    # Checking the first numbers is usually sufficient.
    return step <= 1 or not ((numbers[:_SAMPLE_ROWS] % step).any() or (numbers % step).any())


def _resolution(column: pa.ChunkedArray) -> str:
    if not types.is_timestamp(column.type):
        return "day" if types.is_date(column.type) else ""
    values = column.drop_null()
    numbers = whole_steps(values if column.type.tz is None else pc.local_timestamp(values)).to_numpy()
    per_unit = NANOSECONDS[column.type.unit]
    sizes = {"day": 86_400 * 10**9, "minute": 60 * 10**9, **NANOSECONDS}
    return next(name for name, size in sizes.items() if _are_multiples(numbers, size // per_unit))


def _short(text: str) -> str:
    # Truncate first, because a value may be megabytes long.
    return cut(printable(cut(text, MAX_CELL_CHARACTERS)), MAX_CELL_CHARACTERS)


def _plain_texts(column: pa.ChunkedArray) -> list[str | None]:
    if column_kind(column.type) is Kind.TEXT:
        with suppress(pa.ArrowException):  # invalid UTF-8
            # A value may be megabytes long, but Python needs only its beginning.
            column = pc.utf8_slice_codeunits(column, 0, MAX_CELL_CHARACTERS + 1)
    # Join multi-line JSON into a single line.
    texts = exact_texts(column, is_short=True)
    return [re.sub(r"\s*\n\s*", " ", text) if text and text[0] in "{[" else text for text in texts]


def exact_texts(column: pa.ChunkedArray, *, is_short: bool = False) -> list[str | None]:
    """Return each value in full, or None for null; `is_short` truncates long bytes and lists."""
    kind = column.type
    if types.is_duration(kind):
        return [None if number is None else f"{number} {kind.unit}" for number in whole_steps(column).to_pylist()]
    if column_kind(kind) not in (Kind.NESTED, Kind.BINARY) and not types.is_decimal(kind):
        with suppress(pa.ArrowException, UnicodeDecodeError):  # an interval, or invalid UTF-8
            texts: list[str | None] = column.cast(pa.large_string()).to_pylist()
            return texts
    return [_scalar_text(scalar, is_short=is_short) if scalar.is_valid else None for scalar in column]


def _scalar_text(scalar: pa.Scalar, *, is_short: bool) -> str:
    try:
        if types.is_nested(scalar.type):
            items = getattr(scalar, "values", ())
            is_long = is_short and isinstance(items, pa.Array) and len(items) > _MAX_ITEMS
            return f"[{len(items):,} values]" if is_long else _json_text(scalar)
        if column_kind(scalar.type) is Kind.TEXT:
            with suppress(UnicodeDecodeError):
                return str(scalar)
            scalar = scalar.cast(pa.large_binary())
        value = scalar.as_py()
        if isinstance(value, bytes):
            shown = value[:_MAX_BYTES_SHOWN] if is_short else value
            return f"0x{shown.hex()}" + ("" if len(shown) == len(value) else f"… ({len(value):,} bytes)")
        if isinstance(value, pa.MonthDayNano):
            return f"{value.months} months {value.days} days {Decimal(value.nanoseconds).scaleb(-9):f} s"
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    except (ValueError, LookupError, ArithmeticError, TypeError, NotImplementedError, pa.ArrowException):
        return "(cannot be written)"


def _json_text(scalar: pa.Scalar) -> str:
    """Return a nested value as JSON; types that JSON lacks become strings."""
    try:
        return json.dumps(scalar.as_py(maps_as_pydicts="strict"), ensure_ascii=False, default=_json_value)
    except (KeyError, TypeError):  # a map with duplicate or non-string keys is written as pairs
        return json.dumps(scalar.as_py(), ensure_ascii=False, default=_json_value)


def _json_value(value: object) -> object:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
