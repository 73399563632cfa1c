"""Weak points that were verified in another server of this kind; here each is shown not to exist.

The numbers are those of the list they come from; the ones that concern calls (S12 to S14) are tested with the server.
"""

from __future__ import annotations

import hashlib
import json
import logging

import pytest

from micromegas_jupyter.access import ApiKeyValidator, OidcValidator, Rejected, Unavailable, validator_from_environment
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.protocols import TokenKind
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.mint import AUDIENCE, ISSUER, NOW_SECONDS, SigningKey, ec_key, ed448_key, ed25519_key, mint, rsa_key
from tests.fakes.provider import FakeProvider
from tests.fakes.raw_server import SilentServer
from tests.unit.access.conftest import SETTINGS

OIDC_CONFIG = json.dumps({"issuers": [{"issuer": ISSUER, "audience": AUDIENCE}]})
API_KEYS = json.dumps([{"name": "grafana", "key": "mmk_8c1f0a6de2b94b7f1c3d"}])
KEYS = {
    **{name: rsa_key(name, name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "ES256": ec_key(),
    "ES384": ec_key("ec384", "P-384"),
    "ES512": ec_key("ec512", "P-521"),
    "EdDSA over Ed25519": ed25519_key(),
    "EdDSA over Ed448": ed448_key(),
}


def _refused(validator, token) -> str:
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    return caught.value.reason


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_s1_every_asymmetric_algorithm_can_be_used(key: SigningKey, clock):
    validator = OidcValidator(SETTINGS, http=FakeProvider(keys=(key,)), clock=clock)

    assert validator.validate_token(mint(key=key)).subject == "alice"


@pytest.mark.parametrize(
    "claims",
    [
        {"preferred_username": "root@example.com"},
        {"upn": "root@example.com"},
        {"unique_name": "root@example.com"},
        {"name": "root@example.com"},
        {"verified_primary_email": ["root@example.com"]},
        {"email": "root@example.com"},
        {"email": "root@example.com", "email_verified": "true"},
        {"email": "root@example.com", "email_verified": 1},
        {"email": "root@example.com", "email_verified": False},
    ],
    ids=str,
)
def test_s2_a_claim_that_nobody_verified_makes_no_administrator(claims, provider, clock):
    validator = OidcValidator(SETTINGS, ["root@example.com"], http=provider, clock=clock)

    assert not validator.validate_token(mint(**claims)).is_admin


def test_s2_a_verified_address_does(provider, clock):
    validator = OidcValidator(SETTINGS, ["root@example.com"], http=provider, clock=clock)

    assert validator.validate_token(mint(email="root@example.com", email_verified=True)).is_admin


@pytest.mark.parametrize("text", ["root", '"root"', '["root"', "{}", "[1]", '["root",]', "[null]", '[""]'])
def test_s3_a_malformed_list_of_administrators_stops_the_start(text):
    environ = {"MICROMEGAS_OIDC_CONFIG": OIDC_CONFIG, "MICROMEGAS_API_KEYS": API_KEYS, "MICROMEGAS_ADMINS": text}

    with pytest.raises(ConfigurationError) as caught:
        validator_from_environment(environ)

    assert caught.value.key.startswith("MICROMEGAS_ADMINS")


@pytest.mark.parametrize(
    "text", ["issuers", "[]", "{}", '{"issuers": []}', '{"issuers": [{"issuer": "x"}]}', "{'a':1}"]
)
def test_s4_a_malformed_issuer_configuration_stops_the_start_although_there_are_api_keys(text):
    environ = {"MICROMEGAS_OIDC_CONFIG": text, "MICROMEGAS_API_KEYS": API_KEYS}

    with pytest.raises(ConfigurationError) as caught:
        validator_from_environment(environ)

    assert caught.value.key.startswith("MICROMEGAS_OIDC_CONFIG")


def test_s5_a_token_of_a_rotated_key_is_accepted_at_once(validator, provider):
    validator.validate_token(mint())
    fresh = rsa_key("fresh")
    provider.publish(fresh)

    assert validator.validate_token(mint(key=fresh)).subject == "alice"


def test_s6_valid_tokens_go_on_when_the_provider_is_down_after_the_keys_should_be_fetched_anew(
    validator, provider, clock
):
    validator.validate_token(mint())
    provider.go_down()
    clock.advance(SETTINGS.jwks_refresh_interval_seconds + 1)

    assert validator.validate_token(mint(exp=NOW_SECONDS + 9000)).subject == "alice"


def test_s6_without_keys_the_answer_is_unavailable_and_not_every_request_asks(provider, clock):
    validator = OidcValidator(SETTINGS, http=provider, clock=clock)
    provider.go_down()

    for _ in range(50):
        with pytest.raises(Unavailable):
            validator.validate_token(mint())

    assert len(provider.requested) <= 4


def test_s7_a_provider_that_never_answers_is_given_up_in_time(clock):
    with SilentServer() as silent:
        issuer = f"http://127.0.0.1:{silent.port}"
        settings = OidcServerSettings(issuers=(IssuerSetting(issuer=issuer, audiences=(AUDIENCE,)),))
        http = ProviderHttp(timeout_seconds=0.3)
        started = SYSTEM_CLOCK.monotonic()

        with pytest.raises(Unavailable):
            OidcValidator(settings, http=http, clock=clock).validate_token(mint(issuer=issuer))

        assert SYSTEM_CLOCK.monotonic() - started < 9
        http.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nbf": NOW_SECONDS + 3600}, "not_yet_valid"),
        ({"iat": NOW_SECONDS + 3600}, "issued_in_the_future"),
        ({"header": {"typ": "logout+jwt"}}, "type_not_accepted"),
        ({"header": {"typ": "dpop+jwt"}}, "type_not_accepted"),
        ({"typ": "Refresh"}, "not_a_bearer_token"),
        ({"cnf": {"jkt": "x"}}, "sender_constrained"),
    ],
    ids=str,
)
def test_s8_times_and_use_are_checked(validator, changes, reason):
    assert _refused(validator, mint(**changes)) == reason


def test_s8_an_application_that_is_not_listed_is_refused(provider, clock):
    issuer = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), client_ids=("notebooks",))
    validator = OidcValidator(OidcServerSettings(issuers=(issuer,)), http=provider, clock=clock)

    assert validator.validate_token(mint(azp="notebooks")).client_id == "notebooks"
    assert _refused(validator, mint(azp="other")) == "client_not_allowed"


def test_s8_an_id_token_is_no_access_token(provider, clock):
    issuer = IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,), token_kind=TokenKind.ACCESS)
    validator = OidcValidator(OidcServerSettings(issuers=(issuer,)), http=provider, clock=clock)

    assert validator.validate_token(mint(scope="read")).subject == "alice"
    assert _refused(validator, mint(nonce="n", at_hash="x")) == "id_token_as_access_token"


def test_s9_a_known_token_ends_with_its_own_expiry(validator, clock):
    token = mint(expires_in=30)
    validator.validate_token(token)
    clock.advance(30 + 60)

    assert validator.cached_context(token) is None
    assert _refused(validator, token) == "expired"


def test_s9_no_token_is_kept_as_text(validator):
    token = mint()
    validator.validate_token(token)

    kept = _everything_below(validator)

    assert token not in kept
    assert token.rpartition(".")[2] not in kept


@pytest.mark.parametrize("key", ["", " ", "\t"])
def test_s10_an_empty_api_key_stops_the_start(key):
    with pytest.raises(ConfigurationError):
        validator_from_environment({"MICROMEGAS_API_KEYS": json.dumps([{"name": "grafana", "key": key}])})


def test_s10_api_keys_are_compared_by_digests_of_one_length(monkeypatch):
    compared = []
    monkeypatch.setattr(
        "hmac.compare_digest", lambda left, right: compared.append((len(left), len(right))) or left == right
    )
    validator = ApiKeyValidator([ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f1c3d"))])

    for text in ("m", "mmk_8c1f0a6de2b94b7f1c3", "mmk_8c1f0a6de2b94b7f1c3d", "x" * 5000):
        validator.cached_context(text)

    assert all(lengths in {(32, 32), (0, 32)} for lengths in compared)


def test_s10_an_api_key_is_kept_as_its_digest_only(caplog):
    caplog.set_level(logging.DEBUG)
    text = "mmk_8c1f0a6de2b94b7f1c3d"
    validator = ApiKeyValidator([ApiKeySetting(name="grafana", key=Secret(text))])
    validator.validate_token(text)

    kept = _everything_below(validator)

    assert text not in kept
    assert hashlib.sha256(text.encode()).digest() in kept
    assert text not in caplog.text


def _everything_below(root: object) -> set[object]:
    """Return every text and every run of bytes that can be reached from an object's attributes."""
    found: set[object] = set()
    seen: set[int] = set()
    waiting: list[object] = [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, str | bytes):
            found.add(item)
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += list(item)
        elif type(item).__module__.startswith("micromegas_jupyter"):
            names = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ())]
            waiting += [getattr(item, name) for name in names if hasattr(item, name)]
            waiting += list(getattr(item, "__dict__", {}).values())
    return found
