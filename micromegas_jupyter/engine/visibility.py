"""Which tables exist for a caller, and which conditions their rows must meet.

Whether a condition fits a table is `conditions`' answer, and how its rows are kept back that of `tables`. Who has which
rights is decided where the caller is identified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.contracts import TableAccess, TableSnapshot
from micromegas_jupyter.engine.caller_facts import with_caller_in_condition
from micromegas_jupyter.engine.visible_schema import visible_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from micromegas_jupyter.contracts import AuthContext

_EVERY_TABLE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleTable:
    """One table as one caller sees it.

    Attributes:
        snapshot: The table.
        conditions: Conditions of which a row must meet one; empty when all rows are visible.
        raw_name: The name of the table's raw rows; None when it has none or when they do not exist for the caller.
    """

    snapshot: TableSnapshot
    conditions: tuple[str, ...] = ()
    raw_name: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that exist for the caller."""
        return (self.snapshot.name,) if self.raw_name is None else (self.snapshot.name, self.raw_name)


class Visibility:
    """Decides what a caller sees.

    Args:
        default_conditions: By table, what its rows must meet for callers whose rights nothing else limits and who are
            not administrators.
    """

    def __init__(self, default_conditions: Mapping[str, str]) -> None:
        limited = {table: (condition,) for table, condition in default_conditions.items()}
        self._default = TableAccess(filters={_EVERY_TABLE: (), **limited}) if limited else None

    def tables(self, snapshots: Iterable[TableSnapshot], caller: AuthContext) -> list[VisibleTable]:
        """Return the tables that exist for `caller`, in order."""
        access = caller.table_access
        if access is None and not caller.is_admin:
            access = self._default
        if access is None:
            return [VisibleTable(snapshot=snapshot, raw_name=snapshot.raw_name) for snapshot in snapshots]
        return [_seen(snapshot, access, caller) for snapshot in snapshots if access.may_read(snapshot.name)]


def _seen(snapshot: TableSnapshot, access: TableAccess, caller: AuthContext) -> VisibleTable:
    conditions = tuple(access.conditions(snapshot.name))
    if conditions:
        # A condition is about the merged rows, whose columns may have other names.
        columns = visible_schema(snapshot).names if snapshot.merge_sql is not None else snapshot.schema.names
        conditions = tuple(with_caller_in_condition(one, caller, columns=columns) for one in conditions)
    raw_name = snapshot.raw_name
    # A condition is about the merged rows: it would not mean the same on the states that they are made of.
    if conditions or (raw_name is not None and access.filters.get(raw_name)):
        raw_name = None
    return VisibleTable(snapshot=snapshot, conditions=conditions, raw_name=raw_name)
