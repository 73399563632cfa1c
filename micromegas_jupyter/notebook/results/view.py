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
from micromegas_jupyter.notebook.results.filters import HINTS, condition
from micromegas_jupyter.notebook.results.formats import (
    ColumnFormat,
    Kind,
    choose_format,
    column_kind,
    decoded,
    json_of,
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
    def parse(cls, given: object, *, columns: int) -> Order:
        """Return the order that a browser asks for."""
        try:
            filters, sort = given["filters"], given["sort"]  # type: ignore[index] # checked by what follows
            order = cls(
                tuple(sorted((int(index), str(typed)) for index, typed in filters.items())),
                tuple((int(index), bool(descending)) for index, descending in sort),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UsageError(
                "The table asked for an order that it cannot have.", remedy="Run the cell again."
            ) from None
        if any(not 0 <= index < columns for index, _ in (*order.filters, *order.sort)):
            raise UsageError("The table asked for a column that it does not have.", remedy="Run the cell again.")
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
        self.table = table
        self._lock = RLock()
        self._formats: dict[int, ColumnFormat] = {}
        self._orders: OrderedDict[Order, pa.Array | None] = OrderedDict({Order(): None})

    def format_of(self, index: int) -> ColumnFormat:
        """Return a column's notation."""
        with self._lock:
            if index not in self._formats:
                self._formats[index] = choose_format(self.table.schema[index], self.table.column(index))
            return self._formats[index]

    def columns(self) -> list[dict[str, object]]:
        """Return what a browser knows of each column."""
        return [
            {
                "name": cut(printable(found.name), _MAX_NAME_CHARACTERS),
                "type": sql_type(found.type),
                "arrow_type": cut(str(found.type), _MAX_NAME_CHARACTERS),
                "kind": self.format_of(index).kind.value,
                "unit": self.format_of(index).unit,
                "nulls": self.table.column(index).null_count,
                "sortable": _is_sortable(found.type),
                "hint": HINTS[self.format_of(index).kind],
            }
            for index, found in enumerate(self.table.schema)
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
        return self.table.take(positions.slice(first, count))

    def texts(self, order: Order, first: int, count: int) -> list[list[str | None]]:
        """Return the short texts of some of the rows, one list for each column."""
        part = self.rows(order, first, count)
        return [self.format_of(index).texts(column) for index, column in enumerate(part.columns)]

    def value(self, order: Order, row: int, column: int) -> tuple[str, bool]:
        """Return a whole value, JSON over several lines, and whether it was cut."""
        part = decoded(self.rows(order, row, 1).column(column))
        if not len(part):
            raise UsageError("This row is not there any more.", remedy="Run the cell again.")
        text = _exact_text(part[0], indent=2)
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
        lines = ["\t".join(part.column_names[index] for index in columns)] if header else []
        texts = [[_cell(scalar) for scalar in decoded(part.column(index))] for index in columns]
        return "\n".join([*lines, *map("\t".join, zip(*texts, strict=True))])

    def statistics(self, index: int) -> Statistics:
        """Return what is known of a column's values."""
        column, form = self.table.column(index), self.format_of(index)
        if form.kind in (Kind.NESTED, Kind.OTHER) or pa.types.is_null(column.type):
            return Statistics()
        if form.kind in (Kind.NUMBER, Kind.TIME):
            return _spread(decoded(column), form)
        return _most_frequent(column, form)

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

        schema = pa.schema([self.table.schema[index] for index in columns])
        if file_format == "csv":
            flat = pa.schema([pa.field(each.name, _flat_type(each.type)) for each in schema])
            with pa_csv.CSVWriter(target, flat) as writer:
                for part in self._parts(order, columns):
                    writer.write_table(pa.Table.from_arrays([_flat(column) for column in part.columns], schema=flat))
        elif file_format == "parquet":
            with pq.ParquetWriter(target, schema, compression="zstd") as writer:
                for part in self._parts(order, columns):
                    writer.write_table(part)
        else:
            with pa.ipc.new_file(target, schema) as writer:
                for part in self._parts(order, columns):
                    writer.write_table(part.unify_dictionaries())

    def _parts(self, order: Order, columns: Sequence[int]) -> Iterator[pa.Table]:
        for first in range(0, max(self.count(order), 1), _EXPORT_ROWS):
            yield self.rows(order, first, _EXPORT_ROWS).select(list(columns))

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
    if pa.types.is_dictionary(kind):
        # The places of the few values instead of the many texts.
        whole = column.unify_dictionaries().combine_chunks()
        whole = whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
        ranks = pc.rank(whole.dictionary, sort_keys="ascending", null_placement="at_end", tiebreaker="dense")
        return pa.chunked_array([ranks.take(whole.indices)])
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8())
    return column.cast(pa.float32()) if pa.types.is_float16(kind) else column


def _spread(column: pa.ChunkedArray, form: ColumnFormat) -> Statistics:
    kind, values = column.type, column.drop_null()
    width = None
    if pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()  # noqa: PLR2004 - bits
        values = values.cast(width)
    elif pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        values = values.filter(pc.is_finite(values))
    if not len(values):
        return Statistics()
    ends = pc.min_max(values)
    shown = pa.chunked_array([pa.repeat(ends[name], 1) for name in ("min", "max")]).cast(kind)
    known = Statistics(min=form.texts(shown)[0], max=form.texts(shown)[1])
    # Times as distances from the first: those are small enough for floats.
    origin = ends["min"].as_py() if width else 0
    numbers = pc.subtract(values, ends["min"]).to_numpy() if width else values.cast(pa.float64(), safe=False).to_numpy()
    inner = np.quantile(numbers, (_TAIL, 1 - _TAIL))
    # A few values far away would leave all others in one bar.
    is_far = np.ptp(numbers) > _FAR * np.ptp(inner) > 0
    span = inner if is_far else np.array([numbers.min(), numbers.max()], np.float64)
    if span[0] == span[1]:
        return known
    counts, edges = np.histogram(np.clip(numbers, *span), _BINS, range=tuple(span))
    known.bars = counts.tolist()
    if width:
        times = pa.array([int(edge) + origin for edge in edges], width).cast(kind)
        known.bins = [text or "" for text in form.texts(pa.chunked_array([times]))]
    else:
        decimals = 0 if pa.types.is_integer(kind) else form.decimals
        mark = f".{decimals}e" if form.is_scientific else f",.{decimals}f"
        known.bins = [format(edge, mark) for edge in edges]
    return known


def _most_frequent(column: pa.ChunkedArray, form: ColumnFormat) -> Statistics:
    counts = pc.value_counts(column.drop_null())
    if isinstance(counts, pa.ChunkedArray):
        counts = counts.combine_chunks()
    places = pc.select_k_unstable(
        pa.table({"count": counts.field("counts")}), k=_MAX_TOP, sort_keys=[("count", "descending")]
    )
    top = counts.take(places)
    texts = form.texts(pa.chunked_array([top.field("values")]))
    pairs = zip((text or "" for text in texts), top.field("counts").to_pylist(), strict=True)
    return Statistics(distinct=len(counts), top=list(pairs))


def _exact_text(scalar: pa.Scalar, *, indent: int | None = None) -> str:
    if not scalar.is_valid:
        return "null"
    if pa.types.is_nested(scalar.type):
        return json_of(scalar.as_py(maps_as_pydicts="lossy"), indent=indent)
    try:
        value = scalar.as_py()
    except (UnicodeDecodeError, ValueError, LookupError):
        return ColumnFormat(kind=Kind.OTHER).texts(pa.chunked_array([pa.repeat(scalar, 1)]))[0] or ""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(scalar: pa.Scalar) -> str:
    """Return a value as a spreadsheet takes it: nothing for null, no line breaks."""
    return "" if not scalar.is_valid else " ".join(_exact_text(scalar).splitlines()).replace("\t", " ")


def _flat_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _flat_type(kind.value_type)
    is_text = column_kind(kind) in (Kind.NESTED, Kind.BINARY, Kind.OTHER)
    return pa.string() if is_text or pa.types.is_duration(kind) or pa.types.is_decimal256(kind) else kind


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as CSV can hold it."""
    column = decoded(column)
    kind = _flat_type(column.type)
    if kind == column.type:
        return column
    if pa.types.is_nested(column.type):
        values = column.to_pylist(maps_as_pydicts="lossy")
        return pa.chunked_array([[None if value is None else json_of(value) for value in values]], kind)
    if pa.types.is_duration(column.type):
        return column.cast(kind)
    return pa.chunked_array([[_exact_text(each) if each.is_valid else None for each in column]], kind)
