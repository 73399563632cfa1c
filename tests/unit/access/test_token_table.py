"""Each way in which a token can be wrong, with the one class and the one reason that it gets."""

from __future__ import annotations

import pytest

from micromegas_jupyter.access import OidcValidator, Rejected
from micromegas_jupyter.config.issuers import OidcServerSettings
from tests.fakes.mint import ISSUER
from tests.unit.access import issuer_cases, kind_cases
from tests.unit.access.claim_cases import ACCEPTED, WRONG_CLAIMS
from tests.unit.access.form_cases import WRONG_FORM
from tests.unit.access.key_cases import WRONG_KEY

REFUSED = {**WRONG_FORM, **WRONG_CLAIMS, **WRONG_KEY}
ACCEPTED_BY_SETTING = {**kind_cases.ACCEPTED, **issuer_cases.ACCEPTED}
REFUSED_BY_SETTING = {**kind_cases.REFUSED, **issuer_cases.REFUSED}


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_a_token_within_the_rules_is_accepted(validator, token):
    assert validator.validate_token(token).issuer == ISSUER


@pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_token_outside_the_rules_is_rejected_for_its_reason(validator, token, reason):
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)

    assert type(caught.value) is Rejected
    assert caught.value.reason == reason


@pytest.mark.parametrize(("setting", "token"), ACCEPTED_BY_SETTING.values(), ids=ACCEPTED_BY_SETTING)
def test_a_token_within_its_issuers_rules_is_accepted_under_the_configured_name(setting, token, provider, clock):
    validator = OidcValidator(OidcServerSettings(issuers=(setting,)), http=provider, clock=clock)

    assert validator.validate_token(token).issuer == ISSUER


@pytest.mark.parametrize(("setting", "token", "reason"), REFUSED_BY_SETTING.values(), ids=REFUSED_BY_SETTING)
def test_a_token_outside_its_issuers_rules_is_rejected_for_its_reason(setting, token, reason, provider, clock):
    validator = OidcValidator(OidcServerSettings(issuers=(setting,)), http=provider, clock=clock)

    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)

    assert type(caught.value) is Rejected
    assert caught.value.reason == reason


def test_the_table_holds_each_token_once():
    tokens = [token for token, _reason in REFUSED.values()] + list(ACCEPTED.values())
    judged = [
        (id(setting), token) for setting, token, *_ in (*ACCEPTED_BY_SETTING.values(), *REFUSED_BY_SETTING.values())
    ]

    assert len(set(tokens)) == len(tokens)
    assert len(set(judged)) == len(judged)
    assert len(tokens) + len(judged) >= 350


def test_a_refusal_never_asks_an_address_that_the_token_names(validator, provider):
    for token, _reason in REFUSED.values():
        with pytest.raises(Rejected):
            validator.validate_token(token)

    assert set(provider.requested) == {f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"}
    assert len(provider.requested) == 3


@pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_tells_the_client_nothing_about_its_reason(validator, token, reason):
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)

    assert str(caught.value) == (
        "The server does not accept this credential. "
        "Sign in again, or ask the server's administrator which tokens it accepts."
    )
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
