"""A provider of another make that a test may rotate and stop, and what its tests share."""

from pathlib import Path

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected, Unavailable
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from tests.fakes.raw_client import RawClient
from tests.integration.other_provider.installing import OtherProviderMissing, install_once
from tests.integration.other_provider.running import OtherProvider


@pytest.fixture(scope="module")
def own_provider(pytestconfig, tmp_path_factory):
    """One for the tests of a module, each of which leaves it running; its tokens live for three hours."""
    cache = getattr(pytestconfig, "cache", None)
    folder = Path(cache.mkdir("other_provider")) if cache else tmp_path_factory.mktemp("other_provider")
    try:
        provider = OtherProvider(install_once(folder), token_lifetime_seconds=3 * 3600)
        provider.start()
    except OtherProviderMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    yield provider
    provider.stop()


def new_token(provider):
    """Get an access token of the service account, by hand."""
    client = RawClient(provider.issuer, provider.client_id)
    fields = {"grant_type": "client_credentials", "resource": provider.resource}
    account = (provider.service_client_id, provider.service_secret.reveal())
    response = client.post("token_endpoint", fields, basic=account)
    assert response.status_code == 200, response.text
    return str(response.json()["access_token"])


class CountedHttp:
    """Passes fetches on over the network and notes when each began."""

    def __init__(self, http, clock):
        self._http = http
        self._clock = clock
        self.began = []

    def fetch_json(self, url, *, headers=None, refuses_private=False):
        self.began.append((self._clock.monotonic(), url))
        return self._http.fetch_json(url, headers=headers, refuses_private=refuses_private)


def validator_of(provider, http, clock, *, cool_down_seconds=30, cache_size=1000):
    settings = OidcServerSettings(
        issuers=(IssuerSetting(issuer=provider.issuer, audiences=(provider.resource,)),),
        jwks_cool_down_seconds=cool_down_seconds,
        token_cache_size=cache_size,
    )
    return OidcValidator(settings, http=http, clock=clock)


def outcome_of(validator, token):
    try:
        validator.validate_token(token)
    except Rejected as refused:
        return refused.reason
    except Unavailable:
        return "undecided"
    return "accepted"
