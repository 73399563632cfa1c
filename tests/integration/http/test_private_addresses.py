"""Tests of `http.provider_http` at hosts inside a network."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core import http_exchange
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.errors import ProviderUnavailable
from tests.fakes.raw_server import RawServer
from tests.fakes.scripted_provider import Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.tls_provider import TlsProvider

pytestmark = pytest.mark.integration


def test_a_private_address_is_told(provider: ScriptedProvider) -> None:
    provider.reply_once("/document", Reply(body={}))

    assert ProviderHttp().fetch_json(f"{provider.base}/document").reached_private is True


def test_a_private_address_that_is_refused_sees_no_byte() -> None:
    received: list[bytes] = []
    ended = threading.Event()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(1))
            ended.set()

        threading.Thread(target=accept, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/document"
        with pytest.raises(ProviderUnavailable, match="its address is a private one, which this call does not accept"):
            ProviderHttp().fetch_json(url, refuses_private=True)

        assert ended.wait(30)
    assert received == [b""]


def test_a_private_address_is_refused_before_the_tls_handshake(tls_provider: TlsProvider) -> None:
    with pytest.raises(ProviderUnavailable, match="private"):
        ProviderHttp(ca_bundle=tls_provider.ca_file).fetch_json(tls_provider.url, refuses_private=True)


def test_an_address_of_the_internet_is_not_refused(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests reach this machine only, so it plays a host of the internet.
    monkeypatch.setattr(http_exchange, "is_private_address", lambda address: address != "127.0.0.1")
    provider.reply_once("/document", Reply(body={}))

    answer = ProviderHttp().fetch_json(f"{provider.base}/document", refuses_private=True)

    assert answer.reached_private is False


def test_a_proxy_may_be_at_a_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def refuse(connection: socket.socket, server: RawServer) -> None:
        asked.set()
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with RawServer(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProviderUnavailable, match="proxy"):
            ProviderHttp(timeout_seconds=60).fetch_json("https://id.example.com/", refuses_private=True)

    assert asked.is_set()
