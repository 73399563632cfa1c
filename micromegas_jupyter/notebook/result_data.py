"""The first rows of a result as data for the table in the browser: bounded, and harmless inside of a page.

The data is saved with the notebook, like every output. What the browser does with it is `static/result.js`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.result_columns import MAX_SHOWN_COLUMNS, shown_columns, shown_texts
from micromegas_jupyter.notebook.result_order import column_order

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DATA_BYTES = 256 * 1024

_ROWS_AT_A_TIME = 100
_PLACE_BYTES = 6  # a value's place in the order, and a comma


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultData:
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
    return sum(len(text.encode()) + 1 + _PLACE_BYTES for text in row)


def _json(value: object) -> str:
    # "<" could end the element that the text stands in, or begin a comment (HTML 13.2.5.4, script data).
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
