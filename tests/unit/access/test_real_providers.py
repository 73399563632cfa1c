"""Each real provider's token is accepted with fitting settings, and what is almost it is refused for its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected
from micromegas_jupyter.config.issuers import OidcServerSettings
from micromegas_jupyter.oidc.discovery import build_metadata_url
from tests.fakes.provider import FakeProvider
from tests.unit.access.hosted_provider_tokens import HOSTED
from tests.unit.access.own_provider_tokens import OWN

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock
    from tests.unit.access.real_tokens import RealToken

REAL_TOKENS = {**HOSTED, **OWN}
NEAR_MISSES = {
    f"{name}: {difference}": (real, changes, reason)
    for name, real in REAL_TOKENS.items()
    for difference, (changes, reason) in real.near_misses.items()
}


def validator_of(real: RealToken, clock: FakeClock, *admins: str) -> OidcValidator:
    issuer = real.setting.issuer
    provider = FakeProvider(issuer)
    # Issuers may end in a slash; the document's address then has one less.
    provider.elsewhere[build_metadata_url(issuer)] = provider.discovery
    return OidcValidator(OidcServerSettings(issuers=(real.setting,)), admins, http=provider, clock=clock)


@pytest.mark.parametrize("real", REAL_TOKENS.values(), ids=REAL_TOKENS)
def test_a_real_token_is_accepted_and_says_who_the_caller_is(real, clock):
    context = validator_of(real, clock).validate_token(real.text())

    assert context.issuer == real.setting.issuer
    assert {name: getattr(context, name) for name in real.expected} == real.expected
    assert context.is_admin is False


@pytest.mark.parametrize(("real", "changes", "reason"), NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_is_almost_the_real_token_is_refused_for_its_reason(real, changes, reason, clock):
    validator = validator_of(real, clock)

    with pytest.raises(Rejected) as caught:
        validator.validate_token(real.text(changes))

    assert type(caught.value) is Rejected
    assert caught.value.reason == reason


@pytest.mark.parametrize("real", REAL_TOKENS.values(), ids=REAL_TOKENS)
def test_an_address_makes_an_administrator_only_when_the_provider_verified_it(real, clock):
    validator = validator_of(real, clock, "alice@example.com")

    context = validator.validate_token(real.text())

    assert context.is_admin is real.expected.get("email_verified", False)
