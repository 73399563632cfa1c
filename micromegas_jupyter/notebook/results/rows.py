"""Rows of a query: the progress line while they arrive, and what they become (a DataFrame, a table, or a reader)."""

from __future__ import annotations

import contextvars
import html
import weakref
from contextlib import contextmanager, suppress
from enum import StrEnum
from importlib.util import find_spec
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self, TextIO

from micromegas_jupyter.errors import MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.notebook.shell import (
    bytes_text,
    cut,
    error_lines,
    new_display_handle,
    printable,
    rows_text,
    seconds_text,
    short_query_id,
    show_as_lines,
    start_thread,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    import pyarrow as pa

    from micromegas_jupyter.client.query_reader import QueryReader
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.shell import Handle

REWRITE_SECONDS = 0.25
"""The pause between two updates of a line."""

_JOIN_SECONDS = 2.0
_ERASE_LINE = "\r\x1b[2K"


class Ending(StrEnum):
    """How a query ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """Its reader was closed or dropped before the last row."""


class Progress:
    """The progress of one query; written by the thread that reads its rows, read by the line's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._first_seconds: float | None = None
        self.reader: QueryReader | None = None  # once the server has begun to answer

    @property
    def query_id(self) -> str | None:
        """The server's id of the query; None before the server has begun to answer."""
        return None if self.reader is None else self.reader.query_id

    @property
    def rows(self) -> int:
        """The number of rows that have arrived."""
        return 0 if self.reader is None else self.reader.rows

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic() - self._started

    def note_batch(self) -> None:
        """A batch has arrived."""
        if self._first_seconds is None:
            self._first_seconds = self.seconds

    def opened_line(self) -> str:
        """Return the line of a reader whose rows come on demand."""
        return _joined("▸ rows come as you iterate", self._query())

    def reading_line(self) -> str:
        """Return the line of a reader that is being read."""
        return _joined(f"⏳ {seconds_text(self.seconds)}", self._received(), self._query())

    def done_line(self) -> str:
        """Return the line of a query whose rows are all here."""
        first = "" if self._first_seconds is None else f" (first after {seconds_text(self._first_seconds)})"
        done = f"✓ {rows_text(self.rows)} in {seconds_text(self.seconds)}{first}"
        return _joined(done, bytes_text(0 if self.reader is None else self.reader.bytes_received), self._query())

    def ended_line(self, ending: Ending) -> str:
        """Return the line of a query that ended before the last row."""
        received = "" if self.reader is None else f", {rows_text(self.rows)} received"
        if self.reader is None and ending is Ending.CANCELLED:
            received = ", before the first row"
        elif self.reader is not None and ending is not Ending.FAILED:
            received += ", stopped on the server"
        sign = "■" if ending is Ending.STOPPED else "✗"
        return _joined(f"{sign} {ending} after {seconds_text(self.seconds)}{received}", self._query())

    def _received(self) -> str:
        if self.reader is None:
            return ""
        return f"{rows_text(self.reader.rows)} · {bytes_text(self.reader.bytes_received)}"

    def _query(self) -> str:
        return "" if self.query_id is None else f"query {short_query_id(self.query_id)}"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


class DisplayLine:
    """The line as a display of the cell, updated through its display id."""

    outlives_cell = True
    """Whether it can still be updated after its cell has ended; else it can only be finished once more."""

    def __init__(self) -> None:
        self._handle: Handle | None = None
        self.is_shown = False

    def rewrite(self, text: str) -> None:
        """Replace the line by `text`."""
        self.show({"text/plain": text, "text/html": _line_html(text)})

    def show(self, bundle: Mapping[str, object], metadata: Mapping[str, object] | None = None) -> None:
        """Show something else in the line's place."""
        if self._handle is None:
            self._handle = new_display_handle()
            self.is_shown = True
            self._handle.display(bundle, raw=True, metadata=metadata)
        else:
            self._handle.update(bundle, raw=True, metadata=metadata)

    finish = rewrite

    def clear(self) -> None:
        """Remove the line."""
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)


class TerminalLine:
    """The line on a terminal; into a file or a pipe only the last text is written. The caller owns the stream."""

    outlives_cell = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_shown = False

    def rewrite(self, text: str) -> None:
        """Replace the line by `text`."""
        if self._stream.isatty():
            self.is_shown = True
            self._stream.write(_ERASE_LINE + text)
            self._stream.flush()

    def finish(self, text: str) -> None:
        """Show `text` as the final line."""
        erase = _ERASE_LINE if self._stream.isatty() else ""
        self.is_shown = True
        self._stream.write(f"{erase}{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self.is_shown:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()


LiveLine = DisplayLine | TerminalLine
"""A line in a cell that can be updated."""


@contextmanager
def updated_regularly(line: LiveLine, describe: Callable[[], str]) -> Iterator[None]:
    """Update a line while the `with` block runs, on a thread that calls `describe` for the text."""
    over = Event()

    def update() -> None:
        while not over.wait(REWRITE_SECONDS):
            line.rewrite(describe())

    thread = start_thread(update, name="micromegas-live-line")
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN_SECONDS)


def _line_html(text: str) -> str:
    style = "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
    style += ";overflow-wrap:anywhere"
    return f'<div style="{style}">{html.escape(text)}</div>'


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
        return {"pandas": "DataFrame", "arrow": "pyarrow.Table", "polars": "polars.DataFrame"}.get(self, "reader")


def check_format(row_format: RowFormat, *, dtype: str | None, plot: bool) -> None:
    """Check that what makes this format is installed, and that the other options suit it."""
    if row_format is RowFormat.POLARS and find_spec("polars") is None:
        raise UsageError(
            "--format polars needs polars, which is not installed here.",
            remedy="Run %pip install 'micromegas_jupyter[polars]', or use --format arrow.",
        )
    if plot and row_format is RowFormat.READER:
        raise UsageError("--plot needs all rows, and a reader has none yet.", remedy="Leave one of them out.")
    if dtype is not None and row_format is not RowFormat.PANDAS:
        raise UsageError("--dtype is for pandas DataFrames.", remedy=f"Leave it out with --format {row_format.value}.")


def to_polars(table: pa.Table) -> Any:
    """Return the rows as a polars DataFrame; call it without rows to find out whether polars can hold them."""
    import polars as pl

    for column in table.schema:
        # polars ends in a panic over these, not in an error.
        if "decimal256" in str(column.type):
            raise UsageError(
                f'The column "{cut(printable(column.name), _MAX_NAME_CHARACTERS)}" is of type decimal256, which polars '
                "cannot hold.",
                remedy="Cast it in the statement, or use --format arrow.",
            )
    try:
        return pl.from_arrow(table)
    except pl.exceptions.PolarsError as error:
        types = cut(", ".join(dict.fromkeys(str(kind) for kind in table.schema.types)), _MAX_TYPES_CHARACTERS)
        raise UsageError(
            f"polars cannot hold these columns ({types}).",
            remedy="Rename or cast the one in question in the statement, or use --format arrow.",
        ) from error


class RowReader:
    """The rows of a query, batch by batch as they are asked for: like `pyarrow.RecordBatchReader`, and read once.

    No more than a few batches are held at a time, however large the result is. Ctrl-C while it waits for a batch,
    `close`, the end of a `with` block and the end of the last reference to it stop the query here and on the server.
    Whatever takes Arrow streams takes it (`__arrow_c_stream__`): DuckDB, polars, `RecordBatchReader.from_stream`.
    Belongs to one thread at a time.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
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
        """Return the next batch; the error of a query that failed or was interrupted is raised by every later call."""
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
        from micromegas_jupyter.client.frames import to_frame

        return to_frame(self.read_all())

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


class Reading:
    """A query whose rows can be read; what goes on without the `RowReader`, which must be free to be collected.

    The line says `target` (where the rows go) at its end. `on_end` is told once how it ended, on any thread.
    """

    def __init__(  # noqa: PLR0913 - what outlives the cell
        self,
        reader: QueryReader,
        progress: Progress,
        line: LiveLine,
        *,
        target: str = "",
        sql: str = "",
        on_end: Callable[[Ending, MicromegasError | None], None] = lambda *_: None,
    ) -> None:
        self.reader = reader
        self.ending: Ending | None = None
        self._progress = progress
        self._line = line
        self._target = target
        self._sql = sql
        self._on_end = on_end
        self._failure: MicromegasError | None = None
        self._rewritten_at = progress.seconds
        # ipykernel finds the cell that a display belongs to in a context variable.
        self._context = contextvars.copy_context()
        line.finish(f"{progress.opened_line()}{target}")

    def take(self) -> pa.RecordBatch:
        """Return the next batch."""
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
            show_as_lines(error, error_lines(error, sql=self._sql))
            self._end(Ending.FAILED, error)
            raise
        self._progress.note_batch()
        self._follow()
        return batch

    def close(self) -> None:
        """Stop the query when it still runs."""
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
            self._line.rewrite(f"{self._progress.reading_line()}{self._target}")

    def _end(self, ending: Ending, error: MicromegasError | None = None) -> None:
        if self.ending is not None:
            return
        self.ending = ending
        done = ending is Ending.DONE
        line = self._progress.done_line() if done else self._progress.ended_line(ending)
        self._line.finish(f"{line}{self._target}")
        self._on_end(ending, error)
