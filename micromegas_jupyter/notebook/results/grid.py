"""How a notebook shows a result: a grid while its kernel runs, and one small table without scripts everywhere else."""

from __future__ import annotations

import html
import io
import json
import logging
from collections import OrderedDict
from dataclasses import asdict
from datetime import UTC
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import anywidget
import numpy as np
import pyarrow as pa
import traitlets
from IPython.core.getipython import get_ipython

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import InternalError, MicromegasError, UsageError
from micromegas_jupyter.notebook.results.filters import HINTS
from micromegas_jupyter.notebook.results.formats import Kind
from micromegas_jupyter.notebook.results.view import EXPORT_FORMATS, Order, RowsView, taken
from micromegas_jupyter.notebook.shell import (
    SAVED_MIME_TYPE,
    Bundle,
    count_text,
    cut,
    has_kernel,
    is_attended,
    rows_text,
    terminal_width,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_HELD_BYTES: Final = 1024**3
"""How much the rows of all grids may take; the grids that were used last keep theirs."""

MAX_COLUMNS: Final = 200
MAX_STATIC_ROWS: Final = 20
MAX_STATIC_COLUMNS: Final = 50
MAX_DOWNLOAD_BYTES: Final = 50 * 1024 * 1024
"""Larger files are written beside the notebook instead of going through the browser."""

_MAX_HTML_CHARACTERS = 20_000
_MAX_TEXT_CHARACTERS = 10_000
_MAX_CELL_CHARACTERS = 60
_MAX_HEAD_CHARACTERS = 20_000
_MAX_FIRST_CHARACTERS = 8_000
_FIRST_ROWS = 50
_MAX_BLOCK_ROWS = 500
_STATIC = Path(__file__).parents[1] / "frontend" / "static"
_log = logging.getLogger(__name__)


class _HeldRows:
    """The rows that grids keep alive, the most recently used last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._views: OrderedDict[int, RowsView] = OrderedDict()
        self._next = 0

    def add(self, view: RowsView) -> int:
        """Keep rows, and drop the oldest for which there is no room any more."""
        with self._lock:
            self._next += 1
            self._views[self._next] = view
            tables = {id(held.table): held.table.nbytes for held in self._views.values()}
            while len(self._views) > 1 and sum(tables.values()) > MAX_HELD_BYTES:
                _, dropped = self._views.popitem(last=False)
                if all(held.table is not dropped.table for held in self._views.values()):
                    del tables[id(dropped.table)]
            return self._next

    def get(self, number: int) -> RowsView:
        """Return rows that are still kept."""
        with self._lock:
            if number not in self._views:
                raise UsageError("These rows are no longer kept.", remedy="Run the cell again.")
            self._views.move_to_end(number)
            return self._views[number]

    def drop(self, number: int) -> None:
        """Keep these rows no longer."""
        with self._lock:
            self._views.pop(number, None)


_held = _HeldRows()


class ResultGrid(anywidget.AnyWidget):
    """A grid over rows that stay in the kernel: the browser asks for the texts in sight, and shows them."""

    _esm = _STATIC / "grid.js"
    _css = _STATIC / "grid.css"

    columns = traitlets.List(traitlets.Dict()).tag(sync=True)
    total = traitlets.Int().tag(sync=True)
    hints = traitlets.Dict(dict(HINTS)).tag(sync=True)
    first = traitlets.List(traitlets.List()).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)

    def __init__(self, view: RowsView, *, result_rows: int) -> None:
        columns = view.columns(MAX_COLUMNS)
        while len(columns) > 1 and len(json.dumps(columns)) > _MAX_HEAD_CHARACTERS:
            columns = columns[: len(columns) * 3 // 4]
        self._number, self._width, total = _held.add(view), len(columns), view.table.num_rows
        parts = [f"the first {count_text(total)} of {rows_text(result_rows)}"] if total < result_rows else []
        if self._width < view.table.num_columns:
            parts.append(f"the first {self._width} of {count_text(view.table.num_columns)} columns (a file has all)")
        note = f"The grid shows {' and '.join(parts)}." if parts else ""
        first = _first_texts(view, self._width)
        super().__init__(columns=columns, total=total, first=first, note=note)
        self.on_msg(self._take_message)
        if self.comm is not None:
            # ipykernel 7.4 takes a page's questions to the shell that last sent through the comm: the cell's, where
            # they would wait for all cells of a Run All, and not the subshell that JupyterLab names in them.
            self.comm.__dict__.pop("_reply_subshell_id", None)

    def close(self) -> None:
        """Close the widget and let go of the rows."""
        _held.drop(self._number)
        super().close()

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        if not isinstance(content, dict) or not isinstance(content.get("id"), int):
            return  # comes from no page of ours
        try:
            answer, buffers = self._answer(content)
        except MicromegasError as error:
            self.send({"id": content["id"], "error": f"{error.what} {error.remedy}".strip()})
        except Exception as error:  # noqa: BLE001 - whatever happens, the page gets an answer
            _log.error("A grid could not answer.", extra={"kind": type(error).__name__})
            self.send({"id": content["id"], "error": InternalError("The grid could not do that.").what})
        else:
            self.send({"id": content["id"], "answer": answer}, buffers)
        # To sort and to count takes memory for a moment, which Arrow's allocator would keep for the next time.
        pa.default_memory_pool().release_unused()

    def _answer(self, message: Mapping[str, Any]) -> tuple[object, list[bytes]]:
        view = _held.get(self._number)
        width = view.table.num_columns
        if message["op"] == "statistics":
            return asdict(view.statistics(_index(message["column"], width))), []
        order = Order.parse(message["order"], columns=width)
        match message["op"]:
            case "rows":
                first, count = max(int(message["first"]), 0), min(max(int(message["count"]), 0), _MAX_BLOCK_ROWS)
                texts = view.texts(order, first=first, count=count, columns=self._width)
                return {"total": view.count(order), "texts": texts}, []
            case "value":
                text, is_cut = view.value(order, max(int(message["row"]), 0), _index(message["column"], width))
                return {"text": text, "is_cut": is_cut}, []
            case "copy":
                first, last = (max(int(row), 0) for row in message["rows"])
                columns = [_index(column, width) for column in message["columns"]]
                return {
                    "text": view.copied(order, rows=(first, last), columns=columns, header=bool(message["header"]))
                }, []
            case "export":
                hidden = {_index(column, width) for column in message["hidden"]}
                columns = [column for column in range(width) if column not in hidden]
                return _export(view, order, file_format=str(message["format"]), columns=columns)
        raise UsageError("The grid asked for something unknown.", remedy="Run the cell again.")


def _index(value: object, width: int) -> int:
    if not isinstance(value, int) or not 0 <= value < width:
        raise UsageError("The grid asked for a column that it does not have.", remedy="Run the cell again.")
    return value


def _first_texts(view: RowsView, width: int) -> list[list[str | None]]:
    """Return the rows that come with the widget itself, as many as are small."""
    rows = min(_FIRST_ROWS, view.table.num_rows)
    texts = view.texts(Order(), first=0, count=rows, columns=width)
    while rows and sum(len(text or "") + 3 for column in texts for text in column[:rows]) > _MAX_FIRST_CHARACTERS:
        rows //= 2
    return [column[:rows] for column in texts]


def _export(view: RowsView, order: Order, *, file_format: str, columns: Sequence[int]) -> tuple[object, list[bytes]]:
    if file_format not in EXPORT_FORMATS or not columns:
        raise UsageError("The grid asked for an unknown kind of file.", remedy="Run the cell again.")
    media_type = EXPORT_FORMATS[file_format]
    name = f"result-{SYSTEM_CLOCK.now().astimezone(UTC):%Y%m%d-%H%M%S}.{file_format}"
    if view.size_of(order) <= MAX_DOWNLOAD_BYTES:
        target = io.BytesIO()
        view.write(order, target, file_format=file_format, columns=columns)
        return {"name": name, "type": media_type, "file": None}, [target.getvalue()]
    view.write_new_file(order, Path(name), file_format=file_format, columns=columns)
    return {"name": name, "type": media_type, "file": name}, []


def result_bundle(view: RowsView, *, result_rows: int, with_grid: bool) -> Bundle:
    """Return what a notebook shows of a result and its metadata, by MIME type."""
    saved = {"text/html": static_html(view, result_rows), "text/plain": static_text(view, result_rows)}
    shell = get_ipython()
    if not with_grid or shell is None or not (has_kernel(shell) and is_attended(shell)) or not view.table.num_columns:
        return saved, {}
    shown = ResultGrid(view, result_rows=result_rows)._repr_mimebundle_()
    bundle, metadata = shown if isinstance(shown, tuple) else (shown, {})
    return {SAVED_MIME_TYPE: {"version": 1}, **(bundle or {}), **saved}, metadata


def shown_table(table: pa.Table, *, max_rows: int, is_referenced: bool) -> Bundle:
    """Return what a notebook shows of a table; `is_referenced` says that somebody keeps it anyway."""
    rows = min(table.num_rows, max_rows or MAX_STATIC_ROWS)
    if not is_referenced and table.nbytes > MAX_HELD_BYTES:
        rows = min(rows, table.num_rows * MAX_HELD_BYTES // table.nbytes)
    held = table.slice(0, rows)
    if not is_referenced and rows < table.num_rows:
        held = taken(held, pa.array(np.arange(rows)))  # so that the rest can go
    return result_bundle(RowsView(held), result_rows=table.num_rows, with_grid=max_rows > 0)


def static_html(view: RowsView, result_rows: int) -> str:
    """Return the first rows as an HTML table that stands by itself: names, types, values, and how many there are."""
    return _small(partial(_html_table, view, result_rows), view, _MAX_HTML_CHARACTERS)


def static_text(view: RowsView, result_rows: int) -> str:
    """Return the first rows as plain text: names, types, values, and how many there are."""
    return _small(partial(_text_table, view, result_rows), view, _MAX_TEXT_CHARACTERS)


def _small(build: Callable[[int, int], str], view: RowsView, max_characters: int) -> str:
    """Return a table of as many rows, and then columns, as make a text of this length."""
    rows, width = min(MAX_STATIC_ROWS, view.table.num_rows), min(MAX_STATIC_COLUMNS, view.table.num_columns)
    while len(text := build(rows, width)) > max_characters and rows + width > 2:  # noqa: PLR2004 - one cell
        rows, width = (rows // 2, width) if rows > 1 else (rows, max(width // 2, 1))
    return text


def _html_table(view: RowsView, result_rows: int, rows: int, width: int) -> str:
    columns, texts = view.columns(width), view.texts(Order(), first=0, count=rows, columns=width)
    # JupyterLab's style sheet overrides what stands on the table alone.
    styles = [
        f' style="text-align:{"right" if column["kind"] == Kind.NUMBER else "left"};white-space:nowrap"'
        for column in columns
    ]
    head = "".join(
        f'<th scope="col"{style} title="{html.escape(_hover(column))}">{html.escape(str(column["name"]))}'
        f'<br><span style="font-weight:normal;opacity:0.8">{html.escape(_type_line(column))}</span></th>'
        for column, style in zip(columns, styles, strict=True)
    )
    body = "".join("<tr>" + "".join(map(_body_cell, row, styles)) + "</tr>" for row in zip(*texts, strict=True))
    return (
        '<div style="overflow-x:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(_note(view, result_rows, rows, width))}</p></div>'
    )


def _hover(column: Mapping[str, object]) -> str:
    return f"{column['name']}: {column['arrow_type']}, {count_text(int(str(column['nulls'])))} null"


def _type_line(column: Mapping[str, object]) -> str:
    return f"{column['type']} · {column['unit']}" if column["unit"] else str(column["type"])


def _body_cell(text: str | None, style: str) -> str:
    shown = '<em style="opacity:0.7">null</em>' if text is None else html.escape(cut(text, _MAX_CELL_CHARACTERS))
    return f"<td{style}>{shown}</td>"


def _note(view: RowsView, result_rows: int, rows: int, width: int) -> str:
    """Return how much of the result is shown: `first 20 of 1,842,113 rows · first 50 of 60 columns`."""
    total, columns = rows_text(result_rows), view.table.num_columns
    note = total if rows == result_rows else f"first {count_text(rows)} of {total}"
    return note if width == columns else f"{note} · first {width} of {count_text(columns)} columns"


def _text_table(view: RowsView, result_rows: int, rows: int, width: int) -> str:
    columns, texts = view.columns(width), view.texts(Order(), first=0, count=rows, columns=width)
    lines = zip(*map(_text_column, columns, texts), strict=True)
    return "\n".join([*("  ".join(cells).rstrip() for cells in lines), _note(view, result_rows, rows, width)])


def _text_column(column: Mapping[str, object], texts: Sequence[str | None]) -> list[str]:
    """Return a column's name, type, rule and values, all equally wide."""
    values = [cut("null" if text is None else text, _MAX_CELL_CHARACTERS) for text in texts]
    lines = [str(column["name"]), _type_line(column), *values]
    width = max(map(terminal_width, lines))
    is_right = column["kind"] == Kind.NUMBER
    padded = [
        " " * (width - terminal_width(line)) + line if is_right else line + " " * (width - terminal_width(line))
        for line in lines
    ]
    return [*padded[:2], "-" * width, *padded[2:]]
