"""What fails, and what a person learns of it."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from micromegas_jupyter import errors
from micromegas_jupyter.client import transport
from micromegas_jupyter.client.flight_client import FlightSQLClient
from tests.fakes.flight_server import SMALL_TABLE, fail_plainly, fail_with, rows
from tests.fakes.ports import free_port

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("code", sorted(errors.error_classes()))
def test_every_error_of_our_server_arrives_as_the_same_class(client, fake_server, code):
    kind = errors.error_classes()[code]
    extra = {"key": "x"} if code == "CONF001" else {}
    fake_server.answers["DoGet"] = fail_with(kind("What é happened.", remedy="What to do.", **extra))

    with pytest.raises(errors.MicromegasError) as caught:
        client.query("SELECT 1")

    assert type(caught.value) is kind
    assert (caught.value.what, caught.value.remedy) == ("What é happened.", "What to do.")


KINDS = {
    errors.QueryCancelled: ["CANCELLED"], errors.InternalError: ["UNKNOWN", "ABORTED", "INTERNAL", "DATA_LOSS"],
    errors.InvalidStatement: [
        "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE"],
    errors.DeadlineExceeded: ["DEADLINE_EXCEEDED"], errors.PermissionDenied: ["PERMISSION_DENIED"],
    errors.ResourcesExhausted: ["RESOURCE_EXHAUSTED"], errors.UnsupportedStatement: ["UNIMPLEMENTED"],
    errors.Unavailable: ["UNAVAILABLE"], errors.Rejected: ["UNAUTHENTICATED"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "kind", "after"),
    [
        *((code, kind, 0) for kind, codes in KINDS.items() for code in codes),
        ("INTERNAL", errors.InternalError, 1), ("UNAVAILABLE", errors.Unavailable, 2),
        ("UNAUTHENTICATED", errors.Rejected, 2),
    ],
)  # fmt: skip
def test_every_status_of_another_server_has_its_class(client, fake_server, code, kind, after):
    def answer(call):
        yield from list(rows(SMALL_TABLE))[:after]
        yield from fail_plainly(code, "No such thing (query_id=u-1)")(call)

    fake_server.answers["DoGet"] = answer

    with pytest.raises(errors.MicromegasError) as caught:
        client.query("SELECT 1")

    assert (type(caught.value), caught.value.query_id) == (kind, "u-1")
    assert "gRPC" not in str(caught.value)
    assert "ipv4" not in str(caught.value)


def test_a_port_where_nothing_listens_is_said_to_be_so_at_once():
    started = time.monotonic()

    with pytest.raises(errors.ServerUnavailable, match="does not respond"):
        FlightSQLClient(f"grpc://127.0.0.1:{free_port()}").query("SELECT 1")

    assert time.monotonic() - started < 9


@pytest.mark.slow
def test_a_port_that_says_nothing_is_given_up(pytestconfig, monkeypatch):
    if not pytestconfig.getoption("--long"):  # two attempts of ten seconds each
        options = {**dict(transport._OPTIONS), "grpc.min_reconnect_backoff_ms": 1_000}
        monkeypatch.setattr(transport, "_OPTIONS", [*options.items()])

    def ask(scheme):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = time.monotonic()

            with pytest.raises(errors.ServerUnavailable):
                FlightSQLClient(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}").query("SELECT 1")

        assert time.monotonic() - started < 60

    # They wait at the same time.
    with ThreadPoolExecutor() as threads:
        list(threads.map(ask, ("grpc", "grpc+tls")))


def test_a_deadline_ends_a_query_that_says_nothing(client, fake_server):
    fake_server.answers["DoGet"] = fake_server.stall_after(*rows(SMALL_TABLE))

    def first_batch():
        for seconds in (0.3, 10.5):  # a longer one where the short one came before the batch
            with suppress(errors.DeadlineExceeded):
                reader = client.open_query("SELECT 1", timeout_seconds=seconds)
                return next(reader), reader, seconds
        raise AssertionError("no batch came within any deadline")

    first, reader, seconds = first_batch()
    with reader, pytest.raises(errors.DeadlineExceeded, match=rf"within {seconds} s"):
        next(reader)

    assert first.num_rows == 3
    assert all(call.ended.wait(60) for call in fake_server.calls)


def test_a_clients_deadline_holds_for_every_call(fake_server):
    fake_server.answers = dict.fromkeys(
        ["DoGet", "DoPut", "DoAction:MicromegasWhoAmI", "DoAction:CreatePreparedStatement"], fake_server.stall_after()
    )
    client = FlightSQLClient(fake_server.uri, timeout_seconds=0.2)

    for call in (
        lambda: client.query("SELECT 1"),
        client.whoami,
        lambda: client.bulk_ingest("t", SMALL_TABLE),
        lambda: client.query("SELECT :a", params={"a": 1}),
    ):
        with pytest.raises(errors.DeadlineExceeded):
            call()


def test_a_ca_bundle_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_bytes(b"no certificate")

    for bundle in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(errors.UsageError, match="ca_bundle"):
            FlightSQLClient("grpc+tls://localhost:1", ca_bundle=bundle)


_NOISY = """
import os, subprocess, sys
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import MicromegasError
client = FlightSQLClient(sys.argv[1], timeout_seconds=5)
client.query("SELECT 1")
print("ready", flush=True)
sys.stdin.readline()
for call in (lambda: client.query("SELECT 1"), client.whoami, lambda: client.query("SELECT 1")):
    try:
        call()
    except MicromegasError as error:
        print(error.code)
child = subprocess.run([sys.executable, "-c", "import os; print(list(os.environ))"], capture_output=True, check=True)
print("GRPC_VERBOSITY" in os.environ, b"GRPC_VERBOSITY" in child.stdout)
"""


def test_nothing_is_written_to_standard_error_and_the_environment_stays_as_it_was(fake_server):
    command = [sys.executable, "-c", _NOISY, fake_server.uri]
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        fake_server.close()

        output, noise = child.communicate("go\n", timeout=60)

    assert output.split() == ["AVAIL003"] * 3 + ["False", "False"]
    assert noise == ""


@pytest.mark.parametrize("variable", ["grpc_proxy", "http_proxy", "https_proxy"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(fake_server, monkeypatch, variable):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("no_grpc_proxy", raising=False)

        with FlightSQLClient(fake_server.uri) as client:
            assert client.query("SELECT 1")["n"].tolist() == [1, 2, 3]

        with pytest.raises(BlockingIOError):  # nobody came
            proxy.accept()


_REFUSED_BY_A_PROXY = """
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import ServerUnavailable
try:
    FlightSQLClient("grpc+tls://lake.example.com:50051").query("SELECT 1")
except ServerUnavailable as error:
    print(error.what, error.retryable)
"""


def test_a_proxy_that_refuses_is_named_and_grpc_writes_nothing_of_its_own():
    def refuse(proxy):
        with suppress(OSError):
            while True:
                connection, _ = proxy.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as proxy, ThreadPoolExecutor(1) as pool:
        pool.submit(refuse, proxy)
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environ["grpc_proxy"] = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        command = [sys.executable, "-c", _REFUSED_BY_A_PROXY]
        child = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
        proxy.shutdown(socket.SHUT_RDWR)

    assert child.stdout == "A proxy refused the connection to lake.example.com:50051. False\n"
    assert child.stderr == ""
