"""A chart of rows as a cell's value: the grid of a result with this chart open.

Options select columns; without options, the columns' roles select them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from micromegas_jupyter.config.client import DEFAULT_RESULT_ROWS
from micromegas_jupyter.errors import UsageError, extra
from micromegas_jupyter.notebook.plotting.choice import Options, choose
from micromegas_jupyter.notebook.plotting.draw import draw, draw_image
from micromegas_jupyter.notebook.results.grid import shown_table
from micromegas_jupyter.notebook.results.plots import build_plot

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.plotting.choice import Names
    from micromegas_jupyter.notebook.shell import Bundle


class Chart:
    """A chart of the rows, drawn as `kind` or as suggested by the columns' roles.

    `table` is an Arrow table, a DataFrame of pandas or polars, or a result. `x`, `y` (one or several), and `color` are
    column names. `agg` is one or several of count, sum, mean, min, max, and percentiles such as p95; `bins` is the
    approximate number of slots on the x axis, and `log` selects logarithmic axes: x, y, or xy. `spec` is the Vega-Lite
    specification (version 5), including the data. Raises `UsageError` if there is nothing to draw.
    """

    def __init__(  # noqa: PLR0913 - options by name
        self,
        table: object,
        *,
        kind: str | None = None,
        x: str | None = None,
        y: Names = None,
        color: str | None = None,
        agg: Names = None,
        bins: int | None = None,
        log: str | None = None,
    ) -> None:
        self._table = _arrow_table(table)
        options = Options(kind=kind, x=x, y=y, color=color, agg=agg, bins=bins, log=log)
        self.spec, self._text, _ = draw(choose(self._table, options))
        self.plot = build_plot(self._table.column_names, options)

    def to_altair(self) -> Any:
        """Return the chart as an Altair chart that can be customized."""
        with extra("charts"):
            import altair as alt

        return alt.Chart.from_dict(self.spec)

    def save(self, path: str | Path) -> None:
        """Save the chart: `.json` for the specification, `.svg` or `.png` for an image."""
        suffix = Path(path).suffix.lower()
        if suffix not in {".json", ".svg", ".png"}:
            raise UsageError("Charts can be saved as .json, .svg, or .png.", remedy="Use one of these file extensions.")
        content = json.dumps(self.spec).encode() if suffix == ".json" else draw_image(self.spec, suffix[1:], scale=2)
        Path(path).write_bytes(content)

    def __repr__(self) -> str:
        return self._text

    def _repr_mimebundle_(self, **_options: object) -> Bundle:
        return shown_table(self._table, max_rows=DEFAULT_RESULT_ROWS, is_referenced=True, plot=self.plot)


def _arrow_table(rows: object) -> pa.Table:
    try:
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (TypeError, ValueError, NotImplementedError):
        remedy = "Use a DataFrame with one type per column, an Arrow table, or a %%sql result."
        raise UsageError("These rows cannot be read as a table.", remedy=remedy) from None
