"""Valid messages of every kind that the server reads, to be damaged."""

import pyarrow as pa

from micromegas_jupyter.flightsql.commands import issued_ticket, messages, pack_any, prepared_ticket, statement_ticket
from micromegas_jupyter.flightsql.framing import FlightDataEncoder

SQL = "numbers WHERE x = 'é'"

COMMANDS = (
    messages.CommandStatementQuery(query=SQL),
    messages.CommandPreparedStatementQuery(prepared_statement_handle=b"numbers\n-- prepared AAAA"),
    messages.CommandGetSqlInfo(info=[0, 3, 508, 4_000_000_000]),
    messages.CommandGetCatalogs(),
    messages.CommandGetDbSchemas(catalog="", db_schema_filter_pattern="%"),
    messages.CommandGetTables(table_name_filter_pattern="log%", table_types=["table"], include_schema=True),
    messages.CommandGetTableTypes(),
    messages.CommandGetPrimaryKeys(table="log_entries"),
    messages.CommandGetCrossReference(pk_table="a", fk_table="b", fk_catalog=""),
    messages.CommandGetXdbcTypeInfo(data_type=-5),
)
INGEST = messages.CommandStatementIngest(table="processes")
DESCRIPTORS = tuple(
    messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command)).SerializeToString()
    for command in (*COMMANDS, INGEST)
)
TICKETS = (
    statement_ticket(SQL),
    messages.TicketStatementQuery(statement_handle=SQL.encode()).SerializeToString(),
    prepared_ticket(b"numbers\n-- prepared AAAA"),
    issued_ticket(bytes(range(100))),
    *map(pack_any, COMMANDS),
)
_ENDPOINT = messages.FlightEndpoint(ticket=messages.Ticket(ticket=statement_ticket(SQL)))
_INFO = messages.FlightInfo(schema=b"s", endpoint=[_ENDPOINT], total_records=-1)
ACTIONS = {
    "CreatePreparedStatement": pack_any(messages.ActionCreatePreparedStatementRequest(query=SQL)),
    "ClosePreparedStatement": pack_any(
        messages.ActionClosePreparedStatementRequest(prepared_statement_handle=b"numbers\n-- prepared AAAA")
    ),
    "CancelFlightInfo": messages.CancelFlightInfoRequest(info=_INFO).SerializeToString(),
    "CancelQuery": pack_any(messages.ActionCancelQueryRequest(info=_INFO.SerializeToString())),
    "RenewFlightEndpoint": messages.RenewFlightEndpointRequest(endpoint=_ENDPOINT).SerializeToString(),
    "GetSessionOptions": b"",
    "SetSessionOptions": messages.SetSessionOptionsRequest(
        session_options={
            "catalog": messages.SessionOptionValue(string_value=""),
            "x": messages.SessionOptionValue(int64_value=-1),
        }
    ).SerializeToString(),
    "CloseSession": b"",
    "MicromegasWhoAmI": b"",
    "BeginTransaction": b"",
}
VALUES = pa.record_batch(
    {
        "0": pa.array([1, None], pa.int64()),
        "1": pa.array(["a", "é"]),
        "2": pa.array(["x", "y"]).dictionary_encode(),
        "3": pa.array([[1, 2], None]),
        "4": pa.array([b"\xff", b""]),
    }
)


def _frames():
    encoder = FlightDataEncoder(VALUES.schema)
    return (encoder.encode_schema(), *encoder.encode_batch(VALUES))


FRAMES = _frames()
