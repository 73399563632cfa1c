"""A call is made again with a new credential, or while the server is unavailable: never a write, never after rows."""

import socket
import struct
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable, QueryCancelled, Rejected, ServerUnavailable
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, fail_plainly, fail_with, results, rows
from tests.fakes.ports import free_port
from tests.integration.client.conftest import FixedToken, RenewingToken

pytestmark = pytest.mark.integration

_DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("call", "failure"),
    [
        (lambda client: client.bulk_ingest("t", SMALL_TABLE), Rejected()),
        (lambda client: client.bulk_ingest("t", SMALL_TABLE), ServerUnavailable("The server is stopping.")),
        (lambda client: client.retire_partitions("v", "i", _DAY, _DAY), ServerUnavailable("The server is stopping.")),
        (lambda client: client.query("SELECT * FROM deny_queries('a', 'b')"), Rejected()),
    ],
)
def test_a_write_is_not_repeated(fake_server, call, failure):
    fake_server.answers = dict.fromkeys(["DoPut", "DoGet"], fail_with(failure, pushback_ms=None))
    provider = RenewingToken()

    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client, pytest.raises(type(failure)):
        call(client)

    assert len(fake_server.calls) == 1
    assert provider.invalidated == []


@pytest.mark.parametrize("failure", [Rejected(), ServerUnavailable("The server is stopping.")])
def test_a_query_is_not_repeated_once_rows_have_come(fake_server, failure):
    def refuse_late(call):
        yield from rows(SMALL_TABLE)
        yield from fail_with(failure, pushback_ms=None)(call)

    fake_server.answers["DoGet"] = refuse_late
    provider = RenewingToken()

    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client, pytest.raises(type(failure)):
        client.query("SELECT 1")

    assert len(fake_server.calls) == 1


def test_a_provider_without_invalidate_has_nothing_repeated(fake_server):
    fake_server.answers["DoGet"] = fail_with(Rejected())

    with FlightSQLClient(fake_server.uri, auth_provider=FixedToken("same")) as client, pytest.raises(Rejected):
        client.query("SELECT 1")

    assert len(fake_server.calls) == 1


@pytest.mark.parametrize("failure", [ValueError("x"), OSError()])
def test_a_renewal_that_fails_sends_nothing_without_a_credential(fake_server, failure):
    class Failing(RenewingToken):
        def get_token(self):
            if self.invalidated:
                raise failure
            return "old"

    fake_server.answers["DoGet"] = fail_with(Rejected())

    with (
        FlightSQLClient(fake_server.uri, auth_provider=Failing()) as client,
        pytest.raises((LoginRequired, ProviderUnavailable)),
    ):
        client.query("SELECT 1")

    assert [call.metadata.get("authorization") for call in fake_server.calls] == ["Bearer old"]


def _after_two_refusals(answer):
    refusals = [
        fail_plainly("UNAVAILABLE", pushback_ms=None),
        fail_with(ServerUnavailable("The server is stopping."), pushback_ms=1),
    ]

    def answer_later(call):
        yield from (refusals.pop() if refusals else answer)(call)

    return answer_later


def _batches(client):
    return [value for batch in client.query_stream("SELECT 1") for value in batch.column("n").to_pylist()]


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda client: client.query("SELECT 1").n.tolist(), [1, 2, 3]), (_batches, [1, 2, 3]),
        (lambda client: client.whoami().subject, "alice"),
    ],
)  # fmt: skip
def test_a_query_is_repeated_while_the_server_is_unavailable(fake_server, client, read, expected):
    who = b'{"subject": "alice", "issuer": "https://id.example", "auth_type": "oidc", "is_admin": true}'
    fake_server.answers = {
        "DoGet": _after_two_refusals(lambda _call: rows(SMALL_TABLE)),
        "DoAction:MicromegasWhoAmI": _after_two_refusals(results(who)),
    }

    assert read(client) == expected
    assert len(fake_server.calls) == 3


def test_a_server_that_refuses_over_one_connection_is_asked_over_another(fake_server, client):
    client.query("SELECT 1")
    draining = fake_server.calls[0].context.peer()

    def answer(call):
        if call.context.peer() == draining:
            yield from fail_with(ServerUnavailable("The server is stopping."), pushback_ms=None)(call)
        yield from rows(SMALL_TABLE)

    fake_server.answers["DoGet"] = answer

    assert client.query("SELECT 1").n.tolist() == [1, 2, 3]
    assert len(fake_server.calls) == 3


def test_cancelling_ends_the_pause_before_the_next_attempt(fake_server, client):
    opened = threading.Event()

    def answer(call):
        yield from rows(SMALL_TABLE.schema.empty_table())
        opened.wait(30)
        yield from fail_with(ServerUnavailable("The server is stopping."), pushback_ms=15_000)(call)

    fake_server.answers["DoGet"] = answer
    reader = client.open_query("SELECT 1")
    started = time.monotonic()
    opened.set()
    threading.Timer(0.5, reader.cancel).start()

    with pytest.raises(QueryCancelled):
        next(reader)

    assert time.monotonic() - started < 10


def test_a_query_waits_for_a_server_that_is_started_again(fake_server, client):
    client.query("SELECT 1")
    fake_server.close()
    answers = []
    query = threading.Thread(target=lambda: answers.append(client.query("SELECT 1").n.tolist()))
    with socket.create_server(("127.0.0.1", fake_server.port)) as listening:
        query.start()
        _reset(listening)
    with closing(FakeFlightServer(fake_server.port)):
        query.join(60)

    assert answers == [[1, 2, 3]]


def test_a_server_that_never_answered_is_given_up_before_its_time():
    with (
        FlightSQLClient(f"grpc://127.0.0.1:{free_port()}") as client,
        pytest.raises(ServerUnavailable, match=r"Tried \d times in [12] s\."),
    ):
        client.whoami()


def _reset(listening):
    """Accept a connection and end it as a server does that is killed."""
    connection, _ = listening.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
