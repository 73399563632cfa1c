"""A query's rows as the value of a cell: shown as a grid, kept as an Arrow table, and used as people first try."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.config.client import DEFAULT_RESULT_ROWS
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.results.grid import result_bundle, static_table
from micromegas_jupyter.notebook.results.view import EXPORT_FORMATS, Order, RowsView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    import pyarrow as pa

    from micromegas_jupyter.notebook.charts.chart import Chart

_BATCH_ROWS = 1000


class QueryResult:
    """The rows of a query, which a notebook shows as a grid.

    `len(result)`, `result.columns`, `result["city"]` (a pandas Series), iteration over rows as dictionaries,
    `result.head()`, and `to_pandas()`, `to_polars()`, `to_arrow()` for everything else. Whatever takes Arrow streams
    takes it (`__arrow_c_stream__`): DuckDB, polars.
    """

    def __init__(self, table: pa.Table, *, max_rows: int = DEFAULT_RESULT_ROWS) -> None:
        self._table = table
        self._max_rows = max_rows

    @cached_property
    def _view(self) -> RowsView:
        return RowsView(self._table[: self._max_rows or None])

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self._table.column_names)

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return self._table.num_rows, self._table.num_columns

    def head(self, rows: int = 5) -> QueryResult:
        """Return the first rows as a result of their own."""
        return QueryResult(self._table[: max(rows, 0)], max_rows=self._max_rows)

    def to_arrow(self) -> pa.Table:
        """Return all rows as they came, with binary JSON as bytes."""
        return self._table

    def to_pandas(self, *, jsonb: str = "json") -> pd.DataFrame:
        """Return all rows as a pandas DataFrame; binary JSON becomes JSON text unless `jsonb` is `"bytes"`."""
        from micromegas_jupyter.client.frames import to_frame

        return to_frame(self._table, jsonb=jsonb)

    def to_polars(self) -> Any:
        """Return all rows as a polars DataFrame."""
        from micromegas_jupyter.notebook.results.rows import to_polars

        return to_polars(self._table)

    def chart(self, kind: str | None = None, **options: Any) -> Chart:
        """Return a chart of the rows; `kind` is line, point, bar, area or hist, options are `x`, `y` and `color`."""
        from micromegas_jupyter.notebook.charts.chart import Chart

        return Chart(self._table, kind=kind, **options)

    def save(self, path: str | Path) -> None:
        """Write all rows to a new file: `.parquet`, `.csv` or `.arrow`, by the name's ending.

        Raises:
            UsageError: The ending is another, there is such a file already, or it cannot be written.
        """
        target = Path(path).expanduser()
        file_format = target.suffix.removeprefix(".").lower()
        if file_format not in EXPORT_FORMATS:
            raise UsageError(
                "The file's name does not say its format.", remedy=f"Let it end in .{', .'.join(EXPORT_FORMATS)}."
            )
        columns = range(self._table.num_columns)
        RowsView(self._table).write_new_file(Order(), target, file_format=file_format, columns=columns)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from micromegas_jupyter.client.json_columns import with_json

        for batch in with_json(self._table).to_batches(max_chunksize=_BATCH_ROWS):
            yield from batch.to_pylist()

    def __getitem__(self, key: str | Sequence[str] | slice) -> Any:
        if isinstance(key, slice):
            return QueryResult(self._table[key], max_rows=self._max_rows)
        if isinstance(key, int):
            raise UsageError("A result has no single rows.", remedy="Use .to_pandas().iloc[…], or a slice: [2:5].")
        names = [key] if isinstance(key, str) else list(key)
        if missing := [name for name in names if name not in self.columns]:
            raise KeyError(f"There is no column {missing[0]!r}. The columns are {', '.join(self.columns)}.")
        # A name may stand for several columns.
        places = [place for name in names for place in self._table.schema.get_all_field_indices(name)]
        frame = QueryResult(self._table.select(places)).to_pandas()
        return frame[key] if isinstance(key, str) else frame

    def __contains__(self, name: object) -> bool:
        return name in self._table.column_names

    def __getattr__(self, name: str) -> Any:
        remedy = f"Use .to_pandas().{name}." if not name.startswith("_") else ""
        raise AttributeError(f"A query's result has no {name!r}. {remedy}".rstrip())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Hand the rows on as an Arrow C stream (the Arrow PyCapsule interface)."""
        return self._table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return static_table(self._view, len(self))["text/plain"]

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        return result_bundle(self._view, result_rows=len(self), with_grid=self._max_rows > 0)
