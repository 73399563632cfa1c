"""A query's result as it arrives, in batches, with cancellation, counting, and retries.

A thread inside the Flight library never receives Ctrl-C, so calls are made on separate threads.
"""

import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Annotated, Final, Protocol, Self, TypeAlias

import msgspec
import pyarrow as pa

from micromegas_jupyter.client.transport import Attempts, Call, Credential
from micromegas_jupyter.core.system import WAIT_SLICE_SECONDS, Clock, start_thread
from micromegas_jupyter.core.text import bytes_text, files_text, rows_text
from micromegas_jupyter.errors import MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.flightsql.commands import ESTIMATE_KEY

_FOLLOW_SECONDS: Final = 1.0
_MAX_WAITING_EVENTS: Final = 4
_MAX_WAITING_BYTES: Final = 2 * 1024 * 1024


class BatchStream(Protocol):
    """Batches that arrive one at a time, then None. Any thread may call `cancel`, one thread the rest."""

    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102

    def read_batch(self) -> pa.RecordBatch | None: ...  # noqa: D102

    def cancel(self) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ScanProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The `scanned` share (0 to 1) of the `files` that a running query needs."""

    files: _Count
    scanned: Annotated[float, msgspec.Meta(ge=0, le=1)]


class ScanFollower:
    """Requests a query's scan progress once a second, until the server stops reporting it. For one thread."""

    def __init__(self, find: Callable[[str], ScanProgress | None], clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._due_at = clock.monotonic() + _FOLLOW_SECONDS
        self._text = ""

    def text(self, query_id: str | None) -> str:
        """Return a clause such as `scanned 37 % of 812 files`, or an empty string."""
        now = self._clock.monotonic()
        if query_id is not None and now >= self._due_at:
            try:
                found = self._find(query_id)
            except MicromegasError:
                found, self._due_at = None, float("inf")
            else:
                self._due_at = now + _FOLLOW_SECONDS
            self._text = "" if found is None else f"scanned {int(found.scanned * 100)} % of {files_text(found.files)}"
        return self._text


class TableCounts(msgspec.Struct, frozen=True):
    """The part of a table that a statement needs: `files` of `total`, with bytes and rows if the log has them."""

    name: str
    files: _Count
    total: _Count
    size: _Count | None = None
    rows: _Count | None = None

    def text(self) -> str:
        """Return `12 of 120 files, 3.4 MB, 2,000,000 rows`."""
        return _counts_text(self.files, self.total, self.size, self.rows)


class ScanCounts(msgspec.Struct, frozen=True):
    """The `files` of `total` that a query has read, with bytes and rows; `explained` is from an EXPLAIN."""

    files: _Count | None
    total: _Count
    bytes: _Count | None
    rows: _Count | None
    explained: tuple[TableCounts, ...] = ()

    def text(self) -> str:
        """Return `12 of 120 files, 3.4 MB, 2,000,000 rows`."""
        return _counts_text(self.files, self.total, self.bytes, self.rows)


NO_ESTIMATE: Final = (
    "The server doesn't show what it would read: it has no estimate, or you may read only some rows of a table."
)


class ScanEstimate(msgspec.Struct, frozen=True):
    """The data that a statement would read; unknown values are `None`."""

    files: _Count
    rows: _Count | None = None
    bytes: _Count | None = None
    tables: tuple[TableCounts, ...] = ()

    def text(self) -> str:
        """Return `reads about 120 MB of 3 files, 1,200,000 rows`."""
        size = "" if self.bytes is None else f"about {bytes_text(self.bytes)} of "
        rows = "" if self.rows is None else f", {rows_text(self.rows)}"
        return f"reads {size}{files_text(self.files)}{rows}" if self.files else "reads no files"


def parse_estimate(schema: pa.Schema) -> ScanEstimate | None:
    """Parse the estimate in a schema's metadata; None if invalid."""
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.json.decode((schema.metadata or {}).get(ESTIMATE_KEY, b""), type=ScanEstimate)
    return None


def parse_counts(text: str) -> ScanCounts | None:
    """Parse the counts from a server; None if invalid."""
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.json.decode(text, type=ScanCounts)
    return None


def _counts_text(files: int | None, total: int, size: int | None, rows: int | None) -> str:
    found = f"{'some' if files is None else f'{files:,}'} of {files_text(total)}"
    known = ["" if size is None else bytes_text(size), "" if rows is None else rows_text(rows)]
    return ", ".join([found, *filter(None, known)])


Event: TypeAlias = pa.Schema | pa.RecordBatch | BaseException | None
"""The server's response began, a batch arrived, the call failed, or the stream ended."""


class BatchPump:
    """Reads one stream on a separate thread. One lock guards the queue and the stream's handle."""

    def __init__(self, open_stream: Callable[[], BatchStream]) -> None:
        self._open_stream = open_stream
        self._changed = threading.Condition()
        self._events: deque[tuple[Event, int]] = deque()  # with their sizes in bytes
        self._waiting_bytes = 0
        self._stream: BatchStream | None = None
        self._is_stopped = False
        try:
            start_thread(self._run, name="micromegas-query")
        except BaseException:  # Ctrl-C, when the thread is already running
            self.stop()
            raise

    def take(self) -> Event:
        """Return the next event; waits for as long as the call may last, and Ctrl-C interrupts the wait."""
        with self._changed:
            while not self._events:
                if self._is_stopped:
                    raise QueryCancelled("The query was canceled.")
                self._changed.wait(WAIT_SLICE_SECONDS)
            event, size = self._events.popleft()
            self._waiting_bytes -= size
            self._changed.notify_all()
            return event

    def stop(self) -> None:
        """Cancel the call, even before the server responds; returns immediately, from any thread."""
        with self._changed:
            if self._is_stopped:
                return
            self._is_stopped = True
            self._events.clear()
            stream = self._stream
            self._changed.notify_all()
        if stream is not None:
            stream.cancel()

    def _run(self) -> None:
        stream = None
        try:
            stream = self._open_stream()
            with self._changed:
                self._stream = None if self._is_stopped else stream
            if self._stream is None:
                # `stop` was called before the server responded, so cancel now.
                stream.cancel()
            elif self._put(stream.schema):
                while self._put_next(stream):
                    pass
        except BaseException as error:  # noqa: BLE001 - handed to the reader
            self._put(error)
        finally:
            with self._changed:
                self._stream = None  # too late for `stop` to cancel
            if stream is not None:
                stream.close()

    def _put_next(self, stream: BatchStream) -> bool:
        """Queue the next batch, or the end, without holding a batch while waiting for the next."""
        batch = stream.read_batch()
        return self._put(batch, 0 if batch is None else pa.ipc.get_record_batch_size(batch)) and batch is not None

    def _put(self, event: Event, size: int = 0) -> bool:
        """Queue an event of `size` bytes once the queue has room; False if stopped."""
        with self._changed:
            while not self._is_stopped and (
                len(self._events) >= _MAX_WAITING_EVENTS or self._waiting_bytes >= _MAX_WAITING_BYTES
            ):
                self._changed.wait(WAIT_SLICE_SECONDS)
            if not self._is_stopped:
                self._events.append((event, size))
                self._waiting_bytes += size
                self._changed.notify_all()
            return not self._is_stopped


_WRITES: Final = re.compile(
    r"""
      \b (?: insert \s+ (?:into|overwrite) | delete \s+ from | merge \s+ into | replace \s+ into ) \b
    | \b update \s+ \S+ \s+ set \b
    | (?: \A | [;)] ) \s* (?: create | drop | alter | truncate | copy | grant | revoke | call | set | update | insert
                            | delete | replace | vacuum | refresh | execute | do | begin | start ) \b
    | \b (?: retire_partition\w* | materialize_partitions | regenerate_partitions | deny_queries
           | remove_query_denial\w* | delete_\w+ ) "? \s* \(
    """,
    re.VERBOSE | re.IGNORECASE,
)
# At worst, a string that contains comment markers prevents a retry.
_COMMENTS: Final = re.compile(r"--[^\n]*+ | /\*.*?(?:\*/ | \Z)", re.VERBOSE | re.DOTALL)


def is_read(sql: str) -> bool:
    """Whether a statement only reads, judging by its text; upstream changes partitions with functions in a SELECT."""
    return _WRITES.search(sql) is None and _WRITES.search(_COMMENTS.sub(" ", sql)) is None


class QueryReader:
    """The batches of one query, as they arrive. Created by `FlightSQLClient.open_query`; belongs to one thread.

    Ctrl-C, leaving the `with` block, and `cancel` stop the query immediately on the client, and on the server as soon
    as it receives the request. Until the first batch arrives, a credential that the server rejects is renewed once,
    and a read-only query is restarted if the server is unavailable.
    """

    def __init__(
        self,
        attempts: Attempts,
        build_call: Callable[[Credential], Call],
        open_stream: Callable[[Call], BatchStream],
        *,
        clock: Clock,
    ) -> None:
        self._attempts = attempts
        self._build_call = build_call
        self._open_stream = open_stream
        self._clock = clock
        self._started_at = clock.monotonic()
        self._ended_at: float | None = None
        self.rows = 0  # received so far
        self.bytes_received = 0  # as uncompressed Arrow data
        self._has_batches = False
        self._is_closed = False
        self._failure: QueryCancelled | None = None
        self._begin(attempts.credentials.fetch())
        try:
            self.schema: pa.Schema = self._take()
        except BaseException:  # its traceback would keep this reader alive, and the query running
            self.close()
            raise

    @property
    def query_id(self) -> str | None:
        """The server's ID for this query, or None."""
        return self._call.record.query_id

    @property
    def counts(self) -> ScanCounts | None:
        """The counts of files, bytes, and rows that the server read for the query, once it has finished.

        None if the server doesn't report it, the query read no table or failed, or rows of its tables are hidden from
        the user.
        """
        text = self._call.record.counts
        return None if text is None else parse_counts(text)

    @property
    def cursor(self) -> str | None:
        """The next cursor of a follow, once all rows have arrived."""
        return self._call.record.cursor

    @property
    def elapsed_seconds(self) -> float:
        """Seconds from the start to now, or to the end if finished."""
        return (self._clock.monotonic() if self._ended_at is None else self._ended_at) - self._started_at

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        """Return the next batch; raises `QueryCancelled` after `cancel`, otherwise the query's error."""
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise UsageError("The query's reader is closed.", remedy="Run the query again.")
        if self._ended_at is not None:
            raise StopIteration
        while isinstance(event := self._take(), pa.Schema):  # from another attempt
            self.schema = event
        if event is None:
            self._ended_at = self._clock.monotonic()
            raise StopIteration
        self._has_batches = True
        self.rows += event.num_rows
        self.bytes_received += pa.ipc.get_record_batch_size(event)
        return event

    def read_all(self) -> pa.Table:
        """Return the remaining batches as one table."""
        return pa.Table.from_batches(list(self), self.schema)

    def cancel(self) -> None:
        """Stop the query, immediately here and on the server, unless it has finished. Callable from any thread."""
        self._attempts.stopped.set()
        self._pump.stop()

    def close(self) -> None:
        """Stop the query if it is still running, and release it; repeated calls do nothing."""
        self._is_closed = True
        if self._ended_at is None:
            self._ended_at = self._clock.monotonic()
        self._attempts.stopped.set()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _begin(self, credential: Credential) -> None:
        self._credential = credential
        self._call = call = self._build_call(credential)
        self._pump = BatchPump(partial(self._open_stream, call))
        # A reader that is never closed is stopped when it is garbage-collected, or when the process exits.
        self._finalizer = weakref.finalize(self, self._pump.stop)
        if self._attempts.stopped.is_set():  # canceled in the meantime
            self._pump.stop()

    def _take(self) -> pa.Schema | pa.RecordBatch | None:
        """Return the next event; raises a failure unless another attempt remains."""
        try:
            while isinstance(event := self._pump.take(), BaseException):
                credential = None
                if not self._has_batches:
                    credential = self._attempts.next_credential(event, self._credential, self._call.record)
                if credential is not None:
                    self._begin(credential)
                elif self._attempts.stopped.is_set():
                    raise QueryCancelled("The query was canceled.")  # noqa: TRY301 - ended as for Ctrl-C
                else:
                    raise event  # noqa: TRY301 - ended as for Ctrl-C
        except BaseException as error:
            self._ended_at = self._clock.monotonic()
            self._finalizer()
            if isinstance(error, QueryCancelled):
                error.query_id = error.query_id or self.query_id
                self._failure = error
            raise
        return event
