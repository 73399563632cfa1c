"""Definitions of materialized views (stub)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SQL: Final = "micromegas.view.sql"
_NAMES: Final = ("name", "extract_query", "count_src_query", "merge_partitions_query", "update_group", "time_column")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDefinition:
    """What CREATE MATERIALIZED VIEW says of a view."""

    name: str
    extract_query: str
    count_src_query: str
    merge_partitions_query: str
    update_group: int
    time_column: str
    min_time_column: str | None = None
    max_time_column: str | None = None
    sql: str = ""

    @property
    def digest(self) -> str:
        """Identifies the definition."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:32]

    @property
    def range_columns(self) -> tuple[str, str]:
        """The columns of a time range."""
        return (self.min_time_column or self.time_column, self.max_time_column or self.time_column)

    def to_properties(self) -> dict[str, str]:
        """Return them."""
        return {_SQL: self.sql} | {f"micromegas.view.{n}": str(getattr(self, n)) for n in _NAMES}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> "ViewDefinition | None":
        """Return it."""
        if _SQL not in properties:
            return None
        values = {n: properties[f"micromegas.view.{n}"] for n in _NAMES}
        return cls(**{**values, "update_group": int(values["update_group"])}, sql=properties[_SQL])
