"""What the server reads from variables and files about access, and what is refused."""

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
    render_api_keys,
)
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
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


def parse(config=None, keys=None, **environ):
    return parse_access_settings(
        environ,
        config_text=None if config is None else json.dumps(config),
        key_file_text=None if keys is None else json.dumps(keys),
    )


def refusal(config=None, keys=None, **environ):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, keys, **environ)
    assert "hunter2" not in str(caught.value)
    return caught.value


def issuers(*entries, **more):
    return json.dumps({"issuers": list(entries), **more})


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


def test_a_role_may_limit_what_a_statement_reads():
    roles = {"analyst": {"tables": ["t"], "max_scan_bytes": 10**12}}

    assert parse({"roles": roles}).roles == {"analyst": RoleSetting(tables={"t": None}, max_scan_bytes=10**12)}


def test_a_role_may_name_tables_to_write_to_and_none_to_read():
    roles = {"loader": {"ingest": ["orders", "*"]}, "team": {"tables": ["team_a"], "owns": ["team_*"]}}

    assert parse({"roles": roles}).roles == {
        "loader": RoleSetting(ingest=frozenset({"orders", "*"})),
        "team": RoleSetting(tables={"team_a": None}, owns=frozenset({"team_*"})),
    }


def test_roles_are_not_checked_while_the_file_that_has_them_is_not_read():
    environ = {OIDC: issuers({**ISSUER, "group_roles": {"a": "viewer"}}), CONFIG: "access.json"}

    assert parse(None, **environ).oidc.issuers[0].group_roles == {"a": ("viewer",)}
    assert refusal({}, **environ).key == f"{OIDC}.issuers[0].group_roles.a"
    assert parse_access_settings({CONFIG: "access.json", KEY_FILE: "keys.json"}) == AccessSettings()


@pytest.mark.parametrize("config", [None, {}, {"roles": {}}, {"roles": {"viewer": {"tables": ["spans"]}}}])
def test_a_role_of_a_key_need_not_be_configured_so_that_its_entry_stops_no_revocation(config):
    assert parse(config, [{**PLAIN, "roles": ["owner"]}]).api_keys[0].roles == ("owner",)


@pytest.mark.parametrize(
    ("environ", "text", "key"),
    [
        ({CONFIG: "a\n.json"}, None, CONFIG), ({KEY_FILE: "\t"}, None, KEY_FILE), ({CONFIG: "a.json"}, "{", CONFIG),
        ({CONFIG: "a.json"}, '{"api_key_file": 5}', f"{CONFIG}.api_key_file"),
        ({KEY_FILE: "k.json"}, '{"api_key_file": "k.json"}', KEY_FILE),
    ],
)  # fmt: skip
def test_files_that_are_named_wrongly_are_refused(environ, text, key):
    with pytest.raises(ConfigurationError) as caught:
        find_key_file(
            {**environ, **({CONFIG: find_config_file(environ)} if CONFIG in environ else {})}, config_text=text
        )

    assert caught.value.key == key


@pytest.mark.parametrize(
    ("config", "keys", "environ", "key"),
    [
        ({}, [DIGEST, {"name": "a"}], {KEY_FILE: "keys.json"}, f"{KEY_FILE}[1].key"),
        ({"api_key_file": "keys.json"}, [DIGEST, {"name": "a"}], {}, f"{CONFIG}.api_key_file[1].key"),
        (None, [DIGEST, PLAIN], {KEYS: json.dumps([PLAIN])}, f"{KEY_FILE}[1]"),
        # In a variable and in the file.
        ({"api_keys": []}, None, {KEYS: json.dumps([PLAIN])}, KEYS),
        ({"api_key_file": "keys.json"}, None, {KEY_FILE: "keys.json"}, KEY_FILE),
        ({"oidc": {"issuers": [ISSUER]}}, None, {OIDC: issuers(ISSUER)}, OIDC),
        ({"admins": []}, None, {ADMINS: "[]"}, ADMINS),
        ({"legacy_api_keys": "warn"}, None, {LEGACY: "warn"}, LEGACY),
        # Upstream's row isolation, which this server does not have.
        *((None, None, {name: "anything"}, name) for name in (
            "MICROMEGAS_AUDIENCE_GRANTS", "MICROMEGAS_UNSTAMPED_AUDIENCE", "MICROMEGAS_PUBLIC_VIEW_SETS")),
        # Roles that are not configured.
        ({"roles": {"a": {"tables": ["x"]}}, "default_roles": ["a", "owner"]}, None, {}, f"{CONFIG}.default_roles"),
        *((config, None, {OIDC: issuers({**ISSUER, "group_roles": {"a": "owner"}})},
           f"{OIDC}.issuers[0].group_roles.a") for config in ({}, None)),
        # Denied entries that would match nobody.
        *(({"oidc": {"issuers": [{**ISSUER, "aliases": ["id"]}]}, "denied": [entry]}, None, {}, f"{CONFIG}.denied")
          for entry in ("mallory", "https://other.example.com|mallory", "https://id.example.com",
                        "https://id.example.com|", "https://id.example.com/|mallory", "id|mallory", "api_key|")),
        # Malformed variables.
        *((None, None, {name: text}, key) for name, text, key in (
            (KEYS, "grafana:hunter2", KEYS), (KEYS, "{}", KEYS), (KEYS, "null", KEYS),
            (KEYS, '["hunter2"]', f"{KEYS}[0]"),
            (KEYS, '[{"name": "a", "key": "hunter2"}, {"name": "b"}]', f"{KEYS}[1].key"),
            (KEYS, '[{"name": "a", "key": "hunter2", "key": "secret2"}]', KEYS),
            (OIDC, "https://id.example.com", OIDC), (OIDC, "{}", f"{OIDC}.issuers"), (OIDC, issuers(), OIDC),
            (OIDC, issuers(ISSUER, {"issuer": "https://id.example.com"}), f"{OIDC}.issuers[1].audience"),
            (OIDC, issuers({**ISSUER, "algorithms": ["RS256", "none"]}), f"{OIDC}.issuers[0].algorithms[1]"),
            (OIDC, issuers(ISSUER, token_cache_size=0), f"{OIDC}.token_cache_size"),
            (ADMINS, "root", ADMINS), (ADMINS, '"root"', ADMINS), (ADMINS, '["root", 5]', f"{ADMINS}[1]"),
            (ADMINS, '["root\\u0000"]', f"{ADMINS}[0]"),
            (LEGACY, "off", LEGACY), (LEGACY, "WARN", LEGACY), (LEGACY, '"warn"', LEGACY),
            (KEY_FILE, "keys\n.json", KEY_FILE))),
        # Malformed members of the file.
        *((config, None, {}, CONFIG + place) for config, place in (
            ([], ""), ("hunter2", ""), ({"hunter": 2}, ""), ({"oidc": None}, ".oidc"),
            ({"api_keys": {"hunter2": "grafana"}}, ".api_keys"), ({"api_keys": [{"hunter2": "x"}]}, ".api_keys[0]"),
            ({"api_key_file": ""}, ".api_key_file"), ({"admins": "root"}, ".admins"),
            ({"denied": [None]}, ".denied[0]"),
            ({"default_roles": "viewer"}, ".default_roles"), ({"legacy_api_keys": True}, ".legacy_api_keys"),
            ({"rate_limits": None}, ".rate_limits"), ({"rate_limits": {"calls": 5}}, ".rate_limits"),
            ({"rate_limits": {"calls_per_second": 0}}, ".rate_limits.calls_per_second"),
            ({"rate_limits": {"refusals_per_second": 1_000_001}}, ".rate_limits.refusals_per_second"),
            ({"rate_limits": {"burst_calls": 1.5}}, ".rate_limits.burst_calls"),
            ({"roles": None}, ".roles"), ({"roles": {"": {"tables": []}}}, ".roles"),
            ({"roles": {"a": ["log_entries"]}}, ".roles.a"), ({"roles": {"a": {}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": ["log_entries"], "rows": ""}}}, ".roles.a"),
            ({"roles": {"a": {"tables": []}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": [None]}}}, ".roles.a.tables[0]"),
            ({"roles": {"a": {"tables": {"": None}}}}, ".roles.a.tables"),
            ({"roles": {"a": {"tables": {"spans": ""}}}}, ".roles.a.tables.spans"),
            ({"roles": {"a": {"tables": {"spans": True}}}}, ".roles.a.tables.spans"),
            ({"roles": {"a": {"ingest": []}}}, ".roles.a.ingest"),
            ({"roles": {"a": {"max_scan_bytes": 5}}}, ".roles.a.tables"),
            *(({"roles": {"a": {"tables": ["t"], "max_scan_bytes": wrong}}}, ".roles.a.max_scan_bytes")
              for wrong in (0, -1, "5", 1.5, None, True)),
            ({"roles": {"a": {"ingest": "orders"}}}, ".roles.a.ingest"),
            ({"roles": {"a": {"owns": {"orders": None}}}}, ".roles.a.owns"),
            *(({"roles": {"a": {"owns": ["fine", wrong]}}}, ".roles.a.owns[1]")
              for wrong in ("", None, "Orders", "team_*_x", "**", "a.b", "../x", "x" * 64, "é")))),
    ],
)  # fmt: skip
def test_what_is_malformed_or_contradicts_itself_is_refused_by_its_place(config, keys, environ, key):
    assert refusal(config, keys, **environ).key == key


@pytest.mark.parametrize("text", ["", "hunter2", "[", '{"admins": [], "admins": []}'])
def test_a_file_that_is_not_strict_json_is_refused(text):
    for option, key in (("config_text", CONFIG), ("key_file_text", KEY_FILE)):
        with pytest.raises(ConfigurationError) as caught:
            parse_access_settings({}, **{option: text})

        assert caught.value.key == key
        assert "hunter2" not in str(caught.value)


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
            *(({"key": "hunter2", "scopes": [scope]}, ".scopes[0]")
              for scope in ("ingest:", "ingest:*", "ingest:Orders", "ingest: orders", "read:orders", "write:x", ":x")),
            ({"key": "hunter2", "roles": []}, ".roles"), ({"key": "hunter2", "roles": [""]}, ".roles[0]"),
            ({"key": "hunter2", "role": "admin"}, ""), ({"key": "hunter2", "name": ""}, ".name"),
            ({"key": "hunter2", "name": "a\nb"}, ".name"), ({"key": "hunter2", "name": None}, ".name"),
        ],
    )  # fmt: skip
    def test_a_malformed_entry_is_refused_by_its_place_and_without_the_key(self, members, place):
        assert refusal(keys=[{"name": "grafana", **members}]).key == f"{KEY_FILE}[0]{place}"

    def test_more_keys_than_the_limit_are_refused(self):
        keys = [(ApiKeySetting(name="a", sha256=number.to_bytes(32, "big")), str(number)) for number in range(100_001)]
        check_distinct(keys[:100_000])

        with pytest.raises(ConfigurationError):
            check_distinct(keys)
        with pytest.raises(ConfigurationError):
            read_api_keys([None] * 100_001, "KEYS")

    @pytest.mark.parametrize(
        "keys",
        [[ApiKeySetting(name="a", sha256=SHA256)] * 100_001, [ApiKeySetting(name="a", key=Secret("ä" * 2**23))]],
        ids=["many", "long"],
    )
    def test_a_file_that_could_not_be_read_back_is_not_rendered(self, keys):
        with pytest.raises(ConfigurationError) as caught:
            render_api_keys(keys)

        assert "Remove" in caught.value.remedy
