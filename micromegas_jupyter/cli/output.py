"""Prints query results as a table, CSV or JSON, batch by batch where the format allows it."""

import base64
import datetime as dt
import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


FORMATS = ("table", "csv", "json")
DEFAULT_MAX_COLUMN_WIDTH = 50


def print_rows(
    schema: "pa.Schema",
    batches: Iterable["pa.RecordBatch"],
    *,
    output: TextIO,
    output_format: str,
    max_column_width: int = DEFAULT_MAX_COLUMN_WIDTH,
) -> int:
    """Write all rows to `output` and return how many there were.

    Args:
        schema: The result's schema.
        batches: The result's batches.
        output: Where the text goes.
        output_format: `table`, `csv` (RFC 4180) or `json` (a list of objects, times as RFC 3339 with all digits).
        max_column_width: Longer cells of a table are cut with `...`; 0 means never.
    """
    if output_format == "csv":
        return _print_csv(schema, batches, output)
    if output_format == "json":
        return _print_json(schema, batches, output)
    return _print_table(schema, batches, output, max_column_width)


def cell_text(value: object) -> str:
    """Return one value as text without line breaks or control characters."""
    plain = plain_value(value)
    if plain is None:
        return ""
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return "".join(character if character.isprintable() else _visible(character) for character in text)


def plain_value(value: Any) -> Any:
    """Return a value of an Arrow column as JSON can hold it: times as RFC 3339, bytes as base64, NaN as null."""
    plain: Any
    match value:
        case None | str() | bool() | int():
            plain = value
        case float():
            plain = value if math.isfinite(value) else None
        case bytes():
            plain = base64.b64encode(value).decode("ascii")
        case dt.datetime() | dt.date() | dt.time():
            plain = value.isoformat()
        case dt.timedelta():
            plain = value.total_seconds()
        case dict():
            plain = {str(key): plain_value(item) for key, item in value.items()}
        case list() | tuple():
            plain = [plain_value(item) for item in value]
        case _:
            plain = str(value)
    return plain


def _visible(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{ord(character):02x}")


def _rows(batches: Iterable["pa.RecordBatch"], *, as_text: bool = True) -> Iterator[list[Any]]:
    """Return the values of each row as JSON holds them; as text, numbers that JSON has no word for have theirs."""
    for batch in batches:
        columns = [_plain_column(column, as_text=as_text) for column in batch.columns]
        yield from (list(row) for row in zip(*columns, strict=True))


def _plain_column(column: "pa.Array", *, as_text: bool) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime has no nanoseconds: Arrow prints them in full.
        zone = "" if kind.tz is None else "Z"
        texts = column.cast(pa.timestamp("ns")).cast(pa.string()).to_pylist()
        return [None if text is None else text.replace(" ", "T") + zone for text in texts]
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return [None if count is None else count / 1e9 for count in column.cast(pa.int64()).to_pylist()]
    values = column.to_pylist()
    if pa.types.is_map(kind):
        values = [None if item is None else {str(key): held for key, held in item} for item in values]
    if as_text and (pa.types.is_floating(kind) or pa.types.is_nested(kind)):
        values = map(_with_number_texts, values)
    return [plain_value(value) for value in values]


def _with_number_texts(value: Any) -> Any:
    """Return a value with text for each number in it that JSON has no word for, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {key: _with_number_texts(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_with_number_texts(held) for held in value]
    return value


def _print_table(schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: TextIO, max_width: int) -> int:
    from tabulate import tabulate  # other commands print no table

    def cut(text: str) -> str:
        return text if max_width == 0 or len(text) <= max_width else text[: max(max_width - 3, 1)] + "..."

    rows = [[cut(cell_text(value)) for value in row] for row in _rows(batches)]
    numeric = [_is_number(field.type) for field in schema]
    table = tabulate(
        rows,
        headers=[cell_text(name) for name in schema.names],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if is_number else "left" for is_number in numeric] if rows else None,
    )
    output.write(table + "\n")
    return len(rows)


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _print_csv(schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: TextIO) -> int:
    import csv

    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(schema.names)
    count = 0
    for row in _rows(batches):
        writer.writerow(["" if value is None else _csv_value(value) for value in row])
        count += 1
    return count


def _csv_value(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _print_json(schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: TextIO) -> int:
    names = schema.names
    repeated = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if repeated is not None:
        raise UsageError(
            f"Several columns of the result are called {cell_text(repeated)}, and a JSON object can hold one.",
            remedy="Give each a name of its own with AS, or use --format csv.",
        )
    rows = _rows(batches, as_text=False)
    count = 0
    output.write("[")
    while chunk := list(islice(rows, 1000)):
        for row in chunk:
            output.write(",\n  " if count else "\n  ")
            output.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
            count += 1
    output.write("\n]\n" if count else "]\n")
    return count


@contextmanager
def disk_errors_reported(output: TextIO) -> Iterator[None]:
    """Say that there is no room left for the output, which is neither the server's fault nor this program's."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        # Or Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        raise UsageError(
            f"The output cannot be written: {error.strerror}.", remedy="Make room there, or write it elsewhere."
        ) from error
