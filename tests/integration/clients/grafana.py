"""What Grafana's two Flight SQL plugins send, message by message, and what they can read of the answers.

Both are written in Go on Arrow 12: a query is GetFlightInfo and DoGet of its one endpoint; no message may exceed 4 MiB.
The commands are encoded with upstream's messages, so that this project's own definitions are held against others.
"""

import grpc
import pyarrow as pa
import requests
from micromegas.flightsql import FlightSql_pb2

from tests.integration.flight_harness import FlightHarness, descriptor_bytes, messages, rows_of

GO_MESSAGE_LIMIT = 4 * 1024 * 1024
TABLE_TYPES = ("BASE TABLE", "table")
# Every other type leaves a column empty.
SHOWN = ("string", "integer", "floating", "boolean", "timestamp", "duration", "union")


def can_show(kind):
    """Tell whether the plugins show a column of this type."""
    return any(getattr(pa.types, f"is_{shown}")(kind) for shown in SHOWN) and kind != pa.float16()


def fetch_token(settings, secret):
    """Get a token as Micromegas's plugin does: discovery, then client credentials with an audience and no scope."""
    discovery = requests.get(f"{settings['oauthIssuer'].rstrip('/')}/.well-known/openid-configuration", timeout=30)
    answer = requests.post(
        discovery.json()["token_endpoint"],
        data={"grant_type": "client_credentials", "audience": settings["oauthAudience"]},
        auth=(settings["oauthClientId"], secret),
        timeout=30,
    )
    return answer.json()["access_token"]


class GrafanaClient:
    """One data source: `metadata` goes with each call, as the plugins send it."""

    def __init__(self, address, metadata, *, root_certificates=None):
        options = [("grpc.max_receive_message_length", GO_MESSAGE_LIMIT)]
        if root_certificates is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates), options)
        self._flight = FlightHarness(None, None, None, self._channel)
        self._metadata = metadata

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

    def ask(self, command, *further):
        return self._flight.call("GetFlightInfo", descriptor_bytes(command), metadata=(*self._metadata, *further))

    def _read(self, command, *further):
        answer = self.ask(command, *further)
        assert answer.code is grpc.StatusCode.OK, answer.text
        (endpoint,) = messages.FlightInfo.FromString(answer.replies[0]).endpoint
        return rows_of(self._flight.get(endpoint.ticket.ticket, metadata=(*self._metadata, *further)))
