"""A Flight server with a fake engine and validator, and a raw gRPC client that can send what no Flight client would."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any, statement_ticket
from micromegas_jupyter.flightsql.error_details import ERROR_DETAILS_KEY, decode_error
from micromegas_jupyter.server import FlightServerSettings, ServerThread
from tests.fakes.engine import FakeEngine
from tests.fakes.validator import FakeValidator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from micromegas_jupyter.contracts import TableSink, TokenValidator
    from micromegas_jupyter.engine import Engine
    from micromegas_jupyter.errors import MicromegasError

FLIGHT = "/arrow.flight.protocol.FlightService/"
HEALTH = "/grpc.health.v1.Health/Check"
ALICE = (("authorization", "Bearer alice"),)
BOB = (("authorization", "Bearer bob"),)
DEADLINE_SECONDS = 60.0

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass
class Answer:
    """How a call ended: its messages, status and metadata."""

    replies: list[bytes]
    code: grpc.StatusCode
    text: str
    error: MicromegasError | None = None
    initial: dict[str, str | bytes] = field(default_factory=dict)
    trailing: dict[str, str | bytes] = field(default_factory=dict)


@dataclass
class FlightHarness:
    """A running server and a channel to it."""

    server: ServerThread
    engine: Any
    validator: Any
    channel: grpc.Channel

    @property
    def uri(self) -> str:
        return self.server.uri

    def call(self, method: str, *requests: bytes, metadata: Metadata = ALICE) -> Answer:
        call = self.channel.stream_stream(method)(iter(requests), metadata=metadata, timeout=DEADLINE_SECONDS)
        replies: list[bytes] = []
        with suppress(grpc.RpcError):  # the status is read below
            replies.extend(call)
        trailing = dict(call.trailing_metadata() or ())
        details = trailing.get(ERROR_DETAILS_KEY)
        return Answer(
            replies,
            call.code(),
            call.details() or "",
            decode_error(details) if isinstance(details, bytes) else None,
            dict(call.initial_metadata() or ()),
            trailing,
        )

    def query(self, sql: str, *, metadata: Metadata = ALICE) -> Answer:
        return self.call(FLIGHT + "DoGet", ticket_bytes(statement_ticket(sql)), metadata=metadata)


def ticket_bytes(ticket: bytes) -> bytes:
    data: bytes = messages.Ticket(ticket=ticket).SerializeToString()
    return data


def descriptor_bytes(command: object) -> bytes:
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
    data: bytes = descriptor.SerializeToString()
    return data


def action_bytes(name: str, body: bytes = b"") -> bytes:
    data: bytes = messages.Action(type=name, body=body).SerializeToString()
    return data


def prepare(flight: FlightHarness, sql: str, metadata: Metadata = ALICE) -> bytes:
    """Have a statement prepared; return its handle."""
    body = pack_any(messages.ActionCreatePreparedStatementRequest(query=sql))
    answer = flight.call(FLIGHT + "DoAction", action_bytes("CreatePreparedStatement", body), metadata=metadata)
    envelope = any_pb2.Any.FromString(messages.Result.FromString(answer.replies[0]).body)
    handle: bytes = messages.ActionCreatePreparedStatementResult.FromString(envelope.value).prepared_statement_handle
    return handle


@contextmanager
def running_server(
    *,
    engine: Engine | None = None,
    validator: TokenValidator | None = None,
    is_open: bool = False,
    sink: TableSink | None = None,
    channel_options: Sequence[tuple[str, int]] = (),
    **settings: Any,
) -> Iterator[FlightHarness]:
    """Run a server on a free port; `is_open` leaves authentication out."""
    engine = engine or FakeEngine()
    validator = None if is_open else validator or FakeValidator()
    server = ServerThread(
        engine=engine, validator=validator, settings=FlightServerSettings(port=0, **settings), sink=sink
    )
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=list(channel_options))
    try:
        yield FlightHarness(server, engine, validator, channel)
    finally:
        channel.close()
        server.stop(grace_seconds=0)
