"""A query's rows as the value of a cell: shown in brief, kept in full; a name or a value is never markup.

What Arrow's types do not allow (text that is not UTF-8, an unknown time zone) is written as bytes or in UTC.
"""

from __future__ import annotations

import html
import json
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.config.client import DEFAULT_RESULT_ROWS
from micromegas_jupyter.notebook.shell import count_text, cut, printable, rows_text, terminal_width

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

MAX_CELL_CHARACTERS = 200

_MAX_SHOWN_BYTES = 24
_MAX_SHOWN_ITEMS = 10
_MAX_DEPTH = 3
_UTC_NAMES = frozenset({"UTC", "+00:00", "Z", "Etc/UTC"})


def column_texts(column: pa.ChunkedArray) -> list[str | None]:
    """Return one short text for each value, None for null; meant for a few rows, not for a whole result."""
    return [None if text is None else _short(text) for text in _texts(decoded(column))]


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without dictionary encoding; one that has none is returned as it is."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)


def type_text(kind: pa.DataType) -> str:
    """Return a type's name as a person needs it: no dictionary encoding, `UTC` for each of its spellings."""
    if pa.types.is_dictionary(kind):
        return type_text(kind.value_type)
    if pa.types.is_timestamp(kind):
        zone = "no time zone" if kind.tz is None else "UTC" if kind.tz in _UTC_NAMES else _short(kind.tz)
        return cut(f"timestamp[{kind.unit}, {zone}]", MAX_CELL_CHARACTERS)
    return _short(str(kind))


def is_numeric(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers, which stand at the right."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _short(text: str) -> str:
    # Cut first: a value may be megabytes long.
    return cut(printable(cut(text, MAX_CELL_CHARACTERS)), MAX_CELL_CHARACTERS)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    kind = column.type
    if not (pa.types.is_nested(kind) or _is_bytes(kind)):
        try:
            texts: list[str | None] = _cast(column).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
            pass  # an interval, an extension type, what is no text: written value by value
        else:
            return [None if text is None else _tidy(kind)(text) for text in texts]
    return [_scalar_text(scalar, depth=0) if scalar.is_valid else None for scalar in column]


def _cast(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # A value may be megabytes long, and Python needs only its beginning.
        return pc.utf8_slice_codeunits(column, 0, MAX_CELL_CHARACTERS + 1)
    return column.cast(pa.string())


def _tidy(kind: pa.DataType) -> Callable[[str], str]:
    if pa.types.is_duration(kind):
        return lambda text: f"{text} {kind.unit}"
    if pa.types.is_timestamp(kind) and kind.tz in _UTC_NAMES:
        # The type's line names the zone.
        return lambda text: text.removesuffix("+0000").removesuffix("Z")
    return lambda text: text


def _scalar_text(scalar: pa.Scalar, *, depth: int) -> str:
    if not scalar.is_valid:
        return "null"
    if pa.types.is_dictionary(scalar.type):
        return _scalar_text(scalar.value, depth=depth)
    if _is_bytes(scalar.type):
        return _bytes_text(scalar.as_py())
    if pa.types.is_nested(scalar.type):
        return "…" if depth == _MAX_DEPTH else _nested_text(scalar, depth=depth + 1)
    return _plain_text(scalar)


def _plain_text(scalar: pa.Scalar) -> str:
    try:
        return str(scalar)
    except UnicodeDecodeError:
        return _bytes_text(scalar.cast(pa.binary()).as_py())
    except (ValueError, LookupError, ArithmeticError, TypeError, NotImplementedError, pa.ArrowException):
        if not pa.types.is_timestamp(scalar.type):
            return "(cannot be written)"
        # A zone that nobody knows; the text's end says that this is UTC.
        return str(scalar.cast(pa.timestamp(scalar.type.unit, "UTC")).cast(pa.string()))


def _nested_text(scalar: pa.Scalar, *, depth: int) -> str:
    kind = scalar.type
    if pa.types.is_struct(kind):
        fields = (f"{kind[index].name}: {_scalar_text(scalar[index], depth=depth)}" for index in range(len(kind)))
        return "{" + ", ".join(fields) + "}"
    if pa.types.is_map(kind):
        entries = islice(scalar.values, _MAX_SHOWN_ITEMS)
        pairs = (": ".join(_scalar_text(entry[index], depth=depth) for index in (0, 1)) for entry in entries)
        return "{" + ", ".join(pairs) + _rest(scalar.values) + "}"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        items = (_scalar_text(item, depth=depth) for item in islice(scalar.values, _MAX_SHOWN_ITEMS))
        return "[" + ", ".join(items) + _rest(scalar.values) + "]"
    return _plain_text(scalar)


def _rest(values: pa.Array) -> str:
    return ", …" if len(values) > _MAX_SHOWN_ITEMS else ""


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _bytes_text(data: bytes) -> str:
    shown = data[:_MAX_SHOWN_BYTES].hex()
    return f"0x{shown}" if len(data) <= _MAX_SHOWN_BYTES else f"0x{shown}… ({len(data):,} bytes)"


MAX_SHOWN_COLUMNS = 50
NULL_TEXT = "null"
_MAX_NAME_CHARACTERS = 100
MAX_PREVIEW_ROWS = 20
_MAX_PLAIN_CELL_CHARACTERS = 60
MAX_DATA_BYTES = 256 * 1024
_ROWS_AT_A_TIME = 100
_POSITION_BYTES = 6  # a value's place in the order, and a comma
_STATIC = Path(__file__).parents[1] / "static"
_MIN_ROWS = 2  # nothing to sort, filter or turn the page of below


def column_order(column: pa.ChunkedArray) -> list[int | None] | None:
    """Return each value's place, equal for equal values, None for null and NaN; None if only texts have an order."""
    values = decoded(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    if not _is_ordered(values.type):
        return None
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    try:
        places = pc.rank(values, sort_keys="ascending", tiebreaker="dense")  # nulls at the end
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None  # the narrow decimals
    order: list[int | None] = pc.if_else(pc.is_null(values), None, places).to_pylist()
    return order


def _is_ordered(kind: pa.DataType) -> bool:
    is_time = pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
    return bool(pa.types.is_boolean(kind) or is_numeric(kind) or is_time)


class ShownColumn(NamedTuple):
    """What a person sees of a column: name and Arrow type, its nulls in words, whether it stands at the right."""

    name: str
    type_name: str
    nulls: str
    is_numeric: bool


def shown_columns(table: pa.Table) -> list[ShownColumn]:
    """Return the columns that are shown, at most `MAX_SHOWN_COLUMNS`."""
    return [
        ShownColumn(
            name=cut(printable(field.name), _MAX_NAME_CHARACTERS),
            type_name=type_text(field.type),
            nulls=f"{count_text(table.column(index).null_count)} null of {rows_text(table.num_rows)}",
            is_numeric=is_numeric(field.type),
        )
        for index, field in enumerate(list(table.schema)[:MAX_SHOWN_COLUMNS])
    ]


def shown_texts(table: pa.Table, *, first: int, rows: int) -> list[list[str | None]]:
    """Return the texts of so many rows from the row `first` on, one list for each shown column; None for null."""
    part = table.slice(first, rows)
    return [column_texts(part.column(index)) for index in range(min(table.num_columns, MAX_SHOWN_COLUMNS))]


def _note(table: pa.Table) -> str:
    """Return how much of the result is shown: `first 20 of 1,842,113 rows · first 50 of 60 columns`."""
    shown_rows = min(int(table.num_rows), MAX_PREVIEW_ROWS)
    total = rows_text(table.num_rows)
    note = total if shown_rows == table.num_rows else f"first {count_text(shown_rows)} of {total}"
    hidden = table.num_columns - MAX_SHOWN_COLUMNS
    return note if hidden <= 0 else f"{note} · first {MAX_SHOWN_COLUMNS} of {table.num_columns} columns"


def preview_html(table: pa.Table) -> str:
    """Return the first rows as an HTML table: names with types under them, null counts in their titles."""
    columns = shown_columns(table)
    texts = shown_texts(table, first=0, rows=MAX_PREVIEW_ROWS)
    head = "".join(_head_cell(column) for column in columns)
    body = "".join("<tr>" + "".join(map(_body_cell, columns, row)) + "</tr>" for row in zip(*texts, strict=True))
    return (
        '<div class="micromegas-preview" style="overflow-x:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(_note(table))}</p></div>'
    )


def preview_text(table: pa.Table) -> str:
    """Return the first rows as plain text: names, types, values, and what is left out."""
    texts = shown_texts(table, first=0, rows=MAX_PREVIEW_ROWS)
    columns = map(_plain_column, shown_columns(table), texts)
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([*lines, _note(table)])


def _plain_column(column: ShownColumn, texts: list[str | None]) -> list[str]:
    """Return a column's name, type, rule and values, all equally wide."""
    values = [cut(NULL_TEXT if text is None else text, _MAX_PLAIN_CELL_CHARACTERS) for text in texts]
    lines = [column.name, column.type_name, *values]
    width = max(terminal_width(line) for line in lines)
    padded = [_pad(line, width, right=column.is_numeric) for line in lines]
    return [*padded[:2], "-" * width, *padded[2:]]


def _pad(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - terminal_width(text))
    return padding + text if right else text + padding


def _head_cell(column: ShownColumn) -> str:
    kind = f'<br><span style="font-weight:normal;opacity:0.8">{html.escape(column.type_name)}</span>'
    title = html.escape(f"{column.name}: {column.nulls}")
    return f'<th scope="col" title="{title}"{_style(column)}>{html.escape(column.name)}{kind}</th>'


def _body_cell(column: ShownColumn, text: str | None) -> str:
    shown = f'<em style="opacity:0.7">{NULL_TEXT}</em>' if text is None else html.escape(text)
    return f"<td{_style(column)}>{shown}</td>"


def _style(column: ShownColumn) -> str:
    return f' style="text-align:{"right" if column.is_numeric else "left"};white-space:pre-wrap;vertical-align:top"'


class ResultData(NamedTuple):
    """JSON text for the browser, and how many rows it holds."""

    text: str
    rows: int


def result_data(table: pa.Table, *, max_rows: int) -> ResultData:
    """Return the first rows: at most `max_rows`, and at most so many that their values take `MAX_DATA_BYTES`."""
    columns = _encoded_columns(table, max_rows=min(max_rows, table.num_rows))
    rows = len(columns[0]) if columns else 0
    head = table.slice(0, rows)
    members = [
        {
            "name": column.name,
            "type": column.type_name,
            "nulls": column.nulls,
            "right": column.is_numeric,
            "order": column_order(head.column(index)),
        }
        for index, column in enumerate(shown_columns(table))
    ]
    described = ",".join(
        f'{_json(member)[:-1]},"texts":[{",".join(texts)}]}}' for member, texts in zip(members, columns, strict=True)
    )
    size = f'"rows":{rows},"total":{table.num_rows},"columnTotal":{table.num_columns}'
    return ResultData(text=f'{{{size},"columns":[{described}]}}', rows=rows)


def _encoded_columns(table: pa.Table, *, max_rows: int) -> list[list[str]]:
    """Return the JSON texts of each shown column's values: as many rows as there is room for."""
    encoded: list[list[str]] = [[] for _ in range(min(table.num_columns, MAX_SHOWN_COLUMNS))]
    room = MAX_DATA_BYTES
    for first in range(0, max_rows, _ROWS_AT_A_TIME):
        texts = shown_texts(table, first=first, rows=min(_ROWS_AT_A_TIME, max_rows - first))
        part = [[_json(text) for text in column] for column in texts]
        sizes = list(accumulate(_row_bytes(row) for row in zip(*part, strict=True)))
        fitting = sum(1 for size in sizes if size <= room)
        for column, more in zip(encoded, part, strict=True):
            column.extend(more[:fitting])
        if fitting < len(sizes):
            break
        room -= sizes[-1] if sizes else 0
    return encoded


def _row_bytes(row: tuple[str, ...]) -> int:
    return sum(len(text.encode()) + 1 + _POSITION_BYTES for text in row)


def _json(value: object) -> str:
    # "<" could end the element that the text stands in, or begin a comment (HTML 13.2.5.4, script data).
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def result_html(table: pa.Table, *, max_rows: int) -> str:
    """Return the result's first rows as HTML; at most `max_rows` can be sorted, filtered and paged through."""
    preview = preview_html(table)
    if min(max_rows, table.num_rows) < _MIN_ROWS:
        return preview
    data = result_data(table, max_rows=max_rows)
    if data.rows < min(MAX_PREVIEW_ROWS, max_rows, table.num_rows):
        return preview  # rows so large that the preview holds more of them
    return (
        f'<div class="micromegas-result"><style>{static_text("result.css")}</style>{preview}'
        f'<script type="application/json">{data.text}</script>'
        f"<script>{static_text('result.js')}</script></div>"
    )


@cache
def static_text(name: str) -> str:
    """Return one of the package's scripts or style sheets without comments and indents: every output holds a copy."""
    lines = (line.strip() for line in (_STATIC / name).read_text(encoding="utf-8").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*")))


class QueryResult:
    """The rows of a query. A notebook shows the first of them; `to_pandas()` or `DataFrame` gives all."""

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
    """Return what a notebook shows of a result that goes into a variable, by MIME type."""
    return {"text/plain": preview_text(table), "text/html": result_html(table, max_rows=max_rows)}
