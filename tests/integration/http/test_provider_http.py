from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.http import ProviderHttp
from tests.fakes.raw_server import RawServer
from tests.fakes.scripted_provider import Reply, ScriptedProvider
from tests.fakes.tls_provider import TlsProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def tls_provider(tmp_path: Path) -> Iterator[TlsProvider]:
    with TlsProvider(tmp_path) as running:
        yield running


def hang(connection: socket.socket, server: RawServer) -> None:
    server.stopping.wait(20)


def trickle_headers(connection: socket.socket, server: RawServer) -> None:
    connection.sendall(HEAD)
    server.trickle(connection, b"X-Padding: a\r\n")


def trickle_body(connection: socket.socket, server: RawServer) -> None:
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    server.trickle(connection, b" ")


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

        assert taken_seconds < 2
        if talk is not hang:
            assert server.hung_up.wait(5), "the connection was left open after the deadline"


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

        assert time.monotonic() - started < 2
        for filler in fillers:
            filler.close()


def test_calls_beyond_the_bound_wait_no_longer_than_their_deadline() -> None:
    http = ProviderHttp(timeout_seconds=2)
    failures: list[BaseException] = []
    bound_reached = threading.Semaphore(0)

    def call(url: str) -> None:
        try:
            http.fetch_json(url)
        except ProviderUnavailable as error:
            failures.append(error)

    def hang_and_count(connection: socket.socket, server: RawServer) -> None:
        bound_reached.release()
        server.stopping.wait(20)

    with RawServer(hang_and_count) as server:
        threads = [threading.Thread(target=call, args=(server.url,)) for _ in range(40)]
        for thread in threads:
            thread.start()
        reached = [bound_reached.acquire(timeout=1) for _ in range(16)]
        one_more = bound_reached.acquire(timeout=0.3)
        for thread in threads:
            thread.join(10)

    assert all(reached)
    assert not one_more
    assert len(failures) == 40


def test_closing_cuts_running_calls_and_refuses_new_ones() -> None:
    http = ProviderHttp(timeout_seconds=20)
    began = threading.Event()

    def hang_and_tell(connection: socket.socket, server: RawServer) -> None:
        began.set()
        server.stopping.wait(20)

    with RawServer(hang_and_tell) as server:
        closer = threading.Thread(target=lambda: (began.wait(5), http.close()))
        closer.start()
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(server.url)
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(server.url)

        assert time.monotonic() - started < 5
        assert server.connection_count == 1
        closer.join(5)


def test_a_body_without_end_is_cut_at_the_cap() -> None:
    def flood(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(HEAD + b"\r\n")
        while not server.stopping.is_set():
            connection.sendall(b" " * 65536)

    with RawServer(flood) as server, pytest.raises(ProviderMisbehaved, match="more than 1000 bytes"):
        ProviderHttp(max_bytes=1000).fetch_json(server.url)


def test_a_refused_connection_is_unavailable_and_names_the_host_only() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        with pytest.raises(ProviderUnavailable) as caught:
            ProviderHttp().fetch_json(f"http://127.0.0.1:{port}/secret-path?token=sesame")

    assert caught.value.what == "The identity provider 127.0.0.1 could not be reached: the connection was refused."


def test_an_answer_that_is_not_http_is_unavailable() -> None:
    def babble(connection: socket.socket, server: RawServer) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")

    with RawServer(babble) as server, pytest.raises(ProviderUnavailable):
        ProviderHttp().fetch_json(server.url)


def test_a_redirect_is_not_followed(provider: ScriptedProvider) -> None:
    provider.reply_once("/start", Reply(status=302, headers={"Location": f"{provider.base}/target"}))

    with pytest.raises(ProviderMisbehaved):
        ProviderHttp().fetch_json(f"{provider.base}/start")

    assert provider.seen("/target") == []


def test_cookies_are_not_kept(provider: ScriptedProvider) -> None:
    http = ProviderHttp()
    for _ in range(2):
        provider.reply_once("/document", Reply(body={}, headers={"Set-Cookie": "a=1; Path=/"}))

    http.fetch_json(f"{provider.base}/document")
    http.fetch_json(f"{provider.base}/document")

    assert "cookie" not in provider.seen("/document")[1].headers


def test_passwords_of_netrc_are_not_sent(
    provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password sesame\n")
    monkeypatch.setenv("NETRC", str(netrc))
    provider.reply_once("/document", Reply(body={}))

    ProviderHttp().fetch_json(f"{provider.base}/document")

    assert "authorization" not in provider.seen("/document")[0].headers


def test_a_proxy_is_never_used_for_this_machine(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    provider.reply_once("/document", Reply(body={"a": 1}))

    assert ProviderHttp().fetch_json(f"{provider.base}/document").body == {"a": 1}


def test_a_proxy_of_the_environment_is_asked_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def refuse(connection: socket.socket, server: RawServer) -> None:
        asked.set()
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with RawServer(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProviderUnavailable, match="proxy"):
            ProviderHttp(timeout_seconds=5).fetch_json("https://id.example.com/")

    assert asked.is_set()


def test_a_form_is_posted_with_its_secrets_revealed_to_the_provider_only(provider: ScriptedProvider) -> None:
    provider.reply_once("/token", Reply(body={"a": 1}))

    answer = ProviderHttp().post_form(
        f"{provider.base}/token",
        {"grant_type": "refresh_token", "refresh_token": Secret("se same")},
        headers={"Authorization": Secret("Basic abc")},
    )

    seen = provider.seen("/token")[0]
    assert answer.body == {"a": 1}
    assert answer.date is not None
    assert seen.form == {"grant_type": "refresh_token", "refresh_token": "se same"}
    assert seen.headers["authorization"] == "Basic abc"
    assert seen.headers["accept-encoding"] == "identity"


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_provider: TlsProvider) -> None:
    with pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        ProviderHttp().fetch_json(tls_provider.url)


def test_a_certificate_is_trusted_through_the_ca_bundle_even_when_the_environment_names_another(
    tls_provider: TlsProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text("")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))

    assert ProviderHttp(ca_bundle=tls_provider.ca_file).fetch_json(tls_provider.url).body == {"tls": True}


def test_a_certificate_is_trusted_through_the_environment(
    tls_provider: TlsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls_provider.ca_file))

    assert ProviderHttp().fetch_json(tls_provider.url).body == {"tls": True}


def test_the_deadline_holds_during_the_tls_handshake() -> None:
    with RawServer(hang) as server:
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            ProviderHttp(timeout_seconds=0.5).fetch_json(server.url.replace("http:", "https:"))

        assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", ["http://id.example.com/", "ftp://127.0.0.1/", "https://a@id.example.com/", "nonsense"])
def test_an_address_that_may_not_be_called_is_refused_before_any_request(url: str) -> None:
    with pytest.raises(ProviderMisbehaved):
        ProviderHttp().fetch_json(url)


def test_a_ca_bundle_that_does_not_exist_is_a_configuration_error(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError):
        ProviderHttp(ca_bundle="/nowhere/ca.pem")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError):
        ProviderHttp().fetch_json(f"{provider.base}/document")
