"""The summary above a column: the distribution of its values in all rows and in those that match the filters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import DURATION_NANOSECONDS, Kind, decoded, whole_steps
from micromegas_jupyter.notebook.results.filters import condition, hint, step_of, time_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.notebook.formats import ColumnFormat

MAX_TOP: Final = 5
MAX_CODED_VALUES: Final = 50_000
"""Columns with more distinct strings are counted each time, because storing the codes would take too much memory."""

_BINS = 24
_TAIL = 0.01
_FAR = 4
_NOWHERE = 255
_DAY = 86_400 * 10**9
# Some common clock steps, below and above a second.
_STEPS = (
    *np.multiply.outer(10 ** np.arange(9), (1, 2, 5)).ravel().tolist(),
    *np.multiply(10**9, (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200)).tolist(),
)
_MAX_END_CHARACTERS = 9


@dataclass(slots=True)
class Spread:
    """The distribution of a column's values; strings are in the column's notation."""

    distinct: int | None = None
    min: str | None = None
    max: str | None = None
    ends: list[str] = field(default_factory=list)
    """The lowest and the highest value, shortened, with their common part in between."""

    bars: list[int] = field(default_factory=list)
    matching: list[int] = field(default_factory=list)
    """The number of matching rows per bar; empty without a filter."""

    bins: list[str] = field(default_factory=list)
    """The bars' edges, one more than bars; the outermost bars also count values beyond."""

    top: list[tuple[str, int, int]] = field(default_factory=list)
    """The most frequent values, each with the number of matching rows and of all rows."""

    hint: str = ""
    """Example filters for the column."""


@dataclass(frozen=True, slots=True)
class CodedColumn:
    """The bar or value of each row, and the bars' edges (formatted as in filters) or the values."""

    codes: np.ndarray
    edges: tuple[str, ...] = ()
    values: Any = None
    """An Arrow array, or None."""


def code_column(column: pa.ChunkedArray, form: ColumnFormat) -> CodedColumn | None:
    """Return the code of each row, or None if there are too many distinct values."""
    if form.kind in (Kind.NESTED, Kind.OTHER):
        return None
    if form.kind not in (Kind.NUMBER, Kind.TIME):
        return _code_values(column)
    column = decoded(column)
    edges = _time_edges(column) if form.kind is Kind.TIME else _number_edges(column, form)
    if len(edges) <= 2:  # noqa: PLR2004 - one bar
        return None
    # Use the filters' comparison, so that a bar contains exactly the rows that its filter selects.
    is_there = column.is_valid()
    if types.is_floating(column.type):
        is_there = pc.and_(is_there, pc.invert(pc.is_nan(column).fill_null(False)))
    codes = np.zeros(len(column), np.uint8)
    for edge in edges[1:-1]:
        codes += condition(column, form, f">= {edge}").fill_null(False).to_numpy()
    codes[~is_there.to_numpy()] = _NOWHERE
    return CodedColumn(codes, tuple(edges))


def _code_values(column: pa.ChunkedArray) -> CodedColumn:
    if types.is_dictionary(column.type):
        whole = column.unify_dictionaries().combine_chunks()
        whole = whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
        # A dictionary may contain a value twice.
        once = _encoded(decoded(pa.chunked_array([whole.dictionary])))
        return CodedColumn(_codes(once.indices.take(whole.indices)), values=once.dictionary)
    encoded = _encoded(decoded(column))
    return CodedColumn(_codes(encoded.indices), values=encoded.dictionary)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    whole = column.combine_chunks().dictionary_encode()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.unify_dictionaries().chunks)


def _codes(indices: pa.Array) -> np.ndarray:
    codes: np.ndarray = indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes


def spread_of(
    column: pa.ChunkedArray, form: ColumnFormat, coded: CodedColumn | None, mask: np.ndarray | None
) -> Spread:
    """Return the distribution of the values in all rows and in those that the mask selects."""
    found = Spread(hint=hint(column, form))
    if form.kind in (Kind.NUMBER, Kind.TIME):
        _add_ends(found, decoded(column), form)
    if coded is None:
        return found
    if coded.values is not None:
        _add_top(found, form, coded, mask)
        return found
    bars = len(coded.edges) - 1
    found.bars = np.bincount(coded.codes, minlength=_NOWHERE + 1)[:bars].tolist()
    found.matching = [] if mask is None else np.bincount(coded.codes[mask], minlength=_NOWHERE + 1)[:bars].tolist()
    found.bins = list(coded.edges)
    return found


def _add_ends(found: Spread, column: pa.ChunkedArray, form: ColumnFormat) -> None:
    values = column.filter(pc.invert(pc.is_nan(column))) if types.is_floating(column.type) else column
    steps = whole_steps(values) if types.is_temporal(column.type) else values
    ends = pc.min_max(steps)
    if not ends["min"].is_valid:
        return
    low, high = pa.chunked_array([pa.repeat(ends[name], 1) for name in ("min", "max")]).cast(column.type).chunks
    (found.min,), (found.max,) = form.texts(pa.chunked_array([low])), form.texts(pa.chunked_array([high]))
    found.ends = _short_ends(found.min or "", found.max or "", form)


def _short_ends(low: str, high: str, form: ColumnFormat) -> list[str]:
    if low == high:
        return [low]
    if form.kind is Kind.NUMBER:
        is_short = max(len(low), len(high)) <= _MAX_END_CHARACTERS
        return [text if is_short else f"{float(text.replace(',', '')):.3g}" for text in (low, high)]
    days, clocks = zip(*(text.partition(" ")[::2] for text in (low, high)), strict=True)
    if days[0] != days[1] or not clocks[0]:
        return list(days)
    digits = next(digits for digits in (5, 8, 12, 18) if clocks[0][:digits] != clocks[1][:digits])
    return [clocks[0][:digits], days[0], clocks[1][:digits]]


def top_codes(coded: CodedColumn, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the codes of the most frequent values, and the numbers of matching rows and of all rows for each value."""
    size = len(coded.values)
    counts = np.bincount(coded.codes[coded.codes >= 0], minlength=size)
    matching = counts if mask is None else np.bincount(coded.codes[mask & (coded.codes >= 0)], minlength=size)
    best = np.argsort(-matching, kind="stable")[:MAX_TOP]
    return best[matching[best] > 0], matching, counts


def _add_top(found: Spread, form: ColumnFormat, coded: CodedColumn, mask: np.ndarray | None) -> None:
    best, matching, counts = top_codes(coded, mask)
    values = pa.chunked_array([coded.values.take(pa.array(best))], coded.values.type)
    texts = [text or "" for text in form.texts(values)]
    found.top = list(zip(texts, matching[best].tolist(), counts[best].tolist(), strict=True))
    found.distinct = int(np.count_nonzero(matching))


@np.errstate(over="ignore", invalid="ignore")  # for the largest floats
def _number_edges(column: pa.ChunkedArray, form: ColumnFormat) -> Sequence[str]:
    values, scale = column.drop_null(), 1.0
    if types.is_duration(values.type):
        scale = float(step_of(values.type)) / DURATION_NANOSECONDS[form.unit]
        values = whole_steps(values)
    numbers = values.cast(pa.float64(), safe=False).to_numpy() * scale
    if (span := _histogram_span(numbers[np.isfinite(numbers)])) is None:
        return ()
    from micromegas_jupyter.notebook.plotting.slots import number_slots

    edges = number_slots(np.array(span), bins=_BINS).edges
    if types.is_integer(column.type):
        return [str(number) for number in dict.fromkeys(map(int, np.ceil(edges)))]
    return [repr(edge).removesuffix(".0") for edge in edges.tolist()]


def _histogram_span(numbers: np.ndarray) -> tuple[float, float] | None:
    """Return the ends of a histogram, or None if all numbers are equal or if they are too far apart for a float."""
    if not len(numbers):
        return None
    low, high = float(numbers.min()), float(numbers.max())
    inner_low, inner_high = map(float, np.quantile(numbers, (_TAIL, 1 - _TAIL)))
    # Otherwise, a few outliers could leave all other values in one bar.
    if high - low > _FAR * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    # Bars that are as narrow as the numbers' precision cannot be distinguished.
    step = (high - low) / _BINS
    return (low, high) if low + step > low and high - step < high and np.isfinite(high - low) else None


def _time_edges(column: pa.ChunkedArray) -> Sequence[str]:
    ends = pc.min_max(whole_steps(column)).as_py()
    if ends["min"] is None or ends["min"] == ends["max"]:
        return ()
    size = int(step_of(column.type))
    low, high = ends["min"] * size, ends["max"] * size
    rough = -(-(high - low) // _BINS)
    step = next((step for step in _STEPS if step >= max(rough, size)), -(-rough // _DAY) * _DAY)
    first = low // step * step
    kind = pa.timestamp("ns", getattr(column.type, "tz", None))
    try:
        texts = [time_text(first + step * at, kind) for at in range((high - first) // step + 2)]
    except UsageError:
        return ()
    if types.is_time(column.type):
        return [text.split(" ")[1] for text in texts[:-1]] + ["24:00"]
    for ending in (":00", " 00:00"):
        if all(text.endswith(ending) for text in texts):
            texts = [text.removesuffix(ending) for text in texts]
    return texts
