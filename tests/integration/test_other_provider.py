"""The provider of another make works as a provider: everything else that is tested against it rests on this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.raw_client import RawClient, claims_of, header_of, query_of
from tests.integration.other_provider.installing import HERE, OtherProviderMissing, install_once
from tests.integration.other_provider.person import sign_in_other

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.other_provider.running import OtherProvider

pytestmark = pytest.mark.integration


@pytest.fixture
def client(other_provider: OtherProvider) -> RawClient:
    return RawClient(other_provider.issuer, other_provider.client_id)


def test_code_with_pkce_gives_tokens_for_the_person_who_signed_in(client: RawClient) -> None:
    answer = query_of(sign_in_other(client.authorization_url(), person="bob", visit_callback=False))
    response = client.exchange(answer["code"])

    assert answer["state"] == client.state
    assert answer["iss"] == client.issuer
    assert response.status_code == 200
    claims = claims_of(response.json()["id_token"])
    assert claims["email"] == "bob@example.com"
    assert claims["aud"] == client.client_id
    assert claims["nonce"] == client.nonce


def test_a_wrong_verifier_gives_no_tokens(client: RawClient) -> None:
    answer = query_of(sign_in_other(client.authorization_url(), visit_callback=False))

    response = client.exchange(answer["code"], code_verifier="w" * 43)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")


def test_a_person_who_cancels_is_told_to_the_application(client: RawClient) -> None:
    answer = query_of(sign_in_other(client.authorization_url(), allow=False, visit_callback=False))

    assert answer["error"] == "access_denied"
    assert answer["state"] == client.state


def test_refresh_tokens_rotate_and_a_second_use_is_counted_and_ends_the_family(
    client: RawClient, other_provider: OtherProvider
) -> None:
    before = other_provider.counts()
    answer = query_of(sign_in_other(client.authorization_url(), visit_callback=False))
    first = client.exchange(answer["code"]).json()["refresh_token"]

    second = client.refresh(first).json()["refresh_token"]
    reuse = client.refresh(first)
    after = client.refresh(second)
    counted = other_provider.counts()

    assert second != first
    assert counted == {**before, "renewals": before["renewals"] + 1, "reuses": before["reuses"] + 1}
    assert reuse.json()["error"] == "invalid_grant"
    assert after.json()["error"] == "invalid_grant"


def test_client_credentials_give_a_jwt_access_token_by_basic_and_by_post(
    client: RawClient, other_provider: OtherProvider
) -> None:
    secret = other_provider.service_secret.reveal()
    fields = {"grant_type": "client_credentials", "resource": other_provider.resource}

    by_basic = client.post("token_endpoint", fields, basic=(other_provider.service_client_id, secret))
    post_id = other_provider.service_post_client_id
    by_post = client.post("token_endpoint", fields | {"client_id": post_id, "client_secret": secret})

    for response, client_id in ((by_basic, other_provider.service_client_id), (by_post, post_id)):
        token = response.json()["access_token"]
        assert header_of(token)["typ"] == "at+jwt"
        assert header_of(token)["alg"] == "RS256"
        assert claims_of(token)["aud"] == other_provider.resource
        assert claims_of(token)["client_id"] == client_id


def test_a_wrong_secret_is_refused(client: RawClient, other_provider: OtherProvider) -> None:
    fields = {"grant_type": "client_credentials"}

    response = client.post("token_endpoint", fields, basic=(other_provider.service_client_id, "wrong"))

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_an_assertion_of_a_service_account_s_key_is_accepted_once(
    client: RawClient, other_provider: OtherProvider
) -> None:
    client_id = other_provider.service_key_client_id
    now = int(SYSTEM_CLOCK.now().timestamp())
    claims = {"iss": client_id, "sub": client_id, "aud": client.issuer, "jti": "one", "iat": now, "exp": now + 60}
    key = ECKey.import_key(other_provider.service_key.reveal())
    fields = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode({"alg": "ES256", "kid": other_provider.service_key_id}, claims, key),
    }

    first = client.post("token_endpoint", fields)
    second = client.post("token_endpoint", fields)

    assert first.status_code == 200
    assert claims_of(first.json()["access_token"])["client_id"] == client_id
    assert (second.status_code, second.json()["error"]) == (401, "invalid_client")


def test_a_device_signs_in_where_the_person_types_the_code(client: RawClient) -> None:
    device = client.post(
        "device_authorization_endpoint", {"client_id": client.client_id, "scope": "openid email"}
    ).json()

    sign_in_other(device["verification_uri"], person="bob", user_code=device["user_code"])

    answer = client.ask_for_device(device["device_code"])
    assert claims_of(answer.json()["id_token"])["email"] == "bob@example.com"


def test_a_device_signs_in_on_the_provider_s_pages(client: RawClient) -> None:
    fields = {"client_id": client.client_id, "scope": "openid email"}
    device = client.post("device_authorization_endpoint", fields).json()

    before = client.ask_for_device(device["device_code"])
    sign_in_other(device["verification_uri_complete"])
    after = client.ask_for_device(device["device_code"])

    assert before.json()["error"] == "authorization_pending"
    assert claims_of(after.json()["id_token"])["email"] == "alice@example.com"


def test_a_revoked_refresh_token_is_worth_nothing(client: RawClient) -> None:
    answer = query_of(sign_in_other(client.authorization_url(), visit_callback=False))
    token = client.exchange(answer["code"]).json()["refresh_token"]

    revoked = client.post("revocation_endpoint", {"client_id": client.client_id, "token": token})
    after = client.refresh(token)

    assert revoked.status_code == 200
    assert after.json()["error"] == "invalid_grant"


def test_the_lock_file_names_no_registry() -> None:
    lock = (HERE / "package-lock.json").read_text()

    assert '"integrity"' in lock
    assert '"resolved"' not in lock


def test_without_a_registry_the_fixture_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")

    with pytest.raises(OtherProviderMissing, match="Check that the npm registry is reachable"):
        install_once(tmp_path)
