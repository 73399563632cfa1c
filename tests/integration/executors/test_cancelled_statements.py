"""A statement that nobody waits for any more uses no processor half a second later, and no other caller notices.

Each kind of statement is given up by one method, in turn; with `--long` each kind by every method.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.flightsql.commands import messages, statement_ticket
from tests.integration.executors.callers import OTHERS, BackgroundCall, Caller, SmallStatements
from tests.integration.executors.conftest import ATTACKER, KEYS
from tests.integration.executors.server_process import wait_until
from tests.integration.executors.statements import BUSY
from tests.integration.flight_harness import action_bytes, ticket_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

WORK_SECONDS = 0.5
# From when the client goes until the processor has to be quiet, and for how long it is watched then.
STOP_SECONDS = WATCH_SECONDS = 0.5
# Of the other caller's statements, of a new process that waits for the next statement, and of what polls.
QUIET_CPU_SECONDS = 0.15
DEADLINE_SECONDS = 4.0
_CLIENT = """
import sys, grpc
address, key, request = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
call = grpc.insecure_channel(address).unary_stream("/arrow.flight.protocol.FlightService/DoGet")
for _ in call(request, metadata=[("authorization", "Bearer " + key)]):
    pass
"""


class Killed:
    """A process of its own that is killed."""

    def __init__(self, server: ServerProcess, sql: str) -> None:
        request = ticket_bytes(statement_ticket(sql)).hex()
        command = [sys.executable, "-c", _CLIENT, server.address, KEYS[ATTACKER], request]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def give_up(self) -> None:
        self.close()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Cancelled:
    """A call that its caller cancels, as an interrupted cell does."""

    timeout = 600.0

    def __init__(self, server: ServerProcess, sql: str) -> None:
        self._sql = sql
        self._running = BackgroundCall(server, KEYS[ATTACKER], sql, timeout=self.timeout)

    def give_up(self) -> None:
        self._running.call.cancel()

    def has_ended(self) -> bool:
        return self._running.answer is not None

    def close(self) -> None:
        self._running.close()


class Closed(Cancelled):
    """A call whose channel is closed."""

    def give_up(self) -> None:
        self._running.close()


class Late(Cancelled):
    """A call whose deadline passes."""

    timeout = DEADLINE_SECONDS

    def give_up(self) -> None:
        wait_until(self.has_ended, "the deadline has passed")


class CancelledByAction(Cancelled):
    """A call that its caller cancels by another call, on another connection."""

    def __init__(self, server: ServerProcess, sql: str) -> None:
        super().__init__(server, sql)
        self._server = server

    def give_up(self) -> None:
        endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=statement_ticket(self._sql)))
        request = messages.CancelFlightInfoRequest(info=messages.FlightInfo(endpoint=[endpoint]))
        caller = Caller(self._server, KEYS[ATTACKER])
        assert list(caller.call("DoAction", [action_bytes("CancelFlightInfo", request.SerializeToString())]))
        caller.close()


METHODS: dict[str, type[Killed | Cancelled]] = {
    "client killed": Killed,
    "call cancelled": Cancelled,
    "channel closed": Closed,
    "deadline": Late,
    "CancelFlightInfo": CancelledByAction,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption("--long"):
        cases = [(kind, method) for kind in BUSY for method in METHODS]
    else:
        cases = [(kind, list(METHODS)[index % len(METHODS)]) for index, kind in enumerate(BUSY)]
    metafunc.parametrize(("kind", "method"), cases)


@pytest.fixture(scope="module")
def other(server: ServerProcess) -> Iterator[SmallStatements]:
    """One other caller, who leaves the processors alone most of the time."""
    with SmallStatements(server, [KEYS[OTHERS[0]]], pause_seconds=0.2) as running:
        yield running


def cpu_seconds_of(server: ServerProcess, seconds: float) -> float:
    """Return how much processor time the server uses in the next `seconds`."""
    before = server.cpu_seconds()
    threading.Event().wait(seconds)
    return server.cpu_seconds() - before


def test_the_processor_is_quiet_half_a_second_after_the_client_has_gone(
    server: ServerProcess, other: SmallStatements, kind: str, method: str
) -> None:
    wait_until(lambda: cpu_seconds_of(server, WATCH_SECONDS) < QUIET_CPU_SECONDS, "earlier statements have ended")
    other.wait_until_well()
    before = server.cpu_seconds()
    client = METHODS[method](server, BUSY[kind])
    try:
        wait_until(lambda: server.cpu_seconds() - before > WORK_SECONDS or client.has_ended(), "the statement runs")
        assert method == "deadline" or not client.has_ended(), "the statement has ended by itself"

        client.give_up()

        threading.Event().wait(STOP_SECONDS)
        used = cpu_seconds_of(server, WATCH_SECONDS)
    finally:
        client.close()
    other.wait_for_all()
    assert used < QUIET_CPU_SECONDS
    assert not other.failures, other.report
