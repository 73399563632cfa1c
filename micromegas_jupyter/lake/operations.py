"""Operations on tables, as the server's action names them: arguments read here, work done by `Tables`."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import InternalError, PermissionDenied, UsageError
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.flightsql.framing import DecodeLimits, StreamDecoder
from micromegas_jupyter.lake.tables import DEFINITIONS, OWNER_PROPERTY, Tables, no_table

_SCHEMA_LIMITS: Final = DecodeLimits(max_columns=512, max_batch_rows=0, max_dictionary_bytes=0)
# What an operation does on a table of the data model that nothing was written to yet.
_ON_NOTHING: Final = {"delete": {"deleted_rows": 0}, "optimize": {"removed_files": 0, "added_files": 0}}
_PREFIX_BYTES: Final = 8  # of an encapsulated message: continuation marker and length


def run_operation(tables: Tables, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run one operation and return its result as JSON holds it; with `required_owner` on that caller's tables only."""
    if operation == "list":
        return {"owners": {name: tables.owner(name) for name in tables.list()}}
    name: str = arguments["table"]
    if operation == "create":
        schema = _parse_schema(arguments["schema"])
        tables.check_capacity(owner=arguments["owner"], max_tables=arguments["most_tables"])
        tables.create(name, schema, owner=arguments["owner"], partition_by=arguments["partition_by"])
        return {}
    required_owner = arguments.get("required_owner")
    if required_owner is not None:
        _check_owner(tables, name, required_owner)
    return _change(tables, operation, name, arguments)


def check_may_replace(tables: Tables, request: WriteRequest) -> None:
    """Check that a write which replaces a table comes from its owner."""
    if request.mode is WriteMode.REPLACE and not request.is_owner and tables.find(request.table) is not None:
        _check_owner(tables, request.table, request.maker or "")


def _check_owner(tables: Tables, name: str, owner: str) -> None:
    table = tables.find(name)
    if table is None:
        raise no_table(name)
    # As it stands now: another process may have dropped the table, and a third created it again.
    if table.metadata().configuration.get(OWNER_PROPERTY) != owner:
        raise PermissionDenied(
            f"You do not own the table {name}.",
            reason="not_table_owner",
            remedy="Ask its owner or one of the server's administrators, or choose another name.",
        )


def _change(tables: Tables, operation: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if name in DEFINITIONS and operation in _ON_NOTHING and tables.find(name) is None:
        return dict(_ON_NOTHING[operation])
    result: dict[str, Any] = {}
    match operation:
        case "describe":
            result = tables.describe(name)
        case "drop":
            tables.drop(name)
        case "delete":
            result = {"deleted_rows": tables.delete_rows(name, arguments["where"])}
        case "add_column":
            schema = _parse_schema(arguments["schema"])
            if len(schema) > 1:
                raise UsageError(f"The schema has {len(schema)} columns.", remedy="Add one column at a time.")
            tables.add_column(name, schema.field(0))
        case "optimize":
            result = tables.optimize(name)
        case "history":
            result = {"versions": tables.history(name, arguments["limit"])}
        case "set_retention":
            tables.set_retention(name, arguments["days"])
        case _:
            raise InternalError(f"There is no operation {operation!r}.")
    return result


def _parse_schema(encoded: str) -> pa.Schema:
    """Read an Arrow IPC schema message in base64, within the limits of an upload's schema."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("The schema is not base64.", remedy="Send an Arrow IPC schema message as base64.") from None
    decoder = StreamDecoder(_SCHEMA_LIMITS)
    decoder.decode(messages.FlightData(data_header=data[_PREFIX_BYTES:]).SerializeToString())
    if decoder.schema is None or not decoder.schema.names:
        raise UsageError("The schema has no columns.", remedy="Send at least one.")
    return decoder.schema
