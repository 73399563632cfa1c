"""How `micromegas query` writes rows: batch by batch in constant memory, at a terminal, to a pipe or to a file."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from micromegas_jupyter.cli.main import is_disk_full, output_error
from micromegas_jupyter.core.files import file_beside
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
    """Write all rows, each batch as it arrives, and return how many there were; `arrow` is an IPC stream in a pipe.

    Raises:
        UsageError: The format cannot hold such columns.
    """
    if options.is_binary:
        return _write_binary(schema, batches, output, options)
    from micromegas_jupyter.client.row_text import write_text

    return write_text(
        schema,
        batches,
        output,
        file_format=options.file_format,
        max_column_width=options.max_column_width,
        shows_json=options.as_json,
    )


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
    import pyarrow as pa

    from micromegas_jupyter.client.json_columns import holds_jsonb, is_declared_jsonb

    if batch is None:
        return [index for index, field in enumerate(schema) if is_declared_jsonb(field)]
    columns = zip(schema, batch.columns, strict=True)
    return [index for index, (field, column) in enumerate(columns) if holds_jsonb(field, pa.chunked_array([column]))]


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
