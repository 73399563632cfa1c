"""How a notebook shows a result: a grid while its kernel runs, and a small table without scripts everywhere else."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import traitlets
from cachetools import LRUCache
from tabulate import tabulate

from micromegas_jupyter.core.text import cut, rows_text
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import Kind
from micromegas_jupyter.notebook.results.view import RowQuery, RowsView, taken
from micromegas_jupyter.notebook.shell import Bundle, count_text
from micromegas_jupyter.notebook.widget import STATIC, KernelWidget, shows_widgets, static_text, widget_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from micromegas_jupyter.notebook.results.export import Export
    from micromegas_jupyter.notebook.results.plots import Asked

MAX_HELD_BYTES: Final = 1024**3
"""The memory limit for all grids' rows; the most recently used grids keep theirs."""

MAX_COLUMNS: Final = 200
MAX_STATIC_ROWS: Final = 20
MAX_STATIC_COLUMNS: Final = 50
_MAX_HTML_CHARACTERS = 20_000
_MAX_TEXT_CHARACTERS = 10_000
_MAX_CELL_CHARACTERS = 60
_MAX_HEAD_CHARACTERS = 20_000
_MAX_FIRST_CHARACTERS = 8_000
_FIRST_ROWS = 50
_MAX_BLOCK_ROWS = 500
# The rows that grids keep alive, by grid ID.
_held: LRUCache[str, RowsView] = LRUCache(
    MAX_HELD_BYTES, getsizeof=lambda view: min(int(view.table.nbytes), MAX_HELD_BYTES)
)
_held_lock = Lock()


class CellSource(NamedTuple):
    """The source of the rows: the cell's first line, without chart options, and the statement."""

    head: str
    sql: str
    limit: int | None = None


class ResultGrid(KernelWidget):
    """A grid and a chart of rows that stay in the kernel; the browser requests and shows the visible part.

    The filters are the selection of both. With `plot`, the chart is open. It is an anywidget that works in any
    notebook:

    ```python
    micromegas_jupyter.ResultGrid(client.query_arrow("SELECT * FROM log_entries LIMIT 1000"))
    ```

    Args:
        rows: An Arrow table, a data frame, or another object that Arrow can read.
        result_rows: The number of rows in the result, if these are only the first ones.
        source: The statement that returned the rows.
        plot: The chart.

    Raises:
        UsageError: Arrow can't read the rows.
    """

    _esm = static_text("grid.js")
    _css = static_text("grid.css")
    _export: tuple[int, Export] | None = None

    columns = traitlets.List(traitlets.Dict()).tag(sync=True)
    total = traitlets.Int().tag(sync=True)
    first = traitlets.List(traitlets.List()).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    has_source = traitlets.Bool(default_value=False).tag(sync=True)
    plot = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(
        self,
        rows: Any,
        *,
        result_rows: int | None = None,
        source: CellSource | None = None,
        plot: Asked | None = None,
    ) -> None:
        view = rows if isinstance(rows, RowsView) else RowsView(_as_table(rows))
        result_rows = view.table.num_rows if result_rows is None else result_rows
        columns = view.columns(MAX_COLUMNS)
        while len(columns) > 1 and len(json.dumps(columns)) > _MAX_HEAD_CHARACTERS:
            columns = columns[: len(columns) * 3 // 4]
        self._width, total = len(columns), view.table.num_rows
        parts = [f"the first {count_text(total)} of {rows_text(result_rows)}"] if total < result_rows else []
        if self._width < view.table.num_columns:
            parts.append(f"the first {self._width} of {count_text(view.table.num_columns)} columns (a file has all)")
        note = f"The grid shows {' and '.join(parts)}." if parts else ""
        first = _first_texts(view, self._width)
        super().__init__(columns=columns, total=total, first=first, note=note, has_source=source is not None, plot=plot)
        self._source = source
        with _held_lock:
            _held[self.model_id] = view

    def close(self) -> None:
        """Close the widget and release the rows; repeated calls do nothing."""
        if self.comm is None:
            return
        with _held_lock:
            _held.pop(self.model_id, None)
        self._end_export()
        super().close()

    def reply(self, message: Mapping[str, Any]) -> tuple[object, list[bytes]]:
        """Return the response to a request, and its buffers."""
        try:
            return self._answer(message)
        finally:
            # Sorting and counting temporarily use memory that Arrow's allocator would otherwise keep.
            pa.default_memory_pool().release_unused()

    def _end_export(self) -> None:
        if self._export is not None:
            self._export[1].close()
            self._export = None

    def _follow_export(self, message: Mapping[str, Any]) -> tuple[object, list[bytes]]:
        number, export = self._export or (None, None)
        if export is None or number != message["export"]:
            raise UsageError("This file is no longer available.", remedy="Export the rows again.")
        if message["op"] == "export_state":
            return export.state(), []
        if message["op"] == "export_part":
            return {}, [export.read(message["first"])]
        if message["op"] == "export_cancel":
            export.cancel()
        self._end_export()
        return {}, []

    def _answer(  # noqa: C901, PLR0911 - one branch per operation
        self, message: Mapping[str, Any]
    ) -> tuple[object, list[bytes]]:
        if message["op"].startswith("export_"):
            return self._follow_export(message)
        if message["op"] == "vega":
            return {}, [(STATIC / "vega.js.gz").read_bytes()]
        with _held_lock:
            view = _held.get(self.model_id)
        if view is None:
            raise UsageError("These rows are no longer available.", remedy="Run the cell again.")
        if message["op"] == "brush":
            return {"filters": view.plots[message["plot"]].filters(message["panel"], message["ranges"])}, []
        filters, sort = message["order"]["filters"], message["order"]["sort"]
        places = sorted(map(int, filters))
        order = RowQuery(tuple((column, filters[str(column)]) for column in places), tuple(map(tuple, sort)))
        match message["op"]:
            case "spreads":
                return {column: asdict(view.spread(column, order)) for column in message["columns"]}, []
            case "chart":
                return self._draw(view, order, message), []
            case "pick":
                return {"filters": _pick(view, order, message)}, []
            case "cell":
                return {"source": self._cell(view, order, message)}, []
            case "rows":
                first, count = message["first"], min(message["count"], _MAX_BLOCK_ROWS)
                texts = view.texts(order, first=first, count=count, columns=self._width)
                return {"total": view.count(order), "texts": texts}, []
            case "value":
                text, is_cut = view.value(order, message["row"], message["column"])
                return {"text": text, "is_cut": is_cut}, []
            case "copy":
                first, last = message["rows"]
                text = view.copied(order, rows=(first, last), columns=message["columns"], header=message["header"])
                return {"text": text}, []
            case _:
                columns = [column for column in range(view.table.num_columns) if column not in message["hidden"]]
                from micromegas_jupyter.notebook.results.export import Export

                self._end_export()
                is_download = message["to"] == "download"
                self._export = (
                    message["id"],
                    Export(view, order, file_format=message["format"], columns=columns, is_download=is_download),
                )
                return {"export": message["id"]}, []

    def _draw(self, view: RowsView, order: RowQuery, message: Mapping[str, Any]) -> object:
        """Draw the matching rows; when brushing the chart itself, also draw the unselected ones."""
        from micromegas_jupyter.notebook.results.plots import Plot

        filters = tuple(each for each in order.filters if each[0] not in message["ignored"])
        found = Plot(view, RowQuery(filters), message["chart"], message["width"])
        view.plots[message["id"]] = found
        return {"plot": message["id"], "spec": found.spec, "chosen": found.chosen, "text": found.text}

    def _cell(self, view: RowsView, order: RowQuery, message: Mapping[str, Any]) -> str:
        if self._source is None:
            raise UsageError("No statement returned these rows.", remedy="Run one with %%sql.")
        from micromegas_jupyter.notebook.results.selection import checked_source, selection_sql

        head, sql, limit = self._source
        hidden = message["hidden"] if message["chart"] is None else ()
        is_around = bool(order.filters or order.sort or hidden)
        head += f" --limit {limit}" if limit is not None and not is_around else ""
        if message["chart"] is not None:
            from micromegas_jupyter.notebook.results.plots import plot_arguments

            head += f" {plot_arguments(message['chart'], view.table.schema.names)}"
        return checked_source(f"{head}\n{selection_sql(sql, view, order, limit=limit, hidden=hidden)}")


def _pick(view: RowsView, order: RowQuery, message: Mapping[str, Any]) -> dict[int, str]:
    """Return the filters for a click."""
    column, what = message["column"], message["what"]
    if what == "bar":
        return {column: view.bars_filter(column, *message["bars"])}
    if what == "top":
        return {column: view.top_filter(column, message["place"], order)}
    from micromegas_jupyter.notebook.results.selection import picked_filters

    return picked_filters(view, order, message["row"], column, what=what)


def _as_table(rows: Any) -> pa.Table:
    try:
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UsageError(
            f"A grid can't show {type(rows).__name__}.", remedy="Pass an Arrow table, or a data frame."
        ) from error


def _first_texts(view: RowsView, width: int) -> list[list[str | None]]:
    """Return the rows that are sent with the widget itself, as long as they are small."""
    rows = min(_FIRST_ROWS, view.table.num_rows)
    texts = view.texts(RowQuery(), first=0, count=rows, columns=width)
    while rows and sum(len(text or "") + 3 for column in texts for text in column[:rows]) > _MAX_FIRST_CHARACTERS:
        rows //= 2
    return [column[:rows] for column in texts]


def result_bundle(
    view: RowsView,
    *,
    result_rows: int,
    with_grid: bool,
    source: CellSource | None = None,
    plot: Asked | None = None,
) -> Bundle:
    """Return a result's display by MIME type, and its metadata; a chart becomes an image if no widget can show it."""
    saved = static_table(view, result_rows)
    if with_grid and shows_widgets() and view.table.num_columns:
        return widget_bundle(ResultGrid(view, result_rows=result_rows, source=source, plot=plot), saved)
    if plot is not None:
        from micromegas_jupyter.notebook.plotting.draw import build_image
        from micromegas_jupyter.notebook.results.plots import Plot

        drawn = Plot(view, RowQuery(), plot)
        saved["text/html"] = build_image(drawn.spec) + saved["text/html"]
        saved["text/plain"] = f"{drawn.text}\n\n{saved['text/plain']}"
    return saved, {}


def shown_table(
    table: pa.Table,
    *,
    max_rows: int,
    is_referenced: bool,
    source: CellSource | None = None,
    plot: Asked | None = None,
) -> Bundle:
    """Return a table's display; `is_referenced` means that something else keeps the table alive."""
    rows = min(table.num_rows, max_rows or (MAX_STATIC_ROWS if plot is None else table.num_rows))
    if not is_referenced and table.nbytes > MAX_HELD_BYTES:
        rows = min(rows, table.num_rows * MAX_HELD_BYTES // table.nbytes)
    held = table.slice(0, rows)
    if not is_referenced and rows < table.num_rows:
        held = taken(held, pa.array(np.arange(rows)))  # releases the rest
    shown = RowsView(held)
    return result_bundle(shown, result_rows=table.num_rows, with_grid=max_rows > 0, source=source, plot=plot)


def static_table(view: RowsView, result_rows: int) -> dict[str, str]:
    """Return the first rows by MIME type, as static tables: names, types, values, and the number of rows.

    It has as many rows, and then columns, as fit into a short text.
    """
    rows, width = min(MAX_STATIC_ROWS, view.table.num_rows), min(MAX_STATIC_COLUMNS, view.table.num_columns)
    while True:
        columns, texts = view.columns(width), view.texts(RowQuery(), first=0, count=rows, columns=width)
        cells = [
            [None if text is None else cut(text, _MAX_CELL_CHARACTERS) for text in row]
            for row in zip(*texts, strict=True)
        ]
        note = _note(view, result_rows, rows, width)
        as_html, as_text = _html_table(columns, cells, note), _text_table(columns, cells, note)
        is_short = len(as_html) <= _MAX_HTML_CHARACTERS and len(as_text) <= _MAX_TEXT_CHARACTERS
        if is_short or rows + width <= 2:  # noqa: PLR2004 - one cell
            return {"text/html": as_html, "text/plain": as_text}
        rows, width = (rows // 2, width) if rows > 1 else (rows, max(width // 2, 1))


def _note(view: RowsView, result_rows: int, rows: int, width: int) -> str:
    """Return a note about the visible part: `first 20 of 1,842,113 rows · first 50 of 60 columns`."""
    total, columns = rows_text(result_rows), view.table.num_columns
    note = total if rows == result_rows else f"first {count_text(rows)} of {total}"
    return note if width == columns else f"{note} · first {width} of {count_text(columns)} columns"


def _html_table(columns: Sequence[Mapping[str, object]], cells: Sequence[Sequence[str | None]], note: str) -> str:
    # JupyterLab's style sheet overrides styles on the table alone.
    styles = [f' style="text-align:{_side(column)};white-space:nowrap"' for column in columns]
    head, null = "", '<em style="opacity:0.7">null</em>'
    for column, style in zip(columns, styles, strict=True):
        hover = f"{column['name']}: {column['arrow_type']}, {column['nulls']:,} null"
        head += f'<th scope="col"{style} title="{html.escape(hover)}">{html.escape(str(column["name"]))}'
        head += f'<br><span style="font-weight:normal;opacity:0.8">{html.escape(_type_line(column))}</span></th>'
    body = ""
    for row in cells:
        values = (null if text is None else html.escape(text) for text in row)
        body += "<tr>" + "".join(map("<td{}>{}</td>".format, styles, values)) + "</tr>"
    return (
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(note)}</p></div>'
    )


def _text_table(columns: Sequence[Mapping[str, object]], cells: Sequence[Sequence[str | None]], note: str) -> str:
    head = [f"{column['name']}\n{_type_line(column)}" for column in columns]
    sides = [_side(column) for column in columns] if cells else None
    table = tabulate(cells, head, "simple", disable_numparse=True, colalign=sides, missingval="null")
    return "\n".join([*(line.rstrip() for line in table.splitlines()), note])


def _side(column: Mapping[str, object]) -> str:
    return "right" if column["kind"] == Kind.NUMBER else "left"


def _type_line(column: Mapping[str, object]) -> str:
    return f"{column['type']} · {column['unit']}" if column["unit"] else str(column["type"])
