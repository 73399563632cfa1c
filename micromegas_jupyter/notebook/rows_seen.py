"""What the display of a result needs of its rows, when the rows themselves went elsewhere as they came.

It stands in for the table that `preview` and `result_html` show; what they make of it is their job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenColumn:
    """A column of rows that have gone by.

    Attributes:
        null_count: How many of its values were null.
    """

    null_count: int


class RowsSeen:
    """Notes rows as they come and keeps the first of them.

    Args:
        schema: The schema of every batch.
        max_rows: How many rows are kept.
    """

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

    from micromegas_jupyter.client.frame_columns import compact

    return pa.RecordBatch.from_arrays([compact(column) for column in batch.columns], schema=batch.schema)
