"""Tests of `http.platform_http` over real sockets."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core import http_exchange
from micromegas_jupyter.core.http import MAX_PLATFORM_BYTES, MAX_RUNNING_CALLS, Platform, PlatformHttp
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from tests.fakes.platform_stand_ins import AzureMachine
from tests.fakes.raw_server import RawServer, hang, trickle_body, trickle_headers
from tests.fakes.tls_provider import TlsProvider

if TYPE_CHECKING:
    import socket
    from pathlib import Path

pytestmark = pytest.mark.integration

PLATFORM = Platform(name="The platform", setting="PLATFORM_URL", remedy="Run this on the platform.")
HEAD = b"HTTP/1.1 200 OK\r\n"


def get(server: RawServer, *, timeout_seconds: float = 60) -> bytes:
    http = PlatformHttp(timeout_seconds=timeout_seconds)
    return http.get(server.url, headers={"Metadata": Secret("s3same")}, platform=PLATFORM).body


@pytest.mark.parametrize("talk", [hang, trickle_headers, trickle_body])
def test_the_deadline_holds_against_every_way_to_stall(talk: object) -> None:
    with RawServer(talk) as server:  # type: ignore[arg-type]
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable, match=r"within 0\.5 seconds") as caught:
            get(server, timeout_seconds=0.5)

        assert time.monotonic() - started < 9
    assert caught.value.remedy == "Run this on the platform."


def test_calls_beyond_the_bound_wait_no_longer_than_their_deadline() -> None:
    http = PlatformHttp(timeout_seconds=1)
    failures: list[Exception] = []

    def call(url: str) -> None:
        try:
            http.get(url, headers={}, platform=PLATFORM)
        except ProviderUnavailable as error:
            failures.append(error)

    with RawServer(hang) as server:
        started = time.monotonic()
        threads = [threading.Thread(target=call, args=(server.url,)) for _ in range(2 * MAX_RUNNING_CALLS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert time.monotonic() - started < 9
    assert len(failures) == 2 * MAX_RUNNING_CALLS


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "304 Not Modified"])
def test_a_redirect_is_not_followed(status: str) -> None:
    def redirect(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(f"HTTP/1.1 {status}\r\nLocation: {server.url}\r\nContent-Length: 0\r\n\r\n".encode())

    with RawServer(redirect) as server, pytest.raises(ProviderMisbehaved, match="redirect"):
        get(server)

    assert server.connection_count == 1


def test_a_body_without_end_is_cut_at_the_cap() -> None:
    def flood(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(HEAD + b"\r\n")
        while not server.stopping.is_set():
            connection.sendall(b" " * 65536)

    with RawServer(flood) as server, pytest.raises(ProviderMisbehaved, match=f"more than {MAX_PLATFORM_BYTES} bytes"):
        get(server)


def test_a_compressed_body_is_refused() -> None:
    def compressed(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")

    with RawServer(compressed) as server, pytest.raises(ProviderMisbehaved, match="compressed"):
        get(server)


@pytest.mark.parametrize("status", ["500 Broken", "503 Down", "429 Slow"])
def test_a_platform_in_trouble_is_unavailable(status: str) -> None:
    def trouble(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with RawServer(trouble) as server, pytest.raises(ProviderUnavailable, match=status[:3]):
        get(server)


def test_what_is_no_http_is_unavailable() -> None:
    def talk(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")

    with RawServer(talk) as server, pytest.raises(ProviderUnavailable):
        get(server)


def test_no_proxy_and_no_netrc_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password s3same\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")

    with AzureMachine() as machine:
        PlatformHttp().get(f"{machine.base}/x", headers={"Metadata": Secret("true")}, platform=PLATFORM)

        sent = machine.calls[0].headers
    assert sent["metadata"] == "true"
    assert "authorization" not in sent


def test_a_name_that_leads_to_the_internet_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\nok")

    # Tests reach this machine only, so it plays a host of the internet.
    monkeypatch.setattr(http_exchange, "is_private_address", lambda address: False)

    with RawServer(answer) as server, pytest.raises(ProviderMisbehaved, match="address of the internet"):
        get(server)


def test_an_authority_of_ones_own_organisation_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    with TlsProvider(tmp_path) as tls:
        answer = PlatformHttp(extra_ca_bundle=tls.ca_file).get(tls.url, headers={}, platform=PLATFORM)

        assert answer.json_object() == {"tls": True}


def test_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    with TlsProvider(tmp_path) as tls, pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        PlatformHttp().get(tls.url, headers={}, platform=PLATFORM)
