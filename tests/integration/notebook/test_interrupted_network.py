"""Waits for a network, or for a server that says nothing, interrupted in a real kernel."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, SeenCall, rows
from tests.integration.notebook.interrupting import (
    RUNNING,
    AuditLines,
    check_stopped,
    interrupt,
    kernel_of,
    says,
    served,
)
from tests.integration.notebook.slow_relay import SlowRelay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.notebook.kernels import AttendedKernel

pytestmark = pytest.mark.integration

WAITING = says("interrupt to cancel")
RECEIVING = says(" rows · ")
ENDLESS = "SELECT value FROM generate_series(1, 100000000000000)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, AuditLines]]:
    with served(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="module")
def kernel(server: tuple[str, AuditLines], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttendedKernel]:
    with kernel_of(server[0], tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def fake_server() -> Iterator[FakeFlightServer]:
    server = FakeFlightServer()
    yield server
    server.close()


def ask(kernel: AttendedKernel, uri: str) -> None:
    """Let later cells ask the server at `uri`."""
    reply = kernel.run(f"%env MICROMEGAS_ANALYTICS_URI={uri}").reply
    assert reply["status"] == "ok"


def port_of(uri: str) -> int:
    return int(uri.rpartition(":")[2])


def check_next_query(kernel: AttendedKernel, server: tuple[str, AuditLines]) -> None:
    ask(kernel, server[0])
    assert kernel.run("%sql SELECT 1 AS one").reply["status"] == "ok"


@contextmanager
def unreachable_uri() -> Iterator[str]:
    """Yield an address whose connections are neither taken nor refused, as behind a firewall."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.5)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        yield f"grpc://127.0.0.1:{listener.getsockname()[1]}"


def test_a_host_that_cannot_be_reached(kernel: AttendedKernel, server: tuple[str, AuditLines]) -> None:
    with unreachable_uri() as uri:
        ask(kernel, uri)
        found = interrupt(kernel, "%sql SELECT 1", when=WAITING)

    check_stopped(found, name="an unreachable host")
    assert ", before the first row" in found.line
    check_next_query(kernel, server)


@pytest.mark.parametrize("magic", ["%sql SELECT 1", "%micromegas_whoami"])
def test_a_server_that_takes_the_call_and_never_answers(
    kernel: AttendedKernel, server: tuple[str, AuditLines], fake_server: FakeFlightServer, magic: str
) -> None:
    fake_server.answers = dict.fromkeys(["DoGet", "DoAction:MicromegasWhoAmI"], fake_server.stall_after())
    ask(kernel, fake_server.uri)

    def call_has_arrived(_message: object) -> bool:
        return fake_server.call_arrived.wait(30)

    found = interrupt(kernel, magic, when=call_has_arrived)

    check_stopped(found, name=f"{magic} without an answer")
    check_next_query(kernel, server)


def test_a_server_that_falls_silent_after_some_rows(
    kernel: AttendedKernel, server: tuple[str, AuditLines], fake_server: FakeFlightServer
) -> None:
    fake_server.answers["DoGet"] = fake_server.stall_after(*rows(SMALL_TABLE))
    ask(kernel, fake_server.uri)

    found = interrupt(kernel, "%sql SELECT 1", when=RECEIVING)

    check_stopped(found, name="silence after some rows")
    assert ", 3 rows received, stopped on the server" in found.line
    assert fake_server.calls[0].ended.wait(30)
    check_next_query(kernel, server)


def test_many_small_batches(
    kernel: AttendedKernel, server: tuple[str, AuditLines], fake_server: FakeFlightServer
) -> None:
    def answer(call: SeenCall) -> Iterator[bytes]:
        first, *batches = rows(pa.table({"n": [1]}))
        yield first
        while not (call.ended.is_set() or fake_server.closing.is_set()):
            yield from batches

    fake_server.answers["DoGet"] = answer
    ask(kernel, fake_server.uri)

    found = interrupt(kernel, "%sql SELECT 1", when=RECEIVING)

    check_stopped(found, name="many small batches")
    assert fake_server.calls[0].ended.wait(30)
    check_next_query(kernel, server)


def test_one_huge_batch_on_a_slow_network(kernel: AttendedKernel, server: tuple[str, AuditLines]) -> None:
    sql = "SELECT repeat('x', 20000000) AS one"
    with SlowRelay(port_of(server[0]), bytes_per_second=100_000) as relay:
        ask(kernel, relay.uri)

        found = interrupt(kernel, f"%sql {sql}", when=RUNNING)

        check_stopped(found, name="one huge batch on a slow network")
        assert ", 0 rows received, stopped on the server" in found.line
        assert server[1].of(sql)["status"] == "incomplete"
    check_next_query(kernel, server)
