"""Tests of `access.key_fetch`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.jwks import KeyFetch
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import MicromegasError, ProviderMisbehaved, ProviderUnavailable, Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from pathlib import Path

DISCOVERY_URL = f"{ISSUER}/.well-known/openid-configuration"
JWKS_URL = f"{ISSUER}/keys"
OTHER_URL = "https://keys.example.net/keys"


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


def fetch_from(provider: FakeProvider, **setting: str) -> KeyFetch:
    return KeyFetch(IssuerSetting(**{"issuer": ISSUER, **setting}), http=provider)  # type: ignore[arg-type]


def key_names(fetch: KeyFetch, *, rediscover: bool = True) -> list[str | None]:
    return [key.key_id for key in fetch.fetch(rediscover=rediscover).keys]


class TestWhere:
    """Where the keys are."""

    def test_below_the_issuer_a_document_says_it(self, provider):
        assert key_names(fetch_from(provider)) == ["rsa"]
        assert provider.requested == [DISCOVERY_URL, JWKS_URL]

    def test_a_document_elsewhere_says_it(self, provider):
        url = "https://elsewhere.example.com/document"
        provider.elsewhere[url] = provider.discovery

        assert key_names(fetch_from(provider, discovery_url=url)) == ["rsa"]
        assert provider.requested == [url, JWKS_URL]

    def test_the_setting_says_it(self, provider):
        provider.elsewhere[OTHER_URL] = {"keys": [ec_key().jwk()]}

        assert key_names(fetch_from(provider, jwks_url=OTHER_URL)) == ["ec"]
        assert provider.requested == [OTHER_URL]

    def test_a_file_comes_before_all_of_that(self, provider, tmp_path):
        path = tmp_path / "keys.json"
        path.write_text('{"keys": [{"kty": "oct", "k": "AAAA"}]}')

        assert key_names(fetch_from(provider, jwks_file=str(path), jwks_url=OTHER_URL)) == []
        assert provider.requested == []

    def test_a_known_address_is_used_until_it_is_asked_for_again(self, provider):
        fetch = fetch_from(provider)
        for rediscover in (False, False, True, False):
            fetch.fetch(rediscover=rediscover)

        assert provider.requested == [DISCOVERY_URL, JWKS_URL, JWKS_URL, DISCOVERY_URL, JWKS_URL, JWKS_URL]

    def test_after_a_failure_the_address_is_asked_for_again(self, provider):
        fetch = fetch_from(provider)
        fetch.fetch(rediscover=False)
        provider.jwks = []
        with pytest.raises(ProviderMisbehaved):
            fetch.fetch(rediscover=False)
        provider.publish(ec_key())

        assert key_names(fetch, rediscover=False) == ["ec"]
        assert provider.requested[-2:] == [DISCOVERY_URL, JWKS_URL]

    @pytest.mark.parametrize("status", [201, 204, 400, 404])
    def test_only_status_200_brings_a_document(self, provider, status):
        provider.status = status

        with pytest.raises(ProviderUnavailable):
            fetch_from(provider).fetch(rediscover=True)

    def test_a_key_file_is_outdated_until_it_was_read_and_after_it_changed(self, provider, tmp_path):
        path = tmp_path / "keys.json"
        path.write_text('{"keys": [{}]}')
        fetch = fetch_from(provider, jwks_file=str(path))
        before = fetch.is_outdated()
        fetch.fetch(rediscover=True)

        assert (before, fetch.is_outdated()) == (True, False)
        path.write_text('{"keys": [{}, {}]}')
        assert fetch.is_outdated()

    def test_keys_of_a_provider_are_never_outdated(self, provider):
        assert not fetch_from(provider).is_outdated()


class TestWhose:
    """The document and the keys must be this issuer's."""

    def test_a_document_for_another_issuer_is_refused(self, provider):
        provider.discovery = {"issuer": f"{ISSUER}/", "jwks_uri": JWKS_URL}

        with pytest.raises(ProviderMisbehaved):
            fetch_from(provider).fetch(rediscover=True)

    def test_a_document_for_all_tenants_is_the_tenants(self, provider):
        url = "https://login.example.com/common/document"
        provider.elsewhere[url] = {"issuer": "https://login.example.com/{tenantid}/v2.0", "jwks_uri": JWKS_URL}
        setting = {"issuer": "https://login.example.com/t1/v2.0", "tenant": "t1", "discovery_url": url}

        assert key_names(fetch_from(provider, **setting)) == ["rsa"]

    def test_keys_for_another_issuer_are_left_out(self, provider):
        provider.jwks = {
            "keys": [
                ec_key("mine").jwk(issuer=ISSUER),
                ec_key("theirs").jwk(issuer="https://evil.example"),
                ec_key("anybodys").jwk(),
            ]
        }

        assert key_names(fetch_from(provider)) == ["mine", "anybodys"]


class TestPrivateAddresses:
    """A provider of the internet must not lead into the server's own network."""

    def test_a_public_provider_may_not_name_a_private_address(self, provider):
        provider.private_urls = {OTHER_URL}
        provider.discovery = {"issuer": ISSUER, "jwks_uri": OTHER_URL}

        with pytest.raises(ProviderUnavailable, match="private"):
            fetch_from(provider).fetch(rediscover=True)
        assert [request.refuses_private for request in provider.requests] == [False, True]

    def test_the_rule_holds_for_an_address_that_is_known_already(self, provider):
        provider.private_urls = set()
        fetch = fetch_from(provider)
        fetch.fetch(rediscover=True)
        provider.private_urls = {JWKS_URL}

        with pytest.raises(ProviderUnavailable, match="private"):
            fetch.fetch(rediscover=False)

    def test_a_private_provider_may_name_a_private_address(self, provider):
        provider.private_urls = {DISCOVERY_URL, JWKS_URL}

        assert key_names(fetch_from(provider)) == ["rsa"]

    @pytest.mark.parametrize("member", ["discovery_url", "jwks_url"])
    def test_an_address_that_the_administrator_names_may_be_private(self, provider, member):
        provider.elsewhere[OTHER_URL] = {"issuer": ISSUER, "jwks_uri": JWKS_URL, "keys": [ec_key().jwk()]}
        provider.private_urls = {OTHER_URL, JWKS_URL}

        assert key_names(fetch_from(provider, **{member: OTHER_URL}))
        assert provider.requests[0].refuses_private is False


class TestBearerToken:
    """A token from a file authorizes the fetches of one issuer."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "token"
        path.write_text("  sesame\n")
        return path

    def test_it_goes_with_every_fetch(self, provider, file):
        fetch_from(provider, bearer_token_file=str(file)).fetch(rediscover=True)

        assert [sent(request) for request in provider.requests] == ["Bearer sesame"] * 2

    def test_it_is_read_for_each_fetch(self, provider, file):
        fetch = fetch_from(provider, bearer_token_file=str(file))
        fetch.fetch(rediscover=True)
        file.write_text("renewed")
        fetch.fetch(rediscover=False)

        assert sent(provider.requests[-1]) == "Bearer renewed"

    def test_it_does_not_go_to_another_host_that_a_document_names(self, provider, file):
        provider.discovery = {"issuer": ISSUER, "jwks_uri": OTHER_URL}
        provider.elsewhere[OTHER_URL] = provider.jwks
        fetch_from(provider, bearer_token_file=str(file)).fetch(rediscover=True)

        assert [sent(request) for request in provider.requests] == ["Bearer sesame", None]

    def test_with_certificates_of_its_own_every_host_of_the_issuer_gets_it(self, provider, file):
        provider.discovery = {"issuer": ISSUER, "jwks_uri": OTHER_URL}
        provider.elsewhere[OTHER_URL] = provider.jwks
        fetch_from(provider, bearer_token_file=str(file), ca_file="ca.pem").fetch(rediscover=True)

        assert [sent(request) for request in provider.requests] == ["Bearer sesame"] * 2

    @pytest.mark.parametrize("text", ["", " \n", "two words", "two\nlines", "naïve", "x" * (16 * 1024 + 1)])
    def test_what_is_no_token_is_not_sent(self, provider, file, text):
        file.write_text(text)

        with pytest.raises(Unavailable):
            fetch_from(provider, bearer_token_file=str(file)).fetch(rediscover=True)
        assert provider.requested == []

    @pytest.mark.parametrize("name", ["missing", "a\0b"])
    def test_a_file_that_cannot_be_read_is_not_named(self, provider, tmp_path, name):
        with pytest.raises(Unavailable) as caught:
            fetch_from(provider, bearer_token_file=f"{tmp_path}/{name}").fetch(rediscover=True)

        assert str(tmp_path) not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_it_shows_nowhere(self, provider, file, caplog):
        provider.go_down()
        fetch = fetch_from(provider, bearer_token_file=str(file))

        with pytest.raises(MicromegasError) as caught:
            fetch.fetch(rediscover=True)

        assert "sesame" not in f"{caught.value} {provider.requests} {caplog.text}"


def sent(request: object) -> str | None:
    header = request.headers.get("Authorization")  # type: ignore[attr-defined]
    return None if header is None else header.reveal()


@pytest.mark.parametrize("member", ["jwks_file", "bearer_token_file"])
def test_a_file_that_everybody_may_change_is_not_used(provider, tmp_path, member):
    path = tmp_path / "file"
    path.write_text('{"keys": []}')
    path.chmod(0o666)

    with pytest.raises(ProviderUnavailable, match=r"every user|Every user"):
        fetch_from(provider, **{member: str(path)}).fetch(rediscover=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_keys_in_a_file_of_another_user_are_not_used(provider, tmp_path):
    path = tmp_path / "file"
    path.write_text('{"keys": []}')
    os.chown(path, 12345, -1)

    with pytest.raises(ProviderUnavailable, match="another user"):
        fetch_from(provider, jwks_file=str(path)).fetch(rediscover=True)
