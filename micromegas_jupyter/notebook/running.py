"""Runs one query for a cell: collects its batches, tells how it goes, and ends it at once on an interrupt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import MicromegasError, QueryCancelled
from micromegas_jupyter.notebook.error_lines import show_as_lines
from micromegas_jupyter.notebook.live_line import LineTicker
from micromegas_jupyter.notebook.words import bytes_text, rows_text, seconds_text, short_query_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.client import FlightSQLClient, QueryReader
    from micromegas_jupyter.notebook.live_line import LiveLine
    from micromegas_jupyter.seams import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement with its values and bounds.

    Attributes:
        sql: The statement.
        params: Values of its `:name` parameters.
        begin: Start of the time range (aware), None for no range.
        end: End of the time range (aware).
        limit: At most so many rows; None for all.
    """

    sql: str
    params: Mapping[str, object] = field(default_factory=dict, repr=False)
    begin: datetime | None = None
    end: datetime | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A query's rows, and the line that says how it went."""

    table: pa.Table
    line: str


class _Progress:
    """How far a query is; written by the cell's thread, read by the line's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._first_seconds: float | None = None
        self.reader: QueryReader | None = None

    @property
    def query_id(self) -> str | None:
        return None if self.reader is None else self.reader.query_id

    def note_batch(self) -> None:
        if self._first_seconds is None:
            self._first_seconds = self._seconds()

    def running_line(self) -> str:
        received = () if self.reader is None else (rows_text(self.reader.rows), bytes_text(self.reader.bytes_received))
        return " · ".join((f"⏳ {seconds_text(self._seconds())}", *received, *self._query(), "interrupt to cancel"))

    def done_line(self, rows: int) -> str:
        first = "" if self._first_seconds is None else f" (first after {seconds_text(self._first_seconds)})"
        size = bytes_text(0 if self.reader is None else self.reader.bytes_received)
        return " · ".join((f"✓ {rows_text(rows)} in {seconds_text(self._seconds())}{first}", size, *self._query()))

    def cancelled_line(self) -> str:
        received = (
            ", before the first row"
            if self.reader is None
            else f", {rows_text(self.reader.rows)} received, stopped on the server"
        )
        return " · ".join((f"✗ cancelled after {seconds_text(self._seconds())}{received}", *self._query()))

    def failed_line(self) -> str:
        received = "" if self.reader is None else f", {rows_text(self.reader.rows)} received"
        return " · ".join((f"✗ failed after {seconds_text(self._seconds())}{received}", *self._query()))

    def _query(self) -> tuple[str, ...]:
        return () if self.query_id is None else (f"query {short_query_id(self.query_id)}",)

    def _seconds(self) -> float:
        return self._clock.monotonic() - self._started


def run_query(client: FlightSQLClient, query: Query, *, line: LiveLine, clock: Clock) -> Answer:
    """Run the query and return all its rows; `line` tells how it goes, and is left for the caller to finish.

    Raises:
        QueryCancelled: The person interrupted it; it is shown as the one line that says so.
        MicromegasError: It failed.
    """
    progress = _Progress(clock)
    try:
        with LineTicker(line, progress.running_line):
            table = _collect(client, query, progress)
    except (KeyboardInterrupt, QueryCancelled) as interrupt:
        cancelled = QueryCancelled("The query was cancelled.", query_id=progress.query_id)
        show_as_lines(cancelled, [progress.cancelled_line()])
        line.clear()
        raise cancelled from interrupt
    except MicromegasError:
        if line.is_shown:
            line.finish(progress.failed_line())
        raise
    return Answer(table=table, line=progress.done_line(table.num_rows))


def _collect(client: FlightSQLClient, query: Query, progress: _Progress) -> pa.Table:
    import pyarrow as pa

    with client.open_query(query.sql, query.begin, query.end, dict(query.params) or None, limit=query.limit) as reader:
        progress.reader = reader
        batches = []
        for batch in reader:
            progress.note_batch()
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)
