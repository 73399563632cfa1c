"""Damaged tokens: two errors come out, nothing forged goes through, and nothing is slow or large."""

import pytest

from micromegas_jupyter.access import ApiKeyValidator, AuthContext, MultiValidator, OidcValidator, Rejected, Unavailable
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.system import Secret
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, ec_key, ed25519_key, mint, mint_raw, rsa_key
from tests.fakes.provider import FakeProvider
from tests.fuzz.conftest import sizes
from tests.fuzz.damage import damage_json, damage_token, encode_any_json
from tests.unit.access.conftest import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = tuple(
    mint(key=key, email="alice@example.com", groups=["a", "b"], realm_access={"roles": ["x"]}, jti="1")
    for key in (rsa_key(), ec_key(), ed25519_key())
)
CLAIMS = {
    "iss": ISSUER, "aud": [AUDIENCE, "other"], "sub": "alice", "exp": NOW_SECONDS + 300, "iat": NOW_SECONDS,
    "nbf": NOW_SECONDS, "email": "alice@example.com", "email_verified": True, "groups": ["a"], "azp": "client",
    "realm_access": {"roles": ["x"]}, "scp": ["read"], "nonce": "n", "typ": "Bearer", "token_use": "access",
}  # fmt: skip


@pytest.fixture
def validator():
    key = ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f"))
    oidc = OidcValidator(SETTINGS, ["root"], http=FakeProvider(), clock=FakeClock())
    return MultiValidator([ApiKeyValidator([key]), oidc])


def _decide(validator, token):
    try:
        return validator.validate_token(token)
    except Rejected:
        return None
    except Unavailable:
        # Of a damaged token, only the key can still be unknown: another token had keys fetched a moment ago.
        assert validator.decide(token).reason == "key_refetch_due"
        return None


@sizes(short=15_000, long=1_000_000)
def test_a_damaged_token_is_rejected(validator, fuzzing):
    for _ in range(fuzzing.tries):
        token = damage_token(fuzzing.random.choice(SEEDS), fuzzing.random)

        found = fuzzing.attempt(_decide, validator, token)

        assert found is None or token in SEEDS, token


@sizes(short=5_000, long=100_000)
def test_damaged_claims_under_a_good_signature_are_judged_by_the_rules(validator, fuzzing):
    accepted = 0
    for _ in range(fuzzing.tries):
        token = mint_raw(encode_any_json(damage_json(CLAIMS, fuzzing.random)), key=ed25519_key())

        found = fuzzing.attempt(_decide, validator, token)

        if isinstance(found, AuthContext):
            accepted += 1
            assert found.issuer == ISSUER
            assert found.subject.isprintable()
            assert found.is_admin == (found.subject == "root")
    assert accepted > 0


@sizes(short=3_000, long=100_000)
def test_a_damaged_header_under_a_good_signature_is_judged_by_the_rules(validator, fuzzing):
    header = {"alg": "EdDSA", "kid": "ed", "typ": "at+jwt", "jku": "https://x.example/", "x5c": ["MIIB"], "crit": ["b"]}
    payload = encode_any_json(CLAIMS)
    for _ in range(fuzzing.tries):
        changed = damage_json(header, fuzzing.random)
        token = mint_raw(payload, key=ed25519_key(), header_bytes=encode_any_json(changed))

        found = fuzzing.attempt(_decide, validator, token)

        if found is not None:
            assert changed["alg"] in {"EdDSA", "Ed25519"}
            assert "crit" not in changed
