"""A scripted Flight server for each test, and the real one with the real engine."""

import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider as FixedToken
from micromegas_jupyter.client.flight_client import FlightSQLClient
from tests.fakes.flight_server import FakeFlightServer
from tests.integration.flight_harness import running_server

__all__ = ["FixedToken"]


class RenewingToken:
    """Has a new token each time that the last one is said to be refused."""

    def __init__(self):
        self.invalidated = []

    def get_token(self):
        return f"t{len(self.invalidated)}"

    def invalidate(self, token):
        self.invalidated.append(token)


@pytest.fixture
def fake_server():
    server = FakeFlightServer()
    yield server
    server.close()


@pytest.fixture
def client(fake_server):
    with FlightSQLClient(fake_server.uri) as client:
        yield client


@pytest.fixture(scope="module")
def engine_server():
    with running_server() as harness:
        yield harness


@pytest.fixture
def alice(engine_server):
    with FlightSQLClient(engine_server.uri, auth_provider=FixedToken("alice")) as client:
        yield client
