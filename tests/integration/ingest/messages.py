"""The messages of an ingest, made one by one, so that a test can change any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any
from micromegas_jupyter.flightsql.framing import FlightDataEncoder

if TYPE_CHECKING:
    import pyarrow as pa


def create_command(table: str) -> Any:
    command = messages.CommandStatementIngest(table=table)
    command.table_definition_options.if_not_exist = command.table_definition_options.if_exists = 1
    return command


def with_command(frame: bytes, command: Any) -> bytes:
    """The first message of a call: the frame with what the call asks for."""
    data = messages.FlightData.FromString(frame)
    data.flight_descriptor.type = messages.FlightDescriptor.CMD
    data.flight_descriptor.cmd = pack_any(command)
    framed: bytes = data.SerializeToString()
    return framed


def ingest_frames(command: Any, table: pa.Table) -> list[bytes]:
    """All messages of a call."""
    encoder = FlightDataEncoder(table.schema)
    rows = [frame for batch in table.to_batches() for frame in encoder.encode_batch(batch)]
    return [with_command(encoder.encode_schema(), command), *rows]
