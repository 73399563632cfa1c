"""Prints query results: a table, CSV or JSON, batch by batch where the format allows it; and asks for them."""

import argparse
import base64
import datetime as dt
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from micromegas_jupyter.cli.identity_lines import show_notice
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.client.flight_client import FlightSQLClient


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
    for kinds, convert in _PLAIN:
        if isinstance(value, kinds):
            return convert(value)
    return str(value)


def _plain_object(value: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): plain_value(item) for key, item in value.items()}


def _plain_list(value: Iterable[Any]) -> list[Any]:
    return [plain_value(item) for item in value]


_PLAIN: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((type(None), str, bool, int), lambda value: value),
    (float, lambda value: value if math.isfinite(value) else None),
    (bytes, lambda value: base64.b64encode(value).decode("ascii")),
    (Decimal, str),
    ((dt.datetime, dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, lambda value: value.total_seconds()),
    (dict, _plain_object),
    ((list, tuple), _plain_list),
)


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
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise UsageError(
            f"Several columns of the result are called {cell_text(twice)}, and a JSON object can hold one.",
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


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how rows are printed, and where to ask."""
    parser.add_argument("--format", choices=FORMATS, default="table", help="how rows are printed")
    parser.add_argument(
        "--max-colwidth", type=int, default=DEFAULT_MAX_COLUMN_WIDTH, help="cut longer cells of a table; 0 never"
    )
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--uri", help="the server, instead of the configured one")


def check_row_arguments(arguments: argparse.Namespace) -> None:
    """Check what the parser cannot."""
    if arguments.max_colwidth < 0:
        raise UsageError("--max-colwidth is a width, or 0 for no cut.")


def print_answer_of(
    client: "FlightSQLClient",
    arguments: argparse.Namespace,
    sql: str,
    begin: datetime | None,
    end: datetime | None,
) -> None:
    """Run a statement and print its rows on standard output, and on standard error that there are none."""
    client.on_notice(show_notice)
    with client.open_query(sql, begin, end) as reader, _enough_room(sys.stdout):
        count = print_rows(
            reader.schema,
            reader,
            output=sys.stdout,
            output_format=arguments.format,
            max_column_width=arguments.max_colwidth,
        )
        sys.stdout.flush()
    if count == 0:
        print("no rows", file=sys.stderr)


@contextmanager
def _enough_room(output: TextIO) -> Iterator[None]:
    """Say that there is no room left for the output, which is neither the server's fault nor this program's."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # Or Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        raise UsageError(
            f"The output cannot be written: {error.strerror}.", remedy="Make room there, or write it elsewhere."
        ) from error


def contains(column: str, text: str | None) -> str:
    """Return the condition that a column contains `text`, whatever its case; empty without a text."""
    from micromegas_jupyter.client.parameters import quote_literal

    return "" if text is None else f" AND {column} ILIKE {quote_literal(f'%{text}%')}"


def matches(columns: Iterable[tuple[str, str | None]]) -> str:
    """Return the condition that each column matches its regular expression, whatever its case; `true` without any."""
    from micromegas_jupyter.client.parameters import quote_literal

    wanted = [f"regexp_like({column}, {quote_literal(text)}, 'i')" for column, text in columns if text is not None]
    return " AND ".join(wanted) or "true"


def check_count(value: int | None, option: str) -> None:
    """Check a number of rows."""
    if value is not None and value < 1:
        raise UsageError(f"{option} is a number of rows, 1 or more.")


def print_answer(
    arguments: argparse.Namespace, sql: str, begin: datetime | None = None, end: datetime | None = None
) -> int:
    """Run a statement, print its rows and return the exit code."""
    from micromegas_jupyter import wiring

    check_row_arguments(arguments)
    options = {"MICROMEGAS_ANALYTICS_URI": arguments.uri} if arguments.uri else {}
    settings = wiring.load_client_settings(profile=arguments.profile, options=options)
    environ = wiring.without_wrapper() if arguments.uri or arguments.profile else None
    provider = wiring.stored_provider(settings, environ)
    with wiring.open_client(settings, provider, environ=environ) as client:
        print_answer_of(client, arguments, sql, begin, end)
    return 0
