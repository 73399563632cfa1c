"""How a call ends that gets no proper answer: in time, within its bounds, as an error that says what to do."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from micromegas_jupyter.core.http import MAX_RUNNING_PROVIDER_CALLS, ProviderHttp
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from tests.fakes.raw_server import RawServer, hang, trickle_body, trickle_headers

pytestmark = pytest.mark.integration

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def trickle_chunks(connection: socket.socket, server: RawServer) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    server.trickle(connection, b"1\r\n \r\n")


@pytest.mark.parametrize("talk", [hang, trickle_headers, trickle_body, trickle_chunks])
def test_the_deadline_holds_against_every_way_to_stall(talk: object) -> None:
    http = ProviderHttp(timeout_seconds=0.5)

    with RawServer(talk) as server:  # type: ignore[arg-type]
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable, match=r"within 0\.5 seconds"):
            http.fetch_json(server.url)
        taken_seconds = time.monotonic() - started

        assert taken_seconds < 9
        if talk is not hang:
            assert server.hung_up.wait(30), "the connection was left open after the deadline"


def test_a_listener_that_never_accepts_does_not_hold_the_caller() -> None:
    http = ProviderHttp(timeout_seconds=0.5)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(url)

        assert time.monotonic() - started < 9
        for filler in fillers:
            filler.close()


def test_calls_beyond_the_bound_wait_no_longer_than_their_deadline() -> None:
    http = ProviderHttp(timeout_seconds=5)
    arrived = threading.Semaphore(0)

    def hang_and_count(_connection: socket.socket, server: RawServer) -> None:
        arrived.release()
        server.stopping.wait(60)

    def call(url: str) -> bool:
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(url)
        return True

    with RawServer(hang_and_count) as server, ThreadPoolExecutor(40) as threads:
        failed = threads.map(call, [server.url] * 40)
        reached = [arrived.acquire(timeout=4) for _ in range(MAX_RUNNING_PROVIDER_CALLS)]
        is_one_more = arrived.acquire(timeout=0.3)

        assert len(list(failed)) == 40
    assert len(reached) == 16
    assert all(reached)
    assert not is_one_more


def test_closing_cuts_running_calls_and_refuses_new_ones() -> None:
    http = ProviderHttp(timeout_seconds=20)
    began = threading.Event()

    def hang_and_tell(connection: socket.socket, server: RawServer) -> None:
        began.set()
        server.stopping.wait(60)

    with RawServer(hang_and_tell) as server:
        closer = threading.Thread(target=lambda: (began.wait(60), http.close()))
        closer.start()
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(server.url)
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(server.url)

        assert time.monotonic() - started < 9
        assert server.connection_count == 1
        closer.join(60)


def test_a_body_without_end_is_cut_at_the_cap() -> None:
    def flood(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(HEAD + b"\r\n")
        while not server.stopping.is_set():
            connection.sendall(b" " * 65536)

    with RawServer(flood) as server, pytest.raises(ProviderMisbehaved, match="more than 1000 bytes"):
        ProviderHttp(max_bytes=1000).fetch_json(server.url)


def test_a_refused_connection_is_unavailable_and_names_host_and_port_only() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        with pytest.raises(ProviderUnavailable) as caught:
            ProviderHttp().fetch_json(f"http://127.0.0.1:{port}/secret-path?token=sesame")

    assert caught.value.what == (
        f"The identity provider 127.0.0.1:{port} could not be reached: the connection was refused."
    )
    assert "that the provider runs" in caught.value.remedy


def test_a_name_that_is_not_found_is_looked_for_in_the_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ProviderUnavailable, match=r"id\.invalid could .*its name was not found") as caught:
        ProviderHttp().fetch_json("https://id.invalid/")

    assert caught.value.remedy == "Check the spelling of the issuer (MICROMEGAS_OIDC_ISSUER), and the network."


def test_a_provider_without_tls_is_not_asked_to_be_tried_again() -> None:
    def babble(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(HEAD + b"\r\n")

    with RawServer(babble) as server, pytest.raises(ProviderUnavailable, match="TLS failed") as caught:
        ProviderHttp().fetch_json(server.url.replace("http:", "https:"))

    assert "speaks TLS" in caught.value.remedy
    assert "MICROMEGAS_CA_BUNDLE" in caught.value.remedy
