"""What a server offers in tests, and what fakes of a client and its reader need to tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.errors import MicromegasError

TABLES = {
    "log_entries": pa.schema(
        [
            pa.field("time", pa.timestamp("ns", "UTC"), nullable=False),
            pa.field("level", pa.int32(), metadata={"ARROW:FLIGHT:SQL:REMARKS": "How severe."}),
            pa.field("msg", pa.string()),
        ],
        metadata={"ARROW:FLIGHT:SQL:REMARKS": "What programs logged."},
    ),
    "measures": pa.schema([("time", pa.timestamp("ns", "UTC")), ("value", pa.float64())]),
}


@dataclass(kw_only=True)
class FakeTables:
    """The tables, or why they cannot be told; `may_answer` holds the answer back."""

    schemas: Mapping[str, pa.Schema] = field(default_factory=lambda: TABLES)
    failure: MicromegasError | None = None
    asked_count: int = 0
    was_asked: Event = field(default_factory=Event)
    may_answer: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.may_answer.set()


class ListsTables:
    """A client's `list_tables`, as its world says."""

    _world: Any

    def list_tables(self, *, timeout_seconds: float | None = None) -> dict[str, pa.Schema]:
        tables: FakeTables = self._world.tables
        tables.asked_count += 1
        tables.was_asked.set()
        assert tables.may_answer.wait(60)
        if tables.failure is not None:
            raise tables.failure
        return dict(tables.schemas)


class ReadsAll:
    """A reader's `read_all`, over its batches."""

    schema: pa.Schema

    def read_all(self: Any) -> pa.Table:
        return pa.Table.from_batches(list(self), self.schema)
