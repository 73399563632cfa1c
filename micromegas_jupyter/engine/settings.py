"""How much an embedded engine may use, and how long a statement may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The longest statement that any setting allows.
MAX_STATEMENT_BYTES: Final = 524288


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of one embedded engine.

    Attributes:
        memory_limit_bytes: What the operators of running queries may take from the engine's pool. Not a limit on the
            process: decoding and output live outside the pool (a 500 MB pool has been seen with 2.7 GB peaks), so an
            operating-system limit belongs around the process.
        spill_limit_bytes: What one running query may write to the process's folder for temporary files.
        max_statement_bytes: The longest statement, in UTF-8 bytes.
        target_partitions: How many partitions a query runs in; None for one per processor.
        batch_rows: Maximum rows in a batch.
        default_conditions: By table, a condition in SQL that its rows must meet for callers who are not administrators
            and whose `table_access` is None.

    Raises:
        ValueError: A number is out of its range.
    """

    memory_limit_bytes: int = 1 << 30
    spill_limit_bytes: int = 8 << 30
    max_statement_bytes: int = 131072
    target_partitions: int | None = None
    batch_rows: int = 65536
    default_conditions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False, repr=False)

    def __post_init__(self) -> None:
        counts = (self.memory_limit_bytes, self.spill_limit_bytes, self.batch_rows)
        if min(counts) < 1 or (self.target_partitions is not None and self.target_partitions < 1):
            raise ValueError("engine limits are one or more")
        if not 1 <= self.max_statement_bytes <= MAX_STATEMENT_BYTES:
            raise ValueError(f"max_statement_bytes is between 1 and {MAX_STATEMENT_BYTES}")
