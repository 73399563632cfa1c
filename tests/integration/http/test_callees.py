"""Who is called how: platforms without proxies, the Hub's service with this server's token, hosts inside a network."""

import logging
import threading

import pytest

from micromegas_jupyter.core import http
from micromegas_jupyter.core.http import Callee, HubHttp, PlatformHttp, ProviderHttp
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from tests.fakes.hub_service import HUB_TOKEN, FakeHubService
from tests.fakes.platform_stand_ins import AzureMachine
from tests.fakes.raw_server import RawServer

pytestmark = pytest.mark.integration

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
TOKEN = Secret(HUB_TOKEN)


@pytest.fixture
def hub():
    with FakeHubService() as service:
        yield service


def ask(url):
    return HubHttp(timeout_seconds=30).call(f"{url}token", token=TOKEN, body={})


def test_over_plain_http_no_proxy_sees_the_token(hub, monkeypatch):
    with RawServer(lambda connection, _server: connection.close()) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)

        answer = ask(hub.url)

        assert proxy.connection_count == 0
    assert answer[0] == 200
    assert hub.calls[0].authorization == f"Bearer {HUB_TOKEN}"


def test_no_log_holds_a_token_at_any_level(hub, caplog):
    with caplog.at_level(logging.DEBUG):
        _, body = ask(hub.url)

    assert HUB_TOKEN not in caplog.text
    assert str(body["access_token"]) not in caplog.text
    assert "***" in repr(body)


PLATFORM = Callee(name="The platform", setting="PLATFORM_URL", remedy="Run this on the platform.")
HEAD = b"HTTP/1.1 200 OK\r\n"


def get(server):
    http = PlatformHttp(timeout_seconds=60)
    return http.get(server.url, headers={"Metadata": Secret("s3same")}, platform=PLATFORM).body


@pytest.mark.parametrize("status", ["302 Found", "304 Not Modified"])
def test_a_redirect_is_not_followed(status):
    def redirect(connection, server):
        connection.sendall(f"HTTP/1.1 {status}\r\nLocation: {server.url}\r\nContent-Length: 0\r\n\r\n".encode())

    with RawServer(redirect) as server, pytest.raises(ProviderMisbehaved, match="redirect"):
        get(server)

    assert server.connection_count == 1


def test_no_proxy_and_no_netrc_is_used(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password s3same\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in PROXY_VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")

    with AzureMachine() as machine:
        PlatformHttp().get(f"{machine.base}/x", headers={"Metadata": Secret("true")}, platform=PLATFORM)

        sent = machine.calls[0].headers
    assert sent["metadata"] == "true"
    assert "authorization" not in sent


def test_a_name_that_leads_to_the_internet_is_not_believed(monkeypatch):
    def answer(connection, server):
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\nok")

    # Tests reach this machine only, so it plays a host of the internet.
    monkeypatch.setattr(http, "is_private_address", lambda address: False)

    with RawServer(answer) as server, pytest.raises(ProviderMisbehaved, match="a public internet address"):
        get(server)


def test_a_private_address_that_is_refused_sees_no_byte():
    received = []
    ended = threading.Event()

    def listen(connection, _server):
        received.append(connection.recv(1))
        ended.set()

    with RawServer(listen) as server:
        with pytest.raises(ProviderUnavailable, match="its address is private, which is not allowed for this call"):
            ProviderHttp().fetch_json(server.url, refuses_private=True)

        assert ended.wait(30)
    assert received == [b""]


def test_a_private_address_is_refused_before_the_tls_handshake(tls_provider):
    with pytest.raises(ProviderUnavailable, match="private"):
        ProviderHttp(ca_bundle=tls_provider.ca_file).fetch_json(tls_provider.url, refuses_private=True)


def test_a_proxy_may_be_at_a_private_address(monkeypatch):
    asked = threading.Event()

    def refuse(connection, server):
        asked.set()
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with RawServer(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ProviderUnavailable, match="proxy"):
            ProviderHttp(timeout_seconds=60).fetch_json("https://id.example.com/", refuses_private=True)

    assert asked.is_set()
