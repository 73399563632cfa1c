"""Rotation, family revocation and the revocation endpoint of the demo provider."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.fakes.raw_client import RawClient, claims_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.demo.provider import DemoProvider
    from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.integration


@pytest.fixture
def token(client: RawClient, get_code: Callable[..., str]) -> dict[str, str]:
    return client.exchange(get_code()).json()


def test_a_refresh_gives_new_tokens_of_the_same_person(
    client: RawClient, token: dict[str, str], clock: FakeClock, provider: DemoProvider
) -> None:
    clock.advance(300)
    response = client.refresh(token["refresh_token"])

    before, after = claims_of(token["id_token"]), claims_of(response.json()["id_token"])
    assert response.json()["refresh_token"] != token["refresh_token"]
    assert after["sub"] == "demo-alice"
    assert after["aud"] == before["aud"]
    assert after["iat"] == 1795521900
    assert after["exp"] == 1795522500
    assert after["auth_time"] == before["auth_time"]
    assert "nonce" not in after
    assert provider.refresh_count == 1


def test_using_a_refresh_token_twice_ends_its_whole_family(client: RawClient, token: dict[str, str]) -> None:
    newest = client.refresh(token["refresh_token"]).json()["refresh_token"]

    reuse = client.refresh(token["refresh_token"])
    after = client.refresh(newest)

    assert (reuse.status_code, reuse.json()["error"]) == (400, "invalid_grant")
    assert (after.status_code, after.json()["error"]) == (400, "invalid_grant")


def test_of_two_refreshes_at_once_at_most_one_gets_tokens(client: RawClient, token: dict[str, str]) -> None:
    barrier = threading.Barrier(4)

    def refresh(_: int) -> int:
        barrier.wait(30)
        return client.refresh(token["refresh_token"]).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(refresh, range(4)))

    assert statuses == [200, 400, 400, 400]


def test_less_scope_may_be_asked_for_and_more_may_not(client: RawClient, get_code: Callable[..., str]) -> None:
    token = client.exchange(get_code(scope="openid offline_access")).json()

    more = client.refresh(token["refresh_token"], scope="openid email")
    less = client.refresh(token["refresh_token"], scope="openid")

    assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")
    assert less.json()["scope"] == "openid"
    assert less.json()["refresh_token"]


def test_a_refresh_cannot_widen_the_audience(client: RawClient, token: dict[str, str]) -> None:
    other = client.refresh(token["refresh_token"], resource="other-lake")
    same = client.refresh(token["refresh_token"], resource="micromegas-demo-lake")

    assert (other.status_code, other.json()["error"]) == (400, "invalid_target")
    assert same.status_code == 200


def test_a_refresh_token_ends_after_a_day(client: RawClient, token: dict[str, str], clock: FakeClock) -> None:
    clock.advance(86_401)

    assert client.refresh(token["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_revoked_refresh_token_ends_its_family(client: RawClient, token: dict[str, str]) -> None:
    fields = {"client_id": client.client_id, "token": token["refresh_token"], "token_type_hint": "access_token"}

    revoked = client.post("revocation_endpoint", fields)
    refreshed = client.refresh(token["refresh_token"])
    userinfo = client.get("/userinfo", Authorization=f"Bearer {token['access_token']}")

    assert revoked.status_code == 200
    assert refreshed.json()["error"] == "invalid_grant"
    assert userinfo.status_code == 401


def test_revoking_an_unknown_token_is_fine_and_an_access_token_is_not_revocable(
    client: RawClient, token: dict[str, str]
) -> None:
    unknown = client.post("revocation_endpoint", {"client_id": client.client_id, "token": "unknown"})
    access = client.post("revocation_endpoint", {"client_id": client.client_id, "token": token["access_token"]})

    assert unknown.status_code == 200
    assert (access.status_code, access.json()["error"]) == (400, "unsupported_token_type")


def test_another_application_cannot_revoke_the_token(
    client: RawClient, token: dict[str, str], provider: DemoProvider
) -> None:
    service = (provider.service_client_id, provider.service_secret.reveal())

    refused = client.post("revocation_endpoint", {"token": token["refresh_token"]}, basic=service)

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert client.refresh(token["refresh_token"]).status_code == 200
