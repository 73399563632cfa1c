"""Query rows: the progress line while they arrive, polars conversion, and a reader that fetches rows on demand."""

from __future__ import annotations

import contextvars
import html
import weakref
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Self, TextIO

from micromegas_jupyter.core.text import bytes_text, cut, printable, rows_text, seconds_text, short_query_id
from micromegas_jupyter.errors import MicromegasError, QueryCancelled, UsageError, extra
from micromegas_jupyter.notebook.shell import error_lines, new_display_handle, show_as_lines, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    import pyarrow as pa

    from micromegas_jupyter.client.query_reader import QueryReader, ScanCounts, ScanFollower
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.shell import Handle

_REWRITE_SECONDS = 0.25
_JOIN_SECONDS = 2.0
_ERASE_LINE = "\r\x1b[2K"
_MAX_TYPES_CHARACTERS = 200


class Ending(StrEnum):
    """How a query ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """The reader was closed or dropped before the last row."""


class Progress:
    """A query's progress or outcome, written by the thread that reads its rows and read by the line's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._seconds: float | None = None  # once finished
        self._first_seconds: float | None = None
        self._bytes: int | None = None  # once the server has begun to respond
        self.ending: Ending | None = None
        self.query_id: str | None = None
        self.rows = 0
        self.scanned = ""
        self._counts: ScanCounts | None = None

    @property
    def seconds(self) -> float:
        """The elapsed seconds since the start, or until the end."""
        return self._clock.monotonic() - self._started if self._seconds is None else self._seconds

    def note(self, reader: QueryReader) -> None:
        """Note that the server has begun to respond, or that a batch or the last one has arrived."""
        self.query_id, self.rows, self._bytes = reader.query_id, reader.rows, reader.bytes_received
        self._counts = reader.counts
        if self.rows and self._first_seconds is None:
            self._first_seconds = self.seconds

    def end(self, ending: Ending, *, query_id: str | None = None) -> None:
        """Note the outcome; specify `query_id` if only the error contains the query ID."""
        self._seconds, self.ending, self.query_id = self.seconds, ending, self.query_id or query_id

    def line(self) -> str:
        """Return the progress line."""
        time, rows, size = seconds_text(self.seconds), rows_text(self.rows), bytes_text(self._bytes or 0)
        if self.ending is None:
            parts = [f"⏳ {time}", *([] if self._bytes is None else [rows, size]), *filter(None, [self.scanned])]
        elif self.ending is Ending.DONE:
            first = "" if self._first_seconds is None else f" (first after {seconds_text(self._first_seconds)})"
            parts = [f"✓ {rows} in {time}{first}", size]
            parts += [] if self._counts is None else [f"read {self._counts.text()}"]
        else:
            stopped = "" if self.ending is Ending.FAILED else ", stopped on the server"
            before = "" if self.ending is Ending.FAILED else ", before the first row"
            received = before if self._bytes is None else f", {rows} received{stopped}"
            parts = [f"{'■' if self.ending is Ending.STOPPED else '✗'} {self.ending} after {time}{received}"]
        return " · ".join([*parts, *([] if self.query_id is None else [f"query {short_query_id(self.query_id)}"])])


class DisplayLine:
    """The line as a cell's display, updated through its display ID."""

    def __init__(self) -> None:
        self._handle: Handle | None = None
        self.is_shown = False

    def rewrite(self, text: str) -> None:
        """Replace the line with `text`."""
        style = "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
        style += ";overflow-wrap:anywhere"
        self.show({"text/plain": text, "text/html": f'<div style="{style}">{html.escape(text)}</div>'})

    def show(self, bundle: Mapping[str, object], metadata: Mapping[str, object] | None = None) -> None:
        """Show something else instead of the line."""
        if self._handle is None:
            self._handle, self.is_shown = new_display_handle(), True
            self._handle.display(bundle, raw=True, metadata=metadata)
        else:
            self._handle.update(bundle, raw=True, metadata=metadata)

    finish = rewrite

    def clear(self) -> None:
        """Remove the line."""
        if self.is_shown:
            self.show({"text/plain": "", "text/html": ""})


class TerminalLine:
    """The line on a terminal; files and pipes get only the final text. The caller owns the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_shown = False

    def rewrite(self, text: str) -> None:
        """Replace the line by `text`."""
        if self._stream.isatty():
            self._write(_ERASE_LINE + text)

    def finish(self, text: str) -> None:
        """Show `text` as the final line."""
        self._write(f"{_ERASE_LINE if self._stream.isatty() else ''}{text}\n")

    def clear(self) -> None:
        """Remove the line."""
        if self.is_shown:
            self._write(_ERASE_LINE)

    def _write(self, text: str) -> None:
        self.is_shown = True
        self._stream.write(text)
        self._stream.flush()


LiveLine = DisplayLine | TerminalLine
"""A line in a cell that can be updated."""


@contextmanager
def shown_progress(progress: Progress, line: LiveLine, follower: ScanFollower) -> Iterator[None]:
    """Show the progress on the line, which the caller finishes, except after an interrupt or a failure."""
    over = Event()

    def update() -> None:
        while not over.wait(_REWRITE_SECONDS):
            progress.scanned = follower.text(progress.query_id)
            if not over.is_set():
                line.rewrite(f"{progress.line()} · interrupt to cancel")

    thread = start_thread(update, name="micromegas-live-line")
    try:
        try:
            yield
        finally:
            over.set()
            thread.join(_JOIN_SECONDS)
    except (KeyboardInterrupt, QueryCancelled) as interrupt:
        progress.end(Ending.CANCELLED)
        cancelled = QueryCancelled("The query was canceled.", query_id=progress.query_id)
        show_as_lines(cancelled, [progress.line()])
        line.clear()
        raise cancelled from interrupt
    except BaseException as error:
        progress.end(Ending.FAILED, query_id=getattr(error, "query_id", None))
        if line.is_shown:
            line.finish(progress.line())
        raise


def to_polars(table: pa.Table) -> Any:
    """Return the rows as a polars DataFrame; call it without rows to check whether polars supports them."""
    with extra("polars"):
        import polars as pl

    from micromegas_jupyter.core.jsonb import with_json

    table = with_json(table)
    with suppress(pl.exceptions.PolarsError):
        # Polars panics for this type instead of raising an error.
        if not any("decimal256" in str(kind) for kind in table.schema.types):
            return pl.from_arrow(table)
    types = cut(", ".join(f"{printable(column.name)} {column.type}" for column in table.schema), _MAX_TYPES_CHARACTERS)
    raise UsageError(
        f"polars cannot hold these columns ({types}).",
        remedy="Rename or cast the one in question in the statement, or use --format arrow.",
    )


class RowReader:
    """A one-time reader that fetches a query's rows batch by batch, like `pyarrow.RecordBatchReader`.

    ```python
    rows = %sql --format reader SELECT * FROM log_entries
    for batch in rows:
        print(batch.num_rows)
    ```

    It holds at most a few batches, no matter how large the result is. Ctrl-C while waiting for a batch, `close`,
    leaving a `with` block, and deleting the last reference stop the query here and on the server. Libraries that
    accept Arrow streams (`__arrow_c_stream__`) accept it, such as DuckDB, polars, and `RecordBatchReader.from_stream`.
    Use it on one thread at a time.
    """

    def __init__(  # noqa: PLR0913 - what outlives the cell
        self,
        reader: QueryReader,
        progress: Progress,
        line: LiveLine,
        *,
        target: str,
        sql: str,
        on_failure: Callable[[MicromegasError], None],
    ) -> None:
        self._reader, self._progress, self._line = reader, progress, line
        self._target, self._sql, self._on_failure = target, sql, on_failure
        self._failure: MicromegasError | None = None
        self._rewritten_at = progress.seconds
        self._end = partial(_end, progress, line, target)
        # ipykernel uses a context variable to find the cell that a display belongs to.
        self._finalizer = weakref.finalize(self, _drop, reader, self._end, contextvars.copy_context())
        # When the process exits, the client stops its queries, and no line is needed.
        self._finalizer.atexit = False
        query = "" if reader.query_id is None else f" · query {short_query_id(reader.query_id)}"
        line.finish(f"▸ rows come as you iterate{query}{target}")

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self._reader.schema

    @property
    def query_id(self) -> str | None:
        """The server's ID for the query, or None."""
        return self._reader.query_id

    @property
    def rows(self) -> int:
        """The number of rows that have been read or are about to be."""
        return self._reader.rows

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        """Return the next batch; every later call raises the error of a failed or interrupted query."""
        if self._failure is not None:
            raise self._failure
        try:
            batch = next(self._reader)
        except StopIteration:
            self._progress.note(self._reader)
            self._finish(Ending.DONE)
            raise
        except (KeyboardInterrupt, QueryCancelled) as stopped:
            # The client stops a query that it is waiting for, but an interrupt may also occur while a batch is in
            # transit.
            self._reader.close()
            self._failure = QueryCancelled("The query was canceled.", query_id=self.query_id)
            self._finish(Ending.CANCELLED)
            for shown in (self._failure, stopped):
                show_as_lines(shown, [self._progress.line()])
            raise
        except MicromegasError as error:
            self._failure = error
            show_as_lines(error, error_lines(error, sql=self._sql))
            if self._progress.ending is None:  # otherwise, the reader was closed
                self._on_failure(error)
            self._finish(Ending.FAILED)
            raise
        self._progress.note(self._reader)
        seconds = self._progress.seconds
        # A line on a terminal can only be finished after its cell has ended.
        if isinstance(self._line, DisplayLine) and seconds - self._rewritten_at >= _REWRITE_SECONDS:
            self._rewritten_at = seconds
            self._line.rewrite(f"{self._progress.line()}{self._target}")
        return batch

    def read_next_batch(self) -> pa.RecordBatch:
        """Return the next batch; raises the same errors as `next`."""
        return next(self)

    def read_all(self) -> pa.Table:
        """Return all remaining rows as one table."""
        import pyarrow as pa

        return pa.Table.from_batches(self, self.schema)

    def read_pandas(self) -> pd.DataFrame:
        """Return all remaining rows as a DataFrame, with binary JSON as JSON text."""
        from micromegas_jupyter.client.json_columns import to_frame

        return to_frame(self.read_all())

    def cancel(self) -> None:
        """Stop the query here and on the server; callable from any thread."""
        self._reader.cancel()

    def close(self) -> None:
        """Stop the query if it is still running; repeated calls do nothing."""
        self._reader.close()
        self._finish(Ending.STOPPED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows as an Arrow C stream (the Arrow PyCapsule interface)."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, self).__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        state = "open" if self._progress.ending is None else str(self._progress.ending)
        return f"<rows of a query: {len(self.schema)} columns, {rows_text(self.rows)} read so far, {state}>"

    def _finish(self, ending: Ending) -> None:
        # The frames in the stored error's traceback would keep this object alive.
        if self._finalizer.detach() is not None:
            self._end(ending)


def _end(progress: Progress, line: LiveLine, target: str, ending: Ending) -> None:
    progress.end(ending)
    line.finish(f"{progress.line()}{target}")


def _drop(reader: QueryReader, end: Callable[[Ending], None], context: contextvars.Context) -> None:
    """Stop a reader during garbage collection, possibly while other code is writing to the same stream."""

    def end_quietly() -> None:
        with suppress(OSError, ValueError):  # the stream and the line are gone
            end(Ending.STOPPED)

    reader.close()
    with suppress(RuntimeError):  # no new threads when the interpreter exits
        context.run(start_thread, end_quietly, name="micromegas-rows")
