"""Proxy variables do not carry a token where it can be read."""

import socket
import threading

import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from tests.integration.client.conftest import FixedToken

pytestmark = pytest.mark.integration


class RecordingProxy:
    """Listens on loopback and remembers that somebody came."""

    def __init__(self):
        self.came = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self.came.set()
        connection.close()

    def close(self):
        # Wakes a thread that waits in accept, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("variable", ["grpc_proxy", "http_proxy", "https_proxy"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(engine_server, monkeypatch, variable):
    proxy = RecordingProxy()
    monkeypatch.setenv(variable, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)

    with FlightSQLClient(engine_server.uri, auth_provider=FixedToken("alice")) as client:
        one = client.query_arrow("SELECT 1 AS one")["one"].to_pylist()

    assert one == [1]
    assert not proxy.came.is_set()
    proxy.close()
