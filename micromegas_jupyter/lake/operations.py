"""The table operations of the server's action: this module parses the arguments, and `Tables` does the work."""

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import PermissionDenied, UsageError
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.flightsql.framing import DecodeLimits, StreamDecoder
from micromegas_jupyter.lake.delta_log import committed_at
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.tables import DEFINITIONS, Tables, no_table, undo_hours

_SCHEMA_LIMITS: Final = DecodeLimits(max_columns=512, max_batch_rows=0, max_dictionary_bytes=0)
# The result of an operation on a data model table without any data.
_ON_NOTHING: Final = {"delete": {"deleted_rows": 0}, "optimize": {"removed_files": 0, "added_files": 0}}
_PREFIX_BYTES: Final = 8  # of an encapsulated message: a continuation marker and its length


def run_operation(tables: Tables, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run an operation and return its JSON result; `required_owner` restricts it to that caller's tables."""
    if operation == "list":
        return {"owners": {name: tables.owner(name) for name in tables.list()}}
    name: str = arguments["table"]
    if operation == "create":
        schema = _parse_schema(arguments["schema"])
        tables.check_capacity(owner=arguments["owner"], max_tables=arguments["most_tables"])
        tables.create(name, schema, owner=arguments["owner"], partition_by=arguments["partition_by"])
        return {}
    if operation == "create_view":
        return _create_view(tables, arguments)
    required_owner = arguments.get("required_owner")
    if operation == "restore":
        to = arguments["to"] if isinstance(arguments["to"], int) else dt.datetime.fromisoformat(arguments["to"])
        return _restore(tables, RestoreRequest(name, to, required_owner, arguments.get("dry_run", False)))
    if required_owner is not None:
        _check_owner(tables, name, required_owner)
    if name in DEFINITIONS and operation in _ON_NOTHING and tables.find(name) is None:
        return dict(_ON_NOTHING[operation])
    return _OPERATIONS[operation](tables, name, arguments) or {}


def check_may_replace(tables: Tables, request: WriteRequest) -> None:
    """Check that a write that replaces a table comes from its owner."""
    if request.mode is WriteMode.REPLACE and not request.is_owner and tables.find(request.table) is not None:
        _check_owner(tables, request.table, request.maker or "")


def _check_owner(tables: Tables, name: str, owner: str) -> None:
    if tables.owner(name) != owner:
        if tables.find(name) is None:
            raise no_table(name)
        raise PermissionDenied(
            f"You do not own the table {name}.",
            reason="not_table_owner",
            remedy="Ask its owner or one of the server's administrators, or choose another name.",
        )


def _delete(tables: Tables, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    done = tables.delete(name, arguments["where"], hides_values=arguments.get("hides_values", False))
    return {
        "deleted_rows": done.rows,
        **({} if done.committed_at is None else _undo(done.committed_at, _window(tables, name))),
    }


def _restore(tables: Tables, request: RestoreRequest) -> dict[str, Any]:
    done = restore_table(tables, request)
    result: dict[str, Any] = {**done._asdict(), "was_dropped": done.was_dropped}
    changed_at = result.pop("dropped_at")
    if request.dry_run:
        return result
    del result["missing_files"]
    if changed_at is None and done.version != done.restored_version:
        changed_at = committed_at(tables.storage, request.name, done.version)
    elif not (done.added_files or done.removed_files):
        return result
    # A dropped table didn't exist until its restore, so the last state is the one before its drop.
    return result if changed_at is None else {**result, **_undo(changed_at, _window(tables, request.name))}


def _create_view(tables: Tables, arguments: Mapping[str, Any]) -> dict[str, Any]:
    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(arguments["schema"])))
    facts = {name: arguments[name] for name in ("source", "replaces", "owner", "updated_by")}
    return {"status": "replaced" if tables.create_view(arguments["view"], schema, **facts) else "created"}


def _window(tables: Tables, name: str) -> dt.timedelta:
    delta = tables.find(name)
    return dt.timedelta(hours=undo_hours({} if delta is None else delta.metadata().configuration))


def _drop(tables: Tables, name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    window = _window(tables, name)
    return _undo(tables.drop(name), window)


def _undo(changed_at: dt.datetime, window: dt.timedelta) -> dict[str, Any]:
    """Return how to undo a change: the time to restore to, and the deadline."""
    times = {"undo_to": changed_at - dt.timedelta(milliseconds=1), "undo_until": changed_at + window}
    return {name: time.isoformat(timespec="milliseconds") for name, time in times.items()}


def _parse_schema(encoded: str) -> pa.Schema:
    """Parse a base64-encoded Arrow IPC schema message within the limits for an upload's schema."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(
            "The schema is not valid base64.", remedy="Send a base64-encoded Arrow IPC schema message."
        ) from None
    decoder = StreamDecoder(_SCHEMA_LIMITS)
    decoder.decode(messages.FlightData(data_header=data[_PREFIX_BYTES:]).SerializeToString())
    if decoder.schema is None or not decoder.schema.names:
        raise UsageError("The schema has no columns.", remedy="Send at least one.")
    return decoder.schema


def _parse_column(encoded: str) -> pa.Field:
    schema = _parse_schema(encoded)
    if len(schema) > 1:
        raise UsageError(f"The schema has {len(schema)} columns.", remedy="Add one column at a time.")
    return schema.field(0)


_OPERATIONS: Final[Mapping[str, Callable[[Tables, str, Mapping[str, Any]], dict[str, Any] | None]]] = {
    "describe": lambda tables, name, _: tables.describe(name),
    "drop": _drop,
    "drop_view": lambda tables, name, _: {"status": "dropped" if tables.drop_view(name) else "not_found"},
    "delete": _delete,
    "add_column": lambda tables, name, arguments: tables.add_column(name, _parse_column(arguments["schema"])),
    "optimize": lambda tables, name, _: optimize(tables.storage, name),
    "history": lambda tables, name, arguments: {"versions": tables.history(name, arguments["limit"])},
    "set_retention": lambda tables, name, arguments: tables.set_retention(name, arguments["days"]),
    "set_undo_hours": lambda tables, name, arguments: tables.set_undo_hours(name, arguments["hours"]),
    "set_time_travel": lambda tables, name, arguments: tables.set_time_travel(name, arguments["to"]),
}
