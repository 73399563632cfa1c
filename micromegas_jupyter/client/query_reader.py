"""The answer of one query as it arrives: an iterator of batches that can be left, cancelled and measured.

Threads are `pump`'s job, making the call is given from outside.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

import pyarrow as pa

from micromegas_jupyter.client.calls import Call
from micromegas_jupyter.client.credentials import Credential
from micromegas_jupyter.client.pump import Arrived, BatchPump, BatchStream, Ended, Event, Failed, Opened, Stopped
from micromegas_jupyter.client.retry import Attempts
from micromegas_jupyter.errors import QueryCancelled, UsageError
from micromegas_jupyter.seams import Clock

_REMEDY: Final = "Run the query again."


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStart:
    """How a query is started: how often and by whom, how the call looks then, and how its answer begins."""

    attempts: Attempts
    build_call: Callable[[Credential], Call]
    open_stream: Callable[[Call], BatchStream]


class QueryReader:
    """The batches of one query, as they arrive. Made by `FlightSQLClient.open_query`; belongs to one thread.

    Ctrl-C, leaving the `with` block and `cancel` stop the query here at once and on the server as soon as it
    listens. Until the first batch is here, a credential that the server refuses is renewed once, and a query that
    only reads is started again when the server is unavailable.

    Args:
        start: How the query is started.
        clock: Measures.

    Raises:
        MicromegasError: The query could not be started.
    """

    def __init__(self, start: QueryStart, *, clock: Clock) -> None:
        self._start = start
        self._clock = clock
        self._started_at = clock.monotonic()
        self._ended_at: float | None = None
        self._rows = 0
        self._bytes_received = 0
        self._schema: pa.Schema | None = None
        self._has_batches = False
        self._is_closed = False
        self._failure: QueryCancelled | None = None
        self._begin(start.attempts.first_credential())
        self._await_schema()

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self._schema

    @property
    def query_id(self) -> str | None:
        """The server's id of this query; None when the server gives none."""
        return self._call.record.query_id

    @property
    def rows(self) -> int:
        """How many rows have arrived."""
        return self._rows

    @property
    def bytes_received(self) -> int:
        """How many bytes the batches took that have arrived, as Arrow sends them uncompressed."""
        return self._bytes_received

    @property
    def elapsed_seconds(self) -> float:
        """Seconds from the start to now, or to the end when it has come."""
        return (self._clock.monotonic() if self._ended_at is None else self._ended_at) - self._started_at

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        """Return the next batch.

        Raises:
            StopIteration: There are no more.
            MicromegasError: The query failed.
            QueryCancelled: `cancel` was called.
            UsageError: The reader is closed.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise UsageError("The query's reader is closed.", remedy=_REMEDY)
        if self._ended_at is not None:
            raise StopIteration
        while True:
            match self._take():
                case Arrived(batch):
                    return self._count(batch)
                case Opened(schema):  # of another attempt
                    self._schema = schema
                case Ended():
                    self._end()
                    raise StopIteration
                case _:
                    raise self._cancelled()

    def read_all(self) -> pa.Table:
        """Return all batches that are still to come as one table.

        Raises:
            MicromegasError: The query failed.
        """
        return pa.Table.from_batches(list(self), self._schema)

    def cancel(self) -> None:
        """Stop the query, here at once and on the server; a reader that has ended stays as it is. Any thread."""
        self._start.attempts.stop()
        self._pump.stop()

    def close(self) -> None:
        """Stop the query when it still runs, and let go of it; calling again does nothing."""
        self._is_closed = True
        if self._ended_at is None:
            self._end()
        self._start.attempts.stop()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _begin(self, credential: Credential) -> None:
        self._credential = credential
        self._call = call = self._start.build_call(credential)
        open_stream = self._start.open_stream
        self._pump = BatchPump(lambda: open_stream(call))
        # A reader that nobody closed is stopped when it is collected, and at the end of the process.
        self._finalizer = weakref.finalize(self, self._pump.stop)
        if self._start.attempts.is_stopped:  # meanwhile
            self._pump.stop()

    def _await_schema(self) -> None:
        match self._take():
            case Opened(schema):
                self._schema = schema
            case _:
                raise self._cancelled()

    def _take(self) -> Event:
        """Return the next event; a failure is raised, unless another attempt may end better."""
        attempts = self._start.attempts
        try:
            while isinstance(event := self._pump.take(), Failed):
                credential = None
                if not self._has_batches:
                    credential = attempts.next_credential(event.error, self._credential, self._call.record)
                if credential is not None:
                    self._begin(credential)
                elif attempts.is_stopped:
                    return Stopped()
                else:
                    raise event.error  # noqa: TRY301 - ended as for Ctrl-C
        except BaseException:
            self._end()
            self._finalizer()
            raise
        return event

    def _count(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self._has_batches = True
        self._rows += batch.num_rows
        self._bytes_received += pa.ipc.get_record_batch_size(batch)
        return batch

    def _cancelled(self) -> QueryCancelled:
        self._end()
        self._failure = QueryCancelled("The query was cancelled.", query_id=self.query_id)
        return self._failure

    def _end(self) -> None:
        self._ended_at = self._clock.monotonic()
