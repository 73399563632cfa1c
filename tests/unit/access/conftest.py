"""What the tests of `access` share: a validator of one issuer with its provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import OidcValidator
from micromegas_jupyter.access.jwks import KeyPolicy, KeySource
from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings
from tests.fakes.background import FakeBackground
from tests.fakes.mint import AUDIENCE, ISSUER
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

SETTINGS = OidcServerSettings(issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE, "second")),))


@pytest.fixture
def provider() -> FakeProvider:
    """A provider that publishes an RSA, a P-256 and an Ed25519 key."""
    return FakeProvider()


@pytest.fixture
def validator(provider: FakeProvider, clock: FakeClock) -> OidcValidator:
    """A validator of that provider's tokens; `root` administers."""
    return OidcValidator(SETTINGS, ["root"], http=provider, clock=clock)


@pytest.fixture
def background() -> FakeBackground:
    """What a key source starts in the background runs when a test says so."""
    return FakeBackground()


@pytest.fixture
def source(provider: FakeProvider, clock: FakeClock, background: FakeBackground) -> KeySource:
    """That provider's keys."""
    setting = IssuerSetting(issuer=ISSUER)
    return KeySource(setting, http=provider, clock=clock, policy=KeyPolicy(), start_background=background.start)


def key_names(source: KeySource) -> list[str | None]:
    """Return the names of the keys that a source gives now."""
    return [key.key_id for key in source.current().keys]
