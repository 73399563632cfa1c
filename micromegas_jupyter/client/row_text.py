"""Rows as text: CSV, JSON, JSON lines, Markdown, and tables, written batch by batch in constant memory.

Only this module converts values to text for files and pipes, so the command line and notebooks write the same.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.jsonb import holds_jsonb
from micromegas_jupyter.core.text import cell_text, encode_json, terminal_width
from micromegas_jupyter.errors import UsageError

_CHUNK_ROWS: Final = 4000  # fewer are slower, more use more memory
_LAYOUT_ROWS: Final = 1000
_ELLIPSIS: Final = "..."
# Same as in the other commands' tables, which are formatted by tabulate.
_MIN_PADDING: Final = 2
_DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_Columns = Sequence[pa.StringArray]


def write_text(  # noqa: PLR0913 - how rows are written
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    output: IO[str],
    *,
    file_format: str,
    max_column_width: int = 0,
    shows_json: bool = True,
    are_json: Mapping[int, bool] | None = None,
) -> int:
    """Write all rows, each batch as it arrives, and return the number of rows.

    `csv` is RFC 4180 with LF line endings: NULL is an empty field, an empty string is `""`. `json` is a list of
    objects, `jsonl` one object per line. Times are ISO 8601 with all digits of their type; those with a time zone are
    in UTC and end with `Z`. Bytes are base64; lists, structs, and maps are JSON; intervals are seconds.

    Args:
        schema: Columns of all batches.
        batches: The rows.
        output: The stream to write to; flushed after each batch.
        file_format: `csv`, `json`, `jsonl`, `markdown`, or `table`.
        max_column_width: Width of a table's cells in characters; 0 for no limit.
        shows_json: Whether binary JSON becomes JSON.
        are_json: Whether columns contain binary JSON, by index. If a column isn't listed, its first values decide.

    Raises:
        UsageError: The format does not support such columns, or a value is outside the range of its type's text form.
    """
    encoding = _ENCODINGS[file_format]
    if encoding is _JSON:
        check_distinct(schema.names, holder="a JSON object", remedy="Rename one with AS, or use --format csv.")
    writers: dict[str, Callable[..., None]] = {
        "csv": _write_csv, "json": _write_json, "jsonl": _write_json_lines, "markdown": _write_markdown,
        "table": partial(_write_table, max_width=max_column_width),
    }  # fmt: skip
    counted = _Counted(_chunks(batches, encoding, dict(are_json or {}), shows_json=shows_json), output)
    writers[file_format](schema, counted, output)
    return counted.rows


class _Counted:
    """Counted rows of columns; the output is flushed before waiting for more."""

    def __init__(self, chunks: Iterator[_Columns], output: IO[str]) -> None:
        self.rows = 0
        self._chunks = chunks
        self._output = output

    def __iter__(self) -> Iterator[_Columns]:
        for columns in self._chunks:
            if columns:
                self.rows += len(columns[0])
                yield columns
                self._output.flush()


def _plain_value(value: Any, *, as_text: bool) -> Any:
    """Return an Arrow value as JSON can represent it: times as ISO 8601, bytes as base64."""
    plain: Any
    match value:
        case None | str() | bool() | int():
            plain = value
        case float():  # JSON can't represent some
            plain = value if math.isfinite(value) else _number_text(value) if as_text else None
        case bytes():
            plain = base64.b64encode(value).decode("ascii")
        case datetime() | date() | time():
            plain = value.isoformat()
        case timedelta():
            plain = value.total_seconds()
        case Decimal():
            plain = f"{value:f}"
        case pa.MonthDayNano():
            plain = f"P{value.months}M{value.days}DT{Decimal(value.nanoseconds).scaleb(-9):f}S"
        case dict():
            plain = {str(key): _plain_value(item, as_text=as_text) for key, item in value.items()}
        case list() | tuple():
            plain = [_plain_value(item, as_text=as_text) for item in value]
        case _:
            plain = str(value)
    return plain


def _number_text(value: float) -> str:
    return "NaN" if math.isnan(value) else str(value)


def _csv_field(value: object) -> str:
    text = value if isinstance(value, str) else encode_json(value)
    return '"' + text.replace('"', '""') + '"' if re.search(_CSV_SPECIAL, text) else text


def _markdown_cell(value: object) -> str:
    return cell_text(value).replace("\\", "\\\\").replace("|", "\\|")


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How a format writes a value: `encode` takes JSON values; strings without `special` characters stay unchanged."""

    encode: Callable[[Any], str]
    special: str  # an RE2 regular expression
    quote: str = ""
    null: str = ""


_UNLIKE_PYTHON: Final = r"^[^.]*$|e|^-?0\.000"  # numbers that Arrow formats differently than Python, and non-numbers
_CSV_SPECIAL: Final = '^$|[",\r\n]'  # an empty string is quoted, because an unquoted empty field is NULL
_JSON: Final = _Encoding(encode_json, r'["\\\x00-\x1f]', quote='"', null="null")
_ENCODINGS: Final = {
    "csv": _Encoding(_csv_field, _CSV_SPECIAL),
    "json": _JSON,
    "jsonl": _JSON,
    "markdown": _Encoding(_markdown_cell, r"[^ -~]|[|\\]"),
    "table": _Encoding(cell_text, "[^ -~]"),
}


def _chunks(
    batches: Iterable[pa.RecordBatch], encoding: _Encoding, are_json: dict[int, bool], *, shows_json: bool
) -> Iterator[_Columns]:
    """Yield the columns' values as strings, in batches of rows.

    With `shows_json`, a column whose first values are all binary JSON is written as JSON; other bytes in it are
    base64.
    """
    for batch in batches:
        for index, (field, column) in enumerate(zip(batch.schema, batch.columns, strict=True)):
            is_plain = pa.types.is_primitive(field.type) or pa.types.is_string(field.type)
            if shows_json and not is_plain and index not in are_json and column.null_count < len(column):
                are_json[index] = holds_jsonb(field, pa.chunked_array([column]))
        for first in range(0, batch.num_rows, _CHUNK_ROWS):
            rows = batch.slice(first, _CHUNK_ROWS)
            yield [
                _checked_texts(field, column, encoding, is_json=are_json.get(index, False)).fill_null(encoding.null)
                for index, (field, column) in enumerate(zip(rows.schema, rows.columns, strict=True))
            ]


def _checked_texts(field: pa.Field, column: pa.Array, encoding: _Encoding, *, is_json: bool) -> pa.StringArray:
    try:
        texts = _texts(column, encoding, is_json=is_json)
        texts.validate(full=True)  # a server may send invalid UTF-8
    except (ValueError, LookupError, ArithmeticError) as error:  # or a time that Python or the zone database lacks
        what = f"The column {cell_text(field.name)} holds a value that cannot be written as text."
        raise UsageError(what, remedy="Leave it out, or choose Parquet or Arrow.") from error
    return texts


def _texts(column: pa.Array, encoding: _Encoding, *, is_json: bool) -> pa.StringArray:
    """Return the values' text; columns of common types are converted as a whole, which is much faster."""
    types = pa.types
    encode = encoding.encode
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if not is_json:
        if types.is_integer(kind):
            return column.cast(pa.string())
        if types.is_boolean(kind):
            return pa.array([encode(False), encode(True)]).take(column.cast(pa.int8()))
        if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
            return _time_texts(column, encoding.quote)
        if types.is_float32(kind) or types.is_float64(kind):
            return _float_texts(column, encoding)
        if types.is_decimal(kind):
            column = _decimal_texts(column)
    return _other_texts(column, encoding, is_json=is_json)


def _other_texts(column: pa.Array, encoding: _Encoding, *, is_json: bool) -> pa.StringArray:
    encode = encoding.encode
    if encode is _csv_field:
        return _csv_fields(_plain_texts(column, is_json=is_json))
    if not is_json and pa.types.is_string(column.type):
        special = pc.match_substring_regex(column, encoding.special)
        quote = encoding.quote
        texts = pc.binary_join_element_wise(quote, column, quote, "") if quote else column
        return _replaced(texts, special, lambda: map(encode, column.filter(special).to_pylist()))
    values = (_json_column if is_json else _plain_column)(column, as_text=encoding is not _JSON)
    return pa.array([None if value is None else encode(value) for value in values], pa.string())


def _float_texts(column: pa.Array, encoding: _Encoding) -> pa.StringArray:
    if pa.types.is_float32(column.type):  # 0.1, not 0.10000000149011612
        column = column.cast(pa.string()).cast(pa.float64())
    texts = pc.replace_substring_regex(column.cast(pa.string()), r"^(-?\d{1,15})$", r"\1.0")
    special = pc.match_substring_regex(texts, _UNLIKE_PYTHON)
    return _replaced(
        texts,
        special,
        lambda: map(encoding.encode, _plain_column(column.filter(special), as_text=encoding is not _JSON)),
    )


def _plain_texts(column: pa.Array, *, is_json: bool) -> pa.StringArray:
    """Return values as text, converting non-text values to JSON."""
    if not is_json and pa.types.is_string(column.type):
        return column
    if not is_json and _is_simple_struct(column):
        return _struct_texts(column)
    values = (_json_column if is_json else _plain_column)(column, as_text=True)
    texts = [value if value is None or isinstance(value, str) else encode_json(value) for value in values]
    return pa.array(texts, pa.string())


def _is_simple_struct(column: pa.Array) -> bool:
    """Whether a column contains structs with values that are the same in text and JSON."""
    kind, types = column.type, pa.types
    if not types.is_struct(kind) or not 0 < kind.num_fields == len({field.name for field in kind}):
        return False
    return all(
        types.is_integer(child.type)
        or types.is_boolean(child.type)
        or types.is_string(child.type)
        or (types.is_float64(child.type) and pc.all(pc.is_finite(child)).as_py() is not False)
        or _is_simple_struct(child)
        for child in column.flatten()
    )


def _struct_texts(column: pa.StructArray) -> pa.StringArray:
    pieces: list[pa.StringArray | str] = []
    for field, child in zip(column.type, column.flatten(), strict=True):
        is_struct = pa.types.is_struct(field.type)
        texts = _struct_texts(child) if is_struct else _texts(child, _JSON, is_json=False)
        pieces += [f"{', ' if pieces else '{'}{encode_json(field.name)}: ", texts.fill_null(_JSON.null)]
    return pc.if_else(column.is_valid(), pc.binary_join_element_wise(*pieces, "}", ""), None)


def _csv_fields(texts: pa.StringArray) -> pa.StringArray:
    """Do the same as `_csv_field` for all strings, in a fraction of the time."""
    special = pc.match_substring_regex(texts, _CSV_SPECIAL)
    if not pc.any(special).as_py():
        return texts
    doubled = pc.replace_substring(texts.filter(special), '"', '""')
    return pc.replace_with_mask(texts, special, pc.binary_join_element_wise('"', doubled, '"', ""))


def _time_texts(column: pa.Array, quote: str) -> pa.StringArray:
    """Return times with all digits, which Python's times lack; raise ValueError if one can't be formatted."""
    kind = column.type
    texts = (column.cast(pa.timestamp(kind.unit)) if pa.types.is_timestamp(kind) else column).cast(pa.string())
    if pc.any(pc.starts_with(texts, "<")).as_py():  # Arrow writes `<value out of range: …>`
        raise ValueError
    end = quote if getattr(kind, "tz", None) is None else f"Z{quote}"
    return pc.binary_join_element_wise(quote, pc.replace_substring(texts, " ", "T"), end, "")


def _decimal_texts(column: pa.Array) -> pa.StringArray:
    texts = column.cast(pa.string())
    special = pc.match_substring(texts, "E")  # Arrow writes small numbers this way
    return _replaced(texts, special, lambda: _plain_column(column.filter(special), as_text=True))


def _replaced(
    texts: pa.StringArray, where: pa.BooleanArray, make_others: Callable[[], Iterable[str]]
) -> pa.StringArray:
    """Return the strings, replacing those for which `where` is true with the others, in order."""
    if not pc.any(where).as_py():
        return texts
    return pc.replace_with_mask(texts, where, pa.array(make_others(), pa.string()))


def _lines(pieces: Sequence[pa.StringArray | str], separator: str, *, between: str = "\n") -> str:
    """Join rows into text with a row template, a separator between values, and one between rows."""
    lines = pc.binary_join_element_wise(*pieces, separator)
    text: str = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), between)[0].as_py()
    return text


def _json_column(column: pa.Array, *, as_text: bool) -> list[Any]:
    """Return binary JSON as JSON text or as input of `json.dumps`, decoding each distinct value once."""
    known: dict[bytes | None, Any] = {None: None}
    values = column.to_pylist()
    for value in values:
        if value not in known:
            try:
                found = jsonb.decode(value)
                known[value] = jsonb.to_json(found) if as_text else jsonb.to_plain(found)
            except jsonb.MalformedJsonb:
                known[value] = _plain_value(value, as_text=as_text)
    return [known[value] for value in values]


def _plain_column(column: pa.Array, *, as_text: bool) -> list[Any]:

    kind = column.type
    if pa.types.is_duration(kind):
        counts, digits = column.cast(pa.int64()).to_pylist(), _DIGITS[kind.unit]
        if as_text:
            return [None if count is None else f"{Decimal(count).scaleb(-digits):f}" for count in counts]
        return [None if count is None else count / 10**digits for count in counts]
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(kind):
        values = [None if item is None else _plain_map(item) for item in values]
    return [_plain_value(value, as_text=as_text) for value in values]


def _plain_map(items: Sequence[tuple[Any, Any]]) -> Any:
    """Return a map as an object, or as pairs if a key is repeated."""
    found = {str(key): held for key, held in items}
    return found if len(found) == len(items) else items


def _write_table(schema: pa.Schema, chunks: Iterable[_Columns], output: IO[str], *, max_width: int) -> None:
    """Write a table with column widths from its first rows; longer cells further down overflow."""
    names = [cell_text(name) for name in schema.names]
    numeric = [_is_number(field.type) for field in schema]
    iterator = ([_cut(texts, max_width) for texts in columns] for columns in chunks)
    first: Sequence[Any] = next(iterator, [()] * len(names))
    widths = [
        max([terminal_width(name) + _MIN_PADDING, *(terminal_width(str(text)) for text in column[:_LAYOUT_ROWS])])
        for name, column in zip(names, first, strict=True)
    ]

    padded_widths = [*widths]
    if not all(numeric[-1:]):
        padded_widths[-1] = 0  # nothing follows the last column
    layout = list(zip(padded_widths, numeric, strict=True))
    output.write("  ".join(_padded_text(name, *one) for name, one in zip(names, layout, strict=True)) + "\n")
    output.write("  ".join("-" * width for width in widths) + "\n")
    for columns in chain([first] if names and len(first[0]) else [], iterator):
        padded = [_padded(texts, *one) for texts, one in zip(columns, layout, strict=True)]
        output.write(_lines(padded, "  ") + "\n")


def _cut(texts: pa.StringArray, max_width: int) -> pa.StringArray:
    """Truncate the strings to `max_width` character cells; 0 means no limit."""
    if max_width == 0:
        return texts
    is_long = pc.greater(pc.binary_length(texts), max_width)  # in bytes; wide characters have more than one
    if not pc.any(is_long).as_py():
        return texts
    shown = max(max_width - len(_ELLIPSIS), 1)
    cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(texts, 0, shown), _ELLIPSIS, "")
    return _replace_wide(texts, pc.if_else(is_long, cut, texts), partial(_cut_text, max_width=max_width, shown=shown))


def _cut_text(text: str, max_width: int, shown: int) -> str:
    if terminal_width(text) <= max_width:
        return text
    from wcwidth import clip

    return clip(text, 0, shown) + _ELLIPSIS


def _padded(texts: pa.StringArray, width: int, to_the_right: bool) -> pa.StringArray:  # noqa: FBT001 - a column's layout

    padded = (pc.ascii_lpad if to_the_right else pc.ascii_rpad)(texts, width)
    return _replace_wide(texts, padded, partial(_padded_text, width=width, to_the_right=to_the_right))


def _padded_text(text: str, width: int, to_the_right: bool) -> str:  # noqa: FBT001 - a column's layout
    padding = " " * (width - terminal_width(text))
    return padding + text if to_the_right else text + padding


def _replace_wide(texts: pa.StringArray, done: pa.StringArray, function: Callable[[str], str]) -> pa.StringArray:
    """Return the results for ASCII strings, and the function's values for the others."""
    are_wide = pc.invert(pc.string_is_ascii(texts))
    return _replaced(done, are_wide, lambda: map(function, texts.filter(are_wide).to_pylist()))


def _is_number(kind: pa.DataType) -> bool:

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _write_markdown(schema: pa.Schema, chunks: Iterable[_Columns], output: IO[str]) -> None:
    lines = [map(_markdown_cell, schema.names), ("---:" if _is_number(field.type) else "---" for field in schema)]
    output.writelines(f"| {' | '.join(cells)} |\n" for cells in lines)
    for columns in chunks:
        rows = _lines(columns, " | ", between=" |\n| ")
        output.write(f"| {rows} |\n")


def _write_csv(schema: pa.Schema, chunks: Iterable[_Columns], output: IO[str]) -> None:

    output.write(",".join(map(_csv_field, schema.names)) + "\n")
    for columns in chunks:
        output.write(_lines(columns, ",") + "\n")


def check_distinct(names: Sequence[str], *, holder: str, remedy: str) -> None:
    """Check that no two columns have the same name; `holder` would lose all but one of them.

    Raises:
        UsageError: Two columns have the same name.
    """
    repeated = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if repeated is not None:
        what = f"Several columns of the result are called {cell_text(repeated)}, and {holder} can hold only one."
        raise UsageError(what, remedy=remedy)


def _objects(names: Sequence[str], columns: _Columns, between: str) -> str:
    pieces: list[pa.StringArray | str] = []
    for name, texts in zip(names, columns, strict=True):
        pieces += [f"{', ' if pieces else '{'}{encode_json(name)}: ", texts]
    return _lines([*pieces, "}"], "", between=between)


def _write_json(schema: pa.Schema, chunks: Iterable[_Columns], output: IO[str]) -> None:
    separator = "\n  "
    output.write("[")
    for columns in chunks:
        output.write(separator + _objects(schema.names, columns, ",\n  "))
        separator = ",\n  "
    output.write("]\n" if separator == "\n  " else "\n]\n")


def _write_json_lines(schema: pa.Schema, chunks: Iterable[_Columns], output: IO[str]) -> None:
    for columns in chunks:
        output.write(_objects(schema.names, columns, "\n") + "\n")
