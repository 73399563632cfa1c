"""The command that sends rows (`CommandStatementIngest`) as a value, with what is not offered refused.

Who may send rows is the server's decision, where they go that of the storage.
"""

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from micromegas_jupyter.core.protocols import WriteMode
from micromegas_jupyter.errors import UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import messages

# Source: FlightSql.proto, CommandStatementIngest.TableDefinitionOptions.
_IF_MISSING_CREATE: Final = 1
_IF_MISSING_FAIL: Final = 2
_IF_EXISTS_FAIL: Final = 1
_IF_EXISTS_APPEND: Final = 2
_IF_EXISTS_REPLACE: Final = 3
_MODES: Final = {
    (_IF_MISSING_FAIL, _IF_EXISTS_APPEND): WriteMode.APPEND,
    (_IF_MISSING_CREATE, _IF_EXISTS_FAIL): WriteMode.CREATE,
    (_IF_MISSING_CREATE, _IF_EXISTS_APPEND): WriteMode.CREATE_OR_APPEND,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCommand:
    """Put the rows that follow into a table."""

    table: str
    mode: WriteMode


def parse_ingest_descriptor(descriptor: Any) -> IngestCommand | None:
    """Read a `FlightDescriptor`; None when it carries another command, or none.

    A command without options appends, as upstream's client means it.

    Raises:
        UsageError: The command is not a valid message, or its options contradict each other.
        UnsupportedRequest: It asks for something that is not offered.
    """
    try:
        envelope = any_pb2.Any.FromString(descriptor.cmd)
        if envelope.TypeName() != messages.CommandStatementIngest.DESCRIPTOR.full_name:
            return None
    except DecodeError:
        return None
    try:
        command = messages.CommandStatementIngest.FromString(envelope.value)
    except DecodeError:
        raise UsageError(
            "The request is not a valid CommandStatementIngest.", remedy="Use a Flight SQL client."
        ) from None
    _refuse_what_is_not_offered(command)
    return IngestCommand(table=command.table, mode=_read_mode(command.table_definition_options))


def _refuse_what_is_not_offered(command: Any) -> None:
    if command.catalog or command.schema:
        raise UnsupportedRequest(
            "Tables lie in one catalog and one schema here, both without a name.",
            remedy="Leave catalog and schema out.",
        )
    if command.temporary:
        raise UnsupportedRequest("Temporary tables are not offered.", remedy="Give the table a name and keep it.")
    if command.transaction_id:
        raise UnsupportedRequest(
            "Transactions are not offered.",
            remedy="Send the rows without one: each call is stored whole or not at all.",
        )
    if command.options:
        raise UnsupportedRequest("Ingest takes no options of its own here.", remedy="Leave the options out.")


def _read_mode(options: Any) -> WriteMode:
    if options.if_exists == _IF_EXISTS_REPLACE:
        raise UnsupportedRequest(
            "A table is never replaced: what is stored stays.",
            remedy='Append to it (mode "append"), or create a table with another name.',
        )
    choice = (options.if_not_exist or _IF_MISSING_FAIL, options.if_exists or _IF_EXISTS_APPEND)
    mode = _MODES.get(choice)
    if mode is None:
        raise UsageError(
            "The options let the call succeed neither with the table nor without it.",
            remedy="Ask to create the table, to append to it, or for both.",
        )
    return mode
