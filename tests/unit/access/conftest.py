"""What the tests of `access` share: a validator of one issuer with its provider."""

import pytest

from micromegas_jupyter.access import OidcValidator
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from tests.fakes.mint import AUDIENCE, ISSUER
from tests.fakes.provider import FakeProvider

SETTINGS = OidcServerSettings(issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE, "second")),))


@pytest.fixture
def provider():
    """A provider that publishes an RSA, a P-256 and an Ed25519 key."""
    return FakeProvider()


@pytest.fixture
def validator(provider, clock):
    """A validator of that provider's tokens; `root` administers."""
    return OidcValidator(SETTINGS, ["root"], http=provider, clock=clock)
