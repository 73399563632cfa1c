"""A statement that nobody waits for any more uses no processor half a second later, and no other caller notices.

Each method gives up one kind of statement; with `--long`, every kind.
"""

import subprocess
import sys
import threading

import pytest

from micromegas_jupyter.flightsql.commands import messages, statement_ticket
from tests.integration.executors.callers import OTHERS, BackgroundCall, Caller, SmallStatements
from tests.integration.executors.conftest import ATTACKER, KEYS
from tests.integration.executors.server_process import wait_until
from tests.integration.executors.statements import BUSY
from tests.integration.flight_harness import action_bytes, ticket_bytes

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


class Client:
    """A client with one statement, and a way of giving it up."""

    def __init__(self, server, sql, method):
        self._server, self._sql, self._method = server, sql, method
        if method == "client killed":
            request = ticket_bytes(statement_ticket(sql)).hex()
            command = [sys.executable, "-c", _CLIENT, server.address, KEYS[ATTACKER], request]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            timeout = DEADLINE_SECONDS if method == "deadline" else 600.0
            self._running = BackgroundCall(server, KEYS[ATTACKER], sql, timeout=timeout)

    def give_up(self):
        match self._method:
            case "client killed" | "channel closed":
                self.close()
            case "call cancelled":  # as an interrupted cell does
                self._running.call.cancel()
            case "deadline":
                wait_until(self.has_ended, "the deadline has passed")
            case "CancelFlightInfo":  # on another connection
                endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=statement_ticket(self._sql)))
                request = messages.CancelFlightInfoRequest(info=messages.FlightInfo(endpoint=[endpoint]))
                caller = Caller(self._server, KEYS[ATTACKER])
                assert list(caller.call("DoAction", [action_bytes("CancelFlightInfo", request.SerializeToString())]))
                caller.close()

    def has_ended(self):
        if self._method == "client killed":
            return self._process.poll() is not None
        return self._running.answer is not None

    def close(self):
        if self._method == "client killed":
            self._process.kill()
            self._process.wait()
        else:
            self._running.close()


METHODS = ("client killed", "call cancelled", "channel closed", "deadline", "CancelFlightInfo")


def pytest_generate_tests(metafunc):
    if metafunc.config.getoption("--long"):
        cases = [(kind, method) for kind in BUSY for method in METHODS]
    else:
        cases = list(zip([*BUSY][:: len(METHODS)], METHODS, strict=True))
    metafunc.parametrize(("kind", "method"), cases)


@pytest.fixture(scope="module")
def other(server):
    """One other caller, who leaves the processors alone most of the time."""
    with SmallStatements(server, [KEYS[OTHERS[0]]], pause_seconds=0.2) as running:
        yield running


def cpu_seconds_of(server, seconds):
    """Return how much processor time the server uses in the next `seconds`."""
    before = server.cpu_seconds()
    threading.Event().wait(seconds)
    return server.cpu_seconds() - before


def test_the_processor_is_quiet_half_a_second_after_the_client_has_gone(server, other, kind, method):
    wait_until(lambda: cpu_seconds_of(server, WATCH_SECONDS) < QUIET_CPU_SECONDS, "earlier statements have ended")
    other.wait_until_well()
    before = server.cpu_seconds()
    client = Client(server, BUSY[kind], method)
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
