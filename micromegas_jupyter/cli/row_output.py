"""How `micromegas query` writes rows: batch by batch in constant memory, at a terminal, to a pipe or to a file."""

import base64
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.files import file_beside
from micromegas_jupyter.core.text import printable, terminal_width
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS: Final = ("table", "csv", "json", "jsonl", "markdown", "parquet", "arrow")
_BINARY: Final = frozenset({"parquet", "arrow"})
_ENDINGS: Final = {
    **{f".{name}": name for name in ("csv", "json", "jsonl", "parquet", "arrow")},
    ".md": "markdown", ".ndjson": "jsonl", ".txt": "table",
}  # fmt: skip
DEFAULT_MAX_COLUMN_WIDTH: Final = 50
_CHUNK_ROWS: Final = 1000
_ELLIPSIS: Final = "..."
# As in the tables of the other commands, which tabulate lays out.
_MIN_PADDING: Final = 2
_Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """How rows are written; `shows_json` is for columns of binary JSON, None for what suits the format."""

    file_format: str = "table"
    max_column_width: int = DEFAULT_MAX_COLUMN_WIDTH  # of a table's cells; 0 for all
    shows_json: bool | None = None

    @property
    def is_binary(self) -> bool:
        """Whether the format is bytes instead of text."""
        return self.file_format in _BINARY

    @property
    def as_json(self) -> bool:
        """Whether binary JSON is written as JSON."""
        return self.shows_json if self.shows_json is not None else not self.is_binary


def choose_format(file_format: str | None, output: str | None) -> str:
    """Return the format that was asked for, or that the name of the file says."""
    if file_format is None and output is not None and output != "-":
        file_format = _ENDINGS.get(Path(output).suffix.lower())
        if file_format is None:
            raise UsageError(
                "The file's name does not say its format.",
                remedy=f"Add --format {'|'.join(FORMATS)}, or a known ending.",
            )
    return file_format or "table"


@contextmanager
def open_output(path: str | None, options: RowOptions) -> Iterator[IO[Any]]:
    """Yield where rows go: standard output, or a file that takes its name only once all rows are in it."""
    output: IO[Any]
    if path is None or path == "-":
        if options.is_binary and sys.stdout.isatty():
            raise UsageError(
                f"{options.file_format} is not for a terminal.", remedy="Name a file with --output, or use a pipe."
            )
        output = sys.stdout.buffer if options.is_binary else sys.stdout
        with disk_errors_reported(output):
            yield output
            output.flush()
        return
    try:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(file_beside(Path(path)))
            except OSError as error:
                raise UsageError(
                    f"The output file cannot be written: {error.strerror}.",
                    remedy="Check its folder and your rights there.",
                ) from error
            output = file if options.is_binary else TextIOWrapper(file, encoding="utf-8", newline="")
            yield output
            output.flush()
    except OSError as error:
        if error.errno in _FULL:
            raise _full_disk(error) from error
        raise


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _full_disk(error: OSError) -> UsageError:
    return UsageError(
        f"The output cannot be written: {error.strerror}.", remedy="Make room there, or write it elsewhere."
    )


@contextmanager
def disk_errors_reported(output: IO[Any]) -> Iterator[None]:
    """Say that there is no room left for the output, which is neither the server's fault nor this program's."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        # Or Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        raise _full_disk(error) from error


def write_rows(
    schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: IO[Any], options: RowOptions = RowOptions()
) -> int:
    """Write all rows, each batch as soon as it is there, and return how many there were.

    CSV is RFC 4180, `json` a list of objects, `jsonl` an object a line; `arrow` is a file of Arrow IPC, in a pipe a
    stream.

    Raises:
        UsageError: The format cannot hold such columns.
    """
    if options.is_binary:
        return _write_binary(schema, batches, output, options)
    if options.file_format in {"json", "jsonl"}:
        _check_names(schema.names)
    is_text = options.file_format not in {"json", "jsonl"}
    chunks = _chunks(batches, as_text=is_text, shows_json=options.as_json)
    writers: dict[str, Callable[..., None]] = {
        "csv": _write_csv, "json": _write_json, "jsonl": _write_json_lines, "markdown": _write_markdown,
        "table": partial(_write_table, max_width=options.max_column_width),
    }  # fmt: skip
    counted = _Counted(chunks, output)
    writers[options.file_format](schema, counted, output)
    return counted.rows


class _Counted:
    """Chunks of rows, counted; what was written of one is flushed before the next is awaited."""

    def __init__(self, chunks: Iterator[_Rows], output: IO[str]) -> None:
        self.rows = 0
        self._chunks = chunks
        self._output = output

    def __iter__(self) -> Iterator[_Rows]:
        for chunk in self._chunks:
            self.rows += len(chunk)
            yield chunk
            self._output.flush()


def _write_binary(
    schema: "pa.Schema", batches: Iterable["pa.RecordBatch"], output: IO[bytes], options: RowOptions
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches = iter(batches)
    first = next(batches, None)
    named = _jsonb_columns(schema, first) if options.as_json else []
    if named:
        schema = pa.schema(
            [field.with_type(pa.string()) if index in named else field for index, field in enumerate(schema)]
        )
    make_writer: dict[str, Callable[..., Any]] = {
        "parquet": partial(pq.ParquetWriter, compression="zstd"),
        "arrow": pa.ipc.new_file if _is_file(output) else pa.ipc.new_stream,
    }
    count = 0
    try:
        with make_writer[options.file_format](output, schema) as writer:
            for batch in chain([] if first is None else [first], batches):
                writer.write_batch(_with_json_text(batch, named, schema))
                count += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UsageError(
            f"{options.file_format} cannot hold a column of these.", remedy="Cast it, or choose another format."
        ) from error
    return count


def _is_file(output: IO[bytes]) -> bool:
    try:
        return output is not getattr(sys.stdout, "buffer", None) and output.seekable()
    except ValueError:
        return False


def _jsonb_columns(schema: "pa.Schema", batch: "pa.RecordBatch | None") -> list[int]:
    """Return the columns of binary JSON, as the first rows show it."""
    if batch is None:
        from micromegas_jupyter.client.json_columns import is_declared_jsonb

        return [index for index, field in enumerate(schema) if is_declared_jsonb(field)]
    columns = zip(schema, batch.columns, strict=True)
    return [index for index, (field, column) in enumerate(columns) if _holds_jsonb(field, column)]


def _with_json_text(batch: "pa.RecordBatch", named: Sequence[int], schema: "pa.Schema") -> "pa.RecordBatch":
    if not named:
        return batch
    import pyarrow as pa

    from micromegas_jupyter.client.json_columns import json_texts

    columns = [
        json_texts(pa.chunked_array([column])).combine_chunks().cast(pa.string()) if index in named else column
        for index, column in enumerate(batch.columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


_encode_json: Final = json.JSONEncoder(ensure_ascii=False).encode


def cell_text(value: object) -> str:
    """Return one value of a row as text without line breaks or control characters."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _encode_json(value)
    return text if text.isprintable() else printable(text)


def _plain_value(value: Any, *, as_text: bool) -> Any:
    """Return a value of an Arrow column as JSON can hold it: times as RFC 3339, bytes as base64."""
    plain: Any
    match value:
        case None | str() | bool() | int():
            plain = value
        case float():  # JSON has no word for some
            plain = value if math.isfinite(value) else _number_text(value) if as_text else None
        case bytes():
            plain = base64.b64encode(value).decode("ascii")
        case datetime() | date() | time():
            plain = value.isoformat()
        case timedelta():
            plain = value.total_seconds()
        case dict():
            plain = {str(key): _plain_value(item, as_text=as_text) for key, item in value.items()}
        case list() | tuple():
            plain = [_plain_value(item, as_text=as_text) for item in value]
        case _:
            plain = str(value)
    return plain


def _number_text(value: float) -> str:
    return "NaN" if math.isnan(value) else str(value)


def _chunks(batches: Iterable["pa.RecordBatch"], *, shows_json: bool, as_text: bool) -> Iterator[_Rows]:
    """Yield the rows' values as JSON holds them, some rows at a time; a number that JSON lacks is text, else null.

    With `shows_json`, a column whose first values are all binary JSON holds JSON; other bytes in it are base64.
    """
    are_json: dict[int, bool] = {}
    for batch in batches:
        for index, (field, column) in enumerate(zip(batch.schema, batch.columns, strict=True)):
            if shows_json and index not in are_json and column.null_count < len(column):
                are_json[index] = _holds_jsonb(field, column)
        for first in range(0, batch.num_rows, _CHUNK_ROWS):
            columns = [
                (_json_column if are_json.get(index, False) else _plain_column)(column, as_text=as_text)
                for index, column in enumerate(batch.slice(first, _CHUNK_ROWS).columns)
            ]
            yield list(zip(*columns, strict=True))


def _holds_jsonb(field: "pa.Field", column: "pa.Array") -> bool:
    import pyarrow as pa

    from micromegas_jupyter.client.json_columns import holds_jsonb

    return holds_jsonb(field, pa.chunked_array([column]))


def _json_column(column: "pa.Array", *, as_text: bool) -> list[Any]:
    """Return binary JSON as JSON text or as what `json.dumps` takes, each distinct value made once."""
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


def _plain_column(column: "pa.Array", *, as_text: bool) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        import pyarrow.compute as pc

        # Python's datetime has no nanoseconds: Arrow prints them in full.
        texts = pc.replace_substring(column.cast(pa.timestamp("ns")).cast(pa.string()), " ", "T")
        return list((texts if kind.tz is None else pc.binary_join_element_wise(texts, "Z", "")).to_pylist())
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return [None if count is None else count / 1e9 for count in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return values
    if pa.types.is_floating(kind) and column.null_count == 0 and math.isfinite(sum(values)):
        return values  # each is finite, too
    if pa.types.is_map(kind):
        values = [None if item is None else {str(key): held for key, held in item} for item in values]
    return [_plain_value(value, as_text=as_text) for value in values]


def _write_table(schema: "pa.Schema", chunks: Iterable[_Rows], output: IO[str], *, max_width: int) -> None:
    """Write a table laid out by its first rows; longer cells further down take the room that they need."""
    names = [cell_text(name) for name in schema.names]
    numeric = [_is_number(field.type) for field in schema]
    iterator = iter(chunks)
    first = next(iterator, [])
    columns = _cell_columns(first, len(names), max_width)
    widths = [
        max(terminal_width(name) + _MIN_PADDING, *map(terminal_width, column))
        for name, column in zip(names, columns, strict=True)
    ]

    padded_widths = [*widths]
    if not all(numeric[-1:]):
        padded_widths[-1] = 0  # nothing stands to the right of the last column

    def write_lines(columns: Sequence[Sequence[str]]) -> None:
        padded = [
            [_padded(cell, width, to_the_right=is_number) for cell in column]
            for column, width, is_number in zip(columns, padded_widths, numeric, strict=True)
        ]
        output.writelines("  ".join(cells) + "\n" for cells in zip(*padded, strict=True))

    write_lines([[name] for name in names])
    output.write("  ".join("-" * width for width in widths) + "\n")
    write_lines(columns)
    for rows in iterator:
        write_lines(_cell_columns(rows, len(names), max_width))


def _cell_columns(rows: _Rows, count: int, max_width: int) -> list[list[str]]:
    columns = zip(*rows, strict=True) if rows else [()] * count
    return [[_cut(cell_text(value), max_width) for value in column] for column in columns]


def _cut(text: str, max_width: int) -> str:
    """Return the text as `max_width` character cells can show it; 0 for all of it."""
    if max_width == 0 or (len(text) if text.isascii() else terminal_width(text)) <= max_width:
        return text
    kept = max(max_width - len(_ELLIPSIS), 1)
    if text.isascii():
        return text[:kept] + _ELLIPSIS
    from wcwidth import clip

    return clip(text, 0, kept) + _ELLIPSIS


def _padded(text: str, width: int, *, to_the_right: bool) -> str:
    padding = " " * (width - (len(text) if text.isascii() else terminal_width(text)))
    return padding + text if to_the_right else text + padding


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _write_markdown(schema: "pa.Schema", chunks: Iterable[_Rows], output: IO[str]) -> None:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |\n"

    output.write(line(map(cell_text, schema.names)))
    output.write(line("---:" if _is_number(field.type) else "---" for field in schema))
    for rows in chunks:
        output.writelines(line(map(cell_text, row)) for row in rows)


def _write_csv(schema: "pa.Schema", chunks: Iterable[_Rows], output: IO[str]) -> None:
    import csv

    import pyarrow as pa

    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(schema.names)
    kinds = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema]
    has_nested = any(pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType) for kind in kinds)
    for rows in chunks:
        writer.writerows(
            [[_encode_json(value) if isinstance(value, dict | list) else value for value in row] for row in rows]
            if has_nested
            else rows
        )


def _check_names(names: Sequence[str]) -> None:
    repeated = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if repeated is not None:
        raise UsageError(
            f"Several columns of the result are called {cell_text(repeated)}, and a JSON object can hold one.",
            remedy="Give each a name of its own with AS, or use --format csv.",
        )


def _write_json(schema: "pa.Schema", chunks: Iterable[_Rows], output: IO[str]) -> None:
    names, separator = schema.names, "\n  "
    output.write("[")
    for rows in chunks:
        for row in rows:
            output.write(separator + _encode_json(dict(zip(names, row, strict=True))))
            separator = ",\n  "
    output.write("]\n" if separator == "\n  " else "\n]\n")


def _write_json_lines(schema: "pa.Schema", chunks: Iterable[_Rows], output: IO[str]) -> None:
    names = schema.names
    for rows in chunks:
        output.writelines(_encode_json(dict(zip(names, row, strict=True))) + "\n" for row in rows)
