"""Tests of `http.hub_http` over real sockets: where this server's token goes, and how a call ends."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.http import HubHttp
from micromegas_jupyter.core.http_exchange import proxy_for
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.hub_service import HUB_TOKEN, FakeHubService
from tests.fakes.raw_server import RawServer
from tests.fakes.tls_provider import TlsProvider

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from micromegas_jupyter.core.secrets import SecretObject

pytestmark = pytest.mark.integration

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
TOKEN = Secret(HUB_TOKEN)


@pytest.fixture
def hub() -> Iterator[FakeHubService]:
    with FakeHubService() as service:
        yield service


def ask(url: str, *, timeout_seconds: float = 30) -> tuple[int, SecretObject | None]:
    return HubHttp(timeout_seconds=timeout_seconds).call(f"{url}token", token=TOKEN, body={})


def test_over_plain_http_no_proxy_sees_the_token(hub: FakeHubService, monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(connection: socket.socket, _server: RawServer) -> None:
        connection.close()

    with RawServer(listen) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)

        answer = ask(hub.url)

        assert proxy.connection_count == 0
    assert answer[0] == 200
    assert hub.calls[0].authorization == f"Bearer {HUB_TOKEN}"


def test_over_tls_the_environments_proxy_is_used_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")

    assert proxy_for("https://hub.example/services/micromegas/token") == Secret("http://proxy.example:3128")
    assert proxy_for("https://hub.inside.example/services/micromegas/token") is None


def test_a_certificate_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    with TlsProvider(tmp_path) as tls, pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        ask(tls.url)


def test_an_authority_of_the_organisations_own_is_trusted_when_the_settings_name_it(tmp_path: Path) -> None:
    with TlsProvider(tmp_path) as tls:
        answer = HubHttp(extra_ca_bundle=tls.ca_file).call(tls.url, token=TOKEN)

    assert answer == (200, {"tls": True})


def test_an_authority_that_does_not_exist_is_said_so(hub: FakeHubService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/at/all.pem")

    with pytest.raises(ConfigurationError, match="CA bundle"):
        ask(hub.url)
    assert hub.calls == []


def test_an_answer_that_trickles_costs_the_deadline_and_no_more() -> None:
    def trickle(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
        server.trickle(connection, b" ")

    with RawServer(trickle) as server, pytest.raises(ProviderUnavailable, match=r"within 0\.5 seconds"):
        ask(f"{server.url}/", timeout_seconds=0.5)


def test_a_compressed_body_is_refused() -> None:
    def compress(connection: socket.socket, _server: RawServer) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")

    with RawServer(compress) as server, pytest.raises(ProviderMisbehaved, match="compressed"):
        ask(f"{server.url}/")


def test_closing_cuts_a_call_that_waits_and_refuses_the_next(hub: FakeHubService) -> None:
    over, reached = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        over.wait(60)

    hub.before_answer = wait
    http = HubHttp(timeout_seconds=60)
    failures: list[ProviderUnavailable] = []

    def call() -> None:
        with pytest.raises(ProviderUnavailable) as caught:
            http.call(f"{hub.url}token", token=TOKEN, body={})
        failures.append(caught.value)

    waiting = threading.Thread(target=call)
    waiting.start()
    assert reached.wait(60)
    http.close()
    waiting.join(60)
    over.set()

    assert len(failures) == 1
    with pytest.raises(ProviderUnavailable, match="the connection is closed"):
        http.call(f"{hub.url}token", token=TOKEN, body={})


def test_no_log_holds_a_token_at_any_level(hub: FakeHubService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _, body = ask(hub.url)

    assert body is not None
    assert HUB_TOKEN not in caplog.text
    assert str(body["access_token"]) not in caplog.text
    assert "***" in repr(body)
