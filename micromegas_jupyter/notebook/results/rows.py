"""What the rows of `%%sql` become: a DataFrame of pandas or polars, an Arrow table, or a reader for later cells."""

from __future__ import annotations

import contextvars
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Any, Self, assert_never

from micromegas_jupyter.errors import MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.notebook.formatting import cut, error_lines, printable, rows_text, show_as_lines
from micromegas_jupyter.notebook.results.progress import REWRITE_SECONDS, Ending, LiveLine, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    import pyarrow as pa

    from micromegas_jupyter.client.query_reader import QueryReader

_MAX_NAME_CHARACTERS = 60
_MAX_TYPES_CHARACTERS = 200


class RowFormat(StrEnum):
    """A value of `--format`."""

    PANDAS = "pandas"
    ARROW = "arrow"
    POLARS = "polars"
    READER = "reader"

    @property
    def shown(self) -> str:
        """What a line calls the variable's type."""
        match self:
            case RowFormat.PANDAS:
                return "DataFrame"
            case RowFormat.ARROW:
                return "pyarrow.Table"
            case RowFormat.POLARS:
                return "polars.DataFrame"
            case RowFormat.READER:
                return "reader"
            case _:
                assert_never(self)


def check_available(row_format: RowFormat) -> None:
    """Check that what makes this format is installed."""
    if row_format is RowFormat.POLARS and find_spec("polars") is None:
        raise UsageError(
            "--format polars needs polars, which is not installed here.",
            remedy="Run %pip install 'micromegas_jupyter[polars]', or use --format arrow.",
        )


def check_dtype(dtype: str | None, row_format: RowFormat) -> str | None:
    """Return the argument, a value of `--dtype`."""
    if dtype is not None and row_format is not RowFormat.PANDAS:
        raise UsageError("--dtype is for pandas DataFrames.", remedy=f"Leave it out with --format {row_format.value}.")
    return dtype


def check_schema(row_format: RowFormat, schema: pa.Schema) -> None:
    """Check that this format can hold such rows, before they are fetched."""
    if row_format is not RowFormat.POLARS:
        return
    for column in schema:
        # polars ends in a panic over these, not in an error.
        if "decimal256" in str(column.type):
            raise UsageError(
                f"The column {_quoted(column.name)} is of type decimal256, which polars cannot hold.",
                remedy="Cast it in the statement, or use --format arrow.",
            )
    _to_polars(schema.empty_table())


def convert(row_format: RowFormat, table: pa.Table) -> Any:
    """Return the rows in a format that is made of a whole table."""
    match row_format:
        case RowFormat.ARROW:
            return table
        case RowFormat.POLARS:
            return _to_polars(table)
        case RowFormat.PANDAS | RowFormat.READER:
            raise AssertionError("made before there is a table")
        case _:
            assert_never(row_format)


def _to_polars(table: pa.Table) -> Any:
    import polars as pl

    try:
        return pl.from_arrow(table)
    except pl.exceptions.DuplicateError as error:
        raise UsageError(
            "Two columns have the same name, which polars cannot hold.",
            remedy="Rename one with AS, or use --format arrow.",
        ) from error
    except pl.exceptions.PolarsError as error:
        types = cut(", ".join(dict.fromkeys(str(kind) for kind in table.schema.types)), _MAX_TYPES_CHARACTERS)
        raise UsageError(
            f"polars cannot hold these columns ({types}).",
            remedy="Cast the one in question in the statement, or use --format arrow.",
        ) from error


def _quoted(name: str) -> str:
    return f'"{cut(printable(name), _MAX_NAME_CHARACTERS)}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedQuery:
    """A query whose rows can be read.

    Attributes:
        reader: The rows; closed by whoever takes this.
        progress: How far it is.
        line: Follows it, also when the cell has ended.
        target: What the line says at its end: where the rows go.
        sql: The statement, for errors that point into it.
        on_end: Told once how it ended, with the error if there is one; on any thread.
    """

    reader: QueryReader
    progress: Progress
    line: LiveLine
    target: str = ""
    sql: str = field(default="", repr=False)
    on_end: Callable[[Ending, MicromegasError | None], None] = lambda *_: None


class RowReader:
    """The rows of a query, batch by batch as they are asked for: like `pyarrow.RecordBatchReader`, and read once.

    No more than a few batches are held at a time, however large the result is. Ctrl-C while it waits for a batch,
    `close`, the end of a `with` block and the end of the last reference to it stop the query here and on the server.
    Whatever takes Arrow streams takes it (`__arrow_c_stream__`): DuckDB, polars, `RecordBatchReader.from_stream`.
    Belongs to one thread at a time.
    """

    def __init__(self, started: StartedQuery) -> None:
        self._reading = _Reading(started)
        self._finalizer = weakref.finalize(self, self._reading.drop)
        # The client stops its queries at the end of the process; nobody is left to show a line to.
        self._finalizer.atexit = False

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self._reading.reader.schema

    @property
    def query_id(self) -> str | None:
        """The server's id of the query; None when the server gives none."""
        return self._reading.reader.query_id

    @property
    def rows(self) -> int:
        """How many rows have been read or are about to be."""
        return self._reading.reader.rows

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        """Return the next batch.

        Raises:
            StopIteration: There are no more.
            MicromegasError: The query failed; raised again by every later call.
            QueryCancelled: It was interrupted before.
            UsageError: The reader is closed.
        """
        try:
            return self._reading.take()
        finally:
            if self._reading.ending is not None:
                # The error that is kept would keep this object, through the frames of its traceback.
                self._finalizer.detach()

    def read_next_batch(self) -> pa.RecordBatch:
        """Return the next batch; errors as for `next`."""
        return next(self)

    def read_all(self) -> pa.Table:
        """Return all rows that are still to come as one table."""
        import pyarrow as pa

        return pa.Table.from_batches(self, self.schema)

    def read_pandas(self) -> pd.DataFrame:
        """Return all rows that are still to come as a DataFrame."""
        from micromegas_jupyter.client.frames import build_frame

        return build_frame(self.schema, self)

    def cancel(self) -> None:
        """Stop the query here and on the server; from any thread."""
        self._reading.reader.cancel()

    def close(self) -> None:
        """Stop the query when it still runs; calling again does nothing."""
        self._reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Hand the rows on as an Arrow C stream (the Arrow PyCapsule interface)."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, self).__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        columns = len(self.schema)
        state = "open" if self._reading.ending is None else str(self._reading.ending)
        return f"<rows of a query: {columns} columns, {rows_text(self.rows)} read so far, {state}>"


class _Reading:
    """What goes on without the `RowReader`, which must be free to be collected."""

    def __init__(self, started: StartedQuery) -> None:
        self.reader = started.reader
        self.ending: Ending | None = None
        self._started = started
        self._progress = started.progress
        self._line = started.line
        self._failure: MicromegasError | None = None
        self._rewritten_at = self._progress.seconds
        # ipykernel finds the cell that a display belongs to in a context variable.
        self._context = contextvars.copy_context()
        self._line.finish(f"{self._progress.opened_line()}{started.target}")

    def take(self) -> pa.RecordBatch:
        if self._failure is not None:
            raise self._failure
        if self.ending is Ending.STOPPED:
            raise UsageError("The rows can be read no more: their reader is closed.", remedy="Run the query again.")
        try:
            batch = next(self.reader)
        except StopIteration:
            self._end(Ending.DONE)
            raise
        except (KeyboardInterrupt, QueryCancelled) as stopped:
            # The client stops a query that waits; an interrupt also comes when a batch is on its way to here.
            self.reader.close()
            self._failure = QueryCancelled("The query was cancelled.", query_id=self.reader.query_id)
            ended = self._progress.ended_line(Ending.CANCELLED)
            self._end(Ending.CANCELLED)
            for shown in (self._failure, stopped):
                show_as_lines(shown, [ended])
            raise
        except MicromegasError as error:
            self._failure = error
            show_as_lines(error, error_lines(error, sql=self._started.sql))
            self._end(Ending.FAILED, error)
            raise
        self._progress.note_batch()
        self._follow()
        return batch

    def close(self) -> None:
        self.reader.close()
        self._end(Ending.STOPPED)

    def drop(self) -> None:
        """Close; called while garbage is collected, perhaps in the middle of somebody's writing to the same stream."""
        self.reader.close()
        with suppress(RuntimeError):  # no more threads at the end of the interpreter
            Thread(target=self._context.run, args=(self._end_dropped,), name="micromegas-rows", daemon=True).start()

    def _end_dropped(self) -> None:
        with suppress(OSError, ValueError):  # the stream is gone, and with it whoever would read the line
            self._end(Ending.STOPPED)

    def _follow(self) -> None:
        seconds = self._progress.seconds
        if self._line.outlives_cell and seconds - self._rewritten_at >= REWRITE_SECONDS:
            self._rewritten_at = seconds
            self._line.rewrite(f"{self._progress.reading_line()}{self._started.target}")

    def _end(self, ending: Ending, error: MicromegasError | None = None) -> None:
        if self.ending is not None:
            return
        self.ending = ending
        done = ending is Ending.DONE
        line = self._progress.done_line() if done else self._progress.ended_line(ending)
        self._line.finish(f"{line}{self._started.target}")
        self._started.on_end(ending, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenColumn:
    """A column of rows that have gone by.

    Attributes:
        null_count: How many of its values were null.
    """

    null_count: int


class RowsSeen:
    """Notes rows as they come and keeps the first of them."""

    def __init__(self, schema: pa.Schema, *, max_rows: int) -> None:
        self.schema = schema
        self.num_rows = 0
        self._max_rows = max_rows
        self._head: list[pa.RecordBatch] = []
        self._null_counts = [0] * len(schema)

    @property
    def num_columns(self) -> int:
        """How many columns there are."""
        return len(self._null_counts)

    def note(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take notice of the next batch and return it; nothing is kept of rows behind the first."""
        if self.num_rows < self._max_rows:
            self._head.append(_own_copy(batch.slice(0, self._max_rows - self.num_rows)))
        self.num_rows += batch.num_rows
        for index, column in enumerate(batch.columns):
            self._null_counts[index] += column.null_count
        return batch

    def column(self, index: int) -> SeenColumn:
        """Return what is known of a column."""
        return SeenColumn(null_count=self._null_counts[index])

    def slice(self, offset: int, length: int) -> pa.Table:
        """Return some of the rows that were kept."""
        import pyarrow as pa

        return pa.Table.from_batches(self._head, self.schema).slice(offset, length)


def _own_copy(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch in memory of its own, so that the message that it came in can go."""
    import pyarrow as pa

    from micromegas_jupyter.client.frames import compact

    return pa.RecordBatch.from_arrays([compact(column) for column in batch.columns], schema=batch.schema)
