"""Finds the lines of a plot in a result: a column of times, columns of numbers, and text columns that name the lines.

What a result lacks is said in one sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formatting import count_text, cut, printable
from micromegas_jupyter.notebook.results.table import decoded, type_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ZONE_CHARACTERS = 40
MAX_POINTS = 2_000
_POINTS_OF_A_STRETCH = 4
MAX_LINES = 12
_MICROSECONDS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
# A time of the years 2 to 9998 has its place in every zone.
_EARLIEST, _LATEST = -62_104_060_800_000_000, 253_370_764_800_000_000
_LARGEST_VALUE = 1e290  # sums of larger ones are no numbers any more
_MAX_NAME_CHARACTERS = 80
_MAX_LISTED_COLUMNS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotZone:
    """A time zone and what a person is told of it."""

    zone: tzinfo
    label: str

    def local_time(self, microseconds: int) -> datetime:
        """Return so many microseconds since the beginning of 1970, UTC, as a time in this zone."""
        return (_EPOCH + timedelta(microseconds=microseconds)).astimezone(self.zone)


def plot_zone(name: str | None) -> PlotZone:
    """Return the zone of that name; times without one, and of one that nobody knows, are labelled as in UTC."""
    if name is None:
        return PlotZone(zone=UTC, label="no time zone")
    if offset := _OFFSET.fullmatch(name):
        sign, hours, minutes = offset.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        return PlotZone(zone=timezone(ahead), label=f"UTC{name}" if ahead else "UTC")
    shown = cut(printable(name), _MAX_ZONE_CHARACTERS)
    try:
        return PlotZone(zone=ZoneInfo(name), label=shown)
    except (ValueError, LookupError, OSError):
        return PlotZone(zone=UTC, label=f"UTC, for {shown} is not known here")


def thinned(times: np.ndarray, values: np.ndarray, *, begin: int, end: int, max_points: int) -> np.ndarray:
    """Return the indices, ascending, of at most `max_points` points.

    Args:
        times: Ascending whole numbers from `begin` to `end`.
        values: Finite numbers, one for each time.
        begin: Where the first stretch begins.
        end: Where the last stretch ends.
        max_points: At least four.
    """
    if len(times) <= max_points:
        return np.arange(len(times))
    stretches = max_points // _POINTS_OF_A_STRETCH
    share = (times - begin).astype(np.float64) / (float(end - begin) or 1.0)
    stretch = np.minimum((share * stretches).astype(np.int64), stretches - 1)
    by_value = np.lexsort((values, stretch))
    # Both orders have the stretches one after the other, at the same places.
    firsts = np.flatnonzero(np.diff(stretch, prepend=-1))
    lasts = np.append(firsts[1:], len(stretch)) - 1
    return np.unique(np.concatenate((firsts, lasts, by_value[firsts], by_value[lasts])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a plot.

    Attributes:
        name: What it is called.
        times: Microseconds since 1970, UTC, ascending.
        values: A finite number for each time.
        stretches: Grows where a null or a value that is no number lies between two points: no line joins them.
    """

    name: str
    times: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    stretches: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSeries:
    """What a plot shows: its lines, what the values are called, and the column of times with its zone."""

    lines: tuple[Line, ...]
    value_name: str
    time_name: str
    zone: PlotZone


def time_series(table: pa.Table) -> TimeSeries:
    """Return the lines of a result.

    The first column of times counts. Each column of numbers makes a line for each combination of the values of the text
    columns; a text column of one value only names no line, and one that is called `unit` is the values' unit.
    """
    columns = [(field.name, decoded(table.column(index))) for index, field in enumerate(table.schema)]
    times = [(name, column) for name, column in columns if _is_time(column.type)]
    numbers = [(name, column) for name, column in columns if _is_number(column.type)]
    if not times:
        raise _missing("a column of times", table)
    if not numbers:
        raise _missing("a column of numbers", table)
    if not table.num_rows:
        raise UsageError("There is nothing to plot: the result has no rows.")
    time_name, time_column = times[0]
    varying, unit = _text_columns([(name, column) for name, column in columns if _is_text(column.type)])
    labels, which = _combinations(varying, table.num_rows)
    if len(labels) * len(numbers) > MAX_LINES:
        raise _too_many_lines([name for name, _ in varying], len(labels), len(numbers))
    at = _microseconds(time_column)
    lines = [
        _line(_line_name(name, label, alone=len(numbers) == 1), at[which == index], values[which == index])
        for name, values in ((name, _values(column)) for name, column in numbers)
        for index, label in enumerate(labels)
    ]
    drawn = tuple(line for line in lines if len(line.times))
    if not drawn:
        raise UsageError("There is nothing to plot: no row has both a time and a number.")
    value_name = _shown(numbers[0][0]) if len(numbers) == 1 else "value"
    unit = unit or ("s" if all(pa.types.is_duration(column.type) for _, column in numbers) else "")
    zone = plot_zone(time_column.type.tz if pa.types.is_timestamp(time_column.type) else None)
    return TimeSeries(
        lines=drawn,
        value_name=f"{value_name} ({unit})" if unit else value_name,
        time_name=_shown(time_name),
        zone=zone,
    )


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_duration(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_columns(columns: Sequence[tuple[str, pa.ChunkedArray]]) -> tuple[list[tuple[str, pa.ChunkedArray]], str]:
    """Return the text columns that vary, as bytes and encoded, and the unit that a column without variation states."""
    varying, unit = [], ""
    for name, column in columns:
        # Bytes, because what a server sends as text need not be text.
        encoded = column.cast(pa.large_string()).cast(pa.large_binary()).combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = pa.concat_arrays(encoded.chunks) if encoded.num_chunks else pa.array([], pa.large_binary())
        encoded = pc.dictionary_encode(encoded, null_encoding="encode")
        values = len(encoded.dictionary)
        if values > MAX_LINES:
            raise _too_many_lines([name], values, 1)
        if values > 1:
            varying.append((name, encoded))
        elif values == 1 and name.lower() == "unit":
            unit = _label(encoded.dictionary[0])
    return varying, unit


def _combinations(columns: Sequence[tuple[str, pa.Array]], rows: int) -> tuple[list[str], np.ndarray]:
    """Return the names of the combinations that occur, and for each row which of them it has."""
    if not columns:
        return [""], np.zeros(rows, np.int64)
    codes = np.zeros(rows, np.int64)
    for _, encoded in columns:
        # Numbered anew each time: many columns would make numbers too large.
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
        codes = np.unique(codes, return_inverse=True)[1]
    firsts = np.unique(codes, return_index=True)[1]
    labels = [
        " · ".join(_label(encoded.dictionary[encoded.indices[int(row)].as_py()]) for _, encoded in columns)
        for row in firsts
    ]
    return labels, codes


def _label(value: pa.Scalar) -> str:
    text: bytes | None = value.as_py()
    return "null" if text is None else _shown(text.decode("utf-8", "replace"))


def _shown(name: str) -> str:
    return cut(printable(cut(name, _MAX_NAME_CHARACTERS)), _MAX_NAME_CHARACTERS)


def _line_name(column: str, label: str, *, alone: bool) -> str:
    if not label:
        return _shown(column)
    return label if alone else f"{label} · {_shown(column)}"


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Return times as floating microseconds, NaN for null and for what no calendar has."""
    kind = column.type
    if pa.types.is_date32(kind):
        column, factor = column.cast(pa.timestamp("s")), _MICROSECONDS["s"]
    elif pa.types.is_date64(kind):
        factor = _MICROSECONDS["ms"]
    else:
        factor = _MICROSECONDS[kind.unit]
    times = _floats(column.cast(pa.int64())) * factor
    times[~((times >= _EARLIEST) & (times <= _LATEST))] = np.nan
    return times


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Return numbers, NaN for null and for what cannot be drawn; durations in seconds."""
    if pa.types.is_duration(column.type):
        return _floats(column.cast(pa.int64())) * (_MICROSECONDS[column.type.unit] / _MICROSECONDS["s"])
    if pa.types.is_decimal(column.type):
        column = pa.chunked_array(
            [[None if value is None else float(value) for value in column.to_pylist()]], pa.float64()
        )
    values = _floats(column)
    values[~(np.abs(values) <= _LARGEST_VALUE)] = np.nan
    return values


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _line(name: str, times: np.ndarray, values: np.ndarray) -> Line:
    known = ~np.isnan(times)
    order = np.argsort(times[known], kind="stable")
    times, values = times[known][order], values[known][order]
    drawn = ~np.isnan(values)
    stretches = np.cumsum(~drawn)
    return Line(name=name, times=times[drawn].astype(np.int64), values=values[drawn], stretches=stretches[drawn])


def _missing(what: str, table: pa.Table) -> UsageError:
    listed = [f"{_shown(column.name)} {type_text(column.type)}" for column in list(table.schema)[:_MAX_LISTED_COLUMNS]]
    more = ", …" if table.num_columns > _MAX_LISTED_COLUMNS else ""
    return UsageError(
        f"--plot needs {what}, and this result has none ({', '.join(listed) or 'no columns'}{more}).",
        remedy="Select a time and a number, for example: SELECT time, value FROM measures.",
    )


def _too_many_lines(names: Sequence[str], values: int, numbers: int) -> UsageError:
    columns = " and ".join(_shown(name) for name in names) or "the columns of numbers"
    what = f"{columns} would make {count_text(values * numbers)} lines, and --plot draws at most {MAX_LINES}."
    return UsageError(what, remedy="Keep fewer with WHERE, group them, or leave the column out.")
