"""What Grafana's two Flight SQL plugins send, message by message, and what they can read of the answers.

Both are written in Go on Arrow 12: a query is GetFlightInfo and DoGet of its one endpoint; no message may exceed 4 MiB.
The commands are encoded with upstream's messages, so that this project's own definitions are held against others.
"""

import grpc
import pyarrow as pa
from google.protobuf import any_pb2
from micromegas.flightsql import FlightSql_pb2

from micromegas_jupyter.flightsql.commands import messages

SERVICE = "/arrow.flight.protocol.FlightService/"
DEADLINE_SECONDS = 60.0
GO_MESSAGE_LIMIT = 4 * 1024 * 1024
TABLE_TYPES = ("BASE TABLE", "table")
# Every other type leaves a column empty.
SHOWN = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_timestamp,
    pa.types.is_duration,
    pa.types.is_union,
)


def can_show(kind):
    """Tell whether the plugins show a column of this type."""
    return any(shows(kind) for shows in SHOWN) and kind != pa.float16()


class GrafanaClient:
    """One data source: `metadata` goes with each call, as the plugins send it."""

    def __init__(self, address, metadata=()):
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", GO_MESSAGE_LIMIT)])
        self.metadata = metadata

    def close(self):
        self._channel.close()

    def query(self, sql, *further):
        return self._read(FlightSql_pb2.CommandStatementQuery(query=sql), *further)

    def sql_info(self):
        """Ask for every fact, and read numbers from column 0 and values from column 1."""
        table = self._read(FlightSql_pb2.CommandGetSqlInfo())
        return dict(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))

    def tables(self):
        return list(self._read(FlightSql_pb2.CommandGetTables(table_types=TABLE_TYPES)).column(2).to_pylist())

    def columns(self, table):
        command = FlightSql_pb2.CommandGetTables(table_name_filter_pattern=table, include_schema=True)
        rows = self._read(command)
        with pa.ipc.open_stream(rows["table_schema"][0].as_py()) as reader:
            return reader.schema

    def _read(self, command, *further):
        metadata = (*self.metadata, *further)
        envelope = any_pb2.Any()
        envelope.Pack(command)
        descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=envelope.SerializeToString())
        reply = self._channel.unary_unary(SERVICE + "GetFlightInfo")(
            descriptor.SerializeToString(), metadata=metadata, timeout=DEADLINE_SECONDS
        )
        (endpoint,) = messages.FlightInfo.FromString(reply).endpoint
        frames = self._channel.unary_stream(SERVICE + "DoGet")(
            endpoint.ticket.SerializeToString(), metadata=metadata, timeout=DEADLINE_SECONDS
        )
        return read_frames(list(frames))


def read_frames(frames):
    """Put the messages of a DoGet into one Arrow stream and read it."""
    stream = bytearray()
    for frame in frames:
        data = messages.FlightData.FromString(frame)
        header = data.data_header + bytes(-len(data.data_header) % 8)
        stream += b"\xff\xff\xff\xff" + len(header).to_bytes(4, "little") + header + data.data_body
    with pa.ipc.open_stream(bytes(stream)) as reader:
        return reader.read_all()
