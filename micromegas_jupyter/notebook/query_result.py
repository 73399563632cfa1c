"""A query's rows as the value of a cell: shown as a grid and kept as an Arrow table."""

from __future__ import annotations

from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.config.client import DEFAULT_RESULT_ROWS
from micromegas_jupyter.core.text import rows_text
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.grid import result_bundle, static_table
from micromegas_jupyter.notebook.results.view import EXPORT_FORMATS, RowQuery, RowsView, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import pyarrow as pa

    from micromegas_jupyter.notebook.charts.chart import Chart
    from micromegas_jupyter.notebook.results.grid import CellSource
    from micromegas_jupyter.notebook.results.plots import Asked

_BATCH_ROWS = 1000


class QueryResult:
    """The rows of a query, which a notebook shows as a grid.

    ```python
    result = %sql SELECT city, age FROM people
    len(result), result.columns
    result["city"]  # a pandas Series
    result[result["age"] > 40].head()  # the first rows that match
    for row in result:  # dictionaries
        print(row["city"])
    result.to_pandas()  # or .to_polars(), .to_arrow()
    ```

    Libraries that accept Arrow streams (`__arrow_c_stream__`) accept it, such as DuckDB and polars.
    """

    def __init__(
        self, table: pa.Table, *, max_rows: int = DEFAULT_RESULT_ROWS, source: CellSource | None = None
    ) -> None:
        self._table = table
        self._max_rows = max_rows
        self._source = source
        self._plot: Asked | None = None

    @cached_property
    def _view(self) -> RowsView:
        return RowsView(self._table[: self._max_rows or None])

    @property
    def columns(self) -> list[str]:
        """The column names."""
        return list(self._table.column_names)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns."""
        return self._table.num_rows, self._table.num_columns

    def head(self, rows: int = 5) -> QueryResult:
        """Return the first rows as a new result."""
        return QueryResult(self._table[: max(rows, 0)], max_rows=self._max_rows)

    def to_arrow(self) -> pa.Table:
        """Return all rows unchanged, with binary JSON as bytes."""
        return self._table

    def to_pandas(self, *, jsonb: str = "json") -> pd.DataFrame:
        """Return all rows as a pandas DataFrame; binary JSON is converted to JSON text unless `jsonb` is `"bytes"`."""
        from micromegas_jupyter.client.json_columns import to_frame

        return to_frame(self._table, jsonb=jsonb)

    def to_polars(self) -> Any:
        """Return all rows as a polars DataFrame."""
        from micromegas_jupyter.notebook.results.rows import to_polars

        return to_polars(self._table)

    def chart(self, kind: str | None = None, **options: Any) -> Chart:
        """Return a chart of the rows; the options are those of `Chart`: `x`, `y`, `color`, `agg`, `bins`, and `log`."""
        from micromegas_jupyter.notebook.charts.chart import Chart

        return Chart(self._table, kind=kind, **options)

    def save(self, path: str | Path) -> None:
        """Write all rows to a new file: `.parquet`, `.csv`, or `.arrow`, by file extension.

        Raises:
            UsageError: The extension is unknown, or the file exists or cannot be written.
        """
        target = Path(path).expanduser()
        file_format = target.suffix.removeprefix(".").lower()
        if file_format not in EXPORT_FORMATS:
            raise UsageError(
                "The file name doesn't determine the format.",
                remedy=f"End the file name in .{', .'.join(EXPORT_FORMATS)}.",
            )
        columns = range(self._table.num_columns)
        try:
            RowsView(self._table).write_new_file(RowQuery(), target, file_format=file_format, columns=columns)
        except FileExistsError as error:
            remedy = "Choose another name, or remove it first."
            raise UsageError("The file already exists.", remedy=remedy) from error

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from micromegas_jupyter.client.row_text import check_distinct
        from micromegas_jupyter.core.jsonb import with_json

        check_distinct(self.columns, holder="a dictionary", remedy="Rename one with AS, or use .to_arrow().")
        batches = with_json(self._table).to_batches(max_chunksize=_BATCH_ROWS)
        return (row for batch in batches for row in batch.to_pylist())

    def __getitem__(self, key: Any) -> Any:
        """Return columns by name, or rows by position.

        A name returns a pandas Series, and several names a DataFrame. An integer returns a row as a dictionary. A
        slice, a boolean mask, or positions return a `QueryResult`; masks and positions are lists, or arrays of NumPy,
        pandas, or Arrow. Rows with a null mask are omitted, and pandas masks are matched by index.

        Raises:
            KeyError: There is no such column.
            IndexError: There is no such row.
            UsageError: A mask does not match the result, two columns of a row have the same name, or the key has
                another type.
        """
        if isinstance(key, slice):
            return QueryResult(self._table[key], max_rows=self._max_rows)
        if isinstance(key, str):
            return self._columns([key])[key]
        if _is_integer(key):
            return next(iter(QueryResult(taken(self._table, _positions([index(key)], len(self))))))
        if not hasattr(key, "__iter__"):
            raise UsageError(
                "The result doesn't have these rows or columns.", remedy="Use a name, a position, a slice, or a mask."
            )
        key = key if hasattr(key, "__len__") else list(key)
        rows = _positions(key, len(self))
        if rows is not None:
            return QueryResult(taken(self._table, rows), max_rows=self._max_rows)
        return self._columns(list(key))

    def _columns(self, names: list[str]) -> pd.DataFrame:
        if missing := [name for name in names if name not in self.columns]:
            raise KeyError(f"There is no column {missing[0]!r}. The columns are {', '.join(self.columns)}.")
        # Several columns may share a name.
        places = [place for name in names for place in self._table.schema.get_all_field_indices(name)]
        return QueryResult(self._table.select(places)).to_pandas()

    def __contains__(self, name: object) -> bool:
        return name in self._table.column_names

    def __getattr__(self, name: str) -> Any:
        remedy = f"Use .to_pandas().{name}." if not name.startswith("_") else ""
        raise AttributeError(f"A query's result has no {name!r}. {remedy}".rstrip())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows as an Arrow C stream (the Arrow PyCapsule interface)."""
        return self._table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return static_table(self._view, len(self))["text/plain"]

    def open_chart(self, chart: Chart) -> None:
        """Show the result with this chart."""
        self._plot = chart.plot

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        with_grid, rows = self._max_rows > 0, len(self)
        return result_bundle(self._view, result_rows=rows, with_grid=with_grid, source=self._source, plot=self._plot)


def _is_integer(key: object) -> bool:
    try:
        index(key)  # type: ignore[arg-type] # NumPy arrays also have `__index__`, but it raises
    except TypeError:
        return False
    return not isinstance(key, bool)


def _positions(key: Any, count: int) -> pa.Array | None:
    """Return the positions of the rows that a mask or a list of positions selects, or None for other keys."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        chosen = key if isinstance(key, pa.Array | pa.ChunkedArray) else pa.array(key)
    except (pa.ArrowException, TypeError):  # for example a list of names and numbers
        return None
    if pa.types.is_boolean(chosen.type):
        labels = key.index.to_numpy() if hasattr(key, "reindex") else np.arange(len(chosen))
        if not np.array_equal(np.sort(labels), np.arange(count)):
            what = f"The mask has {len(chosen):,} values, and the result {rows_text(count)}."
            if len(chosen) == count:
                what = "The mask's index does not number the rows from 0."
            raise UsageError(what, remedy="Make the mask from columns of this result.")
        return pc.indices_nonzero(chosen.take(pa.array(np.argsort(labels))))
    if not pa.types.is_integer(chosen.type):
        return None
    numbers = chosen.drop_null().to_numpy()
    if wrong := [number for number in numbers.tolist() if not -count <= number < count]:
        raise IndexError(f"There is no row {wrong[0]}: the result has {rows_text(count)}.")
    return pa.array(np.arange(count)[numbers])
