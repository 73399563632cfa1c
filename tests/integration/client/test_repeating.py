"""A refused credential is renewed and the call made again once: never for a write, never once rows have come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.client import FlightSQLClient
from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable, Rejected
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, SeenCall, fail_with, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def test_a_write_is_not_repeated(fake_server: FakeFlightServer, method, call):
    fake_server.answers[method] = fail_with(Rejected())
    provider = _Renewing()

    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client, pytest.raises(Rejected):
        call(client)

    assert len(fake_server.calls) == 1
    assert provider.invalidated == []


def test_a_query_is_not_repeated_once_rows_have_come(fake_server: FakeFlightServer):
    def refuse_late(call: SeenCall) -> Iterator[bytes]:
        yield from rows(SMALL_TABLE)
        yield from fail_with(Rejected())(call)

    fake_server.answers["DoGet"] = refuse_late
    provider = _Renewing()

    with FlightSQLClient(fake_server.uri, auth_provider=provider) as client, pytest.raises(Rejected):
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
