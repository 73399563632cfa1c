"""The listener against everything that is not the one right callback."""

import socket
import threading
import time

import pytest
import requests

from micromegas_jupyter.auth.flows.base import SECURITY_HEADERS, LoginRequest
from micromegas_jupyter.auth.flows.loopback import LoopbackFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import LoginFailed

pytestmark = pytest.mark.integration


def start(idp, redirect_uri=None):
    connection = ProviderConnection(idp.issuer, "notebook", None, http=None, clock=SYSTEM_CLOCK)
    return LoopbackFlow(LoginRequest(connection=connection, redirect_uri=redirect_uri))


@pytest.fixture
def receiver(idp):
    made = start(idp)
    yield made
    made.close()


def own_query(receiver):
    return f"code=c&state={receiver._grant.request.state.reveal()}"


def get(url, **options):
    return requests.request(**{"method": "GET", "url": url, "allow_redirects": False, "timeout": 10, **options})


def base_of(receiver):
    return receiver.redirect_uri.removesuffix("/callback")


def complete(receiver):
    return get(receiver.redirect_uri + "?" + own_query(receiver))


def test_the_start_page_leads_to_the_provider_and_can_be_opened_again(receiver):
    for _ in range(2):
        answer = get(receiver.prompt.start_url)
        assert (answer.status_code, answer.headers["Location"]) == (302, receiver._authorization_url)


def test_every_answer_carries_the_security_headers(receiver):
    base, callback = base_of(receiver), receiver.redirect_uri
    answers = [get(url) for url in (receiver.prompt.start_url, base + "/favicon.ico", callback)]
    answers += [get(callback, method="POST"), complete(receiver)]

    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)
        assert "Server" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_stray_requests_are_answered_and_do_not_use_the_sign_in_up(receiver):
    own = receiver.redirect_uri + "?" + own_query(receiver)
    base, callback = base_of(receiver), receiver.redirect_uri
    stray = [
        *(({"url": base + path}, 404) for path in ("/favicon.ico", "/", "/start/guess", "/done")),
        ({"url": base + "/callback/?" + own_query(receiver)}, 404),
        *(
            ({"url": callback + query}, 400)
            for query in ("", "?code=c&state=wrong", "?error=access_denied&state=wrong")
        ),
        *(({"url": own, "method": method}, 405) for method in ("HEAD", "OPTIONS")),
        ({"url": own, "method": "POST", "data": {"code": "c", "state": "s"}}, 405),
        ({"url": own, "method": "BREW"}, 501),
        *(({"url": own, "headers": {"Host": host}}, 400) for host in ("evil.example", "localhost")),
        *(({"url": own, "headers": {"Sec-Fetch-Dest": kind}}, 403) for kind in ("iframe", "image", "empty")),
    ]

    statuses = [get(**options).status_code for options, _ in stray]

    assert statuses == [status for _, status in stray]
    assert not receiver._ended.is_set()
    assert complete(receiver).status_code == 303


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /callback?code=c&state=s HTTP/9.9\r\n\r\n",
        b"GET /callback?code=c&state=s HTTP/1.1\r\n\r\n",
        b"GET /callback?code=c&state=s HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /callback?code=c&state=s\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_hardly_http_does_no_harm(request_bytes, receiver):
    with socket.create_connection(receiver._server.server_address[:2], timeout=30) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)

    assert not answer.startswith(b"HTTP/1.0 303")
    assert not receiver._ended.is_set()
    assert complete(receiver).status_code == 303


def test_a_callback_counts_once(receiver):
    barrier = threading.Barrier(10)
    statuses = []

    def call():
        barrier.wait(30)
        statuses.append(complete(receiver).status_code)

    threads = [threading.Thread(target=call) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(statuses) == [303] + [400] * 9
    assert get(receiver.prompt.start_url).status_code == 400


def test_sixty_idle_connections_do_not_hold_the_sign_in_up(receiver):
    idle = [socket.create_connection(receiver._server.server_address[:2]) for _ in range(60)]
    for connection in idle[:30]:
        connection.sendall(b"GET /callback?co")

    started = time.monotonic()

    assert complete(receiver).status_code == 303
    assert time.monotonic() - started < 9
    for connection in idle:
        connection.close()


def test_only_loopback_is_bound(receiver):
    assert receiver._server.server_address[0] == "127.0.0.1"
    assert receiver.redirect_uri.startswith("http://127.0.0.1:")


def test_a_fixed_port_that_is_taken_fails_with_a_remedy(idp):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LoginFailed, match=str(port)):
            start(idp, f"http://127.0.0.1:{port}/callback")


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_ipv6_loopback_and_its_name_are_served(host, idp):
    made = start(idp, f"http://{host}/callback")

    assert complete(made).status_code == 303
    made.close()
