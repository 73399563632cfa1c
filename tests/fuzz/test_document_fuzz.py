"""Damaged documents of a provider and damaged settings: a value or the documented error, soon and in little memory."""

import json

import pytest

from micromegas_jupyter.config.access import parse_access_settings
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved
from micromegas_jupyter.oidc.authorization import parse_metadata
from micromegas_jupyter.oidc.jwt import parse_key_set
from tests.fakes.mint import ISSUER, ec_key, ed448_key, ed25519_key, rsa_key
from tests.fuzz.conftest import sizes
from tests.fuzz.damage import damage_json, damage_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KEYS = [rsa_key().jwk(), ec_key().jwk(), ed25519_key().jwk(), ed448_key().jwk(), rsa_key("p", "PS256").jwk(x5c=["MII"])]
METADATA = {
    "issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", "authorization_endpoint": f"{ISSUER}/a",
    "token_endpoint": f"{ISSUER}/t", "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
}  # fmt: skip
CONFIGURATION = {
    "oidc": {
        "issuers": [
            {"issuer": "https://id.example.com", "audience": ["lake"], "algorithms": ["RS256"], "client_ids": ["a"],
             "groups_claim": ["realm_access", "roles"], "required_claims": {"hd": "example.com"}, "leeway_secs": 5,
             "group_roles": {"data": ["analyst"]}, "trusted_for_email": True, "token_kind": "access"},
            {"preset": "entra", "tenants": ["0b1c2d3e-0000-4000-8000-000000000001"], "audience": "api"},
            {"preset": "google", "audience": "c.apps.googleusercontent.com", "client_ids": ["c"]},
        ],
        "token_cache_size": 10, "jwks_cool_down_secs": 30,
    },
    "api_keys": [{"name": "grafana", "sha256": "ab" * 32, "expires_at": "2027-01-01T00:00:00Z", "scopes": ["read"]}],
    "admins": ["https://id.example.com|root"], "denied": ["https://id.example.com|mallory"],
    "roles": {"analyst": {"tables": {"log_entries": "level > 3", "*": None}}}, "default_roles": ["analyst"],
    "legacy_api_keys": "warn", "rate_limits": {"calls_per_second": 10, "burst_calls": 20},
}  # fmt: skip


@sizes(short=3_000, long=100_000)
def test_a_damaged_key_set_gives_keys_or_the_documented_error(fuzzing):
    usable = fuzzing.try_all(lambda random: damage_json({"keys": KEYS}, random), parse_key_set, ProviderMisbehaved)

    assert 0 < usable < fuzzing.tries


@sizes(short=3_000, long=100_000)
def test_a_damaged_discovery_document_is_read_or_refused(fuzzing):
    fuzzing.try_all(
        lambda random: damage_json(METADATA, random),
        lambda document: parse_metadata(document, issuer=ISSUER),
        ProviderMisbehaved,
    )


@sizes(short=10_000, long=300_000)
def test_damaged_json_text_is_decoded_or_refused(fuzzing):
    text = json.dumps(CONFIGURATION)

    fuzzing.try_all(lambda random: damage_text(text, random), decode_strict_json, JsonError)


@sizes(short=4_000, long=100_000)
def test_a_damaged_configuration_is_read_in_full_or_refused_with_its_key(fuzzing):
    read = fuzzing.try_all(
        lambda random: json.dumps(damage_json(CONFIGURATION, random, chance=0.02)),
        lambda text: parse_access_settings({"MICROMEGAS_ACCESS_CONFIG": "access.json"}, config_text=text),
        ConfigurationError,
    )

    assert 0 < read < fuzzing.tries
