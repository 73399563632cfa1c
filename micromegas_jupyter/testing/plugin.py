"""Pytest fixtures; list this module in `conftest.py`. Their dependencies are imported by the first test."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.testing.server import LocalServer


@pytest.fixture(scope="session")
def micromegas_server() -> Iterator["LocalServer"]:
    """A server on a temporary lake, for all tests; override this fixture for one with roles or rows."""
    from micromegas_jupyter.testing.server import local_server

    with local_server() as server:
        yield server


@pytest.fixture
def micromegas_client(micromegas_server: "LocalServer") -> Iterator["FlightSQLClient"]:
    """A client for that server, signed in as Alice, who is an administrator."""
    with micromegas_server.client() as client:
        yield client


@pytest.fixture
def micromegas_environment(micromegas_server: "LocalServer", monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make `connect()`, magics, and programs in this test use Alice's sign-in; returns its environment variables."""
    for name in [name for name in os.environ if name.startswith("MICROMEGAS_")]:
        monkeypatch.delenv(name)
    variables = {
        name: value for name, value in micromegas_server.environment().items() if name.startswith("MICROMEGAS_")
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
