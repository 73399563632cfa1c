"""What the tests of `access` share: a validator of one issuer with its provider, and why it refuses."""

import os

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from tests.fakes.mint import AUDIENCE, ISSUER
from tests.fakes.provider import FakeProvider

SETTINGS = OidcServerSettings(issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE, "second")),))


def reason_of(validator, token):
    """Return why the validator rejects the token."""
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    assert type(caught.value) is Rejected
    return caught.value.reason


def give_away(path, monkeypatch):
    """Make a file another user's."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)


@pytest.fixture
def provider():
    """A provider that publishes an RSA, a P-256 and an Ed25519 key."""
    return FakeProvider()


@pytest.fixture
def validator(provider, clock):
    """A validator of that provider's tokens; `root` administers."""
    return OidcValidator(SETTINGS, ["root"], http=provider, clock=clock)
