"""A Flight server with a fake validator, and a raw gRPC client that can send what no Flight client would."""

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc
import pyarrow as pa
from google.protobuf import any_pb2

from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, decode_error, messages, pack_any, statement_ticket
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.fakes.fixed_tables import FixedTables, write_log_entries, write_processes
from tests.fakes.servers import ENDLESS, FAILS_LATE, HUGE, LARGE, NUMBERS, WAITING, WORDS, build_pool, open_server
from tests.fakes.validator import FakeValidator
from tests.fakes.waiting import wait_until

__all__ = ["ENDLESS", "FAILS_LATE", "HUGE", "LARGE", "NUMBERS", "WAITING", "WORDS"]

FLIGHT = "/arrow.flight.protocol.FlightService/"
HEALTH = "/grpc.health.v1.Health/Check"
ALICE = (("authorization", "Bearer alice"),)
BOB = (("authorization", "Bearer bob"),)
DEADLINE_SECONDS = 60.0


@dataclass
class FlightHarness:
    """A method is one of Flight's, or a whole path; each call ends with an answer, whatever its status."""

    server: Any
    pool: Any
    validator: Any
    channel: Any

    @property
    def uri(self):
        return self.server.uri

    def begin(self, method, requests, *, metadata=ALICE, timeout=DEADLINE_SECONDS):
        """Begin a call that sends what the iterable `requests` gives."""
        path = method if "/" in method else FLIGHT + method
        return self.channel.stream_stream(path)(iter(requests), metadata=metadata, timeout=timeout)

    def call(self, method, *requests, metadata=ALICE):
        call = self.begin(method, requests, metadata=metadata)
        replies = []
        with suppress(grpc.RpcError):  # the status is read below
            replies.extend(call)
        trailing = dict(call.trailing_metadata() or ())
        return SimpleNamespace(
            replies=replies,
            code=call.code(),
            text=call.details() or "",
            error=error_of(call),
            initial=dict(call.initial_metadata() or ()),
            trailing=trailing,
        )

    def query(self, sql, *, metadata=ALICE):
        return self.get(statement_ticket(sql), metadata=metadata)

    def get(self, ticket, *, metadata=ALICE):
        return self.call("DoGet", ticket_bytes(ticket), metadata=metadata)

    def act(self, name, body=b"", *, metadata=ALICE):
        return self.call("DoAction", action_bytes(name, body), metadata=metadata)

    def info(self, command, *, metadata=ALICE):
        answer = self.call("GetFlightInfo", descriptor_bytes(command), metadata=metadata)
        return messages.FlightInfo.FromString(answer.replies[0])

    def read(self, sql, *, metadata=ALICE, timeout=DEADLINE_SECONDS):
        """Begin to read a statement's rows; the call gives its messages one by one."""
        request = ticket_bytes(statement_ticket(sql))
        return self.channel.unary_stream(FLIGHT + "DoGet")(request, metadata=metadata, timeout=timeout)

    def metric(self, name, **labels):
        return self.server.metrics.registry.get_sample_value(f"micromegas_server_{name}", labels)

    @property
    def is_quiet(self):
        return not self.pool.slots.running_count and self.pool.idle_count == self.pool.executor_count

    def wait_until_running(self, count=1):
        wait_until(lambda: len(self.pool.running) >= count, "statements are running")

    def wait_until_quiet(self):
        wait_until(lambda: self.is_quiet, "no executor has a statement")


def error_of(call):
    """Return this project's error with which a call has ended, None if it has none."""
    details = dict(call.trailing_metadata() or ()).get(ERROR_DETAILS_KEY)
    return decode_error(details) if isinstance(details, bytes) else None


def result_of(answer):
    """Return the body of an action's one result."""
    return messages.Result.FromString(answer.replies[0]).body


def rows_of(answer):
    assert answer.code is grpc.StatusCode.OK, answer.text
    return decode_rows(answer.replies)


def decode_rows(replies):
    messages_of_arrow = []
    for reply in replies:
        data = messages.FlightData.FromString(reply)
        header = data.data_header + bytes(-len(data.data_header) % 8)
        messages_of_arrow += [b"\xff\xff\xff\xff", len(header).to_bytes(4, "little"), header, data.data_body]
    return pa.ipc.open_stream(b"".join(messages_of_arrow)).read_all()


def ticket_bytes(ticket):
    return messages.Ticket(ticket=ticket).SerializeToString()


def descriptor_bytes(command):
    descriptor = messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=pack_any(command))
    return descriptor.SerializeToString()


def opening_frame(command, frame=b""):
    """Return a frame of Arrow data, such as a schema's, that says by a command what its rows are for."""
    data = messages.FlightData.FromString(frame)
    data.flight_descriptor.ParseFromString(descriptor_bytes(command))
    return data.SerializeToString()


def action_bytes(name, body=b""):
    return messages.Action(type=name, body=body).SerializeToString()


def prepare(flight, sql):
    answer = flight.act("CreatePreparedStatement", pack_any(messages.ActionCreatePreparedStatementRequest(query=sql)))
    envelope = any_pb2.Any.FromString(result_of(answer))
    return messages.ActionCreatePreparedStatementResult.FromString(envelope.value).prepared_statement_handle


def example_tables(folder):
    """Return the tables `log_entries`, with eight rows in two hours after noon, and `processes`."""
    return FixedTables([write_log_entries(folder, 2), write_processes(folder)])


def bind(flight, handle, batch):
    """Bind values to a prepared statement; return the handle that the server gives for them."""
    encoder = FlightDataEncoder(batch.schema)
    command = messages.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    put = flight.call("DoPut", opening_frame(command, encoder.encode_schema()), *encoder.encode_batch(batch))
    assert put.code is grpc.StatusCode.OK, put.text
    result = messages.PutResult.FromString(put.replies[0]).app_metadata
    return messages.DoPutPreparedStatementResult.FromString(result).prepared_statement_handle


@contextmanager
def running_server(
    *, tables=None, validator=None, is_open=False, worker=None, pool=None, engine=None, channel_options=(), **settings
):
    """Run a server on a free port; `is_open` leaves authentication out.

    `engine` is `EngineTables`. `worker` and `pool` are fields of `WorkerOptions` and `PoolSettings`, what is left those
    of `FlightServerSettings`.
    """
    executors = build_pool(tables or engine, worker=worker, **(pool or {}))
    validator = None if is_open else validator or FakeValidator()
    with (
        open_server(executors, validator=validator, is_open=is_open, engine=engine, **settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", options=list(channel_options)) as channel,
    ):
        yield FlightHarness(server, executors, validator, channel)
