"""Tests of `config.access` and `config.access_config`: what is read from variables and files, and what is refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from micromegas_jupyter.config.access import (
    AccessSettings,
    ApiKeySetting,
    LegacyApiKeys,
    RateLimits,
    RoleSetting,
    check_distinct,
    find_config_file,
    find_key_file,
    parse_access_settings,
    parse_api_keys,
    read_api_keys,
    read_denied,
    read_listed_keys,
    render_api_keys,
)
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings, read_role_names
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError

KEYS = "MICROMEGAS_API_KEYS"
KEY_FILE = "MICROMEGAS_API_KEY_FILE"
OIDC = "MICROMEGAS_OIDC_CONFIG"
ADMINS = "MICROMEGAS_ADMINS"
LEGACY = "MICROMEGAS_LEGACY_API_KEYS"
CONFIG = "MICROMEGAS_ACCESS_CONFIG"
ISSUER = {"issuer": "https://id.example.com", "audience": "lake"}
PLAIN = {"name": "grafana", "key": "hunter2"}
DIGEST = {"name": "collector", "sha256": "ab" * 32}
SHA256 = hashlib.sha256(b"hunter2").digest()
HEX = SHA256.hex()


def parse(config: object = None, keys: object = None, **environ: str) -> AccessSettings:
    return parse_access_settings(
        environ,
        config_text=None if config is None else json.dumps(config),
        key_file_text=None if keys is None else json.dumps(keys),
    )


def refusal(config: object = None, keys: object = None, **environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(config, keys, **environ)
    assert "hunter2" not in str(caught.value)
    return caught.value


def issuers(*entries: object, **more: object) -> str:
    return json.dumps({"issuers": list(entries), **more})


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
        rate_limits=RateLimits(
            calls_per_second=2000.0,
            burst_calls=10_000,
            refusals_per_second=500.0,
            burst_refusals=5000,
            max_tracked=10_000,
        ),
    )


def test_variables_are_read_with_upstreams_defaults_and_keys_are_hidden():
    settings = parse(
        **{
            KEYS: json.dumps([PLAIN, DIGEST]),
            OIDC: issuers(ISSUER),
            ADMINS: '["root", "a@b.example"]',
            LEGACY: "refuse",
        }
    )

    assert settings.api_keys == (
        ApiKeySetting(name="grafana", key=Secret("hunter2")),
        ApiKeySetting(name="collector", sha256=bytes.fromhex("ab" * 32)),
    )
    assert settings.oidc == OidcServerSettings(
        issuers=(IssuerSetting(issuer="https://id.example.com", audiences=("lake",)),),
        jwks_refresh_interval_seconds=3600,
        token_cache_size=1000,
        token_cache_ttl_seconds=300,
    )
    assert (settings.admins, settings.legacy_api_keys) == (("root", "a@b.example"), LegacyApiKeys.REFUSE)
    assert "hunter2" not in repr(settings)
    assert "abab" not in repr(settings)


def test_a_configuration_file_alone_is_enough():
    limits = {
        "calls_per_second": 0.5,
        "burst_calls": 2,
        "refusals_per_second": 3,
        "burst_refusals": 4,
        "max_tracked": 5,
    }
    settings = parse(
        {
            "oidc": {"issuers": [{**ISSUER, "group_roles": {"staff": "viewer"}}], "jwks_cool_down_secs": 10},
            "api_keys": [{**PLAIN, "roles": ["viewer"]}],
            "admins": ["root"],
            "denied": ["https://id.example.com|mallory", "https://id.example.com|auth0|5", "api_key|grafana"],
            "roles": {"viewer": {"tables": {"log_entries": None}}, "everyone": {"tables": ["measures"]}},
            "default_roles": ["everyone"],
            "legacy_api_keys": "on",
            "rate_limits": limits,
        }
    )
    issuer = IssuerSetting(
        issuer="https://id.example.com", audiences=("lake",), group_roles=MappingProxyType({"staff": ("viewer",)})
    )

    assert settings == AccessSettings(
        api_keys=(ApiKeySetting(name="grafana", key=Secret("hunter2"), roles=("viewer",)),),
        oidc=OidcServerSettings(issuers=(issuer,), jwks_cool_down_seconds=10),
        admins=("root",),
        denied=("https://id.example.com|mallory", "https://id.example.com|auth0|5", "api_key|grafana"),
        roles={"viewer": RoleSetting(tables={"log_entries": None}), "everyone": RoleSetting(tables={"measures": None})},
        default_roles=("everyone",),
        legacy_api_keys=LegacyApiKeys.ON,
        rate_limits=RateLimits(**limits),
    )


def test_variables_and_files_add_up():
    config = {"denied": ["https://id.example.com|mallory"], "api_key_file": "keys.json", "admins": ["root"]}
    settings = parse(config, [DIGEST], **{OIDC: issuers(ISSUER), KEYS: json.dumps([PLAIN]), ADMINS: ""})

    assert settings.denied == ("https://id.example.com|mallory",)
    assert [key.name for key in settings.api_keys] == ["grafana", "collector"]
    assert settings.admins == ("root",)
    config |= {"oidc": json.loads(issuers(ISSUER)), "api_keys": [PLAIN]}
    assert [key.name for key in parse(config, [DIGEST]).api_keys] == ["grafana", "collector"]


def test_roles_are_not_checked_while_the_file_that_has_them_is_not_read():
    environ = {OIDC: issuers({**ISSUER, "group_roles": {"a": "viewer"}}), CONFIG: "access.json"}

    assert parse(None, **environ).oidc.issuers[0].group_roles == {"a": ("viewer",)}
    assert refusal({}, **environ).key == f"{OIDC}.issuers[0].group_roles.a"
    assert parse_access_settings({CONFIG: "access.json", KEY_FILE: "keys.json"}) == AccessSettings()


@pytest.mark.parametrize("config", [None, {}, {"roles": {}}, {"roles": {"viewer": {"tables": ["spans"]}}}])
def test_a_role_of_a_key_need_not_be_configured_so_that_its_entry_stops_no_revocation(config):
    assert parse(config, [{**PLAIN, "roles": ["owner"]}]).api_keys[0].roles == ("owner",)


def test_the_callers_of_each_tenant_can_be_denied():
    entry = {"issuer": "https://i/{tenantid}", "audience": "lake", "tenants": ["one", "two"]}

    assert parse({"oidc": {"issuers": [entry]}, "denied": ["https://i/two|eve"]}).denied == ("https://i/two|eve",)


@pytest.mark.parametrize(
    ("environ", "config", "config_file", "key_file"),
    [
        ({}, None, None, None),
        ({CONFIG: "", KEY_FILE: ""}, None, None, None),
        ({CONFIG: "a.json"}, None, "a.json", None),
        ({CONFIG: "a.json"}, {"api_key_file": "k.json"}, "a.json", "k.json"),
        ({KEY_FILE: "k.json"}, {"admins": []}, None, "k.json"),
    ],
)
def test_the_named_files_are_found(environ, config, config_file, key_file):
    text = None if config is None else json.dumps(config)

    assert (find_config_file(environ), find_key_file(environ, config_text=text)) == (config_file, key_file)


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
        find_key_file(
            {**environ, **({CONFIG: find_config_file(environ)} if CONFIG in environ else {})}, config_text=text
        )

    assert caught.value.key == key


def test_administrators_and_issuers_know_where_they_are_written():
    from_file = parse({"admins": ["x"], "oidc": {"issuers": [ISSUER]}})
    from_variables = parse({}, **{ADMINS: '["x"]', OIDC: issuers(ISSUER)})

    assert from_file.admins_path == f"{CONFIG}.admins"
    assert from_file.oidc.issuers[0].path == f"{CONFIG}.oidc.issuers[0]"
    assert (from_variables.admins_path, from_variables.oidc.issuers[0].path) == (ADMINS, f"{OIDC}.issuers[0]")


def test_parts_of_a_file_are_read_whatever_is_beside_them():
    text = '{"colour": 1, "oidc": [], "denied": ["api_key|x", "y"], "api_keys": [{"name": "a", "key": "k"}]}'

    assert read_denied(text) == ("api_key|x", "y")
    assert [key.name for key in read_listed_keys(text)] == ["a"]
    assert (read_denied("{}"), read_listed_keys('{"api_keys": []}')) == ((), ())


class TestRefusals:
    """What is refused, in full and by its place, and never with what may be secret."""

    @pytest.mark.parametrize(
        ("config", "environ", "place"),
        [({}, {KEY_FILE: "keys.json"}, KEY_FILE), ({"api_key_file": "keys.json"}, {}, f"{CONFIG}.api_key_file")],
    )
    def test_a_refusal_names_the_key_file_by_where_it_is_named(self, config, environ, place):
        assert refusal(config, [DIGEST, {"name": "a"}], **environ).key == f"{place}[1].key"

    def test_a_key_of_the_key_file_cannot_be_in_the_variable_too(self):
        error = refusal(None, [DIGEST, PLAIN], **{KEYS: json.dumps([PLAIN])})

        assert error.key == f"{KEY_FILE}[1]"
        assert f"{KEYS}[0]" in str(error)

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
    def test_what_is_in_a_variable_and_in_the_file_is_refused_with_both_names(self, variable, text, member, value):
        error = refusal({member: value}, **{variable: text})

        assert error.key == variable
        assert f"{variable} and {CONFIG}.{member} are both set" in str(error)

    @pytest.mark.parametrize(
        "variable", ["MICROMEGAS_AUDIENCE_GRANTS", "MICROMEGAS_UNSTAMPED_AUDIENCE", "MICROMEGAS_PUBLIC_VIEW_SETS"]
    )
    def test_upstreams_audience_grants_are_refused_and_roles_are_named_instead(self, variable):
        error = refusal(**{variable: "anything"})

        assert error.key == variable
        assert "roles" in error.remedy

    @pytest.mark.parametrize(
        ("config", "environ", "key"),
        [
            ({"default_roles": ["owner"]}, {}, f"{CONFIG}.default_roles"),
            ({"roles": {"a": {"tables": ["x"]}}, "default_roles": ["a", "owner"]}, {}, f"{CONFIG}.default_roles"),
            ({}, {OIDC: issuers({**ISSUER, "group_roles": {"a": "owner"}})}, f"{OIDC}.issuers[0].group_roles.a"),
            (None, {OIDC: issuers({**ISSUER, "group_roles": {"a": "owner"}})}, f"{OIDC}.issuers[0].group_roles.a"),
        ],
    )
    def test_a_role_that_is_named_and_not_configured_is_refused(self, config, environ, key):
        error = refusal(config, **environ)

        assert error.key == key
        assert "'owner'" in str(error)

    @pytest.mark.parametrize(
        "entry",
        ["mallory", "https://other.example.com|mallory", "https://id.example.com", "https://id.example.com|",
         "https://id.example.com/|mallory", "id|mallory", "api_key|"],
    )  # fmt: skip
    def test_a_denied_entry_that_would_match_nobody_is_refused(self, entry):
        error = refusal({"oidc": {"issuers": [{**ISSUER, "aliases": ["id"]}]}, "denied": [entry]})

        assert error.key == f"{CONFIG}.denied"
        assert "issuer|subject" in error.remedy

    @pytest.mark.parametrize(
        ("name", "text", "key"),
        [
            (KEYS, "grafana:hunter2", KEYS),
            (KEYS, "{}", KEYS),
            (KEYS, "null", KEYS),
            (KEYS, '["hunter2"]', f"{KEYS}[0]"),
            (KEYS, '[{"name": "a", "key": "hunter2"}, {"name": "b"}]', f"{KEYS}[1].key"),
            (KEYS, '[{"name": "a", "key": "hunter2", "key": "secret2"}]', KEYS),
            (OIDC, "https://id.example.com", OIDC),
            (OIDC, "[]", OIDC),
            (OIDC, "{}", f"{OIDC}.issuers"),
            (OIDC, issuers(), OIDC),
            (OIDC, issuers("https://id.example.com"), f"{OIDC}.issuers[0]"),
            (OIDC, issuers(ISSUER, {"issuer": "https://id.example.com"}), f"{OIDC}.issuers[1].audience"),
            (OIDC, issuers({"audience": "lake"}), f"{OIDC}.issuers[0].issuer"),
            (OIDC, issuers({**ISSUER, "algorithms": ["RS256", "none"]}), f"{OIDC}.issuers[0].algorithms[1]"),
            (OIDC, issuers(ISSUER, token_cache_size=0), f"{OIDC}.token_cache_size"),
            (ADMINS, "root", ADMINS),
            (ADMINS, '"root"', ADMINS),
            (ADMINS, '["root", 5]', f"{ADMINS}[1]"),
            (ADMINS, '[""]', f"{ADMINS}[0]"),
            (ADMINS, '["root\\u0000"]', f"{ADMINS}[0]"),
            (LEGACY, "off", LEGACY),
            (LEGACY, "WARN", LEGACY),
            (LEGACY, '"warn"', LEGACY),
            (KEY_FILE, "keys\n.json", KEY_FILE),
        ],
    )
    def test_a_malformed_variable_is_refused_by_its_name(self, name, text, key):
        error = refusal(**{name: text})

        assert error.key == key
        assert key in str(error)

    @pytest.mark.parametrize(
        ("config", "place"),
        [
            ([], ""), ("hunter2", ""), ({"hunter": 2}, ""), ({"oidc": None}, ".oidc"),
            ({"oidc": {"issuers": [{**ISSUER, "algorithms": ["HS256"]}]}}, ".oidc.issuers[0].algorithms[0]"),
            ({"api_keys": {"hunter2": "grafana"}}, ".api_keys"),
            ({"api_keys": [{"hunter2": "grafana"}]}, ".api_keys[0]"),
            ({"api_key_file": ""}, ".api_key_file"), ({"api_key_file": ["keys.json"]}, ".api_key_file"),
            ({"admins": "root"}, ".admins"), ({"denied": "mallory"}, ".denied"), ({"denied": [None]}, ".denied[0]"),
            ({"default_roles": "viewer"}, ".default_roles"), ({"legacy_api_keys": True}, ".legacy_api_keys"),
            ({"rate_limits": None}, ".rate_limits"), ({"rate_limits": {"calls": 5}}, ".rate_limits"),
            ({"rate_limits": {"calls_per_second": 0}}, ".rate_limits.calls_per_second"),
            ({"rate_limits": {"calls_per_second": "5"}}, ".rate_limits.calls_per_second"),
            ({"rate_limits": {"refusals_per_second": 1_000_001}}, ".rate_limits.refusals_per_second"),
            ({"rate_limits": {"burst_calls": 0}}, ".rate_limits.burst_calls"),
            ({"rate_limits": {"burst_calls": 1.5}}, ".rate_limits.burst_calls"),
            ({"rate_limits": {"burst_refusals": 1_000_001}}, ".rate_limits.burst_refusals"),
            ({"rate_limits": {"max_tracked": None}}, ".rate_limits.max_tracked"),
            ({"roles": None}, ".roles"), ({"roles": []}, ".roles"), ({"roles": {"": {"tables": []}}}, ".roles"),
            ({"roles": {"a": ["log_entries"]}}, ".roles.a"), ({"roles": {"a": {}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": ["log_entries"], "rows": ""}}}, ".roles.a"),
            ({"roles": {"a": {"tables": None}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": "log_entries"}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": []}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": [None]}}}, ".roles.a.tables[0]"),
            ({"roles": {"a": {"tables": {"": None}}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": {"spans": ""}}}}, ".roles.a.tables.spans"),
            ({"roles": {"a": {"tables": {"spans": True}}}}, ".roles.a.tables.spans"),
        ],
    )  # fmt: skip
    def test_a_malformed_configuration_file_is_refused_by_the_place(self, config, place):
        assert refusal(config).key == CONFIG + place

    @pytest.mark.parametrize("text", ["", "hunter2", "{", "[", '{"admins": [], "admins": []}'])
    def test_a_file_that_is_not_strict_json_is_refused(self, text):
        for option, key in (("config_text", CONFIG), ("key_file_text", KEY_FILE)):
            with pytest.raises(ConfigurationError) as caught:
                parse_access_settings({}, **{option: text})

            assert caught.value.key == key
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("roles", [{}, {"nobody": {"tables": {}}}, {"a": {"tables": {"spans": "id = 'x'", "*": None}}}])
def test_roles_may_be_none_read_nothing_or_have_conditions(roles):
    assert parse({"roles": roles}).roles == {name: RoleSetting(**role) for name, role in roles.items()}


@pytest.mark.parametrize("value", [None, 5, [], "", [5], ["viewer", "editor"]])
def test_only_configured_roles_can_be_named(value):
    assert read_role_names("viewer", "KEY", known_roles={"viewer"}) == ("viewer",)
    assert read_role_names("other", "KEY", known_roles=None) == ("other",)
    with pytest.raises(ConfigurationError):
        read_role_names(value, "KEY", known_roles={"viewer"})


class TestApiKeys:
    """The list of keys, which a variable or a file holds."""

    FULL = ApiKeySetting(
        name="a",
        sha256=SHA256,
        expires_at=datetime(2027, 1, 31, 12, 0, tzinfo=UTC),
        scopes=frozenset({"read", "ingest"}),
        roles=("viewer",),
        created_at=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
        revoked_at=datetime(2026, 6, 1, 0, 0, 0, 500_000, tzinfo=UTC),
    )

    def refusal(self, *entries: object) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            parse_api_keys(json.dumps(entries), "KEYS")
        assert "hunter2" not in str(caught.value)
        return caught.value

    def test_every_member_is_read(self):
        entry = {
            "name": "a",
            "sha256": HEX.upper(),
            "expires_at": "2027-01-31T12:00:00Z",
            "scopes": ["read", "ingest"],
            "roles": ["viewer"],
            "created_at": "2026-01-31T13:00:00+01:00",
            "revoked_at": "2026-06-01T00:00:00.5Z",
        }

        assert parse_api_keys(json.dumps([entry, {**PLAIN, "key": "old"}, {**PLAIN, "key": "new"}]), "KEYS") == (
            self.FULL,
            ApiKeySetting(name="grafana", key=Secret("old"), scopes=frozenset({"read"})),
            ApiKeySetting(name="grafana", key=Secret("new")),
        )
        assert parse_api_keys("[]", "KEYS") == ()

    @pytest.mark.parametrize("first", [{"key": "hunter2"}, {"sha256": HEX}])
    @pytest.mark.parametrize("second", [{"key": "hunter2"}, {"sha256": HEX.upper()}])
    def test_a_key_that_is_listed_twice_in_any_form_is_refused_with_both_places(self, first, second):
        error = self.refusal({"name": "other", "key": "other"}, {"name": "a", **first}, {"name": "b", **second})

        assert error.key == "KEYS[2]"
        assert "KEYS[1]" in str(error)

    @pytest.mark.parametrize(
        ("members", "place"),
        [
            ({}, ".key"), ({"key": ""}, ".key"), ({"key": " "}, ".key"), ({"key": None}, ".key"), ({"key": 5}, ".key"),
            ({"key": "hunter2\n"}, ".key"), ({"key": "hunter2", "sha256": HEX}, ""), ({"hunter2": "grafana"}, ""),
            *(({"sha256": digest}, ".sha256") for digest in (
                "", HEX[:-1], HEX[:-1] + "g", HEX[:-2] + " 0", 5, hashlib.sha256(b"").hexdigest())),
            ({"key": "hunter2", "expires_at": "2027-01-31T12:00:00"}, ".expires_at"),
            ({"key": "hunter2", "expires_at": None}, ".expires_at"),
            ({"key": "hunter2", "created_at": 5}, ".created_at"),
            ({"key": "hunter2", "revoked_at": True}, ".revoked_at"),
            ({"key": "hunter2", "scopes": []}, ".scopes"), ({"key": "hunter2", "scopes": "read"}, ".scopes"),
            ({"key": "hunter2", "scopes": ["read", "admin"]}, ".scopes[1]"),
            ({"key": "hunter2", "roles": []}, ".roles"), ({"key": "hunter2", "roles": [""]}, ".roles[0]"),
            ({"key": "hunter2", "role": "admin"}, ""), ({"key": "hunter2", "name": ""}, ".name"),
            ({"key": "hunter2", "name": "a\nb"}, ".name"),
        ],
    )  # fmt: skip
    def test_a_malformed_entry_is_refused_by_its_place_and_without_the_key(self, members, place):
        assert self.refusal({"name": "grafana", **members}).key == f"KEYS[0]{place}"

    def test_an_entry_needs_a_name(self):
        assert self.refusal({"key": "hunter2"}).key == "KEYS[0].name"

    def test_more_keys_than_the_limit_are_refused(self):
        keys = [(ApiKeySetting(name="a", sha256=number.to_bytes(32, "big")), str(number)) for number in range(100_001)]
        check_distinct(keys[:100_000])

        with pytest.raises(ConfigurationError):
            check_distinct(keys)
        with pytest.raises(ConfigurationError):
            read_api_keys([None] * 100_001, "KEYS")

    def test_what_is_rendered_reads_back_sorted_by_name_and_stable(self):
        keys = (
            ApiKeySetting(name="zoë", key=Secret("plain")),
            self.FULL,
            ApiKeySetting(name="a", sha256=hashlib.sha256(b"second").digest()),
        )

        text = render_api_keys(keys)

        assert parse_api_keys(text, "KEYS") == (keys[1], keys[2], keys[0])
        assert render_api_keys(parse_api_keys(text, "KEYS")) == text

    def test_the_text_is_indented_and_holds_neither_defaults_nor_a_key_whose_digest_is_known(self):
        text = render_api_keys([ApiKeySetting(name="a", key=Secret("hunter2"), sha256=SHA256, roles=("viewer",))])

        assert text == (
            f'[\n  {{\n    "name": "a",\n    "sha256": "{HEX}",\n    "roles": [\n      "viewer"\n    ]\n  }}\n]\n'
        )

    @pytest.mark.parametrize(
        "keys",
        [[ApiKeySetting(name="a", sha256=SHA256)] * 100_001, [ApiKeySetting(name="a", key=Secret("ä" * 2**23))]],
        ids=["many", "long"],
    )
    def test_a_file_that_could_not_be_read_back_is_not_rendered(self, keys):
        with pytest.raises(ConfigurationError) as caught:
            render_api_keys(keys)

        assert "Remove" in caught.value.remedy
