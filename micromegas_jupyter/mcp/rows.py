"""Formats rows for a model as CSV within a limit, and as JSON. Cell data cannot imitate the frame around it."""

import csv
import io
import json
import math
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.core.jsonb import with_json

_MAX_CELL_CHARACTERS: Final = 2000
_MAX_NAME_CHARACTERS: Final = 200
_MAX_SAFE_INTEGER: Final = 2**53  # JavaScript rounds larger numbers
_ROWS_AT_A_TIME: Final = 64
# Control, soft-hyphen, zero-width, bidirectional, variation, and tag characters, so that a cell cannot hide or draw
# text.
_HIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_SHORT_ESCAPES: Final = {"\n": "\\n", "\t": "\\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A result as text and as JSON; `truncated_by` is `rows`, `bytes`, or None."""

    text: str
    columns: list[dict[str, str]]
    rows: list[list[Any]]
    truncated_by: str | None
    cut_cells: int


def render(table: pa.Table, *, max_rows: int, max_bytes: int, truncated_by: str | None = None) -> Rendered:
    """Return the first rows, at most `max_rows` rows and `max_bytes` bytes of text, including marks and header."""
    if table.num_rows > max_rows:
        table, truncated_by = table.slice(0, max_rows), "rows"
    columns = [
        {"name": field.name[:_MAX_NAME_CHARACTERS], "type": type_name(field.type)[:_MAX_NAME_CHARACTERS]}
        for field in table.schema
    ]
    table = with_json(table)
    mark = f"rows-{secrets.token_hex(4)}"  # the author of a row cannot know it
    lines = [_csv_line([column["name"] for column in columns])]
    left = max_bytes - 2 * len(mark) - len("<>\n</>") - len(lines[0].encode())
    rows: list[list[Any]] = []
    cut_cells = 0
    for start in range(0, table.num_rows, _ROWS_AT_A_TIME):
        part = table.slice(start, _ROWS_AT_A_TIME)
        for cells in zip(*(column.to_pylist() for column in part.columns), strict=True):
            values = [_json_value(cell) for cell in cells]
            line = _csv_line([value for value, _ in values])
            left -= len(line.encode())
            if left < 0:
                truncated_by, start = "bytes", table.num_rows  # noqa: PLW2901 - no more parts
                break
            rows.append([value for value, _ in values])
            cut_cells += sum(is_cut for _, is_cut in values)
            lines.append(line)
        if left < 0:
            break
    if left < 0 and not rows:
        lines = lines if len(lines[0].encode()) < max_bytes // 2 else ["(too many columns to show)\n"]
    text = f"<{mark}>\n{''.join(lines)}</{mark}>"
    return Rendered(text=text, columns=columns, rows=rows, truncated_by=truncated_by, cut_cells=cut_cells)


def visible(text: str) -> str:
    """Return text with invisible and layout-changing characters escaped."""
    return _HIDDEN.sub(lambda found: _SHORT_ESCAPES.get(found[0]) or f"\\u{{{ord(found[0]):x}}}", text)


def type_name(kind: pa.DataType) -> str:
    """Return the name of a column's type; for dictionaries, which are only an encoding, it is the value type's name."""
    return type_name(kind.value_type) if pa.types.is_dictionary(kind) else str(kind)


def _csv_line(cells: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(
        ["" if cell is None else visible(str(cell).lower() if isinstance(cell, bool) else str(cell)) for cell in cells]
    )
    return out.getvalue()


def _json_value(value: Any) -> tuple[Any, bool]:  # noqa: PLR0911 - one line for each kind
    """Return a value that every JSON parser preserves, and whether it was truncated."""
    match value:
        case None | bool():
            return value, False
        case int():
            return (value if abs(value) < _MAX_SAFE_INTEGER else str(value)), False
        case float():
            return (value if math.isfinite(value) else str(value)), False
        case str():
            return _cut(value, len(value))
        case bytes():
            return _cut(f"0x{value[: _MAX_CELL_CHARACTERS // 2].hex()}", 2 * len(value) + 2)
        case datetime():
            text = value.isoformat() if value.tzinfo is None else value.astimezone(UTC).isoformat()
            return text.replace("+00:00", "Z"), False
        case dict() | list():
            text = json.dumps(value, default=str, ensure_ascii=False)
            return _cut(text, len(text))
        case _:
            return _cut(str(value), len(str(value)))


def _cut(text: str, length: int) -> tuple[str, bool]:
    if length <= _MAX_CELL_CHARACTERS:
        return text, False
    return f"{text[:_MAX_CELL_CHARACTERS]}… (+{length - _MAX_CELL_CHARACTERS} characters)", True
