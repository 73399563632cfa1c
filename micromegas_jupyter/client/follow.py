"""A follow yields tables of the rows added to one of the server's tables, as they are committed."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

import pyarrow as pa

from micromegas_jupyter.client.query_reader import QueryReader
from micromegas_jupyter.client.transport import TAIL_KEY, Header, build_header
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InternalError,
    MicromegasError,
    QueryCancelled,
    Unavailable,
    UsageError,
)

_WAIT_KEY: Final = "x-micromegas-tail-wait"
_END_KEY: Final = "x-micromegas-tail-end"
_MAX_WAIT_SECONDS: Final = 3600.0
_SLICE_SECONDS: Final = 2.0  # of each wait; a read cannot be canceled until the server responds
_SLACK_SECONDS: Final = 60.0
_END_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 10.0


class Follow:
    """An iterator of Arrow tables with new rows. Created by `FlightSQLClient.follow`; belongs to one thread.

    A read that fails because the server is unavailable or slow is retried with the same cursor, so no row is lost or
    returned twice. Another follow of the statement can continue from `cursor`, after the last returned table. `rows`
    is the number of returned rows, and `reconnects` that of retried reads.
    """

    def __init__(
        self,
        open_reader: Callable[[tuple[Header, ...], float], QueryReader],
        *,
        start: str,
        cursor: str | None,
        poll_seconds: float,
        max_reconnects: int,
    ) -> None:
        self._open_reader = open_reader
        self._poll_seconds = _check_seconds(poll_seconds)
        self._max_reconnects = max_reconnects
        self._stopped = threading.Event()
        self._is_closed = False
        self.schema = pa.schema([])  # unknown until the first rows arrive if an earlier follow is continued
        self.cursor: str = start
        self.rows = 0
        self.reconnects = 0
        if cursor is None:
            self.schema = self._read_again(0.0).schema

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pa.Table:
        """Return the next rows, however long that takes; calling `cancel` from any thread stops the wait."""
        while not self._stopped.is_set():
            with suppress(QueryCancelled):
                if (table := self.read()).num_rows:
                    return table
        raise StopIteration

    def read(self, wait_seconds: float | None = None) -> pa.Table:
        """Return the next rows, or an empty table if none arrive within `wait_seconds` (default: `poll_seconds`).

        Raises:
            CursorExpired: The server no longer has the rows added since the last read.
        """
        if self._is_closed:
            raise UsageError("The follow is closed.", remedy="Start a new follow with its cursor.")
        seconds = self._poll_seconds if wait_seconds is None else _check_seconds(wait_seconds)
        deadline = time.monotonic() + seconds
        while not (table := self._read_again(min(seconds, _SLICE_SECONDS))).num_rows:
            if (seconds := deadline - time.monotonic()) <= 0:
                return self.schema.empty_table()
        self.schema = table.schema
        self.rows += table.num_rows
        return table

    def cancel(self) -> None:
        """Stop waiting for rows, within two seconds; callable from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """End the follow, including on the server; its `cursor` remains valid. Repeated calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stopped.set()
        with suppress(MicromegasError):
            self._read((build_header(_END_KEY, "true"),), _END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _read_again(self, wait_seconds: float) -> pa.Table:
        failures = 0
        while True:
            if self._stopped.is_set():
                raise QueryCancelled("The follow was canceled.")
            try:
                return self._read((build_header(_WAIT_KEY, f"{wait_seconds:g}"),), wait_seconds + _SLACK_SECONDS)
            except (Unavailable, DeadlineExceeded) as error:
                failures += 1
                if not (error.retryable or isinstance(error, DeadlineExceeded)) or failures > self._max_reconnects:
                    raise
            self.reconnects += 1
            self._stopped.wait(min(_FIRST_PAUSE_SECONDS * 2 ** (failures - 1), _MAX_PAUSE_SECONDS))

    def _read(self, headers: tuple[Header, ...], seconds: float) -> pa.Table:
        with self._open_reader((*headers, build_header(TAIL_KEY, self.cursor)), seconds) as reader:
            table = reader.read_all()
            if reader.cursor is None:
                raise InternalError(
                    "The server doesn't support follows.", remedy="Connect to a server of this version."
                )
            self.cursor = reader.cursor
            return table


def _check_seconds(seconds: float) -> float:
    if not 0 <= seconds <= _MAX_WAIT_SECONDS:
        raise UsageError(f"A follow can wait 0 to {_MAX_WAIT_SECONDS:,.0f} seconds for rows.")
    return float(seconds)
