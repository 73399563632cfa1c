"""A place for rows that keeps them in memory, for tests of what comes before the storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from micromegas_jupyter.core.protocols import TableWrite, WriteRequest


@dataclass
class FakeSink:
    """Implements `TableSink` and `TableWrite` of `core.protocols` for one write at a time."""

    requests: list[WriteRequest] = field(default_factory=list)
    schema: pa.Schema | None = None
    batches: list[pa.RecordBatch] = field(default_factory=list)
    is_committed: bool = False
    is_abandoned: bool = False

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> TableWrite:
        self.requests.append(request)
        self.schema = schema
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)

    def commit(self) -> int:
        self.is_committed = True
        return sum(batch.num_rows for batch in self.batches)

    def abandon(self) -> None:
        self.is_abandoned = not self.is_committed
