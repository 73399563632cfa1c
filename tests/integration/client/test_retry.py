"""A call is made again once its credential was renewed, and while the server is unavailable: never a write, never once
rows have come.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable, Rejected, ServerUnavailable
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, SeenCall, fail_plainly, fail_with, rows
from tests.fakes.ports import free_port
from tests.integration.client.conftest import FixedToken
from tests.integration.flight_harness import ALICE, FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.flight_harness import FlightHarness

pytestmark = pytest.mark.integration

_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class _Renewing:
    """Has a new token each time that the last one is said to be refused."""

    def __init__(self) -> None:
        self.invalidated: list[str] = []

    def get_token(self) -> str:
        return f"t{len(self.invalidated)}"

    def invalidate(self, token: str) -> None:
        self.invalidated.append(token)


@pytest.mark.parametrize("failure", [Rejected(), ServerUnavailable("The server is stopping.")])
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("DoPut", lambda client: client.bulk_ingest("t", SMALL_TABLE)),
        ("DoGet", lambda client: client.retire_partitions("v", "i", _DAY, _DAY)),
        ("DoGet", lambda client: client.materialize_partitions("v", _DAY, _DAY, 60)),
        ("DoGet", lambda client: client.regenerate_partitions("v", _DAY, _DAY, 60)),
        ("DoGet", lambda client: client.query("SELECT * FROM deny_queries('a', 'b')")),
    ],
)
def test_a_write_is_not_repeated(fake_server: FakeFlightServer, method, call, failure):
    fake_server.answers[method] = fail_with(failure, pushback_ms=None)
    provider = _Renewing()

    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client, pytest.raises(type(failure)):
        call(client)

    assert len(fake_server.calls) == 1
    assert provider.invalidated == []


@pytest.mark.parametrize("failure", [Rejected(), ServerUnavailable("The server is stopping.")])
def test_a_query_is_not_repeated_once_rows_have_come(fake_server: FakeFlightServer, failure):
    def refuse_late(call: SeenCall) -> Iterator[bytes]:
        yield from rows(SMALL_TABLE)
        yield from fail_with(failure, pushback_ms=None)(call)

    fake_server.answers["DoGet"] = refuse_late
    provider = _Renewing()

    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client, pytest.raises(type(failure)):
        client.query("SELECT 1")

    assert len(fake_server.calls) == 1


def test_a_provider_without_invalidate_has_nothing_repeated(fake_server: FakeFlightServer):
    class Plain:
        def get_token(self) -> str:
            return "same"

    fake_server.answers["DoGet"] = fail_with(Rejected())

    with FlightSQLClient(fake_server.uri, auth_provider=Plain()) as client, pytest.raises(Rejected):
        client.query("SELECT 1")

    assert len(fake_server.calls) == 1


@pytest.mark.parametrize("failure", [LoginRequired("Ended."), ProviderUnavailable("Down."), ValueError("x"), OSError()])
def test_a_renewal_that_fails_sends_nothing_without_a_credential(fake_server: FakeFlightServer, failure):
    class Failing(_Renewing):
        def get_token(self) -> str:
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


def _after_two_refusals(answer: Callable[[SeenCall], Iterator[bytes]]) -> Callable[[SeenCall], Iterator[bytes]]:
    refusals = [
        fail_plainly("UNAVAILABLE", pushback_ms=None),
        fail_with(ServerUnavailable("The server is stopping."), pushback_ms=1),
    ]

    def answer_later(call: SeenCall) -> Iterator[bytes]:
        yield from (refusals.pop() if refusals else answer)(call)

    return answer_later


@pytest.mark.parametrize(
    "read",
    [
        lambda client: client.query("SELECT 1").n.tolist(),
        lambda client: client.query_arrow("SELECT 1").column("n").to_pylist(),
        lambda client: [value for batch in client.query_stream("SELECT 1") for value in batch.column("n").to_pylist()],
    ],
)
def test_a_query_is_repeated_while_the_server_is_unavailable(
    fake_server: FakeFlightServer, client: FlightSQLClient, read: Callable[[FlightSQLClient], list[int]]
):
    fake_server.answers["DoGet"] = _after_two_refusals(lambda _call: rows(SMALL_TABLE))

    assert read(client) == [1, 2, 3]
    assert len(fake_server.calls) == 3


@pytest.mark.parametrize(
    ("method", "read"),
    [
        ("DoAction:MicromegasWhoAmI", lambda client: client.whoami().subject),
        ("DoAction:CreatePreparedStatement", lambda client: client.prepare_statement("SELECT 1 AS n").query),
        ("GetFlightInfo", lambda client: sorted(client.list_tables())),
        ("DoAction:CreatePreparedStatement", lambda client: client.query("SELECT :n AS n", params={"n": 1}).n.tolist()),
        ("GetFlightInfo", lambda client: client.query("SELECT :n AS n", params={"n": 1}).n.tolist()),
    ],
)
def test_what_a_server_is_asked_besides_queries_is_repeated(
    engine_server: FlightHarness, fake_server: FakeFlightServer, alice: FlightSQLClient, method: str, read
):
    expected = read(alice)
    relayed = engine_server.channel.stream_stream
    fake_server.answers = {name: _relay(relayed, name) for name in ("DoGet", "DoPut", "GetFlightInfo", *_ACTIONS)}
    fake_server.answers[method] = _after_two_refusals(fake_server.answers[method])

    with FlightSQLClient(fake_server.uri, auth_provider=FixedToken("alice")) as client:
        assert read(client) == expected


_ACTIONS = tuple(
    f"DoAction:{name}" for name in ("MicromegasWhoAmI", "CreatePreparedStatement", "ClosePreparedStatement")
)


def _relay(open_call: Callable[..., Any], name: str) -> Callable[[SeenCall], Iterator[bytes]]:
    """Return an answer that another server gives."""

    def answer(call: SeenCall) -> Iterator[bytes]:
        requests = iter([message.SerializeToString() for message in call.messages])
        yield from open_call(FLIGHT + name.partition(":")[0])(requests, metadata=ALICE, timeout=60)

    return answer


def test_a_server_that_refuses_over_one_connection_is_asked_over_another(
    fake_server: FakeFlightServer, client: FlightSQLClient
):
    client.query("SELECT 1")
    draining = fake_server.calls[0].context.peer()

    def answer(call: SeenCall) -> Iterator[bytes]:
        if call.context.peer() == draining:
            yield from fail_with(ServerUnavailable("The server is stopping."), pushback_ms=None)(call)
        yield from rows(SMALL_TABLE)

    fake_server.answers["DoGet"] = answer

    assert client.query("SELECT 1").n.tolist() == [1, 2, 3]
    assert len(fake_server.calls) == 3


def test_a_query_waits_for_a_server_that_is_started_again(fake_server: FakeFlightServer, client: FlightSQLClient):
    client.query("SELECT 1")
    fake_server.close()
    answers: list[list[int]] = []
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


def test_closing_the_client_ends_its_attempts(fake_server: FakeFlightServer):
    fake_server.answers["DoAction:MicromegasWhoAmI"] = fail_with(ServerUnavailable("Later."), pushback_ms=10_000)
    client = FlightSQLClient(fake_server.uri)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.whoami()
        except ServerUnavailable as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert fake_server.call_arrived.wait(60)
    client.close()
    asking.join(60)

    assert len(errors) == 1
    assert len(fake_server.calls) == 1


def _reset(listening: socket.socket) -> None:
    """Accept a connection and end it as a server does that is killed."""
    connection, _ = listening.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
