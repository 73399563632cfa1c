"""A result's rows in the order and with the filters that a person chose, summed up and exported; all of it exact."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from secrets import token_hex
from threading import RLock
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.filters import condition
from micromegas_jupyter.notebook.results.formats import (
    ColumnFormat,
    Kind,
    choose_format,
    column_kind,
    decoded,
    json_text,
    sql_type,
)
from micromegas_jupyter.notebook.shell import bytes_text, cut, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import IO

MAX_COPIED_CELLS: Final = 100_000
MAX_VALUE_CHARACTERS: Final = 1_000_000
EXPORT_FORMATS: Final = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
}
"""The media type of each format of a file."""

MAX_SORT_KEYS: Final = 100

_BINS = 24
_MAX_TOP = 5
_MAX_NAME_CHARACTERS = 100
_MAX_ORDERS = 2
_EXPORT_ROWS = 64 * 1024
_TAIL = 0.01
_FAR = 4


@dataclass(frozen=True, slots=True)
class Order:
    """Which rows, and in which order: filters as typed by column, and columns to sort by with `True` for descending."""

    filters: tuple[tuple[int, str], ...] = ()
    sort: tuple[tuple[int, bool], ...] = ()

    @classmethod
    def parse(cls, requested: object, *, columns: int) -> Order:
        """Return the order that a browser asks for."""
        try:
            filters, sort = requested["filters"], requested["sort"]  # type: ignore[index] # checked by what follows
            order = cls(
                tuple(sorted((int(index), str(typed)) for index, typed in filters.items())),
                tuple((int(index), bool(descending)) for index, descending in sort[:MAX_SORT_KEYS]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise UsageError("The grid asked for an order that it cannot have.", remedy="Run the cell again.") from None
        if any(not 0 <= index < columns for index, _ in (*order.filters, *order.sort)):
            raise UsageError("The grid asked for a column that it does not have.", remedy="Run the cell again.")
        return order


@dataclass(slots=True)
class Statistics:
    """What stands above a column; texts in the column's notation."""

    distinct: int | None = None
    min: str | None = None
    max: str | None = None
    bars: list[int] = field(default_factory=list)
    bins: list[str] = field(default_factory=list)
    """The bars' ends, one more than bars; the outermost bars also count what lies beyond."""

    top: list[tuple[str, int]] = field(default_factory=list)


class RowsView:
    """The rows of one table, for any thread: rows are never changed, and the lock guards what is kept about them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = _with_plain_nulls(table)
        self._lock = RLock()
        self._formats: dict[int, ColumnFormat] = {}
        self._orders: OrderedDict[Order, pa.Array | None] = OrderedDict({Order(): None})

    def format_of(self, index: int) -> ColumnFormat:
        """Return a column's notation."""
        with self._lock:
            if index not in self._formats:
                self._formats[index] = choose_format(self.table.schema[index], self.table.column(index))
            return self._formats[index]

    def columns(self, count: int) -> list[dict[str, object]]:
        """Return what a browser knows of each of the first columns."""
        return [
            {
                "name": cut(printable(found.name), _MAX_NAME_CHARACTERS),
                "type": sql_type(found.type),
                "arrow_type": cut(str(found.type), _MAX_NAME_CHARACTERS),
                "kind": self.format_of(index).kind.value,
                "unit": self.format_of(index).unit,
                "nulls": self.table.column(index).null_count,
                "sortable": _is_sortable(found.type),
            }
            for index, found in enumerate(list(self.table.schema)[:count])
        ]

    def count(self, order: Order) -> int:
        """Return how many rows the filters let through."""
        positions = self._positions(order)
        return int(self.table.num_rows if positions is None else len(positions))

    def rows(self, order: Order, first: int, count: int) -> pa.Table:
        """Return some of the rows."""
        positions = self._positions(order)
        if positions is None:
            return self.table.slice(first, count)
        return taken(self.table, positions.slice(first, count))

    def texts(self, order: Order, *, first: int, count: int, columns: int) -> list[list[str | None]]:
        """Return the short texts of some of the rows, one list for each of the first columns."""
        part = self.rows(order, first, count)
        return [self.format_of(index).texts(column) for index, column in enumerate(part.columns[:columns])]

    def value(self, order: Order, row: int, column: int) -> tuple[str, bool]:
        """Return a whole value, JSON over several lines, and whether it was cut."""
        part = decoded(self.rows(order, row, 1).column(column))
        if not len(part):
            raise UsageError("This row is not there any more.", remedy="Run the cell again.")
        (text,) = exact_texts(part, indent=2)
        text = "null" if text is None else text
        if text[:1] in ("{", "["):
            text = _indented(text)
        return cut(text, MAX_VALUE_CHARACTERS), len(text) > MAX_VALUE_CHARACTERS

    def copied(self, order: Order, *, rows: tuple[int, int], columns: Sequence[int], header: bool) -> str:
        """Return cells as text for a clipboard: exact values, tabs between columns."""
        first, last = rows
        if (last - first + 1) * len(columns) > MAX_COPIED_CELLS:
            raise UsageError(
                f"A copy holds at most {MAX_COPIED_CELLS:,} cells.", remedy="Select fewer rows, or download a file."
            )
        part = self.rows(order, first, last - first + 1)
        lines = ["\t".join(_cell(part.column_names[index]) for index in columns)] if header else []
        texts = [[_cell(text) for text in exact_texts(decoded(part.column(index)))] for index in columns]
        return "\n".join([*lines, *map("\t".join, zip(*texts, strict=True))])

    def statistics(self, index: int) -> Statistics:
        """Return what is known of a column's values."""
        column, form = self.table.column(index), self.format_of(index)
        if form.kind in (Kind.NESTED, Kind.OTHER) or pa.types.is_null(column.type):
            return Statistics()
        if form.kind in (Kind.NUMBER, Kind.TIME):
            return _spread(decoded(column), form)
        return _top_values(column, form)

    def size_of(self, order: Order) -> int:
        """Return about how many bytes the rows take."""
        return int(self.table.nbytes * self.count(order) / max(self.table.num_rows, 1))

    def write_new_file(self, order: Order, path: Path, *, file_format: str, columns: Sequence[int]) -> None:
        """Write the rows to a file that does not exist yet; nothing is left of one that could not be finished.

        Raises:
            UsageError: There is such a file already, or it cannot be written.
        """
        if path.exists():
            raise UsageError("There is such a file already.", remedy="Choose another name, or remove it first.")
        part = path.with_name(f".{path.name}.{token_hex(4)}.part")
        try:
            with part.open("xb") as file:
                self.write(order, file, file_format=file_format, columns=columns)
            part.rename(path)
        except OSError as error:
            size = bytes_text(self.size_of(order))
            raise UsageError(
                f"The file could not be written ({size} of rows).", remedy="Check the folder and the free space."
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def write(self, order: Order, target: IO[bytes], *, file_format: str, columns: Sequence[int]) -> None:
        """Write the rows to a file, some at a time."""
        import pyarrow.csv as pa_csv
        import pyarrow.parquet as pq

        # A file holds one dictionary for a column.
        table, positions = self.table.select(list(columns)).unify_dictionaries(), self._positions(order)
        try:
            if file_format == "csv":
                flat = pa.schema([pa.field(each.name, _flat_type(each.type)) for each in table.schema])
                with pa_csv.CSVWriter(target, flat) as writer:
                    for part in _parts(table, positions):
                        writer.write_table(pa.Table.from_arrays([*map(_flat, part.columns)], schema=flat))
            elif file_format == "parquet":
                with pq.ParquetWriter(target, table.schema, compression="zstd") as writer:
                    for part in _parts(table, positions):
                        writer.write_table(part)
            else:
                with pa.ipc.new_file(target, table.schema) as writer:
                    for part in _parts(table, positions):
                        writer.write_table(part)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            what = f"A {file_format} file cannot hold a column of these."
            raise UsageError(what, remedy="Hide it, or choose another format.") from error

    def _positions(self, order: Order) -> pa.Array | None:
        """Return the rows' positions; None for all of them as they came."""
        with self._lock:
            if order not in self._orders:
                self._orders[order] = self._arranged(order)
                while len(self._orders) > _MAX_ORDERS:
                    self._orders.popitem(last=False)
            self._orders.move_to_end(order)
            return self._orders[order]

    def _arranged(self, order: Order) -> pa.Array | None:
        mask = None
        for index, typed in order.filters:
            one = condition(self.table.column(index), self.format_of(index), typed)
            mask = one if mask is None else pc.and_kleene(mask, one)
        positions = None
        if mask is not None:
            positions = pc.indices_nonzero(pc.fill_null(mask, False).combine_chunks())
        if order.sort:
            names = [str(place) for place in range(len(order.sort))]
            columns = [_sort_key(self.table.column(index)) for index, _ in order.sort]
            keys = pa.Table.from_arrays(columns, names)
            keys = keys if positions is None else keys.take(positions)
            directions = ["descending" if descending else "ascending" for _, descending in order.sort]
            sort_keys = list(zip(names, directions, strict=True))
            places = pc.sort_indices(keys, sort_keys=sort_keys, null_placement="at_end")
            positions = places if positions is None else positions.take(places)
        if positions is None:
            return None
        return positions.cast(pa.uint32()) if self.table.num_rows < 2**32 else positions


def _parts(table: pa.Table, positions: pa.Array | None) -> Iterator[pa.Table]:
    total = table.num_rows if positions is None else len(positions)
    for first in range(0, max(total, 1), _EXPORT_ROWS):
        yield table.slice(first, _EXPORT_ROWS) if positions is None else taken(table, positions[first:][:_EXPORT_ROWS])


def _with_plain_nulls(table: pa.Table) -> pa.Table:
    """Return a table without runs and without nulls in dictionaries, which Arrow neither counts nor unifies."""
    for index, column in enumerate(table.columns):
        is_dictionary = pa.types.is_dictionary(column.type)
        has_null = is_dictionary and any(chunk.dictionary.null_count for chunk in column.chunks)
        if has_null or pa.types.is_run_end_encoded(column.type):
            table = table.set_column(index, table.schema.names[index], decoded(column).dictionary_encode())
    return table


def taken(table: pa.Table, positions: pa.Array) -> pa.Table:
    """Return the rows at these positions, in memory of their own."""
    try:
        return table.take(positions)
    except pa.ArrowNotImplementedError:  # views
        parts = [table.slice(position, 1) for position in positions.to_pylist()]
        return pa.concat_tables([table.slice(0, 0), *parts]).combine_chunks()


def _indented(text: str) -> str:
    """Return a JSON text over several lines; any other text, or one whose numbers Python would round, as it is."""
    try:
        value = json.loads(text, parse_float=_same(float), parse_int=_same(int))
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, indent=2, ensure_ascii=False)


def _same(number_type: type[float | int]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = number_type(text)
        if repr(number) != text:
            raise ValueError(text)
        return number

    return parse


def _is_sortable(kind: pa.DataType) -> bool:
    return column_kind(kind) not in (Kind.NESTED, Kind.OTHER) and not pa.types.is_null(kind)


def _sort_key(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values that sort like the column's."""
    kind = column.type
    if not _is_sortable(kind):
        raise UsageError("This column has no order.", remedy="Sort by another one.")
    if pa.types.is_dictionary(kind) and column_kind(kind) is Kind.TEXT:
        # The places of the few values instead of the many texts.
        whole = column.unify_dictionaries().combine_chunks()
        whole = whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
        values = decoded(pa.chunked_array([whole.dictionary])).combine_chunks()
        return pa.chunked_array([pc.rank(values, sort_keys="ascending", tiebreaker="dense").take(whole.indices)])
    column = decoded(column)
    return column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column


@np.errstate(over="ignore", invalid="ignore")  # the largest floats
def _spread(column: pa.ChunkedArray, form: ColumnFormat) -> Statistics:
    kind, values = column.type, column.drop_null()
    is_temporal = pa.types.is_temporal(kind)
    if is_temporal:
        width = pa.int32() if kind.bit_width == 32 else pa.int64()  # noqa: PLR2004 - bits
        values = values.cast(width)
    elif pa.types.is_floating(kind):
        values = values.filter(pc.invert(pc.is_nan(values)))
    if not len(values):
        return Statistics()
    ends = pc.min_max(values)
    low, high = form.texts(pa.chunked_array([pa.repeat(ends[name], 1) for name in ("min", "max")]).cast(kind))
    known = Statistics(min=low, max=high)
    if is_temporal:
        # As distances from the first: those are small enough for floats.
        origin = ends["min"].as_py()
        numbers = (values.to_numpy().astype(np.uint64) - np.uint64(origin % 2**64)).astype(np.float64)
    else:
        numbers = values.cast(pa.float64(), safe=False).to_numpy()
        numbers = numbers[np.isfinite(numbers)]
    span = _histogram_span(numbers)
    if span is None:
        return known
    counts, edges = np.histogram(np.clip(numbers, *span), _BINS, range=span)
    known.bars = counts.tolist()
    if is_temporal:
        last = ends["max"].as_py()
        times = pa.array([min(int(edge) + origin, last) for edge in edges], width).cast(kind)
        known.bins = [text or "" for text in form.texts(pa.chunked_array([times]))]
    else:
        decimals = 0 if pa.types.is_integer(kind) else form.decimals
        mark = f".{decimals}e" if form.is_scientific else f",.{decimals}f"
        known.bins = [format(edge, mark) for edge in edges]
    return known


def _histogram_span(numbers: np.ndarray) -> tuple[float, float] | None:
    """Return the ends of a histogram; None for numbers that are all the same, or too far apart for a float."""
    if not len(numbers):
        return None
    low, high = float(numbers.min()), float(numbers.max())
    inner_low, inner_high = map(float, np.quantile(numbers, (_TAIL, 1 - _TAIL)))
    # A few values far away would leave all others in one bar.
    if high - low > _FAR * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    # Bars as wide as the numbers' own precision cannot be told apart.
    step = (high - low) / _BINS
    return (low, high) if low + step > low and high - step < high and np.isfinite(high - low) else None


def _top_values(column: pa.ChunkedArray, form: ColumnFormat) -> Statistics:
    if column.null_count == len(column):
        return Statistics(distinct=0)
    if pa.types.is_dictionary(column.type):
        # Each chunk counts its few values, among which those of others may be.
        counted = [(chunk.dictionary, pc.value_counts(chunk.indices)) for chunk in column.chunks]
        values = pa.chunked_array([of.take(found.field("values")) for of, found in counted], column.type.value_type)
        counts = pa.chunked_array([found.field("counts") for _, found in counted], pa.int64())
        table = pa.table({"value": decoded(values), "count": counts}).group_by("value").aggregate([("count", "sum")])
    else:
        found = pc.value_counts(decoded(column))
        table = pa.table([found.field("values"), found.field("counts")], names=["value", "count_sum"])
    table = table.filter(table["value"].is_valid())
    top = table.take(pc.sort_indices(table, sort_keys=[("count_sum", "descending")])[:_MAX_TOP])
    pairs = zip((text or "" for text in form.texts(top["value"])), top["count_sum"].to_pylist(), strict=True)
    return Statistics(distinct=table.num_rows, top=list(pairs))


def exact_texts(column: pa.ChunkedArray, *, indent: int | None = None) -> list[str | None]:
    """Return each value in full, None for null."""
    kind = column.type
    if pa.types.is_duration(kind):
        return [None if number is None else f"{number} {kind.unit}" for number in column.cast(pa.int64()).to_pylist()]
    if column_kind(kind) in (Kind.NUMBER, Kind.TEXT, Kind.TIME, Kind.BOOLEAN) and not pa.types.is_decimal(kind):
        try:
            texts: list[str | None] = column.cast(pa.large_string()).to_pylist()
        except (pa.ArrowException, UnicodeDecodeError):
            pass  # a zone that nobody knows, what is no text
        else:
            return texts
    return [_exact_text(scalar, indent) if scalar.is_valid else None for scalar in column]


def _exact_text(scalar: pa.Scalar, indent: int | None) -> str:
    try:
        if pa.types.is_nested(scalar.type):
            return json_text(scalar, indent=indent)
        if pa.types.is_decimal(scalar.type):
            return f"{scalar.as_py():f}"
        if column_kind(scalar.type) is Kind.BINARY:
            return f"0x{scalar.as_py().hex()}"
        return scalar.cast(pa.large_string()).as_py() or ""
    except (ValueError, LookupError, ArithmeticError, TypeError, NotImplementedError, pa.ArrowException):
        column = pa.chunked_array([pa.repeat(scalar, 1)])
        return ColumnFormat(kind=column_kind(scalar.type)).texts(column)[0] or ""


def _cell(text: str | None) -> str:
    """Return a value as a spreadsheet takes it: nothing for null, no line breaks."""
    return " ".join((text or "").splitlines()).replace("\t", " ")


def _flat_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that stands for another one in CSV."""
    plain = decoded(pa.chunked_array([], kind)).type
    is_text = column_kind(plain) in (Kind.NESTED, Kind.BINARY, Kind.OTHER) and not pa.types.is_null(plain)
    return pa.large_string() if is_text or pa.types.is_duration(plain) or pa.types.is_decimal256(plain) else plain


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind, column = _flat_type(column.type), decoded(column)
    return column if kind == column.type else pa.chunked_array([exact_texts(column)], kind)
