"""Metrics for whoever has a credential, health for anybody, and no way to keep either from others."""

import asyncio
import http.client
import json
import logging
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from micromegas_jupyter.access.validator import CallLimits
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.server.exports import ExportRunner
from micromegas_jupyter.server.http import endpoint
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.monitoring import NotReady, ReadinessProbe, ServerMetrics
from tests.architecture.guide_text import read_page
from tests.fakes.clock import FakeClock
from tests.fakes.validator import FakeValidator

TIMEOUT_SECONDS = 60.0
ALICE = {"Authorization": "Bearer alice"}


@contextmanager
def running(**changes):
    registry = CollectorRegistry()
    Counter("sent", "A number.", registry=registry).inc(7)
    options = {"validator": FakeValidator(), "registries": [registry], "readiness": lambda: None, **changes}
    endpoint = HttpEndpoint("127.0.0.1", 0, **options)
    port = endpoint.start()
    try:
        yield port
    finally:
        endpoint.stop()


def request(port, path, *, method="GET", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def send(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as raw:
        raw.sendall(data)
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
        return received


@pytest.fixture(scope="module")
def port():
    with running() as found:
        yield found


def test_metrics_are_not_shown_to_a_key_that_may_only_send_rows(port, caplog):
    with caplog.at_level(logging.INFO, logger="micromegas_jupyter.audit.access"):
        status, headers, body = request(port, "/metrics", headers={"Authorization": "Bearer collector"})

    (event,) = [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]
    assert (status, body) == (403, b"Forbidden\n")
    assert headers["www-authenticate"] == 'Bearer realm="micromegas", error="insufficient_scope", scope="metrics"'
    assert (event["outcome"], event["reason"], event["subject"]) == ("forbidden", "scope_missing", "collector")


def test_a_key_for_metrics_only_reads_the_metrics(port):
    status, headers, body = request(port, "/metrics", headers={"Authorization": "Bearer scraper"})

    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert body


def test_storage_that_is_full_fails_readiness_for_writes_only():
    with running(readiness=lambda: NotReady.LAKE_DISK) as port:
        found = [request(port, f"/ready{query}")[0] for query in ("", "?for=reads", "?for=writes", "?for=READS")]

    assert found == [503, 200, 503, 503]


def test_readiness_and_health_are_shown_to_anyone(port):
    with running(readiness=lambda: NotReady.STORAGE) as other:
        status, headers, body = request(other, "/ready")
        alive = request(other, "/health")[0]
    ready = request(port, "/ready")

    assert (status, json.loads(body)) == (503, {"status": "not ready", "reason": "storage"})
    assert (headers["retry-after"], alive) == ("1", 200)
    assert (ready[0], json.loads(ready[2]), ready[1]["content-type"]) == (200, {"status": "ready"}, "application/json")


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="micromegas"'),
        ({"Authorization": "Bearer mallory"}, 'Bearer realm="micromegas", error="invalid_token"'),
        ({"Authorization": "Basic YTphbGljZQ=="}, 'Bearer realm="micromegas", error="invalid_token"'),
    ],
)
def test_a_refusal_carries_the_challenge_of_rfc_6750(port, headers, challenge):
    status, answered, body = request(port, "/metrics", headers=headers)

    assert (status, answered["www-authenticate"], body) == (401, challenge, b"Unauthorized\n")


def test_an_outage_and_too_many_requests_are_no_refusals():
    with running(limits=CallLimits(RateLimits(calls_per_second=0.1, burst_calls=1), clock=SYSTEM_CLOCK)) as port:
        outage = request(port, "/metrics", headers={"Authorization": "Bearer outage"})
        first, second = (request(port, "/metrics", headers=ALICE) for _ in range(2))

    assert (outage[0], outage[1]["retry-after"]) == (503, "1")
    assert (first[0], second[0]) == (200, 429)
    assert 1 <= int(second[1]["retry-after"]) <= 10


def test_behind_a_trusted_proxy_refusals_count_for_the_client_that_it_names():
    limits = CallLimits(RateLimits(refusals_per_second=0.1, burst_refusals=1), clock=SYSTEM_CLOCK)
    with running(limits=limits, trusted_proxies=frozenset({"127.0.0.1"})) as port:
        statuses = [
            request(port, "/metrics", headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": address})[0]
            for token, address in (("mallory", "192.0.2.1, 192.0.2.66"),) * 2 + (("alice", "192.0.2.1"),)
        ]

    assert statuses == [401, 429, 200]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/%00"])
def test_other_paths_are_not_found(port, path):
    assert request(port, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"])
def test_only_reading_methods_are_answered(port, method):
    for path in ("/metrics", "/"):
        status, headers, body = request(port, path, method=method, headers=ALICE)

        assert (status, headers["allow"], body) == (405, "GET, HEAD", b"Method Not Allowed\n")


NATIVE_PATHS = (
    "/ingestion/insert_process", "/ingestion/insert_stream", "/ingestion/insert_block", "/ingestion/webhook",
    "/ingestion/otlp/v1/metrics/firehose", "/ingestion/cloudwatch/v1/logs/firehose",
)  # fmt: skip


@pytest.mark.parametrize("path", NATIVE_PATHS)
def test_paths_of_upstream_s_other_ingestion_point_to_what_is_not_here(port, path):
    title = "## What of Micromegas isn't here"
    assert f"\n{title}\n" in read_page("migration.md")
    head, body = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", b"x" * 200_000
    for sent in (
        (head % len(body)).encode() + b"\r\n" + body,
        (head % 10**12).encode() + b"Expect: 100-continue\r\n\r\n",
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
    ):
        answer = send(port, sent)

        # Upstream's library logs the body of a 4xx response, and doesn't send again.
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert title.removeprefix("## ").encode() in answer
        assert b"docs/migration.md" in answer


def test_answers_name_no_version_and_are_not_stored_and_head_has_no_body(port):
    head = request(port, "/health", method="HEAD")
    for _status, headers, _body in (head, request(port, "/nowhere"), request(port, "/metrics")):
        assert headers["server"] == "micromegas"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "etag" not in headers
    assert (head[0], head[1]["content-length"], head[2]) == (200, "3", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"\r\n\r\n",
    ],
    ids=["TLS", "no path", "large header", "large body", "negative", "two lengths", "nothing"],
)
def test_what_is_no_small_request_is_turned_away_without_a_traceback(port, data, caplog):
    try:
        answer = send(port, data)
    except ConnectionResetError:
        answer = b""

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert request(port, "/health")[0] == 200


def fail():
    raise ZeroDivisionError("secret detail")


class FailingRegistry(CollectorRegistry):
    def collect(self):
        raise ZeroDivisionError("secret detail")


def test_a_defect_is_a_bare_status_and_goes_to_the_log(caplog):
    with running(registries=[FailingRegistry()], validator=None, readiness=fail) as port:
        found = [request(port, path) for path in ("/metrics", "/ready")]

    assert [(status, b"secret" in body) for status, _headers, body in found] == [(500, False), (503, False)]
    assert [record.message for record in caplog.records] == ["a page could not be made", "the readiness check failed"]


def test_sixty_idle_connections_keep_nobody_out(port):
    idle = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) for _ in range(60)]
    try:
        for number, connection in enumerate(idle):
            if number % 2:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost:")

        assert request(port, "/health")[0] == 200
        assert request(port, "/metrics", headers=ALICE)[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_exports_that_do_not_arrive_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(endpoint, "_MAX_CLIENTS", 4)
    exports = ExportRunner(object(), metrics=ServerMetrics(), clock=FakeClock())
    head = (
        b"POST /v1/logs HTTP/1.1\r\nHost: lake\r\nAuthorization: Bearer alice\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/x-protobuf\r\nContent-Length: 1000\r\n\r\n"
    )

    with running(exports=exports) as port, ExitStack() as opened:
        for _ in range(4):
            raw = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS))
            raw.sendall(head)
            assert b" 100 " in raw.recv(65536)
        status = request(port, "/health")[0]

    assert status == 200


def test_a_connection_that_sends_nothing_is_closed_after_five_seconds(port):
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        assert connection.recv(1) == b""


def test_at_most_sixteen_requests_are_answered_at_once():
    started = threading.Semaphore(0)
    release = threading.Event()

    validator = FakeValidator()
    validator.cached_context = lambda _token: started.release()
    validator.validate_token = lambda _token: release.wait(TIMEOUT_SECONDS) and validator.known["alice"]

    with running(validator=validator) as port:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n\r\n"
        busy = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) for _ in range(16)]
        for connection in busy:
            connection.sendall(request)
        for _ in busy:
            assert started.acquire(timeout=TIMEOUT_SECONDS)

        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as one_more:
            assert one_more.recv(1) == b""

        release.set()
        for connection in busy:
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()


def test_after_the_stop_nobody_is_answered_and_a_second_stop_is_fine():
    endpoint = HttpEndpoint("127.0.0.1", 0, validator=None, registries=[], readiness=lambda: None)
    endpoint.stop()
    port = endpoint.start()
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as idle:
        endpoint.stop()
        endpoint.stop()

        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)


def test_a_client_that_connected_before_the_stop_gets_its_response():
    endpoint = HttpEndpoint("127.0.0.1", 0, validator=None, registries=[], readiness=lambda: None)
    port = endpoint.start()
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as early:
        request(port, "/health")  # connections are accepted in order
        stopping = threading.Thread(target=endpoint.stop)
        stopping.start()
        while endpoint.listening.fileno() != -1:
            pass
        early.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = early.recv(65536)
        stopping.join()

    assert response.startswith(b"HTTP/1.1 200 ")


def test_that_the_server_is_ready_is_cached_for_a_second_and_that_it_is_not_never():
    clock, answers = FakeClock(), [NotReady.STORAGE, None, NotReady.STORAGE]

    async def check():
        probe = ReadinessProbe(lambda: answers.pop(0), clock=clock)
        found = [await probe.check(), await probe.check(), await probe.check()]
        clock.advance(1.5)
        return [*found, await probe.check()]

    assert asyncio.run(check()) == [NotReady.STORAGE, None, None, NotReady.STORAGE]


def test_storage_that_hangs_is_checked_once_and_awaited_for_two_seconds():
    release = threading.Event()
    count = 0

    def hang():
        nonlocal count
        count += 1
        release.wait(TIMEOUT_SECONDS)

    async def check_at_once():
        probe = ReadinessProbe(hang, clock=FakeClock())
        waiting = await asyncio.gather(*(probe.check() for _ in range(50)))
        release.set()
        return [*waiting, await probe.check()]

    answers = asyncio.run(check_at_once())

    assert set(answers[:50]) == {NotReady.TIMEOUT}
    assert answers[50] is None
    assert count == 1
