"""What the tests of `access` share: a validator of one issuer with its provider."""

import pytest

from micromegas_jupyter.access import OidcValidator
from micromegas_jupyter.access.jwks import KeyCache, KeyPolicy, KeysPending
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from tests.fakes.mint import AUDIENCE, ISSUER
from tests.fakes.provider import FakeProvider
from tests.fakes.waiting import FakeBackground

SETTINGS = OidcServerSettings(issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE, "second")),))


@pytest.fixture
def provider():
    """A provider that publishes an RSA, a P-256 and an Ed25519 key."""
    return FakeProvider()


@pytest.fixture
def validator(provider, clock):
    """A validator of that provider's tokens; `root` administers."""
    return OidcValidator(SETTINGS, ["root"], http=provider, clock=clock)


@pytest.fixture
def background():
    """What a key source starts in the background runs when a test says so."""
    return FakeBackground()


class WaitingKeys:
    """A key cache whose fetches run on the test's thread: those that are waited for at once, others when it says so."""

    def __init__(self, setting, background, **parts):
        self.cache = KeyCache(setting, start=background.start, **parts)
        self._background = background

    def get(self):
        return self._wait_for(self.cache.get)

    def get_newer(self, seen):
        return self._wait_for(lambda: self.cache.get_newer(seen))

    def _wait_for(self, ask):
        for _ in range(3):
            try:
                return ask()
            except KeysPending as pending:
                self._background.run()
                pending.fetch.result(60)
        return ask()


@pytest.fixture
def source(provider, clock, background):
    """That provider's keys."""
    return WaitingKeys(IssuerSetting(issuer=ISSUER), background, http=provider, clock=clock, policy=KeyPolicy())


def key_names(source):
    """Return the names of the keys that a source gives now."""
    return [key.key_id for key in source.get().keys]
