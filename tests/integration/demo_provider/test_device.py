"""The device flow of the demo provider: two codes, a person at the pages, polling."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.raw_client import RawClient, claims_of

if TYPE_CHECKING:
    from micromegas_jupyter.demo.provider import DemoProvider
    from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.integration


@pytest.fixture
def device(client: RawClient) -> dict[str, Any]:
    fields = {"client_id": client.client_id, "scope": "openid email offline_access"}
    return client.post("device_authorization_endpoint", fields).json()


def _error(client: RawClient, device: dict[str, Any]) -> str:
    response = client.ask_for_device(device["device_code"])
    assert response.status_code == 400
    return response.json()["error"]


def test_the_device_is_told_both_codes_and_where_to_type_one(provider: DemoProvider, device: dict[str, Any]) -> None:
    assert device["verification_uri"] == f"{provider.issuer}/device"
    assert device["verification_uri_complete"].endswith(f"/device?user_code={device['user_code']}")
    assert device["interval"] == 5
    assert device["expires_in"] == 600


def test_a_person_signs_the_device_in(client: RawClient, device: dict[str, Any]) -> None:
    before = _error(client, device)
    sign_in(device["verification_uri_complete"], person="bob")
    response = client.ask_for_device(device["device_code"])

    assert before == "authorization_pending"
    assert claims_of(response.json()["id_token"])["email"] == "bob@example.com"
    assert response.json()["refresh_token"]


def test_a_device_code_gives_tokens_once(client: RawClient, device: dict[str, Any]) -> None:
    sign_in(device["verification_uri_complete"])
    first = client.ask_for_device(device["device_code"])

    assert first.status_code == 200
    assert _error(client, device) == "invalid_grant"


def test_a_device_that_asks_too_often_has_to_slow_down_for_good(
    client: RawClient, device: dict[str, Any], clock: FakeClock
) -> None:
    answers = [_error(client, device)]
    for seconds in (5, 1, 5, 15):
        clock.advance(seconds)
        answers.append(_error(client, device))

    # After the second question, one second early, the interval is 10 s; after the third it is 15 s.
    assert answers == [
        "authorization_pending",
        "authorization_pending",
        "slow_down",
        "slow_down",
        "authorization_pending",
    ]


def test_a_device_that_asks_again_and_again_leaves_no_warning(
    client: RawClient, device: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "micromegas_jupyter.demo.provider"):
        answers = {_error(client, device) for _ in range(3)}

    assert answers == {"authorization_pending", "slow_down"}
    assert caplog.records == []


def test_a_person_who_denies_is_told_to_the_device_once(client: RawClient, device: dict[str, Any]) -> None:
    sign_in(device["verification_uri_complete"], allow=False)

    assert _error(client, device) == "access_denied"
    assert _error(client, device) == "invalid_grant"


def test_a_device_waits_for_ten_minutes(client: RawClient, device: dict[str, Any], clock: FakeClock) -> None:
    clock.advance(599)
    before = _error(client, device)
    clock.advance(1)

    assert before == "authorization_pending"
    assert _error(client, device) == "expired_token"


def test_an_unknown_device_code_and_a_wrong_client_are_refused(
    client: RawClient, device: dict[str, Any], provider: DemoProvider
) -> None:
    unknown = client.ask_for_device("unknown")
    client.client_id = provider.service_client_id
    other = client.ask_for_device(device["device_code"])

    assert unknown.json()["error"] == "invalid_grant"
    assert other.json()["error"] == "invalid_client"


def test_the_service_account_cannot_start_a_device(client: RawClient, provider: DemoProvider) -> None:
    response = client.post("device_authorization_endpoint", {"client_id": provider.service_client_id})

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_an_audience_that_is_not_made_here_is_refused_at_the_start(client: RawClient) -> None:
    fields = {"client_id": client.client_id, "scope": "openid", "resource": "somewhere"}

    response = client.post("device_authorization_endpoint", fields)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_target")
