"""Tests of `settings.server`."""

import json

import pytest

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings import (
    AccessSettings,
    ApiKeySetting,
    IssuerSetting,
    OidcServerSettings,
    parse_access_settings,
)

KEYS = "MICROMEGAS_API_KEYS"
OIDC = "MICROMEGAS_OIDC_CONFIG"
ADMINS = "MICROMEGAS_ADMINS"
ISSUER = {"issuer": "https://id.example.com", "audience": "lake"}


@pytest.mark.parametrize("environ", [{}, {KEYS: "", OIDC: "", ADMINS: ""}])
def test_what_is_not_set_is_absent(environ):
    assert parse_access_settings(environ) == AccessSettings(api_keys=(), oidc=None, admins=())


def test_keys_are_read_and_hidden():
    settings = parse_access_settings({KEYS: '[{"name": "grafana", "key": "hunter2"}, {"name": "b", "key": "x"}]'})

    assert settings.api_keys == (
        ApiKeySetting(name="grafana", key=Secret("hunter2")),
        ApiKeySetting(name="b", key=Secret("x")),
    )
    assert "hunter2" not in repr(settings)


def test_issuers_are_read_with_upstreams_defaults():
    settings = parse_access_settings({OIDC: json.dumps({"issuers": [ISSUER]})})

    assert settings.oidc == OidcServerSettings(
        issuers=(IssuerSetting(issuer="https://id.example.com", audiences=("lake",)),),
        jwks_refresh_interval_seconds=3600,
        token_cache_size=1000,
        token_cache_ttl_seconds=300,
    )


def test_an_issuer_that_stands_twice_has_both_audiences():
    settings = parse_access_settings({OIDC: json.dumps({"issuers": [ISSUER, {**ISSUER, "audience": "second"}]})})

    assert settings.oidc is not None
    assert settings.oidc.issuers == (IssuerSetting(issuer="https://id.example.com", audiences=("lake", "second")),)


def test_sizes_and_times_are_read():
    text = json.dumps(
        {"issuers": [ISSUER], "jwks_refresh_interval_secs": 60, "token_cache_size": 5, "token_cache_ttl_secs": 7}
    )

    oidc = parse_access_settings({OIDC: text}).oidc

    assert oidc is not None
    assert (oidc.jwks_refresh_interval_seconds, oidc.token_cache_size, oidc.token_cache_ttl_seconds) == (60, 5, 7)


def test_administrators_are_read():
    assert parse_access_settings({ADMINS: '["root", "a@example.com"]'}).admins == ("root", "a@example.com")


def issuers(*entries: object, **more: object) -> str:
    return json.dumps({"issuers": list(entries), **more})


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        (KEYS, "grafana:secret", KEYS),
        (KEYS, "{}", KEYS),
        (KEYS, "null", KEYS),
        (KEYS, '["secret"]', f"{KEYS}[0]"),
        (KEYS, '[{"name": "a", "key": "secret"}, {"name": "b"}]', f"{KEYS}[1].key"),
        (KEYS, '[{"key": "secret"}]', f"{KEYS}[0].name"),
        (KEYS, '[{"name": "a", "key": ""}]', f"{KEYS}[0].key"),
        (KEYS, '[{"name": "a", "key": "  "}]', f"{KEYS}[0].key"),
        (KEYS, '[{"name": "", "key": "secret"}]', f"{KEYS}[0].name"),
        (KEYS, '[{"name": "a", "key": 5}]', f"{KEYS}[0].key"),
        (KEYS, '[{"name": "a", "key": "secret\\n"}]', f"{KEYS}[0].key"),
        (KEYS, '[{"name": "a", "key": "secret", "role": "admin"}]', f"{KEYS}[0]"),
        (KEYS, '[{"name": "a", "key": "secret"}, {"name": "b", "key": "secret"}]', KEYS),
        (KEYS, '[{"name": "a", "key": "secret", "key": "secret2"}]', KEYS),
        (OIDC, "https://id.example.com", OIDC),
        (OIDC, "[]", OIDC),
        (OIDC, "{}", f"{OIDC}.issuers"),
        (OIDC, issuers(), OIDC),
        (OIDC, '{"issuers": {}}', f"{OIDC}.issuers"),
        (OIDC, issuers("https://id.example.com"), f"{OIDC}.issuers[0]"),
        (OIDC, issuers(ISSUER, {"issuer": "https://id.example.com"}), f"{OIDC}.issuers[1].audience"),
        (OIDC, issuers({"audience": "lake"}), f"{OIDC}.issuers[0].issuer"),
        (OIDC, issuers({**ISSUER, "audience": ""}), f"{OIDC}.issuers[0].audience"),
        (OIDC, issuers({**ISSUER, "audience": ["lake"]}), f"{OIDC}.issuers[0].audience"),
        (OIDC, issuers({**ISSUER, "audiences": ["lake"]}), f"{OIDC}.issuers[0]"),
        (OIDC, issuers({**ISSUER, "issuer": "http://id.example.com"}), f"{OIDC}.issuers[0].issuer"),
        (OIDC, issuers(ISSUER, token_cache_size=0), f"{OIDC}.token_cache_size"),
        (OIDC, issuers(ISSUER, token_cache_size=1_000_001), f"{OIDC}.token_cache_size"),
        (OIDC, issuers(ISSUER, token_cache_ttl_secs="300"), f"{OIDC}.token_cache_ttl_secs"),
        (OIDC, issuers(ISSUER, jwks_refresh_interval_secs=1.5), f"{OIDC}.jwks_refresh_interval_secs"),
        (OIDC, issuers(ISSUER, jwks_refresh_interval_secs=None), f"{OIDC}.jwks_refresh_interval_secs"),
        (OIDC, issuers(ISSUER, jwks_refresh_interval_secs=604_801), f"{OIDC}.jwks_refresh_interval_secs"),
        (OIDC, issuers(ISSUER, token_cache=5), OIDC),
        (ADMINS, "root", ADMINS),
        (ADMINS, '"root"', ADMINS),
        (ADMINS, '{"root": true}', ADMINS),
        (ADMINS, '["root", 5]', f"{ADMINS}[1]"),
        (ADMINS, '[""]', f"{ADMINS}[0]"),
        (ADMINS, '["root\\u0000"]', f"{ADMINS}[0]"),
        (ADMINS, "[", ADMINS),
    ],
)
def test_a_malformed_variable_is_refused_in_full_by_its_name(name, text, key):
    with pytest.raises(ConfigurationError) as caught:
        parse_access_settings({name: text})

    assert caught.value.key == key
    assert key in str(caught.value)
    assert "secret" not in str(caught.value)
