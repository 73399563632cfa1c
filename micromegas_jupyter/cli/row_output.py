"""How `micromegas query` writes rows: batch by batch in constant memory, at a terminal, to a pipe or to a file."""

import base64
import json
import math
import re
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

from micromegas_jupyter.cli.main import is_disk_full, output_error
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
_CHUNK_ROWS: Final = 4000  # fewer take longer, more hold more memory
_LAYOUT_ROWS: Final = 1000
_ELLIPSIS: Final = "..."
# As in the tables of the other commands, which tabulate lays out.
_MIN_PADDING: Final = 2
_Columns = Sequence["pa.StringArray"]


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
        if is_disk_full(error):
            raise output_error(error) from error
        raise


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
    encoding = _ENCODINGS[options.file_format]
    if encoding is _JSON:
        _check_names(schema.names)
    writers: dict[str, Callable[..., None]] = {
        "csv": _write_csv, "json": _write_json, "jsonl": _write_json_lines, "markdown": _write_markdown,
        "table": partial(_write_table, max_width=options.max_column_width),
    }  # fmt: skip
    counted = _Counted(_chunks(batches, encoding, shows_json=options.as_json), output)
    writers[options.file_format](schema, counted, output)
    return counted.rows


class _Counted:
    """Columns of rows, counted; what was written of some is flushed before the next are awaited."""

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


def _csv_field(value: object) -> str:
    text = _encode_json(value) if isinstance(value, dict | list) else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search(_CSV_SPECIAL, text) else text


def _markdown_cell(value: object) -> str:
    return cell_text(value).replace("\\", "\\\\").replace("|", "\\|")


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How a format writes a value: `encode` takes what JSON holds; texts without `special` characters need no more."""

    encode: Callable[[Any], str]
    special: str  # a regular expression of RE2
    quote: str = ""
    null: str = ""


_UNLIKE_PYTHON: Final = r"^[^.]*$|e|^-?0\.000"  # numbers that Arrow writes in another way, and no numbers
_CSV_SPECIAL: Final = '[",\r\n]'
_NOTHING: Final = '""'  # in a line of its own, or readers would leave the line out
_JSON: Final = _Encoding(_encode_json, r'["\\\x00-\x1f]', quote='"', null="null")
_ENCODINGS: Final = {
    "csv": _Encoding(_csv_field, _CSV_SPECIAL),
    "json": _JSON,
    "jsonl": _JSON,
    "markdown": _Encoding(_markdown_cell, r"[^ -~]|[|\\]"),
    "table": _Encoding(cell_text, "[^ -~]"),
}


def _chunks(batches: Iterable["pa.RecordBatch"], encoding: _Encoding, *, shows_json: bool) -> Iterator[_Columns]:
    """Yield the columns' values as texts, some rows at a time.

    With `shows_json`, a column whose first values are all binary JSON holds JSON; other bytes in it are base64.
    """
    are_json: dict[int, bool] = {}
    for batch in batches:
        for index, (field, column) in enumerate(zip(batch.schema, batch.columns, strict=True)):
            if shows_json and index not in are_json and column.null_count < len(column):
                are_json[index] = _holds_jsonb(field, column)
        for first in range(0, batch.num_rows, _CHUNK_ROWS):
            yield [
                _texts(column, encoding, is_json=are_json.get(index, False)).fill_null(encoding.null)
                for index, column in enumerate(batch.slice(first, _CHUNK_ROWS).columns)
            ]


def _texts(column: "pa.Array", encoding: _Encoding, *, is_json: bool) -> "pa.StringArray":
    """Return the texts of the values; whole columns of the common types at once, since values take much longer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    encode, as_text = encoding.encode, encoding is not _JSON
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if not is_json:
        if types.is_integer(kind):
            return column.cast(pa.string())
        if types.is_boolean(kind):
            return pa.array([encode(False), encode(True)]).take(column.cast(pa.int8()))
        if types.is_timestamp(kind):
            # With all digits, which Python's datetime has not.
            texts = pc.replace_substring(column.cast(pa.timestamp(kind.unit)).cast(pa.string()), " ", "T")
            end = encoding.quote if kind.tz is None else f"Z{encoding.quote}"
            return pc.binary_join_element_wise(encoding.quote, texts, end, "")
        if types.is_float32(kind) or types.is_float64(kind):
            texts = column.cast(pa.float64()).cast(pa.string())
            special = pc.match_substring_regex(texts, _UNLIKE_PYTHON)
            return _replaced(
                texts, special, lambda: map(encode, _plain_column(column.filter(special), as_text=as_text))
            )
        if types.is_string(kind):
            special = pc.match_substring_regex(column, encoding.special)
            quote = encoding.quote
            texts = pc.binary_join_element_wise(quote, column, quote, "") if quote else column
            return _replaced(texts, special, lambda: map(encode, column.filter(special).to_pylist()))
    values = (_json_column if is_json else _plain_column)(column, as_text=as_text)
    return pa.array([None if value is None else encode(value) for value in values], pa.string())


def _replaced(
    texts: "pa.StringArray", where: "pa.BooleanArray", make_others: Callable[[], Iterable[str]]
) -> "pa.StringArray":
    """Return the texts, with others in their order `where` that is true."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(where).as_py():
        return texts
    return pc.replace_with_mask(texts, where, pa.array(make_others(), pa.string()))


def _lines(pieces: Sequence["pa.StringArray | str"], separator: str, *, between: str = "\n") -> str:
    """Return rows as text: what stands in each, between two of it, and between two rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lines = pc.binary_join_element_wise(*pieces, separator)
    text: str = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), between)[0].as_py()
    return text


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

    kind = column.type
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return [None if count is None else count / 1e9 for count in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(kind):
        values = [None if item is None else {str(key): held for key, held in item} for item in values]
    return [_plain_value(value, as_text=as_text) for value in values]


def _write_table(schema: "pa.Schema", chunks: Iterable[_Columns], output: IO[str], *, max_width: int) -> None:
    """Write a table laid out by its first rows; longer cells further down take the room that they need."""
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
        padded_widths[-1] = 0  # nothing stands to the right of the last column
    layout = list(zip(padded_widths, numeric, strict=True))
    output.write("  ".join(_padded_text(name, *one) for name, one in zip(names, layout, strict=True)) + "\n")
    output.write("  ".join("-" * width for width in widths) + "\n")
    for columns in chain([first] if names and len(first[0]) else [], iterator):
        padded = [_padded(texts, *one) for texts, one in zip(columns, layout, strict=True)]
        output.write(_lines(padded, "  ") + "\n")


def _cut(texts: "pa.StringArray", max_width: int) -> "pa.StringArray":
    """Return the texts as `max_width` character cells can show them; 0 for all of them."""
    import pyarrow.compute as pc

    if max_width == 0:
        return texts
    is_long = pc.greater(pc.binary_length(texts), max_width)  # in bytes, of which wide characters have more
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


def _padded(texts: "pa.StringArray", width: int, to_the_right: bool) -> "pa.StringArray":  # noqa: FBT001 - a column's layout
    import pyarrow.compute as pc

    padded = (pc.ascii_lpad if to_the_right else pc.ascii_rpad)(texts, width)
    return _replace_wide(texts, padded, partial(_padded_text, width=width, to_the_right=to_the_right))


def _padded_text(text: str, width: int, to_the_right: bool) -> str:  # noqa: FBT001 - a column's layout
    padding = " " * (width - terminal_width(text))
    return padding + text if to_the_right else text + padding


def _replace_wide(texts: "pa.StringArray", done: "pa.StringArray", function: Callable[[str], str]) -> "pa.StringArray":
    """Return what was done to texts of ASCII, and the function's values for the others."""
    import pyarrow.compute as pc

    are_wide = pc.invert(pc.string_is_ascii(texts))
    return _replaced(done, are_wide, lambda: map(function, texts.filter(are_wide).to_pylist()))


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _write_markdown(schema: "pa.Schema", chunks: Iterable[_Columns], output: IO[str]) -> None:
    lines = [map(_markdown_cell, schema.names), ("---:" if _is_number(field.type) else "---" for field in schema)]
    output.writelines(f"| {' | '.join(cells)} |\n" for cells in lines)
    for columns in chunks:
        rows = _lines(columns, " | ", between=" |\n| ")
        output.write(f"| {rows} |\n")


def _write_csv(schema: "pa.Schema", chunks: Iterable[_Columns], output: IO[str]) -> None:
    import pyarrow.compute as pc

    output.write((",".join(map(_csv_field, schema.names)) or _NOTHING) + "\n")
    for columns in chunks:
        if len(columns) == 1:
            columns = [pc.if_else(pc.equal(columns[0], ""), _NOTHING, columns[0])]  # noqa: PLW2901
        output.write(_lines(columns, ",") + "\n")


def _check_names(names: Sequence[str]) -> None:
    repeated = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if repeated is not None:
        raise UsageError(
            f"Several columns of the result are called {cell_text(repeated)}, and a JSON object can hold one.",
            remedy="Give each a name of its own with AS, or use --format csv.",
        )


def _objects(names: Sequence[str], columns: _Columns, between: str) -> str:
    pieces: list[pa.StringArray | str] = []
    for name, texts in zip(names, columns, strict=True):
        pieces += [f"{', ' if pieces else '{'}{_encode_json(name)}: ", texts]
    return _lines([*pieces, "}"], "", between=between)


def _write_json(schema: "pa.Schema", chunks: Iterable[_Columns], output: IO[str]) -> None:
    separator = "\n  "
    output.write("[")
    for columns in chunks:
        output.write(separator + _objects(schema.names, columns, ",\n  "))
        separator = ",\n  "
    output.write("]\n" if separator == "\n  " else "\n]\n")


def _write_json_lines(schema: "pa.Schema", chunks: Iterable[_Columns], output: IO[str]) -> None:
    for columns in chunks:
        output.write(_objects(schema.names, columns, "\n") + "\n")
