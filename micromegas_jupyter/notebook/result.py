"""A query's rows as the value of a cell: shown in brief, kept in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.preview import preview_text
from micromegas_jupyter.notebook.result_html import result_html
from micromegas_jupyter.settings.result_rows import DEFAULT_RESULT_ROWS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class QueryResult:
    """The rows of a query. A notebook shows the first of them; `to_pandas()` or `DataFrame` gives all.

    Args:
        table: The rows.
        max_rows: How many of them at most can be sorted, filtered and paged through in a notebook.
    """

    def __init__(self, table: pa.Table, *, max_rows: int = DEFAULT_RESULT_ROWS) -> None:
        self._table = table
        self._max_rows = max_rows

    @property
    def arrow(self) -> pa.Table:
        """All rows as they came."""
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a pandas DataFrame."""
        from micromegas_jupyter.client.frames import to_frame

        # The conversion gives up the table object it is handed; a slice shares the memory and is not this one.
        return to_frame(self._table.slice(0))

    @property
    def DataFrame(self) -> pd.DataFrame:  # noqa: N802 - named after the class that it gives
        """All rows as a pandas DataFrame."""
        return self.to_pandas()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return preview_text(self._table)

    def _repr_html_(self) -> str:
        return result_html(self._table, max_rows=self._max_rows)


def result_bundle(table: pa.Table, *, max_rows: int) -> dict[str, str]:
    """Return what a notebook shows of a result that goes into a variable, by MIME type.

    Args:
        table: The rows.
        max_rows: As of `QueryResult`.
    """
    return {"text/plain": preview_text(table), "text/html": result_html(table, max_rows=max_rows)}
