"""What a call sends, follows, keeps and trusts, and how it ends without a proper answer: in time, within bounds."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from micromegas_jupyter.core import http as module
from micromegas_jupyter.core.http import MAX_RUNNING_CALLS, ProviderHttp
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.ports import free_port
from tests.fakes.raw_server import RawServer, hang, trickle_body, trickle_headers
from tests.fakes.scripted_provider import Reply
from tests.fakes.tls_provider import TlsProvider

pytestmark = pytest.mark.integration


def test_a_redirect_is_not_followed(provider):
    provider.reply_once("/start", Reply(status=302, headers={"Location": f"{provider.base}/target"}))

    with pytest.raises(ProviderMisbehaved):
        ProviderHttp().fetch_json(f"{provider.base}/start")

    assert provider.seen("/target") == []


def test_cookies_are_not_kept(provider):
    http = ProviderHttp()
    for _ in range(2):
        provider.reply_once("/document", Reply(body={}, headers={"Set-Cookie": "a=1; Path=/"}))

    http.fetch_json(f"{provider.base}/document")
    http.fetch_json(f"{provider.base}/document")

    assert "cookie" not in provider.seen("/document")[1].headers


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_provider):
    with pytest.raises(ProviderUnavailable, match="certificate could not be verified") as caught:
        ProviderHttp().fetch_json(tls_provider.url)

    assert "MICROMEGAS_CA_BUNDLE" in caught.value.remedy


def test_with_a_ca_bundle_no_other_certificate_is_trusted_whatever_the_environment_says(
    tls_provider, monkeypatch, tmp_path
):
    (tmp_path / "other").mkdir()
    other = TlsProvider(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls_provider.ca_file))
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_provider.ca_file))

    with other, pytest.raises(ProviderUnavailable, match="certificate could not be verified"):
        ProviderHttp(ca_bundle=other.ca_file).fetch_json(tls_provider.url)


@pytest.mark.parametrize("url", ["http://id.example.com/", "ftp://127.0.0.1/", "https://a@id.example.com/", "nonsense"])
def test_an_address_that_may_not_be_called_is_refused_before_any_request(url):
    with pytest.raises(ProviderMisbehaved):
        ProviderHttp().fetch_json(url)


def test_a_ca_bundle_that_does_not_exist_is_a_configuration_error(provider, monkeypatch):
    with pytest.raises(ConfigurationError):
        ProviderHttp(ca_bundle="/nowhere/ca.pem")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError):
        ProviderHttp().fetch_json(f"{provider.base}/document")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def trickle_chunks(connection, server):
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    server.trickle(connection, b"1\r\n \r\n")


@pytest.mark.parametrize("talk", [hang, trickle_headers, trickle_body, trickle_chunks])
def test_the_deadline_holds_against_every_way_to_stall(talk):
    http = ProviderHttp(timeout_seconds=0.5)

    with RawServer(talk) as server:
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable, match=r"within 0\.5 seconds"):
            http.fetch_json(server.url)
        taken_seconds = time.monotonic() - started

        assert taken_seconds < 9
        if talk is not hang:
            assert server.hung_up.wait(30), "the connection was left open after the deadline"


class ClockOfSuspendedProcess:
    """Jumps an hour ahead when `seconds` have passed since it was first used."""

    def __init__(self, seconds):
        self._seconds = seconds
        self._used_at = None

    def monotonic(self):
        now = time.monotonic()
        self._used_at = self._used_at or now
        return now + (3600 if now - self._used_at >= self._seconds else 0)


def test_what_came_while_the_process_was_suspended_is_read_after_the_deadline(monkeypatch):
    def answer_late(connection, _server):
        time.sleep(0.8)  # until after the deadline
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")

    monkeypatch.setattr(module, "SYSTEM_CLOCK", ClockOfSuspendedProcess(0.5))
    with RawServer(answer_late) as server:
        found = ProviderHttp(timeout_seconds=0.5).fetch_json(server.url)

    assert found.body == {}


def test_calls_beyond_the_bound_wait_no_longer_than_their_deadline():
    http = ProviderHttp(timeout_seconds=5)
    arrived = threading.Semaphore(0)

    def hang_and_count(_connection, server):
        arrived.release()
        server.stopping.wait(60)

    def call(url):
        with pytest.raises(ProviderUnavailable):
            http.fetch_json(url)

    with RawServer(hang_and_count) as server, ThreadPoolExecutor(40) as threads:
        failed = threads.map(call, [server.url] * 40)
        reached = [arrived.acquire(timeout=4) for _ in range(MAX_RUNNING_CALLS)]
        is_one_more = arrived.acquire(timeout=0.3)

        assert len(list(failed)) == 40
    assert (reached, is_one_more) == ([True] * 16, False)


def test_closing_cuts_running_calls_and_refuses_new_ones():
    http = ProviderHttp(timeout_seconds=20)
    began = threading.Event()

    def hang_and_tell(connection, server):
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


def test_a_body_without_end_is_cut_at_the_cap():
    def flood(connection, server):
        connection.sendall(HEAD + b"\r\n")
        while not server.stopping.is_set():
            connection.sendall(b" " * 65536)

    with RawServer(flood) as server, pytest.raises(ProviderMisbehaved, match="more than 1000 bytes"):
        ProviderHttp(max_bytes=1000).fetch_json(server.url)


def test_a_refused_connection_is_unavailable_and_names_host_and_port_only():
    port = free_port()

    with pytest.raises(ProviderUnavailable) as caught:
        ProviderHttp().fetch_json(f"http://127.0.0.1:{port}/secret-path?token=sesame")

    said = f"The identity provider 127.0.0.1:{port} could not be reached: the connection was refused."
    assert caught.value.what == said
    assert "that the provider runs" in caught.value.remedy
