"""`table_at(table, version or time)` and `table_history(table)`, which read earlier versions of tables in FROM.

The table that replaces the call has the files of that version. The caller's restrictions on the current version apply;
permission to read earlier versions is checked when they are read.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import pyarrow as pa

from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot
from micromegas_jupyter.engine.calls import Call, refused
from micromegas_jupyter.engine.contract import FileSource, VisibleTable
from micromegas_jupyter.engine.errors import missing_parameter
from micromegas_jupyter.engine.views import fold
from micromegas_jupyter.errors import UnsupportedStatement

TABLE_AT: Final = "table_at"
TABLE_HISTORY: Final = "table_history"
TIME_TRAVEL: Final = frozenset({TABLE_AT, TABLE_HISTORY})
_COUNTS: Final = ("files_added", "files_removed", "rows_added", "rows_removed")
_MAX_SHOWN: Final = 80
_MAX_VERSION: Final = 2**63
_EXAMPLES: Final = {
    TABLE_AT: "Use table_at('orders', 12) or table_at('orders', '2026-11-30T12:00Z').",
    TABLE_HISTORY: "Use table_history('orders').",
}
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTravel:
    """Reads the tables that replace the calls in one statement; `values` are None if they are not known yet.

    `tables` are the tables that the caller sees, by name. `restrict` applies the caller's restrictions to a version.
    """

    files: FileSource | None
    caller: AuthContext
    tables: Mapping[str, VisibleTable]
    restrict: Callable[[TableSnapshot], VisibleTable]
    values: Mapping[str, pa.Scalar] | None
    sql: str

    def table_at(self, call: Call) -> VisibleTable:
        """Return an earlier version of a table with the rows that the caller may see."""
        name, (text, at) = self._find(call, 2), call.arguments[1]
        to = self._version_or_time(text, at)
        snapshot, condition = self._read(call, name, lambda files: files.past(name, to, self.caller))
        return replace(
            self.restrict(snapshot),
            snapshot=replace(snapshot, name=call.stand_in),
            raw_name=None,
            retained=condition,
            instance_of=name,
        )

    def table_history(self, call: Call) -> tuple[str, pa.RecordBatch]:
        """Return a table's name and its commits; counts are null if rows may be hidden from the caller."""
        name = self._find(call, 1)
        rows = self._read(call, name, lambda files: files.history(name, self.caller)).combine_chunks()
        if self.tables[name].hides_rows:
            for column in _COUNTS:
                rows = rows.set_column(rows.column_names.index(column), column, pa.nulls(len(rows), pa.int64()))
        return name, rows.to_batches()[0]

    def _find(self, call: Call, count: int) -> str:
        """Return the table in a call's argument, which the caller must see."""
        if len(call.arguments) != count:
            what = "a table and a version or time" if call.function == TABLE_AT else "a table"
            raise refused(self.sql, call.start, f"{call.function} takes {what}.", _EXAMPLES[call.function])
        text, at = call.arguments[0]
        name = fold(text, self.values, sql=self.sql, at=at)
        if name is None:
            raise missing_parameter([text])
        table = self.tables.get(name) if isinstance(name, str) else None
        if table is None:
            raise self._no_table(str(name), at)
        if table.snapshot.source is not None:
            raise refused(
                self.sql,
                at,
                f"{name} is a view that is computed for each query, so it doesn't have earlier versions.",
                f"Read earlier versions of {table.snapshot.source.table}.",
            )
        return table.snapshot.name

    def _no_table(self, name: str, at: int) -> Exception:
        what = f"There is no table named {name[:_MAX_SHOWN]}."
        return refused(self.sql, at, what, "SHOW TABLES lists those that you may read.")

    def _version_or_time(self, text: str, at: int) -> int | datetime | None:
        found = fold(text, self.values, sql=self.sql, at=at)
        if isinstance(found, str):
            try:
                found = int(found) if found.isascii() and found.isdecimal() else datetime.fromisoformat(found)
            except ValueError:
                found = text
        if isinstance(found, datetime):
            with suppress(OverflowError):  # in UTC, year 1 of some time zones is out of range
                return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
        if found is None or (type(found) is int and 0 <= found < _MAX_VERSION):
            return found
        raise refused(self.sql, at, "This argument is neither a version nor a time.", _EXAMPLES[TABLE_AT])

    def _read(self, call: Call, name: str, read: Callable[[FileSource], _Found | None]) -> _Found:
        if self.files is None:
            raise UnsupportedStatement(
                f"{call.function} requires a lake, but this server doesn't have one.",
                remedy="Connect to a server with a lake.",
            )
        found = read(self.files)
        if found is None:
            raise self._no_table(name, call.arguments[0][1])
        return found
