"""What one query may take of the server: its time, and the rows and bytes of its result.

How many queries run at once is `admission`'s answer; memory and disk are the engine's.
"""

from typing import Final

import pyarrow as pa

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted
from micromegas_jupyter.server.equal_timers import Deadline, EqualTimers

_MIB: Final = 1024 * 1024


class QueryTime:
    """Gives each query its time. Belongs to one event loop.

    Args:
        seconds: How much; None for any.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timers = None if seconds is None else EqualTimers(seconds)

    def of_one(self) -> Deadline:
        """Cancel what the body of a `with` waits for when its time is over.

        Raises:
            DeadlineExceeded: The time is over.
        """
        return Deadline(self._timers, self._too_late)

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The query took longer than the {self._seconds:g} s that this server gives one query.",
            remedy="Ask for less at a time: a shorter time range, fewer columns, an aggregate instead of all rows.",
            limit="query_timeout",
        )


class ResultSize:
    """Counts what one query sends, and ends it at the limits.

    Args:
        max_rows: Rows of the result; None for all.
        max_bytes: Bytes of the result as it is sent; None for any number.

    Attributes:
        rows: Rows that were sent.
        bytes: Bytes that were sent.
    """

    def __init__(self, *, max_rows: int | None, max_bytes: int | None) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self.rows = 0
        self.bytes = 0

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return what of the next rows the result still has room for."""
        if self._max_rows is None or batch.num_rows <= self._max_rows - self.rows:
            return batch
        return batch.slice(0, self._max_rows - self.rows)

    def check_message(self, size: int) -> None:
        """Check that a message of `size` bytes may be sent, and count it.

        Raises:
            ResourcesExhausted: The result would be larger than it may be.
        """
        if self._max_bytes is not None and self.bytes + size > self._max_bytes:
            raise ResourcesExhausted(
                f"The result is larger than the {self._max_bytes / _MIB:,g} MiB that this server sends for one query; "
                f"{_came(self.rows)}.",
                limit="result_bytes",
            )
        self.bytes += size

    def count_rows(self, sent: int, *, of: int) -> None:
        """Count rows that were sent, of the rows that there were to send.

        Raises:
            ResourcesExhausted: There were more, so the limit is reached.
        """
        self.rows += sent
        if sent < of:
            raise ResourcesExhausted(
                f"The result has more rows than the {self._max_rows:,} that this server sends for one query; "
                f"{self.rows:,} rows came.",
                limit="rows",
            )


def _came(rows: int) -> str:
    # Rows are counted by batch, and some messages of the batch that was too much may have been sent.
    return f"at least {rows:,} rows came" if rows else "it ended among its first rows"
