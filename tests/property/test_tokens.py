"""Whatever a token holds, only the project's own errors come out, and nothing forged is accepted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.access import ApiKeyValidator, MultiValidator, OidcValidator, Rejected
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.oidc.jwt import (
    TokenProblem,
    check_audience,
    check_bearer_use,
    check_times,
    parse_key_set,
    parse_token,
    read_subject,
)
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, ec_key, encode, mint, mint_raw
from tests.fakes.provider import FakeProvider
from tests.property.settings_values import json_values
from tests.unit.access.conftest import SETTINGS

VALIDATOR = MultiValidator(
    [
        ApiKeyValidator([ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f"))]),
        OidcValidator(SETTINGS, ["root"], http=FakeProvider(), clock=FakeClock()),
    ]
)
VALID = mint(key=ec_key())

claim_names = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "email", "email_verified", "groups", "cnf"])
header_names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "zip"])


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_is_rejected(token):
    with pytest.raises(Rejected):
        VALIDATOR.validate_token(token)


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_any_three_segments_are_rejected(parts):
    with pytest.raises(Rejected):
        VALIDATOR.validate_token(".".join(encode(part) for part in parts))


@given(
    position=st.integers(min_value=0, max_value=len(VALID) - 1),
    length=st.integers(min_value=0, max_value=3),
    replacement=st.text(alphabet=st.characters(max_codepoint=0x180), max_size=3),
)
def test_any_change_to_a_valid_token_is_rejected(position, length, replacement):
    changed = VALID[:position] + replacement + VALID[position + length :]
    if changed == VALID:
        assert VALIDATOR.validate_token(changed).subject == "alice"
        return

    with pytest.raises(Rejected):
        VALIDATOR.validate_token(changed)


@given(st.dictionaries(claim_names, json_values, max_size=4))
def test_any_signed_claims_are_accepted_by_the_rules_or_rejected(changes):
    standard = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW.timestamp() + 300}
    token = mint_raw(json.dumps({**standard, **changes}).encode(), key=ec_key())

    try:
        context = VALIDATOR.validate_token(token)
    except Rejected:
        return

    assert context.issuer == ISSUER
    assert context.is_admin == (changes.get("sub") == "root")


@given(st.dictionaries(header_names, json_values, min_size=1, max_size=4))
def test_any_signed_header_is_accepted_by_the_rules_or_rejected(changes):
    token = mint(key=ec_key(), header=changes)

    try:
        context = VALIDATOR.validate_token(token)
    except Rejected:
        return

    assert context.subject == "alice"


@given(st.dictionaries(claim_names | st.text(max_size=5), json_values, max_size=6))
def test_the_rules_for_claims_raise_token_problems_only(claims):
    try:
        check_audience(claims, {AUDIENCE})
        check_times(claims, NOW.timestamp(), leeway_seconds=60)
        read_subject(claims)
        check_bearer_use(claims)
    except TokenProblem as problem:
        assert problem.reason.replace("_", "").isalpha()  # noqa: PT017 - either outcome is right


@given(st.text(max_size=100))
def test_parsing_raises_token_problems_only(text):
    with pytest.raises(TokenProblem):
        parse_token(text)


@given(st.lists(json_values | st.dictionaries(st.sampled_from(list(ec_key().jwk())), json_values), min_size=1))
def test_any_published_keys_leave_the_good_one_usable(junk):
    keys = parse_key_set({"keys": [*junk[:50], ec_key().jwk()]})

    assert "ec" in [key.key_id for key in keys.keys]
