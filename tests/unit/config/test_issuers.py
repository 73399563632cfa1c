"""Entries of issuers, the presets and tenants in them, and all of them together."""

import pytest

from micromegas_jupyter.config.decoding import SIGNATURE_ALGORITHMS
from micromegas_jupyter.config.issuers import (
    PRESETS,
    IssuerSetting,
    apply_preset,
    expand_tenants,
    parse_issuer,
    parse_oidc_config,
)
from micromegas_jupyter.core.protocols import TokenKind
from micromegas_jupyter.errors import ConfigurationError

ENTRY = {"issuer": "https://id.example.com", "audience": "lake"}
OTHER = {"issuer": "https://other.example.com", "audience": "lake"}
WITHOUT_AUDIENCE = {
    "issuer": "https://id.example.com",
    "without_audience": True,
    "client_ids": ["app"],
    "required_claims": {"token_use": "access"},
}
TEMPLATE = "https://login.microsoftonline.com/{tenantid}/v2.0"


def parse(entry=ENTRY, /, **members):
    values = {**entry, **members} if isinstance(entry, dict) else entry
    [setting] = parse_issuer(values, "ENTRY", known_roles={"viewer", "editor"})
    return setting


def refused(read, *values, **members):
    """Return the place that an error names."""
    with pytest.raises(ConfigurationError) as caught:
        read(*values, **members)
    assert "hunter2" not in str(caught.value)
    return caught.value.key


def test_upstreams_entry_accepts_either_kind_with_every_algorithm():
    assert parse() == IssuerSetting(
        issuer="https://id.example.com", audiences=("lake",), algorithms=SIGNATURE_ALGORITHMS, subject_claim="sub",
        token_kind=TokenKind.EITHER, is_trusted_for_email=None, leeway_seconds=60,
    )  # fmt: skip


def test_every_member_is_read():
    same = {
        "discovery_url": "https://keys.example.com/discovery?t=a", "ca_file": "/etc/ca.pem", "subject_claim": "uid",
        "bearer_token_file": "/var/token",
    }  # fmt: skip
    setting = parse(
        audience=["lake", "second", "lake"], aliases=["id.example.com"], algorithms=["ES256", "EdDSA"],
        subjects=["alice", "robot-*"], groups_claim=["realm_access", "roles"], client_ids=["app"],
        required_claims={"hd": ["example.com", "example.org"], "active": True, "level": [2, 3]},
        trusted_for_email=True, token_kind="access", rfc9068=True, leeway_secs=0, admin_groups=["admins"],
        group_roles={"staff": "viewer", "authors": ["viewer", "editor"]}, **same,
    )  # fmt: skip

    assert setting == IssuerSetting(
        issuer="https://id.example.com", audiences=("lake", "second"), aliases=("id.example.com",),
        algorithms=frozenset({"ES256", "EdDSA"}), subjects=("alice", "robot-*"), client_ids=("app",),
        group_claims=(("realm_access", "roles"),), is_trusted_for_email=True, token_kind=TokenKind.ACCESS,
        required_claims={"hd": ("example.com", "example.org"), "active": (True,), "level": (2, 3)},
        is_rfc9068=True, leeway_seconds=0, admin_groups=("admins",),
        group_roles={"staff": ("viewer",), "authors": ("viewer", "editor")}, **same,
    )  # fmt: skip
    assert parse(jwks_file="/etc/keys.json").jwks_file == "/etc/keys.json"
    assert parse(jwks_url="http://127.0.0.1:8001/keys").jwks_url == "http://127.0.0.1:8001/keys"


def test_group_claims_are_one_name_one_path_or_several_paths():
    several = [["realm_access", "roles"], ["groups"]]

    assert parse(groups_claim="realm_access.roles").group_claims == (("realm_access.roles",),)
    assert parse(groups_claim=several).group_claims == (("realm_access", "roles"), ("groups",))


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "hs512", "RS1", "rs256", "ES256K"])
def test_another_algorithm_is_refused(algorithm):
    assert refused(parse, algorithms=["RS256", algorithm]) == "ENTRY.algorithms[1]"


def test_tokens_without_audience_are_held_by_application_and_use():
    setting = parse(WITHOUT_AUDIENCE)

    assert (setting.audiences, setting.client_ids) == ((), ("app",))
    assert setting.required_claims == {"token_use": ("access",)}
    for name in ("client_ids", "required_claims"):
        entry = {member: value for member, value in WITHOUT_AUDIENCE.items() if member != name}
        assert refused(parse, entry).startswith(f"ENTRY.{name}")


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"audience": "lake"}, "audience"), ({"client_ids": []}, "client_ids"),
        ({"required_claims": {}}, "required_claims.token_use"),
        ({"required_claims": {"token_use": None}}, "required_claims.token_use"),
        ({"required_claims": []}, "required_claims"), ({"rfc9068": True}, "rfc9068"),
        ({"without_audience": "yes"}, "without_audience"), ({"without_audience": False}, "audience"),
    ],
)  # fmt: skip
def test_tokens_without_audience_need_the_other_rules(members, key):
    assert refused(parse, WITHOUT_AUDIENCE, **members) == f"ENTRY.{key}"


@pytest.mark.parametrize(
    ("member", "value", "place"),
    [
        *(("issuer", value, "") for value in ("https://user:hunter2@id.example.com", "accounts.google.com", None)),
        ("audience", None, ""), ("audience", [], ""), ("audience", ["lake", 5], "[1]"), ("aliases", "a", ""),
        ("aliases", ["a", ""], "[1]"), ("discovery_url", "https://id.example.com/#hunter2", ""),
        ("jwks_url", "http://id.example.com/keys?hunter2", ""), ("jwks_url", "/etc/keys.json", ""),
        ("jwks_file", "", ""), ("ca_file", 5, ""), ("algorithms", "RS256", ""), ("algorithms", [], ""),
        ("subject_claim", [], ""), ("client_ids", [], ""), ("client_ids", "app", ""),
        *(("subjects", value, "") for value in ([], "alice", ["*"], ["a", "**"], ["repo:*:main"], ["*:main"])),
        *(("groups_claim", value, "") for value in (None, "", {}, [], ["a"] * 9, [["a"]] * 17)),
        ("groups_claim", [[]], "[0]"), ("groups_claim", [["a"], "b"], "[1]"), ("groups_claim", [["a", ""]], "[0][1]"),
        ("required_claims", None, ""), ("required_claims", {"": "a"}, ""),
        *(("required_claims", {"hd": value}, ".hd") for value in (None, "", 1.5, {}, [], ["a"] * 10_001)),
        ("required_claims", {"hd": ["a", []]}, ".hd[1]"), ("trusted_for_email", "true", ""),
        ("trusted_for_email", 1, ""), ("token_kind", "refresh", ""), ("rfc9068", 1, ""),
        *(("leeway_secs", value, "") for value in (61, -1, 1.5, True)), ("admin_groups", [], ""),
        ("admin_groups", "admins", ""), ("group_roles", [], ""), ("group_roles", {"": "viewer"}, ""),
        ("group_roles", {"staff": ["viewer", "owner"]}, ".staff"), ("tenants", ["one"], "->issuer"),
        ("bearer_token_file", "/var/token", ""),
    ],
)  # fmt: skip
def test_a_malformed_member_is_refused_by_its_place_without_what_may_be_secret(member, value, place):
    expected = f"ENTRY.{place[2:]}" if place.startswith("->") else f"ENTRY.{member}{place}"

    assert refused(parse, **{member: value}) == expected


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({**ENTRY, "discovery_url": "https://k", "jwks_url": "https://k"}, "ENTRY.jwks_url"),
        ({**ENTRY, "jwks_url": "https://k", "jwks_file": "k"}, "ENTRY.jwks_file"),
        ({**ENTRY, "rfc9068": True, "token_kind": "id"}, "ENTRY.rfc9068"),
        ({**ENTRY, "client_secret": "hunter2"}, "ENTRY"),
        *((value, "ENTRY") for value in (None, [], "https://id.example.com", 5)),
    ],
)
def test_members_that_do_not_fit_together_and_other_values_are_refused(entry, key):
    assert refused(parse, entry) == key


# Tenants


def expand(**values):
    return list(expand_tenants(values, "ENTRY"))


def test_each_tenant_is_an_issuer_of_its_own_and_must_match_tid():
    values = {
        "issuer": TEMPLATE,
        "tenants": ["one", "two"],
        "aliases": ["https://sts.windows.net/{tenantid}/"],
        "discovery_url": "https://example.com/{tenantid}/discovery?t={tenantid}",
        "required_claims": {"azpacr": "1"},
        "audience": "lake",
    }

    expanded = dict(expand(**values))

    assert list(expanded) == ["one", "two"]
    assert expanded["two"] == {
        "issuer": "https://login.microsoftonline.com/two/v2.0",
        "aliases": ["https://sts.windows.net/two/"],
        "discovery_url": "https://example.com/two/discovery?t=two",
        "required_claims": {"azpacr": "1", "tid": "two"},
        "audience": "lake",
    }
    assert [setting.tenant for setting in parse_issuer(values, "ENTRY", known_roles=None)] == ["one", "two"]


def test_a_thousand_tenants_are_accepted_and_one_more_is_not():
    tenants = [f"t{number}" for number in range(1001)]

    assert len(expand(issuer=TEMPLATE, tenants=tenants[:1000])) == 1000
    assert refused(expand, issuer=TEMPLATE, tenants=tenants) == "ENTRY.tenants"


@pytest.mark.parametrize(
    ("issuer", "members", "key"),
    [
        (TEMPLATE, {}, "tenants"), (5, {}, "issuer"), ("https://id.example.com", {"tenants": ["one"]}, "issuer"),
        ("https://login.microsoftonline.com/common/v2.0", {}, "issuer"),
        ("https://LOGIN.MICROSOFTONLINE.US/Organizations/v2.0", {}, "issuer"),
        ("https://sts.windows.net/consumers/", {}, "issuer"),
        ("https://{tenantid}.example.com/{tenantid}", {"tenants": ["one"]}, "issuer"),
        ("https://{tenant}.example.com/{tenantid}", {"tenants": ["one"]}, "issuer"),
        ("https://id.example.com/{realm}", {}, "issuer"), (TEMPLATE, {"tenants": ["common"]}, "issuer"),
        ("https://id.example.com", {"aliases": ["a", "https://sts.windows.net/common/"]}, "aliases[1]"),
        ("https://id.example.com", {"aliases": ["a", "{tenantid}"]}, "aliases[1]"),
        ("https://id.example.com", {"discovery_url": "https://a/{tenantid}"}, "discovery_url"),
        ("https://id.example.com", {"jwks_url": "https://a/}"}, "jwks_url"),
        *((TEMPLATE, {"tenants": tenants}, "tenants") for tenants in (
            [], "one", ["../one"], ["a/b"], ["{tenantid}"])),
        (TEMPLATE, {"tenants": [5]}, "tenants[0]"),
        (TEMPLATE, {"tenants": ["one"], "required_claims": []}, "required_claims"),
        (TEMPLATE, {"tenants": ["one"], "required_claims": {"tid": "one"}}, "required_claims.tid"),
    ],
)  # fmt: skip
def test_tenants_that_do_not_fit_and_issuers_for_every_tenant_are_refused(issuer, members, key):
    assert refused(expand, issuer=issuer, **members) == f"ENTRY.{key}"


# All issuers


def parse_all(*entries, **numbers):
    return parse_oidc_config({"issuers": list(entries), **numbers}, "OIDC", known_roles=None)


def test_numbers_are_read_and_have_upstreams_defaults():
    numbers = {"jwks_refresh_interval_secs": 60, "jwks_stale_limit_secs": 120, "jwks_cool_down_secs": 10}
    read, defaults = parse_all(ENTRY, **numbers, token_cache_size=20_000, token_cache_ttl_secs=7), parse_all(ENTRY)

    assert (read.jwks_refresh_interval_seconds, read.jwks_stale_limit_seconds) == (60, 120)
    assert (read.jwks_cool_down_seconds, read.token_cache_size, read.token_cache_ttl_seconds) == (10, 20_000, 7)
    assert (defaults.jwks_refresh_interval_seconds, defaults.jwks_stale_limit_seconds) == (3600, 24 * 3600)
    assert (defaults.jwks_cool_down_seconds, defaults.token_cache_size) == (30, 1000)
    assert defaults.token_cache_ttl_seconds == 300


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_cache_size", 0), ("token_cache_size", 1_000_001), ("token_cache_ttl_secs", "300"),
        ("jwks_refresh_interval_secs", 1.5), ("jwks_refresh_interval_secs", 604_801), ("jwks_stale_limit_secs", 0),
        ("jwks_stale_limit_secs", 3599), ("jwks_cool_down_secs", 9), ("jwks_cool_down_secs", 61),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_by_its_place(name, value):
    assert refused(parse_all, ENTRY, **{name: value}) == f"OIDC.{name}"


def test_a_number_at_its_limit_is_accepted_and_a_long_interval_raises_the_stale_limit():
    parse_all(ENTRY, jwks_stale_limit_secs=3600, jwks_cool_down_secs=60)

    assert parse_all(ENTRY, jwks_refresh_interval_secs=604_800).jwks_stale_limit_seconds == 604_800


def test_an_issuer_that_is_listed_several_times_has_all_its_audiences_once():
    entry = {**ENTRY, "aliases": ["id"], "required_claims": {"hd": "example.com"}, "group_roles": {"staff": "viewer"}}

    read = parse_all(entry, OTHER, {**entry, "audience": ["second", "lake"]}, entry)

    assert [(issuer.issuer, issuer.audiences) for issuer in read.issuers] == [
        ("https://id.example.com", ("lake", "second")),
        ("https://other.example.com", ("lake",)),
    ]


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        *(([OTHER, ENTRY, {**ENTRY, **members}], "[2]") for members in (
            {"token_kind": "access"}, {"required_claims": {"hd": "a"}}, {"admin_groups": ["a"]}, {"aliases": ["id"]})),
        ([WITHOUT_AUDIENCE, {**WITHOUT_AUDIENCE, "without_audience": False, "audience": "lake"}], "[1]"),
        ([{"issuer": "https://i/{tenantid}", "audience": "lake", "tenants": ["one"]},
          {"issuer": "https://i/one", "audience": "lake"}], "[1]"),
        ([{**ENTRY, "audience": [str(n) for n in range(10_000)]}, {**ENTRY, "audience": "one more"}], "[1]"),
        ([{**ENTRY, "aliases": ["https://other.example.com"]}, OTHER], "[0].aliases"),
        ([OTHER, {**ENTRY, "aliases": ["https://other.example.com"]}], "[1].aliases"),
        ([{**ENTRY, "aliases": ["a"]}, {**OTHER, "aliases": ["b", "a"]}], "[1].aliases"),
        ([{**ENTRY, "aliases": ["https://id.example.com"]}], "[0].aliases"),
        ([{"issuer": "https://i/{tenantid}", "audience": "x", "tenants": ["a", "b"], "aliases": ["c"]}], "[0].aliases"),
        ([ENTRY] * 2001, ""),
        ([{"issuer": f"https://id{n}.example.com/{{tenantid}}", "audience": "x",
           "tenants": [f"t{number}" for number in range(1000)]} for n in range(3)], ""),
    ],
)  # fmt: skip
def test_entries_that_contradict_each_other_or_are_too_many_are_refused(entries, key):
    assert refused(parse_all, *entries) == f"OIDC.issuers{key}"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "OIDC"), ([], "OIDC"), ({}, "OIDC.issuers"), ({"issuers": {}}, "OIDC.issuers"),
        ({"issuers": []}, "OIDC"), ({"issuers": [ENTRY], "token_cache": 5}, "OIDC"),
    ],
)  # fmt: skip
def test_another_value_is_refused(value, key):
    assert refused(parse_oidc_config, value, "OIDC", known_roles=None) == key


# Presets

COMPLETE = {
    "google": {"audience": "app.apps.googleusercontent.com", "required_claims": {"hd": "example.com"}},
    "entra": {"audience": "api", "tenants": ["0b1c"]},
    "okta": {"audience": "api://default", "issuer": "https://example.okta.com/oauth2/default"},
    "auth0": {"audience": "lake", "issuer": "https://example.eu.auth0.com/"},
    "keycloak": {"audience": "lake", "issuer": "https://id.example.com/realms/lake"},
    "cognito": {"issuer": "https://cognito-idp.eu-central-1.amazonaws.com/pool", "client_ids": ["app"]},
    "dex": {"audience": "lake", "issuer": "https://id.example.com/dex"},
    "github_actions": {
        "audience": "lake",
        "subjects": ["repo:example/lake:*"],
        "required_claims": {"repository_owner_id": "1234"},
    },
    "kubernetes": {"audience": "lake", "issuer": "https://kubernetes.default.svc", "jwks_file": "/keys.json"},
}


def with_preset(preset, *, without="", **members):
    entry = {"preset": preset, **COMPLETE[preset], **members}
    entry.pop(without, None)
    return entry


@pytest.mark.parametrize(
    ("preset", "issuer", "kind", "group_claims"),
    [
        ("google", "https://accounts.google.com", "id", None),
        ("entra", "https://login.microsoftonline.com/0b1c/v2.0", "access", (("groups",), ("roles",))),
        ("okta", "https://example.okta.com/oauth2/default", "access", None),
        ("auth0", "https://example.eu.auth0.com/", "access", None),
        ("keycloak", "https://id.example.com/realms/lake", "access", (("realm_access", "roles"), ("groups",))),
        ("cognito", "https://cognito-idp.eu-central-1.amazonaws.com/pool", "access", (("cognito:groups",),)),
        ("dex", "https://id.example.com/dex", "id", (("groups",),)),
        ("github_actions", "https://token.actions.githubusercontent.com", "id", None),
        ("kubernetes", "https://kubernetes.default.svc", "either", None),
    ],
)
def test_a_preset_fills_in_what_is_known_of_its_provider(preset, issuer, kind, group_claims):
    setting = parse(with_preset(preset))

    assert list(COMPLETE) == list(PRESETS)
    assert (setting.issuer, setting.token_kind, setting.group_claims) == (issuer, kind, group_claims)


def test_what_is_special_about_a_provider_is_in_its_preset():
    entra = parse(with_preset("entra"))
    assert parse(with_preset("google")).aliases == ("accounts.google.com",)
    assert (entra.is_trusted_for_email, entra.tenant, entra.required_claims) == (False, "0b1c", {"tid": ("0b1c",)})
    access = parse(with_preset("cognito", required_claims={"scope": "lake/read"}))
    identity = parse(with_preset("cognito", without="client_ids", token_kind="id", audience="app"))
    assert (access.audiences, access.client_ids) == ((), ("app",))
    assert access.required_claims == {"token_use": ("access",), "scope": ("lake/read",)}
    assert (identity.audiences, identity.required_claims) == (("app",), {"token_use": ("id",)})


def test_what_the_entry_says_wins_over_the_preset():
    setting = parse(with_preset("entra", token_kind="id", trusted_for_email=True, groups_claim="roles"))
    written_out = parse(with_preset("entra", without="tenants", issuer="https://login.microsoftonline.com/0b1c/v2.0"))
    org_server = parse(with_preset("okta", issuer="https://example.okta.com", token_kind="id"))

    assert (setting.token_kind, setting.is_trusted_for_email) == (TokenKind.ID, True)
    assert setting.group_claims == (("roles",),)
    assert written_out.tenant is None
    assert org_server.issuer == "https://example.okta.com"


@pytest.mark.parametrize("preset", ["", "Google", "gitlab", None, 5, []])
def test_an_unknown_preset_is_refused_by_its_place(preset):
    assert refused(apply_preset, {"preset": preset}, "ENTRY") == "ENTRY.preset"


@pytest.mark.parametrize(
    ("preset", "without", "key"),
    [
        ("google", "audience", ".audience"), ("google", "required_claims", ""), ("entra", "tenants", ".tenants"),
        ("okta", "issuer", ".issuer"), ("cognito", "client_ids", ".client_ids"),
        ("github_actions", "subjects", ".subjects"),
        ("github_actions", "required_claims", ".required_claims.repository_owner_id"),
        ("kubernetes", "jwks_file", ""),
    ],
)  # fmt: skip
def test_what_a_preset_needs_is_asked_for(preset, without, key):
    assert refused(parse, with_preset(preset, without=without)) == f"ENTRY{key}"


@pytest.mark.parametrize(
    ("preset", "members", "key"),
    [
        # Claims that every token has keep nobody out.
        ("google", {"required_claims": {}}, ""), ("google", {"required_claims": {"email_verified": True}}, ""),
        ("google", {"required_claims": {"iss": "a", "aud": "app", "exp": 1}}, ""),
        ("google", {"required_claims": ["hd"]}, ".required_claims"),
        *(("github_actions", {"required_claims": claims}, ".required_claims.repository_owner_id") for claims in (
            {}, [], None, *({"repository_owner_id": owner} for owner in (1234, [], ["1234", 5], None, True)))),
        ("github_actions", {"subjects": ["*"]}, ".subjects"),
        *(("okta", {"issuer": issuer}, ".issuer") for issuer in ("https://example.okta.com/", "https://o/oauth2")),
        ("okta", {"issuer": "https://example.okta.com", "token_kind": "either"}, ".issuer"),
        ("auth0", {"issuer": "https://example.eu.auth0.com"}, ".issuer"),
        *(("cognito", {"token_kind": kind}, ".token_kind") for kind in ("either", "other", None, [])),
        ("cognito", {"audience": "app"}, ".audience"),
    ],
)  # fmt: skip
def test_what_would_let_strangers_in_is_refused(preset, members, key):
    assert refused(parse, with_preset(preset, **members)) == f"ENTRY{key}"
