"""The provider of another make works as a provider: everything else that is tested against it rests on this."""

import pytest

from tests.fakes.raw_client import RawClient, claims_of, query_of
from tests.integration.other_provider.installing import HERE, OtherProviderMissing, install_once
from tests.integration.other_provider.person import sign_in_other

pytestmark = pytest.mark.integration


@pytest.fixture
def client(other_provider):
    return RawClient(other_provider.issuer, other_provider.client_id)


def test_code_with_pkce_gives_tokens_for_the_person_who_signed_in(client):
    answer = query_of(sign_in_other(client.authorization_url(), person="bob", visit_callback=False))
    response = client.exchange(answer["code"])

    assert answer["state"] == client.state
    assert answer["iss"] == client.issuer
    assert response.status_code == 200
    claims = claims_of(response.json()["id_token"])
    assert claims["email"] == "bob@example.com"
    assert claims["aud"] == client.client_id
    assert claims["nonce"] == client.nonce


def test_refresh_tokens_rotate_and_a_second_use_is_counted_and_ends_the_family(client, other_provider):
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


def test_the_lock_file_names_no_registry():
    lock = (HERE / "package-lock.json").read_text()

    assert '"integrity"' in lock
    assert '"resolved"' not in lock


def test_without_a_registry_the_fixture_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")

    with pytest.raises(OtherProviderMissing, match="Check that the npm registry is reachable"):
        install_once(tmp_path)
