"""A server that keeps a lake, and the messages of an ingest, made one by one so that a test can change any of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.flightsql.commands import messages, pack_any
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from micromegas_jupyter.lake.lake import Lake
from tests.integration.flight_harness import FlightHarness, running_server

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class LakeServer:
    """A running server, and the folder of its lake."""

    flight: FlightHarness
    root: Path

    @property
    def uri(self):
        return self.flight.uri

    @contextmanager
    def client(self, token):
        with FlightSQLClient(self.uri, auth_provider=StaticTokenAuthProvider(token)) as client:
            yield client

    def column(self, sql):
        """The first column of an answer to an administrator."""
        with self.client("alice") as client:
            return client.query_arrow(sql).column(0).to_pylist()

    def files(self):
        """Everything that lies in the lake's folder, except for the files of maintenance, which runs at any time."""
        files = (str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())
        return sorted(name for name in files if not name.startswith("_micromegas"))


@contextmanager
def lake_server(root, **settings):
    with running_server(tables=Lake(Storage(root)), worker={"lake": str(root)}, **settings) as flight:
        yield LakeServer(flight, root)


def create_command(table):
    command = messages.CommandStatementIngest(table=table)
    command.table_definition_options.if_not_exist = command.table_definition_options.if_exists = 1
    return command


def append_command(table):
    return messages.CommandStatementIngest(table=table)


def with_command(frame, command):
    """The first message of a call: the frame with what the call asks for."""
    data = messages.FlightData.FromString(frame)
    data.flight_descriptor.type = messages.FlightDescriptor.CMD
    data.flight_descriptor.cmd = pack_any(command)
    return data.SerializeToString()


def ingest_frames(command, table):
    """All messages of a call."""
    encoder = FlightDataEncoder(table.schema)
    rows = [frame for batch in table.to_batches() for frame in encoder.encode_batch(batch)]
    return [with_command(encoder.encode_schema(), command), *rows]
