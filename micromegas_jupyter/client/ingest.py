"""What a client says of rows that it sends: the command and the headers.

Sending them is `transport`'s job.
"""

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.client.headers import Header, build_header
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any
from micromegas_jupyter.flightsql.framing import DEFAULT_MESSAGE_BYTES, split_batch

INGEST_ID_HEADER: Final = "x-micromegas-ingest-id"
INGEST_ROWS_HEADER: Final = "x-micromegas-ingest-rows"
_MAX_ID_LENGTH: Final = 128

# Source: FlightSql.proto, CommandStatementIngest.TableDefinitionOptions: what to do without the table, and with it.
_MODES: Final = {"append": None, "create": (1, 1), "create_append": (1, 2)}


def build_ingest_command(table_name: str, mode: str) -> bytes:
    """Return the command that puts rows into a table.

    Raises:
        UsageError: There is no such mode.
    """
    if mode not in _MODES:
        raise UsageError(f"There is no mode {mode!r} for rows.", remedy="Choose append, create or create_append.")
    command: Any = messages.CommandStatementIngest(table=table_name)
    options = _MODES[mode]
    if options is not None:  # without options every server appends
        command.table_definition_options.if_not_exist, command.table_definition_options.if_exists = options
    return pack_any(command)


def build_ingest_headers(table: pa.Table, ingest_id: str | None) -> tuple[Header, ...]:
    """Return the headers that tell how many rows will come, and the call's own name if it has one.

    Raises:
        UsageError: The name cannot be sent.
    """
    rows = build_header(INGEST_ROWS_HEADER, str(table.num_rows))
    if ingest_id is None:
        return (rows,)
    is_plain = ingest_id.isascii() and ingest_id.isprintable() and " " not in ingest_id
    if not is_plain or not 1 <= len(ingest_id) <= _MAX_ID_LENGTH:
        raise UsageError(
            f"ingest_id is not 1 to {_MAX_ID_LENGTH} printable characters without blanks.",
            remedy="Give str(uuid.uuid4()), for instance.",
        )
    return (rows, build_header(INGEST_ID_HEADER, ingest_id))


def split_table(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that every server takes."""
    for batch in table.to_batches():
        yield from split_batch(batch, max_bytes=DEFAULT_MESSAGE_BYTES)
