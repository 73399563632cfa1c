"""Connections that a notebook replaces or drops while their rows are still being read."""

import threading
from dataclasses import replace

import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.login.connections import Connections, NotebookServices
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, rows
from tests.fakes.notebook_world import SETTINGS
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

OTHERS = [replace(SETTINGS, client_id=f"other-{number}") for number in range(12)]


class _Server(FakeFlightServer):
    """Sends one batch, and another one once `may_go_on` is set."""

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.answers["DoGet"] = self._answer

    def _answer(self, call):
        schema, batch = rows(SMALL_TABLE)
        yield from (schema, batch)
        while not (call.ended.wait(0.02) or self.may_go_on.is_set() or self.closing.is_set()):
            pass
        yield batch


@pytest.fixture
def server():
    running = _Server()
    yield running
    running.close()


@pytest.fixture
def connections(server):
    class Real(NotebookServices):
        stored_provider = staticmethod(lambda _settings: None)
        open_client = staticmethod(lambda _settings, provider: FlightSQLClient(server.uri, auth_provider=provider))

    opened = Connections(Real(), lambda *_: None)
    yield opened
    opened.close()


def _drop(connections):
    connections.drop(lambda other: other == SETTINGS)


def _replace(connections):
    connections.put(SETTINGS, None)


def _open_many(connections):
    for other in OTHERS:
        connections.get(other)


@pytest.mark.parametrize("retire", [_drop, _replace, _open_many])
def test_a_running_reader_reads_on_when_its_connection_is_retired(connections, server, retire):
    client = connections.get(SETTINGS).client
    reader = client.open_query("SELECT n")
    next(reader)

    retire(connections)
    with pytest.raises(UsageError, match="closed"):
        client.query("SELECT n")
    server.may_go_on.set()

    assert sum(batch.num_rows for batch in reader) == 3
    wait_until(lambda: not client.is_in_use, "the retired client is closed")


def test_retired_connections_are_few_and_end_with_the_notebook(connections, server):
    readers = []
    for _ in range(10):
        readers.append(connections.get(SETTINGS).client.open_query("SELECT n"))
        _drop(connections)

    assert all(call.ended.wait(60) for call in server.calls[:2])
    assert not any(call.ended.is_set() for call in server.calls[2:])

    connections.close()

    assert all(call.ended.wait(60) for call in server.calls)
