"""Operations on tables, as the server's action names them: arguments checked here, work done by `Tables`."""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import pyarrow as pa

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import InternalError, PermissionDenied, ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.flightsql.framing import DecodeLimits, StreamDecoder
from micromegas_jupyter.telemetry.tables import TABLES

if TYPE_CHECKING:
    from micromegas_jupyter.lake.tables import Tables

_MODEL_TABLES: Final = frozenset(table.name for table in TABLES)
_MAX_NAME_CHARACTERS: Final = 80
_SCHEMA_LIMITS: Final = DecodeLimits(max_columns=512, max_batch_rows=0, max_dictionary_bytes=0)
_PREFIX_BYTES: Final = 8  # of an encapsulated message: continuation marker and length


def no_such_table(name: str) -> UsageError:
    """Return the error for a table that does not exist, or not for the caller."""
    return UsageError(
        f"There is no table {name[:_MAX_NAME_CHARACTERS]!r}.",
        remedy='`micromegas tables list` shows the tables; mode="create" creates one.',
    )


def check_may_replace(tables: "Tables", request: WriteRequest) -> None:
    """Check that a write which replaces a table comes from its owner."""
    name = request.table
    if request.mode is not WriteMode.REPLACE or tables.find(name) is None:
        return
    _refuse_model_table(name, "replaced")
    if not request.is_owner and (request.maker is None or tables.owner(name) != request.maker):
        raise PermissionDenied(
            f"The table {name!r} exists, and you do not own it.",
            reason="not_table_owner",
            remedy="Choose another name, or ask its owner or an administrator to replace it.",
        )


def run_operation(tables: "Tables", operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run one operation and return its result as JSON holds it.

    With `required_owner` the table must have been created by that caller.
    """
    if operation == "list":
        return {"owners": {name: tables.owner(name) for name in tables.list()}}
    name: str = arguments["table"]
    if operation == "create":
        return _create(tables, name, arguments)
    if tables.find(name) is None:
        raise no_such_table(name)
    required_owner = arguments.get("required_owner")
    if required_owner is not None and tables.owner(name) != required_owner:
        raise PermissionDenied(f"You do not own the table {name!r}.", reason="not_table_owner")
    match operation:
        case "describe":
            return _describe(tables, name)
        case "drop":
            _refuse_model_table(name, "dropped")
            tables.drop(name)
            return {}
        case "delete":
            return {"deleted_rows": tables.delete_rows(name, arguments["where"])}
        case "add_column":
            _refuse_model_table(name, "altered")
            tables.add_column(name, _parse_column(arguments["schema"]))
            return {}
        case "optimize":
            return _facts(tables.optimize(name))
        case "history":
            return {"versions": [_facts(version) for version in tables.history(name, arguments["limit"])]}
        case "set_retention":
            tables.set_retention(name, arguments["days"])
            return {}
    raise InternalError(f"There is no operation {operation!r}.")


def _create(tables: "Tables", name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    owner, most = arguments["owner"], arguments["most_tables"]
    schema = _parse_schema(arguments["schema"])
    unknown = next((column for column in arguments["partition_by"] if column not in schema.names), None)
    if unknown is not None:
        raise UsageError(
            f"The table {name!r} has no column {unknown[:_MAX_NAME_CHARACTERS]!r} to partition by.",
            remedy="Name columns of its schema.",
        )
    if most is not None and sum(tables.owner(other) == owner for other in tables.list()) >= most:
        raise ResourcesExhausted(
            f"You own {most} tables already, the most for one caller.",
            remedy="Drop one, or append to one.",
            limit="ingest",
        )
    tables.create(name, schema, owner=owner, partition_by=tuple(arguments["partition_by"]))
    return {}


def _describe(tables: "Tables", name: str) -> dict[str, Any]:
    facts = _facts(tables.describe(name))
    schema: pa.Schema = facts.pop("schema")
    columns = [{"name": field.name, "type": str(field.type), "nullable": field.nullable} for field in schema]
    return {**facts, "owner": tables.owner(name), "columns": columns}


def _refuse_model_table(name: str, done: str) -> None:
    if name in _MODEL_TABLES:
        raise UsageError(
            f"The table {name} belongs to the data model and cannot be {done}.",
            remedy="Delete the rows that should go, or use a table of your own.",
        )


def _parse_column(encoded: str) -> pa.Field:
    schema = _parse_schema(encoded)
    if len(schema) != 1:
        raise UsageError(f"The schema has {len(schema)} columns.", remedy="Add one column at a time.")
    return schema.field(0)


def _parse_schema(encoded: str) -> pa.Schema:
    """Read an Arrow IPC schema message in base64, with the limits of an upload's schema."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("The schema is not base64.", remedy="Encode the Arrow schema message as base64.") from None
    decoder = StreamDecoder(_SCHEMA_LIMITS)
    decoder.decode(messages.FlightData(data_header=data[_PREFIX_BYTES:]).SerializeToString())
    if decoder.schema is None or not decoder.schema.names:
        raise UsageError("The schema has no columns.", remedy="Send at least one.")
    repeated = next((name for name in decoder.schema.names if decoder.schema.names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"Two columns have the name {repeated[:80]!r}.", remedy="Rename one of them.")
    return decoder.schema
