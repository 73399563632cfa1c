"""How a column's values are shown: one notation for the whole column, SQL's names for its type, one text per value.

What Arrow's types do not allow (text that is not UTF-8, an unknown time zone) is written as bytes or in UTC.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.notebook.shell import cut, printable

MAX_CELL_CHARACTERS: Final = 200
NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
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
_SECONDS_PER_DAY = 86_400
# Numbers that name something: separators would make them harder to read and to search for.
_IDENTIFIER = re.compile(r"(^|_)(id|pid|tid|uid|gid|port|year|line|version|code|hash|key)$", re.IGNORECASE)
_UNIT = re.compile(r"_(bytes|seconds|secs|s|ms|us|ns|percent|hz|celsius)$", re.IGNORECASE)
_TIME_FORMATS: Final = {"day": "%Y-%m-%d", "minute": "%Y-%m-%d %H:%M"}
_SECONDS_FORMAT = "%Y-%m-%d %H:%M:%S"


class Kind(StrEnum):
    """What a person can do with a column: how it is aligned, compared and summed up."""

    NUMBER = "number"
    TIME = "time"
    TEXT = "text"
    BOOLEAN = "boolean"
    NESTED = "json"
    BINARY = "binary"
    OTHER = "other"


_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_WIDER = (
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_string_view, pa.large_string()),
    (pa.types.is_binary_view, pa.large_binary()),
)
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_KINDS = {
    Kind.BOOLEAN: (pa.types.is_boolean,),
    Kind.NUMBER: (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_duration),
    Kind.TIME: (pa.types.is_timestamp, pa.types.is_date, pa.types.is_time),
    Kind.TEXT: _TEXT,
    Kind.NESTED: (pa.types.is_nested,),
    Kind.BINARY: _BINARY,
}
_SQL_TYPES = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_int8, "tinyint"),
    (pa.types.is_int16, "smallint"),
    (pa.types.is_int32, "integer"),
    (pa.types.is_int64, "bigint"),
    (pa.types.is_uint8, "tinyint unsigned"),
    (pa.types.is_uint16, "smallint unsigned"),
    (pa.types.is_uint32, "integer unsigned"),
    (pa.types.is_uint64, "bigint unsigned"),
    (pa.types.is_float32, "real"),
    (pa.types.is_float64, "double precision"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "interval"),
    (pa.types.is_interval, "interval"),
    (pa.types.is_struct, "struct"),
    (pa.types.is_map, "map"),
    *((check, "text") for check in _TEXT),
    *((check, "bytea") for check in _BINARY),
)


def column_kind(kind: pa.DataType) -> Kind:
    """Return the kind of an Arrow type."""
    kind = _inner(kind)
    return next((found for found, checks in _KINDS.items() if any(check(kind) for check in checks)), Kind.OTHER)


def sql_type(kind: pa.DataType) -> str:
    """Return a type's name in SQL: `bigint`, `text`, `timestamp (UTC)`, `decimal(18,4)`, `text[]`."""
    kind = _inner(kind)
    types, name = pa.types, str(kind)
    if types.is_timestamp(kind):
        name = "timestamp" if kind.tz is None else f"timestamp ({'UTC' if kind.tz in UTC_NAMES else kind.tz})"
    elif types.is_decimal(kind):
        name = f"decimal({kind.precision},{kind.scale})"
    elif any(check(kind) for check in _LISTS):
        name = f"{sql_type(kind.value_type)}[]"
    else:
        name = next((found for check, found in _SQL_TYPES if check(kind)), name)
    return _short(name)


def _inner(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values in a dictionary, in runs or in an extension type."""
    while True:
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the same values in a type that Arrow computes with; most columns are returned as they are."""
    kind, types = column.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return decoded(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if types.is_run_end_encoded(kind):
        return decoded(pc.run_end_decode(column))
    if types.is_dictionary(kind):
        values = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
        return decoded(pa.chunked_array(values, kind.value_type))
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return column.cast(pa.decimal128(kind.precision, kind.scale))
    wider = next((found for check, found in _WIDER if check(kind)), None)
    return column if wider is None else column.cast(wider)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFormat:
    """The notation of one column; `unit` stands in its head, so that no value has to repeat it."""

    kind: Kind
    unit: str = ""
    decimals: int = 0
    is_scientific: bool = False
    is_grouped: bool = True
    resolution: str = ""
    """Of a time: `day`, `minute`, `s`, `ms`, `us` or `ns`, the coarsest that shows all values in full."""

    def texts(self, column: pa.ChunkedArray) -> list[str | None]:
        """Return one short text for each value, None for null; meant for a few rows, not for a whole result."""
        column = decoded(column)
        match self.kind:
            case Kind.NUMBER:
                return [None if number is None else self._number(number) for number in _numbers(column)]
            case Kind.BOOLEAN:
                return [None if value is None else str(value).lower() for value in column.to_pylist()]
            case Kind.TIME if not pa.types.is_time(column.type):
                return [None if text is None else _short(text) for text in self._times(column)]
        return [None if text is None else _short(text) for text in _plain_texts(column)]

    def _number(self, number: Any) -> str:
        if self.is_scientific:
            return f"{number:.{self.decimals}e}"
        if not self.is_grouped:
            return f"{number:.{self.decimals}f}" if isinstance(number, float) else str(number)
        if isinstance(number, float):
            return f"{number:,.{self.decimals}f}"
        if isinstance(number, Decimal):
            return f"{number:,f}"
        if self.unit in DURATION_NANOSECONDS and isinstance(number, _Nanoseconds):
            return _scaled(int(number), DURATION_NANOSECONDS[self.unit], self.decimals)
        return f"{number:,}"

    def _times(self, column: pa.ChunkedArray) -> list[str | None]:
        pattern = _TIME_FORMATS.get(self.resolution, _SECONDS_FORMAT)
        if self.resolution in NANOSECONDS and pa.types.is_timestamp(column.type):
            # Arrow writes as many digits behind %S as the type's unit has.
            column = column.cast(pa.timestamp(self.resolution, column.type.tz), safe=False)
        try:
            texts: list[str | None] = pc.strftime(column, pattern).to_pylist()
        except pa.ArrowException:  # a zone that nobody knows: in UTC, and saying so
            texts = column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.string()).to_pylist()
        return texts


class _Nanoseconds(int):
    """A duration."""


DURATION_NANOSECONDS: Final = {"h": 3600 * 10**9, "min": 60 * 10**9, "s": 10**9, "ms": 10**6, "µs": 10**3, "ns": 1}


def choose_format(field: pa.Field, column: pa.ChunkedArray) -> ColumnFormat:
    """Return the notation that suits all values of a column."""
    kind, types = column_kind(field.type), pa.types
    plain = decoded(column.slice(0, 0)).type
    if kind is Kind.NUMBER:
        if types.is_duration(plain):
            return _duration_format(column)
        unit = _unit(field)
        if types.is_floating(plain):
            return _float_format(decoded(column), unit=unit)
        scale = plain.scale if types.is_decimal(plain) else 0
        is_grouped = scale > 0 or not _IDENTIFIER.search(field.name)
        return ColumnFormat(kind=kind, unit=unit, decimals=max(scale, 0), is_grouped=is_grouped)
    if kind is Kind.TIME:
        return ColumnFormat(kind=kind, resolution=_resolution(decoded(column)))
    return ColumnFormat(kind=kind)


def _unit(field: pa.Field) -> str:
    """Return the unit that a column names in its metadata, or at the end of its name."""
    said = (field.metadata or {}).get(b"unit")
    if said:
        return _short(said.decode(errors="replace"))[:12]
    found = _UNIT.search(field.name)
    unit = found[1].lower() if found else ""
    return {"seconds": "s", "secs": "s", "us": "µs", "percent": "%", "hz": "Hz", "celsius": "°C"}.get(unit, unit)


@np.errstate(over="ignore", invalid="ignore")  # the largest floats
def _float_format(column: pa.ChunkedArray, *, unit: str) -> ColumnFormat:
    values = column.drop_null()
    ends = pc.min_max(pc.abs(values)).as_py()
    sample = _sample(values).cast(pa.float64()).to_numpy()
    sample = np.abs(sample[np.isfinite(sample) & (sample != 0)])
    if not len(sample):
        return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=1)
    largest = ends["max"] if np.isfinite(ends["max"] or 0.0) else sample.max()
    usual = float(np.sort(sample)[len(sample) // 2])
    decimals = _decimals(sample, usual, precision=1e-15 if pa.types.is_float64(column.type) else 1e-7)
    is_hidden = np.mean(sample < 0.5 * 10.0**-decimals) > _MANY_TOO_SMALL
    if largest >= _SCIENTIFIC_FROM or usual < _SCIENTIFIC_BELOW or is_hidden:
        return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=4, is_scientific=True)
    return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=decimals)


def _decimals(sample: np.ndarray, usual: float, *, precision: float) -> int:
    """Return the fewest decimals that write the values exactly, or else tell them apart."""
    for decimals in range(_USUAL_DECIMALS):
        if np.allclose(sample, np.round(sample, decimals), rtol=precision, atol=0):
            return decimals
    distinct = len(np.unique(sample))
    for decimals in range(max(0, 2 - int(np.floor(np.log10(usual)))), _MAX_DECIMALS):
        if len(np.unique(np.round(sample, decimals))) >= _DISTINCT_SHARE * distinct:
            return decimals
    return _MAX_DECIMALS


def _sample(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if len(column) <= _SAMPLE_ROWS:
        return column
    return column.take(pa.array(np.linspace(0, len(column) - 1, _SAMPLE_ROWS).astype(np.int64)))


def _duration_format(column: pa.ChunkedArray) -> ColumnFormat:
    per_unit = NANOSECONDS[column.type.unit]
    values = np.abs(column.drop_null().cast(pa.int64()).to_numpy())
    values = values[values != 0]
    if not len(values):
        return ColumnFormat(kind=Kind.NUMBER, unit="s")
    usual = float(np.median(values)) * per_unit
    unit = next(name for name, size in DURATION_NANOSECONDS.items() if usual >= size or size == 1)
    size = DURATION_NANOSECONDS[unit]
    decimals = 0
    while decimals < _MAX_DECIMALS and size > per_unit:
        step = size // (10**decimals * per_unit)
        if step <= 1 or _are_multiples(values, step):
            break
        decimals += 1
    return ColumnFormat(kind=Kind.NUMBER, unit=unit, decimals=decimals)


def _are_multiples(numbers: np.ndarray, step: int) -> bool:
    # Mostly the first ones tell already.
    return not (numbers[:_SAMPLE_ROWS] % step).any() and not (numbers % step).any()


def _scaled(nanoseconds: int, size: int, decimals: int) -> str:
    scaled, sign = abs(nanoseconds) * 10**decimals // size, "-" if nanoseconds < 0 else ""
    whole, rest = divmod(scaled, 10**decimals)
    return f"{sign}{whole:,}" + (f".{rest:0{decimals}d}" if decimals else "")


def _resolution(column: pa.ChunkedArray) -> str:
    if not pa.types.is_timestamp(column.type):
        return "day" if pa.types.is_date(column.type) else ""
    per_second = 10**9 // NANOSECONDS[column.type.unit]
    values = column.drop_null()
    zone = column.type.tz
    if zone is not None and zone not in UTC_NAMES:
        with suppress(pa.ArrowException):  # a zone that nobody knows
            values = pc.local_timestamp(values)
    numbers = values.cast(pa.timestamp(column.type.unit)).cast(pa.int64()).to_numpy()
    if _are_multiples(numbers, per_second):
        for name, seconds in (("day", _SECONDS_PER_DAY), ("minute", 60)):
            if len(numbers) and _are_multiples(numbers, seconds * per_second):
                return name
        return "s"
    for unit in ("ms", "us"):
        step = per_second // (10**9 // NANOSECONDS[unit])
        if step and _are_multiples(numbers, step):
            return unit
    return "ns"


def _numbers(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_duration(column.type):
        size = NANOSECONDS[column.type.unit]
        numbers = column.cast(pa.int64()).to_pylist()
        return [None if number is None else _Nanoseconds(number * size) for number in numbers]
    if pa.types.is_float32(column.type):
        # The shortest text that stands for the value, as wide as a Python float: 0.1, not 0.10000000149.
        return [None if number is None else float(str(np.float32(number))) for number in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def _short(text: str) -> str:
    # Cut first: a value may be megabytes long.
    return cut(printable(cut(text, MAX_CELL_CHARACTERS)), MAX_CELL_CHARACTERS)


def _plain_texts(column: pa.ChunkedArray) -> list[str | None]:
    if column_kind(column.type) in (Kind.NESTED, Kind.BINARY):
        return [_scalar_text(scalar) if scalar.is_valid else None for scalar in column]
    try:
        if column_kind(column.type) is Kind.TEXT:
            # A value may be megabytes long, and Python needs only its beginning.
            column = pc.utf8_slice_codeunits(column, 0, MAX_CELL_CHARACTERS + 1)
        texts = column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        # An interval, an extension type, what is no text: written value by value.
        return [_scalar_text(scalar) if scalar.is_valid else None for scalar in column]
    return [None if text is None else _one_line(text) for text in texts]


def _one_line(text: str) -> str:
    """Return JSON that stands on several lines on one; other texts stay as they are."""
    return re.sub(r"\s*\n\s*", " ", text) if text[:1] in ("{", "[") else text


def _scalar_text(scalar: pa.Scalar) -> str:
    values = getattr(scalar, "values", None)
    if isinstance(values, pa.Array) and len(values) > _MAX_ITEMS:
        return f"[{len(values):,} values]"
    try:
        if pa.types.is_nested(scalar.type):
            return json_text(scalar)
        value = scalar.cast(pa.large_binary()).as_py() if column_kind(scalar.type) is Kind.TEXT else scalar.as_py()
        if isinstance(value, bytes):
            shown = value[:_MAX_BYTES_SHOWN].hex()
            return f"0x{shown}" if len(value) <= _MAX_BYTES_SHOWN else f"0x{shown}… ({len(value):,} bytes)"
        if isinstance(value, pa.MonthDayNano):
            return f"{value.months} months {value.days} days {_scaled(value.nanoseconds, 10**9, 9)} s"
        return str(value)
    except (ValueError, LookupError, ArithmeticError, TypeError, NotImplementedError, pa.ArrowException):
        return "(cannot be written)"


def json_text(scalar: pa.Scalar, *, indent: int | None = None) -> str:
    """Return a nested value as JSON; what JSON has no type for stands as text."""
    write = partial(json.dumps, ensure_ascii=False, indent=indent, default=_json_value)
    try:
        return write(scalar.as_py(maps_as_pydicts="strict"))
    except (KeyError, TypeError):  # a map whose keys come twice, or are no texts: as pairs
        return write(scalar.as_py())


def _json_value(value: object) -> object:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
