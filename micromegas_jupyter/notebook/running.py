"""Runs one query for a cell: collects its batches, tells how it goes, and ends it at once on an interrupt."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from micromegas_jupyter.errors import MicromegasError, QueryCancelled
from micromegas_jupyter.notebook.error_lines import show_as_lines
from micromegas_jupyter.notebook.live_line import LineTicker
from micromegas_jupyter.notebook.progress import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.client import QueryReader
    from micromegas_jupyter.notebook.connections import Connection
    from micromegas_jupyter.notebook.live_line import LiveLine
    from micromegas_jupyter.notebook.progress import Progress

T = TypeVar("T")


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


def run_query(
    connection: Connection,
    query: Query,
    *,
    progress: Progress,
    line: LiveLine,
    collect: Callable[[pa.Schema, Iterator[pa.RecordBatch]], T],
) -> T:
    """Run the query and return what `collect` makes of its rows; `line` is left for the caller to finish.

    Args:
        connection: Where.
        query: What.
        progress: Is told how far it is.
        line: Shows that.
        collect: Given the schema and the batches as they come; raises when the caller cannot use such rows.

    Raises:
        QueryCancelled: The person interrupted it; it is shown as the one line that says so.
        MicromegasError: It failed.
    """
    with _telling(progress, line), _open(connection, query, progress) as reader:
        return collect(reader.schema, _noted(reader, progress))


def open_query(connection: Connection, query: Query, *, progress: Progress, line: LiveLine) -> QueryReader:
    """Start the query and return the reader of its rows, which is the caller's to close; the rest as for `run_query`.

    Raises:
        QueryCancelled: The person interrupted the start.
        MicromegasError: It could not be started.
    """
    with _telling(progress, line):
        return _open(connection, query, progress)


def _noted(reader: QueryReader, progress: Progress) -> Iterator[pa.RecordBatch]:
    def noted(batch: pa.RecordBatch) -> pa.RecordBatch:
        progress.note_batch()
        return batch

    return map(noted, reader)  # unlike a generator it does not hold the batch that it gave last


def _open(connection: Connection, query: Query, progress: Progress) -> QueryReader:
    reader = connection.client.open_query(
        query.sql, query.begin, query.end, dict(query.params) or None, limit=query.limit
    )
    progress.note_opened(reader, token_ends_at=connection.token_ends_at())
    return reader


@contextmanager
def _telling(progress: Progress, line: LiveLine) -> Iterator[None]:
    try:
        with LineTicker(line, progress.running_line):
            yield
    except (KeyboardInterrupt, QueryCancelled) as interrupt:
        cancelled = QueryCancelled("The query was cancelled.", query_id=progress.query_id)
        show_as_lines(cancelled, [progress.ended_line(Ending.CANCELLED)])
        line.clear()
        raise cancelled from interrupt
    except MicromegasError:
        if line.is_shown:
            line.finish(progress.ended_line(Ending.FAILED))
        raise
