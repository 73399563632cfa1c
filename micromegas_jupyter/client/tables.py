"""The client's operations on the server's tables, except reading and sending rows: describe, create, change, drop."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import pyarrow as pa

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import decode_strict_json, parse_time
from micromegas_jupyter.errors import InternalError, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.client.table_answers import (
        DeletedRows,
        OptimizeResult,
        RestoreResult,
        TableDescription,
        TableSummary,
        TableVersion,
        Undo,
    )

TABLES_ACTION: Final = "MicromegasTables"
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024

Answer = TypeVar("Answer")


class TableOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation with its protocol name and its members; read-only operations may be retried."""

    name: str
    members: Mapping[str, object] = {}
    is_read: bool = False
    is_slow: bool = False


def build_body(operation: TableOperation) -> bytes:
    """Return the action's body."""
    return msgspec.json.encode({"operation": operation.name, **operation.members})


def parse_answer(results: Sequence[bytes], kind: type[Answer]) -> Answer:
    """Parse the response to the action; unknown members are ignored."""
    if len(results) != 1 or len(results[0]) > _MAX_ANSWER_BYTES:
        raise InternalError("The server's response about its tables is malformed.")
    try:
        return msgspec.convert(decode_strict_json(results[0].decode("utf-8")), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise InternalError("The server's response about its tables is malformed.") from error


class _Nothing(msgspec.Struct, frozen=True):
    """The response to an operation that returns nothing."""


class TableMethods(ABC):
    """The methods of a client that change tables.

    They raise `UsageError` if a table does not exist or the caller cannot see it, `PermissionDenied` if it belongs to
    another user, and the errors of every call.
    """

    @abstractmethod
    def _run_on_tables(self, operation: TableOperation, answer: type[Answer]) -> Answer: ...

    def table_summaries(self) -> "tuple[TableSummary, ...]":
        """Return the tables that the caller may read or write to; `list_tables` returns schemas of readable tables."""
        from micromegas_jupyter.client.table_answers import Tables

        return self._run_on_tables(TableOperation(name="list", is_read=True), Tables).tables

    def describe_table(self, table_name: str) -> "TableDescription":
        """Return the server's description of a table."""
        from micromegas_jupyter.client.table_answers import TableDescription

        operation = TableOperation(name="describe", members={"table": _checked(table_name)}, is_read=True)
        return self._run_on_tables(operation, TableDescription)

    def create_table(self, table_name: str, schema: pa.Schema, *, partition_by: Sequence[str] = ()) -> None:
        """Create an empty table, owned by the caller.

        Args:
            table_name: A lower-case letter, followed by lower-case letters, digits, and underscores.
            schema: The table's columns.
            partition_by: Columns whose values get separate folders, for large tables.
        """
        members = {"table": _checked(table_name), "schema": _encode(schema), "partition_by": list(partition_by)}
        self._run_on_tables(TableOperation(name="create", members=members), _Nothing)

    def drop_table(self, table_name: str) -> "Undo":
        """Drop a table that the caller owns, and return how to restore it with `restore_table`.

        The name is free immediately. The files are removed once the drop can no longer be undone.
        """
        from micromegas_jupyter.client.table_answers import Undo

        return self._run_on_tables(TableOperation(name="drop", members={"table": _checked(table_name)}), Undo)

    def delete_rows(self, table_name: str, where: str) -> "DeletedRows":
        """Delete the rows that match a SQL condition from a table that the caller owns, and return the row count.

        The number's `undo` has how `restore_table` can bring them back.
        """
        from micromegas_jupyter.client.table_answers import DeletedRows, Deletion

        members = {"table": _checked(table_name), "where": _checked(where, "condition")}
        done = self._run_on_tables(TableOperation(name="delete", members=members, is_slow=True), Deletion)
        return DeletedRows(done.deleted_rows, done.undo)

    def restore_table(self, table_name: str, *, to: "datetime | str | int", dry_run: bool = False) -> "RestoreResult":
        """Restore an earlier state of a table that the caller owns; a dropped table is restored under its old name.

        Rows that were stored later are removed, and the columns are those of that state. Rows that retention deleted
        are not restored. The restore is one commit, and can be undone like any other change.

        Args:
            table_name: The name that the table had.
            to: A version in the table's history, or a time for which changes can be undone (24 hours by default):
                aware, in RFC 3339 (without an offset: UTC), or `2h` for two hours ago.
            dry_run: Return what would change, and change nothing.

        Raises:
            UsageError: No table had that name at that time, its files are no longer kept (the message has the earliest
                possible time), or another table has the name now.
        """
        from micromegas_jupyter.client.table_answers import RestoreResult

        members = {"table": _checked(table_name), "to": _format_target(to), **({"dry_run": True} if dry_run else {})}
        return self._run_on_tables(TableOperation(name="restore", members=members, is_slow=True), RestoreResult)

    def add_column(self, table_name: str, column: pa.Field) -> None:
        """Add a column to one of the caller's tables; it is null in existing rows."""
        if not isinstance(column, pa.Field):
            raise UsageError(f"add_column takes a pyarrow.Field, not {type(column).__name__}.")
        members = {"table": _checked(table_name), "schema": _encode(pa.schema([column]))}
        self._run_on_tables(TableOperation(name="add_column", members=members), _Nothing)

    def optimize_table(self, table_name: str) -> "OptimizeResult":
        """Merge the small files of one of the caller's tables right now; the server also does this automatically."""
        from micromegas_jupyter.client.table_answers import OptimizeResult

        operation = TableOperation(name="optimize", members={"table": _checked(table_name)}, is_slow=True)
        return self._run_on_tables(operation, OptimizeResult)

    def table_history(self, table_name: str, *, limit: int = 20) -> "tuple[TableVersion, ...]":
        """Return the latest commits of one of the caller's tables, newest first."""
        from micromegas_jupyter.client.table_answers import Versions

        members = {"table": _checked(table_name), "limit": limit}
        return self._run_on_tables(TableOperation(name="history", members=members, is_read=True), Versions).versions

    def set_retention(self, table_name: str, days: int | None) -> None:
        """Set how many days the rows of one of the caller's tables are kept; None means the server's setting."""
        members = {"table": _checked(table_name), "days": days}
        self._run_on_tables(TableOperation(name="set_retention", members=members), _Nothing)

    def set_undo_hours(self, table_name: str, hours: int) -> None:
        """Set how long (1 to 8,760 hours) changes to one of the caller's tables can be undone."""
        members = {"table": _checked(table_name), "hours": hours}
        self._run_on_tables(TableOperation(name="set_undo_hours", members=members), _Nothing)

    def set_time_travel(self, table_name: str, to: str) -> None:
        """Set who may read earlier versions of one of the caller's tables: its "owners", or all of its "readers"."""
        members = {"table": _checked(table_name), "to": to}
        self._run_on_tables(TableOperation(name="set_time_travel", members=members), _Nothing)


def _checked(text: Any, what: str = "table's name") -> str:
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"The {what} is empty.", remedy='Specify a string, for example "orders".')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"The {what} contains a lone surrogate.", remedy="Use text that UTF-8 can encode.") from None
    return text


def _format_target(to: Any) -> int | str:
    """Return a version, or a time in the format that the server expects."""
    if (isinstance(to, int) and not isinstance(to, bool) and to >= 0) or (isinstance(to, str) and is_version(to)):
        return int(to)
    return _format_time(to)


def is_version(text: str) -> bool:
    """Return whether a string is a version number."""
    return text.isascii() and text.isdecimal()


def _format_time(time: Any) -> str:
    found = parse_time(time, now=SYSTEM_CLOCK.now()) if isinstance(time, str) else time
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise UsageError(
            "The time to restore to is not an aware datetime, text, or a version.",
            remedy='Use "2h", "2026-01-31T12:00:00Z", or 12.',
        )
    return found.isoformat()


def _encode(schema: pa.Schema) -> str:
    if not isinstance(schema, pa.Schema):
        raise UsageError(f"A pyarrow.Schema is needed, not {type(schema).__name__}.")
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")
