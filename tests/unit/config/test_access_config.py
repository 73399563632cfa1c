"""Tests of `settings.access_config`: what is read from variables and files."""

import json
from types import MappingProxyType

import pytest

from micromegas_jupyter.config.access import (
    AccessSettings,
    ApiKeySetting,
    IssuerSetting,
    LegacyApiKeys,
    OidcServerSettings,
    RateLimits,
    RoleSetting,
)
from micromegas_jupyter.config.access_config import AccessFiles, access_files, parse_access_settings
from micromegas_jupyter.core.secrets import Secret
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
    parse,
    refusal,
)


@pytest.mark.parametrize(
    "environ", [{}, dict.fromkeys((KEYS, KEY_FILE, OIDC, ADMINS, LEGACY, CONFIG, "MICROMEGAS_AUDIENCE_GRANTS"), "")]
)
def test_what_is_not_set_is_absent(environ):
    assert parse_access_settings(environ) == AccessSettings(
        api_keys=(),
        oidc=None,
        admins=(),
        denied=(),
        roles=None,
        default_roles=(),
        legacy_api_keys=LegacyApiKeys.WARN,
        rate_limits=RateLimits(),
    )


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


@pytest.mark.parametrize("admins", [["root", "a@example.com"], []])
def test_administrators_are_read(admins):
    assert parse_access_settings({ADMINS: json.dumps(admins)}).admins == tuple(admins)


@pytest.mark.parametrize("value", list(LegacyApiKeys))
def test_what_becomes_of_plain_keys_is_read(value):
    assert parse_access_settings({LEGACY: value}).legacy_api_keys is value
    assert parse({"legacy_api_keys": value}).legacy_api_keys is value


def test_a_configuration_file_alone_is_enough():
    settings = parse(
        {
            "oidc": {"issuers": [{**ISSUER, "group_roles": {"staff": "viewer"}}], "jwks_cool_down_secs": 10},
            "api_keys": [{**PLAIN, "roles": ["viewer"]}],
            "admins": ["root"],
            "denied": ["https://id.example.com|mallory", "api_key|grafana"],
            "roles": {"viewer": {"tables": {"log_entries": None}}, "everyone": {"tables": ["measures"]}},
            "default_roles": ["everyone"],
            "legacy_api_keys": "refuse",
            "rate_limits": {"burst_calls": 5},
        }
    )

    assert settings == AccessSettings(
        api_keys=(ApiKeySetting(name="grafana", key=Secret("hunter2"), roles=("viewer",)),),
        oidc=OidcServerSettings(
            issuers=(
                IssuerSetting(
                    issuer="https://id.example.com",
                    audiences=("lake",),
                    group_roles=MappingProxyType({"staff": ("viewer",)}),
                ),
            ),
            jwks_cool_down_seconds=10,
        ),
        admins=("root",),
        denied=("https://id.example.com|mallory", "api_key|grafana"),
        roles={"viewer": RoleSetting(tables={"log_entries": None}), "everyone": RoleSetting(tables={"measures": None})},
        default_roles=("everyone",),
        legacy_api_keys=LegacyApiKeys.REFUSE,
        rate_limits=RateLimits(burst_calls=5),
    )


def test_variables_and_configuration_file_add_up():
    settings = parse({"denied": ["https://id.example.com|mallory"]}, **{OIDC: issuers(ISSUER), CONFIG: "access.json"})

    assert settings.oidc is not None
    assert settings.denied == ("https://id.example.com|mallory",)


@pytest.mark.parametrize("variable", [True, False])
def test_the_key_file_adds_to_the_keys_that_are_set(variable):
    config = {"api_key_file": "keys.json"} if variable else {"api_key_file": "keys.json", "api_keys": [PLAIN]}
    environ = {KEYS: json.dumps([PLAIN])} if variable else {}

    assert [key.name for key in parse(config, [DIGEST], **environ).api_keys] == ["grafana", "collector"]


def test_plain_keys_that_are_to_be_refused_are_not_an_error_of_the_settings():
    assert parse(None, None, **{KEYS: json.dumps([PLAIN]), LEGACY: "refuse"}).api_keys[0].key == Secret("hunter2")


def test_an_empty_variable_leaves_the_files_member_alone():
    assert parse({"admins": ["root"]}, **{ADMINS: ""}).admins == ("root",)


@pytest.mark.parametrize("config", [None, {}, {"roles": {}}, {"roles": {"viewer": {"tables": ["spans"]}}}])
def test_a_role_of_a_key_need_not_be_configured_so_that_its_entry_stops_no_revocation(config):
    settings = parse(config, [{**PLAIN, "roles": ["owner"]}])

    assert settings.api_keys[0].roles == ("owner",)


def test_roles_are_not_checked_while_the_file_that_has_them_is_not_read():
    environ = {OIDC: issuers({**ISSUER, "group_roles": {"a": "viewer"}}), CONFIG: "access.json"}

    assert parse(None, **environ).oidc.issuers[0].group_roles == {"a": ("viewer",)}
    assert refusal({}, **environ).key == f"{OIDC}.issuers[0].group_roles.a"


def test_files_that_are_not_handed_in_are_left_out():
    assert parse_access_settings({CONFIG: "access.json", KEY_FILE: "keys.json"}) == AccessSettings()


def test_a_denied_subject_may_hold_the_separator():
    entry = "https://id.example.com|auth0|5"

    assert parse({"oidc": {"issuers": [ISSUER]}, "denied": [entry]}).denied == (entry,)


def test_the_callers_of_each_tenant_can_be_denied():
    entry = {"issuer": "https://i/{tenantid}", "audience": "lake", "tenants": ["one", "two"]}

    assert parse({"oidc": {"issuers": [entry]}, "denied": ["https://i/two|eve"]}).denied == ("https://i/two|eve",)


@pytest.mark.parametrize(
    ("environ", "config", "files"),
    [
        ({}, None, AccessFiles()),
        ({CONFIG: "", KEY_FILE: ""}, None, AccessFiles()),
        ({CONFIG: "a.json"}, None, AccessFiles(config_file="a.json")),
        ({CONFIG: "a.json"}, {"api_key_file": "k.json"}, AccessFiles(config_file="a.json", key_file="k.json")),
        ({KEY_FILE: "k.json"}, {"admins": []}, AccessFiles(key_file="k.json")),
    ],
)
def test_the_named_files_are_found_first_without_and_then_with_the_configuration(environ, config, files):
    assert access_files(environ, config_text=None if config is None else json.dumps(config)) == files


def test_administrators_and_issuers_know_where_they_stand():
    from_file = parse({"admins": ["x"], "oidc": {"issuers": [ISSUER]}})
    from_variables = parse({}, **{ADMINS: '["x"]', OIDC: issuers(ISSUER)})

    assert (from_file.admins_place, from_file.oidc.issuers[0].place) == (
        f"{CONFIG}.admins",
        f"{CONFIG}.oidc.issuers[0]",
    )
    assert (from_variables.admins_place, from_variables.oidc.issuers[0].place) == (ADMINS, f"{OIDC}.issuers[0]")
