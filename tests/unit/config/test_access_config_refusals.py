"""Tests of `settings.access_config`: what is refused, and by which place."""

import json

import pytest

from micromegas_jupyter.config.access_config import access_files, parse_access_settings
from micromegas_jupyter.errors import ConfigurationError
from tests.unit.config.access_config_texts import (
    ADMINS,
    CONFIG,
    DIGEST,
    ISSUER,
    KEY_FILE,
    KEYS,
    LEGACY,
    OIDC,
    PLAIN,
    issuers,
    refusal,
)


@pytest.mark.parametrize(
    ("config", "environ", "place"),
    [
        ({}, {KEY_FILE: "keys.json"}, KEY_FILE),
        ({"api_key_file": "keys.json"}, {}, f"{CONFIG}.api_key_file"),
    ],
)
def test_a_refusal_names_the_key_file_by_where_it_is_named(config, environ, place):
    assert refusal(config, [DIGEST, {"name": "a"}], **environ).key == f"{place}[1].key"


def test_a_key_of_the_key_file_cannot_stand_in_the_variable_too():
    error = refusal(None, [DIGEST, PLAIN], **{KEYS: json.dumps([PLAIN])})

    assert error.key == f"{KEY_FILE}[1]"
    assert f"{KEYS}[0]" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("variable", "text", "member", "value"),
    [
        (KEYS, json.dumps([PLAIN]), "api_keys", []),
        (KEY_FILE, "keys.json", "api_key_file", "keys.json"),
        (OIDC, issuers(ISSUER), "oidc", {"issuers": [ISSUER]}),
        (ADMINS, "[]", "admins", []),
        (LEGACY, "warn", "legacy_api_keys", "warn"),
    ],
)
def test_what_stands_in_a_variable_and_in_the_file_is_refused_with_both_names(variable, text, member, value):
    error = refusal({member: value}, **{variable: text})

    assert error.key == variable
    assert f"{variable} and {CONFIG}.{member} are both set" in str(error)


@pytest.mark.parametrize(
    "variable", ["MICROMEGAS_AUDIENCE_GRANTS", "MICROMEGAS_UNSTAMPED_AUDIENCE", "MICROMEGAS_PUBLIC_VIEW_SETS"]
)
def test_upstreams_audience_grants_are_refused_and_roles_are_named_instead(variable):
    error = refusal(**{variable: "anything"})

    assert error.key == variable
    assert "roles" in error.remedy


@pytest.mark.parametrize(
    ("config", "environ", "key"),
    [
        ({"default_roles": ["owner"]}, {}, f"{CONFIG}.default_roles"),
        (
            {"roles": {"viewer": {"tables": ["spans"]}}, "default_roles": ["viewer", "owner"]},
            {},
            f"{CONFIG}.default_roles",
        ),
        ({}, {OIDC: issuers({**ISSUER, "group_roles": {"a": "owner"}})}, f"{OIDC}.issuers[0].group_roles.a"),
        (None, {OIDC: issuers({**ISSUER, "group_roles": {"a": "owner"}})}, f"{OIDC}.issuers[0].group_roles.a"),
    ],
)
def test_a_role_that_is_named_and_not_configured_is_refused(config, environ, key):
    error = refusal(config, **environ)

    assert error.key == key
    assert "'owner'" in str(error)


@pytest.mark.parametrize(
    "entry",
    ["mallory", "https://other.example.com|mallory", "https://id.example.com", "https://id.example.com|", "api_key|",
     "https://id.example.com/|mallory", "id|mallory"],
)  # fmt: skip
def test_a_denied_entry_that_would_meet_nobody_is_refused(entry):
    error = refusal({"oidc": {"issuers": [{**ISSUER, "aliases": ["id"]}]}, "denied": [entry]})

    assert error.key == f"{CONFIG}.denied"
    assert "issuer|subject" in error.remedy


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
        (KEYS, '[{"name": "a", "key": "secret"}, {"name": "b", "key": "secret"}]', f"{KEYS}[1]"),
        (KEYS, '[{"name": "a", "key": "secret", "key": "secret2"}]', KEYS),
        (OIDC, "https://id.example.com", OIDC),
        (OIDC, "[]", OIDC),
        (OIDC, "{}", f"{OIDC}.issuers"),
        (OIDC, issuers(), OIDC),
        (OIDC, issuers("https://id.example.com"), f"{OIDC}.issuers[0]"),
        (OIDC, issuers(ISSUER, {"issuer": "https://id.example.com"}), f"{OIDC}.issuers[1].audience"),
        (OIDC, issuers({"audience": "lake"}), f"{OIDC}.issuers[0].issuer"),
        (OIDC, issuers({**ISSUER, "audiences": ["lake"]}), f"{OIDC}.issuers[0]"),
        (OIDC, issuers({**ISSUER, "algorithms": ["RS256", "none"]}), f"{OIDC}.issuers[0].algorithms[1]"),
        (OIDC, issuers(ISSUER, token_cache_size=0), f"{OIDC}.token_cache_size"),
        (ADMINS, "root", ADMINS),
        (ADMINS, '"root"', ADMINS),
        (ADMINS, '{"root": true}', ADMINS),
        (ADMINS, '["root", 5]', f"{ADMINS}[1]"),
        (ADMINS, '[""]', f"{ADMINS}[0]"),
        (ADMINS, '["root\\u0000"]', f"{ADMINS}[0]"),
        (ADMINS, "[", ADMINS),
        (LEGACY, "off", LEGACY),
        (LEGACY, "WARN", LEGACY),
        (LEGACY, '"warn"', LEGACY),
        (KEY_FILE, "keys\n.json", KEY_FILE),
    ],
)
def test_a_malformed_variable_is_refused_in_full_by_its_name(name, text, key):
    error = refusal(**{name: text})

    assert error.key == key
    assert key in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ([], CONFIG),
        ("hunter2", CONFIG),
        ({"hunter": 2}, CONFIG),
        ({"oidc": None}, f"{CONFIG}.oidc"),
        ({"oidc": {"issuers": [{**ISSUER, "algorithms": ["HS256"]}]}}, f"{CONFIG}.oidc.issuers[0].algorithms[0]"),
        ({"api_keys": {"hunter2": "grafana"}}, f"{CONFIG}.api_keys"),
        ({"api_keys": [{"hunter2": "grafana"}]}, f"{CONFIG}.api_keys[0]"),
        ({"api_key_file": ""}, f"{CONFIG}.api_key_file"),
        ({"api_key_file": ["keys.json"]}, f"{CONFIG}.api_key_file"),
        ({"admins": "root"}, f"{CONFIG}.admins"),
        ({"denied": "mallory"}, f"{CONFIG}.denied"),
        ({"denied": [None]}, f"{CONFIG}.denied[0]"),
        ({"roles": []}, f"{CONFIG}.roles"),
        ({"default_roles": "viewer"}, f"{CONFIG}.default_roles"),
        ({"legacy_api_keys": True}, f"{CONFIG}.legacy_api_keys"),
        ({"rate_limits": {"burst_calls": 0}}, f"{CONFIG}.rate_limits.burst_calls"),
    ],
)
def test_a_malformed_configuration_file_is_refused_by_the_place(config, key):
    error = refusal(config)

    assert error.key == key
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("text", ["", "hunter2", "{", '{"admins": [], "admins": []}'])
def test_a_configuration_file_that_is_not_strict_json_is_refused(text):
    with pytest.raises(ConfigurationError, match="MICROMEGAS_ACCESS_CONFIG is not valid JSON") as caught:
        parse_access_settings({}, config_text=text)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "hunter2", "[", "{}"])
def test_a_key_file_that_holds_no_list_is_refused(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_access_settings({}, key_file_text=text)

    assert caught.value.key == KEY_FILE
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "text", "key"),
    [
        ({CONFIG: "a\n.json"}, None, CONFIG),
        ({KEY_FILE: "\t"}, None, KEY_FILE),
        ({CONFIG: "a.json"}, "{", CONFIG),
        ({CONFIG: "a.json"}, '{"api_key_file": 5}', f"{CONFIG}.api_key_file"),
        ({KEY_FILE: "k.json"}, '{"api_key_file": "k.json"}', KEY_FILE),
    ],
)
def test_files_that_are_named_wrongly_are_refused(environ, text, key):
    with pytest.raises(ConfigurationError) as caught:
        access_files(environ, config_text=text)

    assert caught.value.key == key
