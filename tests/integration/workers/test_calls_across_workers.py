"""A client whose connections reach different worker processes notices nothing: handles, tickets, cancellation."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pytest
from google.protobuf import any_pb2

from micromegas_jupyter.engine import sql_hash
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import pack_any, prepared_ticket, statement_ticket
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.integration.flight_harness import DEADLINE_SECONDS, FLIGHT, action_bytes, descriptor_bytes, ticket_bytes
from tests.integration.workers.serving import Serving, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

# The operating system chooses a worker for each connection: with this many, one of two is left out once in 2000 runs.
CONNECTIONS = 12
CANCELLED = 1
ENDLESS = "SELECT value FROM generate_series(1, 1000000000000)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("across")
    with Serving(folder / "lake", "--disable-auth", "--no-telemetry", "--drain-seconds", "1", "--no-http") as running:
        yield running


class Connection:
    """A connection of its own to one of the workers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def call(self, method: str, *requests: bytes) -> list[bytes]:
        call = self.channel.stream_stream(FLIGHT + method)
        return list(call(iter(requests), timeout=DEADLINE_SECONDS))

    def act(self, name: str, body: bytes) -> bytes:
        (reply,) = self.call("DoAction", action_bytes(name, body))
        found: bytes = messages.Result.FromString(reply).body
        return found

    def info(self, command: object) -> messages.FlightInfo:
        return messages.FlightInfo.FromString(self.call("GetFlightInfo", descriptor_bytes(command))[0])

    def rows(self, ticket: bytes) -> int:
        """Return how many messages come: the schema and the batches."""
        return len(self.call("DoGet", ticket_bytes(ticket)))


@contextmanager
def connections(server: Serving) -> Iterator[list[Connection]]:
    target = server.uri.removeprefix("grpc://")
    with ExitStack() as stack:
        yield [
            Connection(
                stack.enter_context(grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]))
            )
            for _ in range(CONNECTIONS)
        ]


def test_a_ticket_is_read_over_every_connection(server: Serving) -> None:
    with connections(server) as all_connections:
        info = all_connections[0].info(messages.CommandStatementQuery(query="SELECT 1 AS one"))

        found = {connection.rows(info.endpoint[0].ticket.ticket) for connection in all_connections}

    assert found == {2}


def test_a_prepared_statement_and_its_values_work_over_every_connection(server: Serving) -> None:
    values = pa.record_batch({"0": pa.array([20, None], pa.int64())})
    encoder = FlightDataEncoder(values.schema)
    with connections(server) as (first, second, *others):
        body = first.act(
            "CreatePreparedStatement",
            pack_any(messages.ActionCreatePreparedStatementRequest(query="SELECT ? + 1 AS n")),
        )
        created = messages.ActionCreatePreparedStatementResult.FromString(any_pb2.Any.FromString(body).value)
        opening = messages.FlightData.FromString(encoder.encode_schema())
        opening.flight_descriptor.ParseFromString(
            descriptor_bytes(
                messages.CommandPreparedStatementQuery(prepared_statement_handle=created.prepared_statement_handle)
            )
        )
        (put,) = second.call("DoPut", opening.SerializeToString(), *encoder.encode_batch(values))
        bound = messages.DoPutPreparedStatementResult.FromString(
            messages.PutResult.FromString(put).app_metadata
        ).prepared_statement_handle

        found = {connection.rows(prepared_ticket(bound)) for connection in others}
        infos = [
            connection.info(messages.CommandPreparedStatementQuery(prepared_statement_handle=bound))
            for connection in others
        ]

    assert found == {3}
    assert {info.schema for info in infos} == {pa.schema({"n": pa.int64()}).serialize().to_pybytes()}


def test_a_query_is_cancelled_over_another_connection(server: Serving) -> None:
    with connections(server) as all_connections:
        for reader, canceller in zip(all_connections[:4], all_connections[4:8], strict=True):
            info = canceller.info(messages.CommandStatementQuery(query=ENDLESS))
            reading = reader.channel.unary_stream(FLIGHT + "DoGet")(
                ticket_bytes(info.endpoint[0].ticket.ticket), timeout=60
            )
            next(reading)
            next(reading)

            body = canceller.act("CancelFlightInfo", messages.CancelFlightInfoRequest(info=info).SerializeToString())

            assert messages.CancelFlightInfoResult.FromString(body).status == CANCELLED
            with pytest.raises(grpc.RpcError) as caught:
                list(reading)
            assert caught.value.code() is grpc.StatusCode.ABORTED


def test_a_denial_holds_on_every_connection_soon_and_is_lifted_on_all(server: Serving) -> None:
    sql = "SELECT 'denied on all' AS marker"

    def refusals(all_connections: list[Connection]) -> int:
        found = []
        for connection in all_connections:
            try:
                connection.rows(statement_ticket(sql))
            except grpc.RpcError as error:
                found.append(error.code())
        assert set(found) <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
        return len(found)

    with connections(server) as all_connections:
        denying = f"SELECT * FROM deny_queries('sql_hash = ''{sql_hash(sql)}''', 'a test')"
        all_connections[0].rows(statement_ticket(denying))

        until(lambda: refusals(all_connections) == CONNECTIONS, "the denial does not hold everywhere")
        lifting = "SELECT remove_query_denial(rule_id) FROM list_query_denials()"
        all_connections[-1].rows(statement_ticket(lifting))
        until(lambda: refusals(all_connections) == 0, "the denial is not lifted everywhere")
