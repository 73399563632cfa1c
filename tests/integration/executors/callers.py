"""Callers of a server: one that does harm, by raw gRPC, and eight that run small statements through two clients."""

import threading
from contextlib import contextmanager, suppress
from typing import NamedTuple

import grpc
import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, decode_error, messages, statement_ticket
from tests.integration.executors.server_process import wait_until

FLIGHT = "/arrow.flight.protocol.FlightService/"
CALL_SECONDS = 60.0
# Without a pause, they would take all that the processors have for as long as a file's tests run.
_PAUSE_SECONDS = 0.25
# Without this, channels of one process to one address share a connection.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))

# The table that small statements read.
TABLE, ROW_COUNT = "known_processes", 10_000
OTHERS = tuple(f"other-{number}" for number in range(8))


def process_id(number):
    return f"process-{number:05}"


def lookup(number):
    return f"SELECT number FROM {TABLE} WHERE process_id = '{process_id(number)}'"


def create_table(server, key):
    """Store the rows that small statements read."""
    numbers = range(ROW_COUNT)
    rows = pa.table({"process_id": [process_id(number) for number in numbers], "number": numbers})
    with FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(key)) as client:
        client.bulk_ingest(TABLE, rows, mode="create")


class Answer(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    text: str = ""
    is_from_server: bool = True


class Caller:
    """One caller on a connection of its own, without any repetition of calls."""

    def __init__(self, server, key):
        self._channel = grpc.insecure_channel(server.address, options=_OWN_CONNECTION)
        self._metadata = (("authorization", f"Bearer {key}"),)

    def begin(self, sql, *, timeout=CALL_SECONDS):
        """Start a statement; the answer yields serialized `FlightData`."""
        request = messages.Ticket(ticket=statement_ticket(sql)).SerializeToString()
        return self._channel.unary_stream(f"{FLIGHT}DoGet")(request, timeout=timeout, metadata=self._metadata)

    def call(self, method, requests, *, timeout=CALL_SECONDS):
        """Call any method of Flight."""
        call = self._channel.stream_stream(f"{FLIGHT}{method}")
        return call(iter(requests), timeout=timeout, metadata=self._metadata)

    def run(self, sql, *, timeout=CALL_SECONDS):
        """Run a statement and leave its rows."""
        return end_of(self.begin(sql, timeout=timeout))

    def close(self):
        self._channel.close()


def end_of(call):
    """Read a call to its end."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata() or ()).get(ERROR_DETAILS_KEY)
        told = decode_error(details) if isinstance(details, bytes) else None
        return Answer(error.code(), str(told or error.details()), is_from_server=told is not None)
    return Answer(grpc.StatusCode.OK)


class BackgroundCall:
    """A statement that a thread reads to its end; `messages` counts what has come."""

    def __init__(self, server, key, sql, *, timeout=600.0):
        self._caller = Caller(server, key)
        self.call = self._caller.begin(sql, timeout=timeout)
        self.messages = 0
        self.answer = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with suppress(ValueError):  # the channel was closed before the call began
            self.answer = end_of(self._counted())

    def _counted(self):
        for message in self.call:
            self.messages += 1
            yield message

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self.call.cancel()
        self._caller.close()
        self._thread.join(CALL_SECONDS)


@contextmanager
def _pyarrow(server, key):
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())], timeout=CALL_SECONDS)
    with flight.connect(server.uri, generic_options=[("grpc.use_local_subchannel_pool", 1)]) as client:
        yield lambda sql: client.do_get(flight.Ticket(statement_ticket(sql)), options).read_all()


@contextmanager
def _ours(server, key):
    provider = StaticTokenAuthProvider(key)
    with FlightSQLClient(server.uri, auth_provider=provider, timeout_seconds=CALL_SECONDS) as client:
        yield client.query_arrow


# pyarrow repeats no call, so nothing hides behind a second try; this project's client does.
REPEATING_CLIENT = "_ours"
_CLIENTS = (*[_pyarrow] * 7, _ours)


class SmallStatements:
    """Callers that run small statements one after the other, until its `with` block ends."""

    def __init__(self, server, keys, *, pause_seconds=_PAUSE_SECONDS):
        self.failures = []
        self._server = server
        self._pause_seconds = pause_seconds
        self._counts = [0] * len(keys)
        self._forgotten = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, key), daemon=True) for number, key in enumerate(keys)
        ]

    @property
    def report(self):
        """How many statements failed of how many since the last `forget`, and how the first ones did."""
        count = sum(self._counts) - self._forgotten
        return f"{len(self.failures)} of {count} statements of others failed: {self.failures[:3]}"

    def forget(self):
        """Forget what failed until now."""
        self._forgotten = sum(self._counts)
        self.failures.clear()

    def _run(self, number, key):
        connect = _CLIENTS[number % len(_CLIENTS)]
        with connect(self._server, key) as query:
            while not self._stop.is_set():
                wanted = (self._counts[number] * 7919 + number) % ROW_COUNT
                sql, expected = (lookup(wanted), [wanted]) if self._counts[number] % 2 else ("SELECT 1", [1])
                try:
                    found = query(sql)[0].to_pylist()
                except Exception as error:  # noqa: BLE001 - whatever it is, the test fails and says so
                    self.failures.append(f"{connect.__name__} {sql}: {type(error).__name__} {error}")
                else:
                    if found != expected:
                        self.failures.append(f"{connect.__name__} {sql}: {found} in place of {expected}")
                self._counts[number] += 1
                self._stop.wait(self._pause_seconds)

    def wait_for_all(self, statements=2):
        """Wait until each caller has run this many more statements."""
        before = list(self._counts)
        wait_until(
            lambda: all(now - then >= statements for now, then in zip(self._counts, before, strict=True)),
            f"{statements} statements of each other caller",
        )

    def wait_until_well(self):
        """Wait until nothing fails, and forget what failed before."""

        def is_well():
            self.forget()
            self.wait_for_all()
            return not self.failures

        wait_until(is_well, "small statements succeed")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_until_well()
        return self

    def __exit__(self, *_error):
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * CALL_SECONDS)
