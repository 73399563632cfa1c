"""What one query may take of the server: its time, and the rows and bytes of its result.

How many queries run at once is `admission`'s answer; memory and disk are the engine's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pyarrow as pa

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted

_MIB: Final = 1024 * 1024


@asynccontextmanager
async def query_deadline(seconds: float | None) -> AsyncIterator[None]:
    """Cancel what the body waits for when the time is over.

    Args:
        seconds: From now; None for any time.

    Raises:
        DeadlineExceeded: The time is over.
    """
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield
    except TimeoutError:
        if not deadline.expired():
            raise  # somebody else's clock
        raise DeadlineExceeded(
            f"The query took longer than the {seconds:g} s that this server gives one query.",
            remedy="Ask for less at a time: a shorter time range, fewer columns, an aggregate instead of all rows.",
            limit="query_timeout",
        ) from None


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
