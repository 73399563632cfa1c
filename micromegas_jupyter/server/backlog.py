"""Rows that wait to be stored, kept up to a bound while the disk fails.

When to try is the recorder's choice.
"""

import pyarrow as pa

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lakehouse import LakeWriter

MAX_WAITING_ROWS = 200_000


class Backlog:
    """Batches for each table in the order of their arrival; the oldest go when there are too many. For one thread."""

    def __init__(self, *, max_rows: int = MAX_WAITING_ROWS) -> None:
        self._max_rows = max_rows
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        self._lost_rows = 0

    @property
    def waiting_rows(self) -> int:
        """How many rows wait."""
        return sum(batch.num_rows for batches in self._waiting.values() for batch in batches)

    def add(self, table_name: str, batch: pa.RecordBatch) -> None:
        """Let a batch wait; drops whole batches of the fullest table when there are too many rows."""
        self._waiting.setdefault(table_name, []).append(batch)
        while self.waiting_rows > self._max_rows:
            fullest = max(self._waiting.values(), key=lambda batches: sum(batch.num_rows for batch in batches))
            self._lost_rows += fullest.pop(0).num_rows

    def store(self, writer: LakeWriter) -> MicromegasError | None:
        """Store all that waits, one file for each table; return the last error, its rows go on waiting."""
        failure: MicromegasError | None = None
        for table_name, batches in self._waiting.items():
            if not batches:
                continue
            try:
                writer.append(table_name, pa.Table.from_batches(batches))
            except MicromegasError as error:
                failure = error
            else:
                batches.clear()
        return failure

    def take_lost_count(self) -> int:
        """Return how many rows were dropped since the last call."""
        lost, self._lost_rows = self._lost_rows, 0
        return lost
