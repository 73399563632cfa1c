"""The lakehouse's figures: how files are merged, how long they stay, how large the whole may grow.

Where the figures come from is `wiring`'s choice; the defaults suit the recording of one machine.
"""

from dataclasses import dataclass
from pathlib import Path

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.telemetry.tables import TableDefinition

_MEBIBYTE = 1024 * 1024
_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeLimits:
    """How a lake keeps itself small.

    Attributes:
        fan_in: How many files of one tier become one of the next.
        tiers: How many tiers of merged files there are; `fan_in ** tiers` flushes end up in one file.
        max_file_bytes: Files are not merged into one that is larger than this.
        grace_seconds: How long a file that is no longer listed stays, for queries that began before; longer
            than the longest query.
        max_age_seconds: Rows older than this are dropped, counted from when they were last rewritten.
        max_total_bytes: The oldest files are dropped while the listed ones together are larger than this.
        temporary_age_seconds: When an unfinished file counts as a dead process's leftover.
    """

    fan_in: int = 32
    tiers: int = 3
    max_file_bytes: int = 64 * _MEBIBYTE
    grace_seconds: float = 900.0
    max_age_seconds: float = 7.0 * _DAY_SECONDS
    max_total_bytes: int = 2048 * _MEBIBYTE
    temporary_age_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.fan_in < 2:  # noqa: PLR2004 - one file cannot be merged
            raise ConfigurationError("fan_in is less than 2.", key="fan_in")
        for name in (
            "tiers",
            "max_file_bytes",
            "grace_seconds",
            "max_age_seconds",
            "max_total_bytes",
            "temporary_age_seconds",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is not greater than 0.", key=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeSetup:
    """What all parts of one lake share: its folder (absolute), its tables, its limits and a clock."""

    root: Path
    tables: tuple[TableDefinition, ...]
    limits: LakeLimits
    clock: Clock

    def folder(self, definition: TableDefinition) -> Path:
        """Where a table's files lie."""
        return self.root / definition.name
