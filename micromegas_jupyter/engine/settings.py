"""How much an embedded engine may use, and how large a statement may be.

Reading these from the environment is the composition's job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The length up to which the other limits of a statement's shape (`guard.Limits`) were measured.
MOST_STATEMENT_BYTES: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of one embedded engine.

    Attributes:
        memory_limit_bytes: What all running queries together may take from the engine's pool. Not a cap on the
            process: decoding and output live outside the pool (a 500 MB pool has been seen with 2.7 GB peaks), so an
            operating-system limit belongs around the process.
        spill_limit_bytes: What one running query may write to the process's folder for temporary files.
        max_statement_bytes: The longest statement, in UTF-8 bytes; at most the default, for which the other
            limits of a statement's shape were measured.
        heavy_statements: How many heavy statements run at once; None for one for two processors. The server sees to it;
            the engine has threads to spare beyond them.
        target_partitions: How many partitions a query runs in; None for one per processor.
        batch_rows: Rows in a batch, at most.
        planning_threads: How many statements are planned at once.
        default_conditions: By table, a condition in SQL that its rows must meet for callers who are not administrators
            and whose `table_access` is None.

    Raises:
        ValueError: A number is out of its range.
    """

    memory_limit_bytes: int = 1 << 30
    spill_limit_bytes: int = 8 << 30
    max_statement_bytes: int = MOST_STATEMENT_BYTES
    heavy_statements: int | None = None
    target_partitions: int | None = None
    batch_rows: int = 65536
    planning_threads: int = 2
    default_conditions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False, repr=False)

    def __post_init__(self) -> None:
        counts = (self.memory_limit_bytes, self.spill_limit_bytes, self.batch_rows, self.planning_threads)
        optional = (self.target_partitions, self.heavy_statements)
        if min(counts) < 1 or any(number is not None and number < 1 for number in optional):
            raise ValueError("engine limits are one or more")
        if not 1 <= self.max_statement_bytes <= MOST_STATEMENT_BYTES:
            raise ValueError(f"max_statement_bytes is between 1 and {MOST_STATEMENT_BYTES}")
