"""A result's rows with the order and filters that a user chose, summarized and exported; all values are exact."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial, reduce
from io import TextIOWrapper
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from pyarrow import types

from micromegas_jupyter.core.files import new_file
from micromegas_jupyter.core.jsonb import json_texts
from micromegas_jupyter.core.text import bytes_text, cut, printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import (
    ColumnFormat,
    Kind,
    choose_format,
    column_kind,
    decoded,
    exact_texts,
    sql_type,
)
from micromegas_jupyter.notebook.results.filters import condition, range_filter, value_filter
from micromegas_jupyter.notebook.results.spreads import (
    MAX_CODED_VALUES,
    CodedColumn,
    Spread,
    code_column,
    spread_of,
    top_codes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import IO, Any

MAX_COPIED_CELLS: Final = 100_000
MAX_VALUE_CHARACTERS: Final = 1_000_000
EXPORT_FORMATS: Final = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
}
"""The media type of each file format."""

_MAX_NAME_CHARACTERS = 100
_MAX_ORDERS = 2
_MAX_PLOTS = 2
_EXPORT_ROWS = 64 * 1024
# Columns with values whose unit is in a separate column.
_UNIT_COLUMN, _VALUE_COLUMNS = "unit", frozenset({"value", "increase"})


class RowQuery(NamedTuple):
    """The selection and order of rows: filters as typed by column, and sort columns with `True` for descending."""

    filters: tuple[tuple[int, str], ...] = ()
    sort: tuple[tuple[int, bool], ...] = ()


_ALL = RowQuery()


class RowsView:
    """The rows of one table; thread-safe: rows never change, and the lock guards cached data about them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = _with_plain_nulls(table)
        self.plots: LRUCache[int, Any] = LRUCache(_MAX_PLOTS)
        """The most recently drawn charts, by the message that requested each."""

        self._lock = RLock()
        self._formats: dict[int, ColumnFormat] = {}
        self._texts: dict[int, pa.ChunkedArray] = {}
        self._coded_columns: dict[int, CodedColumn | None] = {}
        self._orders: LRUCache[RowQuery, pa.Array] = LRUCache(_MAX_ORDERS)

    def format_of(self, index: int) -> ColumnFormat:
        """Return a column's notation."""
        with self._lock:
            if index not in self._formats:
                self._formats[index] = choose_format(self.table.schema[index], self.table.column(index))
            return self._formats[index]

    def columns(self, count: int) -> list[dict[str, object]]:
        """Return the browser's description of each of the first columns."""
        return [
            {
                "name": cut(printable(found.name), _MAX_NAME_CHARACTERS),
                "type": "jsonb" if self.format_of(index).is_jsonb else sql_type(found.type),
                "arrow_type": cut(str(found.type), _MAX_NAME_CHARACTERS),
                "kind": self.format_of(index).kind.value,
                "unit": self.format_of(index).unit,
                "nulls": self.table.column(index).null_count,
                "sortable": self.format_of(index).kind not in (Kind.NESTED, Kind.OTHER),
            }
            for index, found in enumerate(list(self.table.schema)[:count])
        ]

    def count(self, order: RowQuery) -> int:
        """Return the number of rows that match the filters."""
        positions = self._positions(order)
        return int(self.table.num_rows if positions is None else len(positions))

    def rows(self, order: RowQuery, first: int, count: int) -> pa.Table:
        """Return some of the rows."""
        return _part(self.table, self._positions(order), first, count)

    def texts(self, order: RowQuery, *, first: int, count: int, columns: int) -> list[list[str | None]]:
        """Return the short strings for some of the rows, as a list for each of the first columns."""
        part = self.rows(order, first, count)
        found = [self.format_of(index).texts(column) for index, column in enumerate(part.columns[:columns])]
        if self._valued:
            from micromegas_jupyter.notebook.units import quantity

            unit_index = self.table.schema.get_field_index(_UNIT_COLUMN)
            units = self.format_of(unit_index).texts(part.column(unit_index))
            for index in (each for each in self._valued if each < columns):
                pairs = zip(part.column(index).to_pylist(), units, strict=True)
                found[index] = [None if number is None else quantity(float(number), unit) for number, unit in pairs]
        return found

    @cached_property
    def _valued(self) -> list[int]:
        """The numeric columns whose units are in the `unit` column."""
        names, kinds = self.table.schema.names, self.table.schema.types
        if names.count(_UNIT_COLUMN) != 1 or column_kind(kinds[names.index(_UNIT_COLUMN)]) is not Kind.TEXT:
            return []
        found = [at for at, name in enumerate(names) if name in _VALUE_COLUMNS]
        return [at for at in found if column_kind(kinds[at]) is Kind.NUMBER and not types.is_duration(kinds[at])]

    def value(self, order: RowQuery, row: int, column: int) -> tuple[str, bool]:
        """Return a whole value, with JSON split into lines, and whether it was truncated."""
        (text,) = self.exact_texts(self.rows(order, row, 1).column(column), column)
        text = "null" if text is None else _indented(text)
        return cut(text, MAX_VALUE_CHARACTERS), len(text) > MAX_VALUE_CHARACTERS

    def copied(self, order: RowQuery, *, rows: tuple[int, int], columns: Sequence[int], header: bool) -> str:
        """Return cells as clipboard text, with exact values and tab-separated columns."""
        first, last = rows
        if (last - first + 1) * len(columns) > MAX_COPIED_CELLS:
            raise UsageError(
                f"At most {MAX_COPIED_CELLS:,} cells can be copied.", remedy="Select fewer rows, or download a file."
            )
        part = self.rows(order, first, last - first + 1)
        lines = [part.select(columns).column_names] if header else []
        lines += zip(*(self.exact_texts(part.column(index), index) for index in columns), strict=True)
        return "\n".join("\t".join(map(_cell, line)) for line in lines)

    def mask(self, order: RowQuery) -> np.ndarray | None:
        """Return which rows match the filters, or None without filters."""
        positions = self._positions(RowQuery(order.filters))
        if positions is None:
            return None
        mask = np.zeros(self.table.num_rows, bool)
        mask[positions.to_numpy()] = True
        return mask

    def spread(self, index: int, order: RowQuery = _ALL) -> Spread:
        """Return the distribution of a column's values in all rows and in those that match the filters."""
        form = replace(self.format_of(index), is_jsonb=False)  # it is already text
        return spread_of(self.comparable(index), form, self._coded(index), self.mask(order))

    def bars_filter(self, index: int, first: int, last: int) -> str:
        """Return the filter for some bars of a column's histogram."""
        coded = self._coded(index)
        return range_filter(coded.edges, first, last, is_open=True) if coded else ""

    def top_filter(self, index: int, rank: int, order: RowQuery) -> str:
        """Return the filter for one of a column's most frequent values."""
        coded, form = self._coded(index), self.format_of(index)
        if coded is None or coded.values is None:
            raise UsageError("This value cannot be filtered.", remedy="Filter another column.")
        best, _, _ = top_codes(coded, self.mask(order))
        value = pa.chunked_array([coded.values.take(pa.array([best[rank]]))])
        return value_filter(value, form, exact_texts(value)[0])

    def _coded(self, index: int) -> CodedColumn | None:
        with self._lock:
            if index in self._coded_columns:
                return self._coded_columns[index]
            coded = code_column(self.comparable(index), self.format_of(index))
            if coded is None or coded.values is None or len(coded.values) <= MAX_CODED_VALUES:
                self._coded_columns[index] = coded
            return coded

    def size_of(self, order: RowQuery) -> int:
        """Return the approximate size of the rows in bytes."""
        return int(self.table.nbytes * self.count(order) / max(self.table.num_rows, 1))

    def write_new_file(self, order: RowQuery, path: Path, **options: Any) -> None:
        """Write the rows to a new file, with the options of `write`; an incomplete file is deleted.

        Raises:
            FileExistsError: The file already exists.
            UsageError: It cannot be written.
        """
        if path.exists():
            raise FileExistsError
        try:
            with new_file(path) as file:
                self.write(order, file, **options)
        except FileExistsError:
            raise
        except OSError as error:
            what = f"The file could not be written ({bytes_text(self.size_of(order))} of rows)."
            raise UsageError(what, remedy="Check the folder and the free space.") from error

    def write(
        self,
        order: RowQuery,
        target: IO[bytes],
        *,
        file_format: str,
        columns: Sequence[int],
        on_rows: Callable[[int, int], None] = lambda _rows, _total: None,
    ) -> None:
        """Write the rows to a file in parts; before each, `on_rows` gets the numbers of written and total rows."""
        import pyarrow.parquet as pq

        writers = {
            "parquet": partial(pq.ParquetWriter, compression="zstd"),
            "arrow": pa.ipc.new_file,
        }
        # A file can have only one dictionary per column.
        table, positions = self.table.select(columns).unify_dictionaries(), self._positions(order)
        total = self.count(order)

        def read_parts() -> Iterator[pa.Table]:
            for first in range(0, max(total, 1), _EXPORT_ROWS):
                on_rows(first, total)
                yield _part(table, positions, first, _EXPORT_ROWS)
            on_rows(total, total)

        parts = read_parts()
        if file_format == "csv":
            from micromegas_jupyter.client.row_text import write_text

            batches = (batch for part in parts for batch in part.to_batches())
            are_json = {place: self.format_of(index).is_jsonb for place, index in enumerate(columns)}
            output = TextIOWrapper(target, encoding="utf-8", newline="")
            try:
                write_text(table.schema, batches, output, file_format=file_format, are_json=are_json)
            finally:
                output.detach()  # leaves the file open
            return
        try:
            with writers[file_format](target, table.schema) as writer:
                for part in parts:
                    writer.write_table(part)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            what = f"A {file_format} file cannot hold a column of these."
            raise UsageError(what, remedy="Hide it, or choose another format.") from error

    def exact_texts(self, part: pa.ChunkedArray, index: int) -> list[str | None]:
        """Return some values of a column in full."""
        return exact_texts(decoded(json_texts(part) if self.format_of(index).is_jsonb else part))

    def comparable(self, index: int) -> pa.ChunkedArray:
        """Return a column as used for filtering and sorting, with binary JSON as JSON text."""
        if not self.format_of(index).is_jsonb:
            return self.table.column(index)
        with self._lock:
            if index not in self._texts:
                self._texts[index] = json_texts(self.table.column(index))
            return self._texts[index]

    def _positions(self, order: RowQuery) -> pa.Array | None:
        """Return the rows' positions, or None for all rows in their original order."""
        if order == _ALL:
            return None
        with self._lock:
            if order not in self._orders:
                self._orders[order] = self._arranged(order)
            return self._orders[order]

    def _arranged(self, order: RowQuery) -> pa.Array:
        positions: pa.Array = None
        if order.filters:
            masks = [condition(self.comparable(index), self.format_of(index), typed) for index, typed in order.filters]
            positions = pc.indices_nonzero(reduce(pc.and_kleene, masks))
        if order.sort:
            names = [str(place) for place in range(len(order.sort))]
            keys = pa.Table.from_arrays([_sort_key(self.comparable(index)) for index, _ in order.sort], names)
            keys = keys if positions is None else keys.take(positions)
            directions = ["descending" if descending else "ascending" for _, descending in order.sort]
            sort_keys = list(zip(names, directions, strict=True))
            places = pc.sort_indices(keys, sort_keys=sort_keys, null_placement="at_end")
            positions = places if positions is None else positions.take(places)
        return positions.cast(pa.uint32()) if self.table.num_rows < 2**32 else positions


def _part(table: pa.Table, positions: pa.Array | None, first: int, count: int) -> pa.Table:
    return table.slice(first, count) if positions is None else taken(table, positions.slice(first, count))


def _with_plain_nulls(table: pa.Table) -> pa.Table:
    """Return a table without run-end encoding and nulls in dictionaries, which Arrow neither counts nor unifies."""
    for index, column in enumerate(table.columns):
        is_dictionary = types.is_dictionary(column.type)
        has_null = is_dictionary and any(chunk.dictionary.null_count for chunk in column.chunks)
        if has_null or types.is_run_end_encoded(column.type):
            table = table.set_column(index, table.schema.names[index], decoded(column).dictionary_encode())
    return table


def taken(table: pa.Table, positions: pa.Array) -> pa.Table:
    """Return the rows at these positions, in newly allocated memory."""
    try:
        return table.take(positions)
    except pa.ArrowNotImplementedError:  # for view types
        parts = [table.slice(position, 1) for position in positions.to_pylist()]
        return pa.concat_tables([table.slice(0, 0), *parts]).combine_chunks()


def _indented(text: str) -> str:
    """Return JSON text on several lines; return other text, or JSON with numbers that Python would round, unchanged."""
    if text[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            for ensure_ascii in (False, True):
                shown = json.dumps(json.loads(text), indent=2, ensure_ascii=ensure_ascii)
                if "".join(shown.split()) == "".join(text.split()):
                    return shown
    return text


def _whole(column: pa.ChunkedArray) -> pa.DictionaryArray:
    whole = column.unify_dictionaries().combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _sort_key(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if types.is_dictionary(column.type) and column_kind(column.type) is Kind.TEXT:
        # Uses the positions of the few distinct values instead of the many strings.
        whole = _whole(column)
        values = decoded(pa.chunked_array([whole.dictionary])).combine_chunks()
        return pa.chunked_array([pc.rank(values, sort_keys="ascending", tiebreaker="dense").take(whole.indices)])
    return decoded(column)


def _cell(text: str | None) -> str:
    """Return a value for a spreadsheet cell, without line breaks and empty for null."""
    return " ".join((text or "").splitlines()).replace("\t", " ")
