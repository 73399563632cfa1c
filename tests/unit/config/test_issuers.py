"""Tests of `config.issuers`: entries of issuers, their tenants, and all of them together."""

from __future__ import annotations

import pytest

from micromegas_jupyter.config.decoding import SIGNATURE_ALGORITHMS
from micromegas_jupyter.config.issuers import (
    IssuerSetting,
    OidcServerSettings,
    TokenKind,
    expand_tenants,
    parse_issuer,
    parse_oidc_config,
)
from micromegas_jupyter.errors import ConfigurationError

ENTRY: dict[str, object] = {"issuer": "https://id.example.com", "audience": "lake"}
OTHER: dict[str, object] = {"issuer": "https://other.example.com", "audience": "lake"}
WITHOUT_AUDIENCE: dict[str, object] = {
    "issuer": "https://id.example.com",
    "without_audience": True,
    "client_ids": ["app"],
    "required_claims": {"token_use": "access"},
}
TEMPLATE = "https://login.microsoftonline.com/{tenantid}/v2.0"


def parse(**members: object) -> IssuerSetting:
    [setting] = parse_issuer({**ENTRY, **members}, "ENTRY", known_roles={"viewer", "editor"})
    return setting


def refusal(entry: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse_issuer(entry, "ENTRY", known_roles={"viewer"})
    assert "hunter2" not in str(caught.value)
    return caught.value


class TestEntry:
    """One issuer's entry."""

    def test_upstreams_entry_accepts_either_kind_with_every_algorithm(self):
        assert parse() == IssuerSetting(
            issuer="https://id.example.com",
            audiences=("lake",),
            algorithms=SIGNATURE_ALGORITHMS,
            subject_claim="sub",
            token_kind=TokenKind.EITHER,
            is_trusted_for_email=None,
            leeway_seconds=60,
        )

    def test_every_member_is_read(self):
        setting = parse(
            audience=["lake", "second", "lake"],
            aliases=["id.example.com"],
            discovery_url="https://keys.example.com/discovery?t=a",
            ca_file="/etc/ca.pem",
            bearer_token_file="/var/token",
            algorithms=["ES256", "EdDSA"],
            subject_claim="uid",
            subjects=["alice", "robot-*"],
            groups_claim=["realm_access", "roles"],
            required_claims={"hd": ["example.com", "example.org"], "active": True, "level": [2, 3]},
            client_ids=["app"],
            trusted_for_email=True,
            token_kind="access",
            rfc9068=True,
            leeway_secs=0,
            admin_groups=["admins"],
            group_roles={"staff": "viewer", "authors": ["viewer", "editor"]},
        )

        assert setting == IssuerSetting(
            issuer="https://id.example.com",
            audiences=("lake", "second"),
            aliases=("id.example.com",),
            discovery_url="https://keys.example.com/discovery?t=a",
            ca_file="/etc/ca.pem",
            bearer_token_file="/var/token",
            algorithms=frozenset({"ES256", "EdDSA"}),
            subject_claim="uid",
            subjects=("alice", "robot-*"),
            group_claims=(("realm_access", "roles"),),
            required_claims={"hd": ("example.com", "example.org"), "active": (True,), "level": (2, 3)},
            client_ids=("app",),
            is_trusted_for_email=True,
            token_kind=TokenKind.ACCESS,
            is_rfc9068=True,
            leeway_seconds=0,
            admin_groups=("admins",),
            group_roles={"staff": ("viewer",), "authors": ("viewer", "editor")},
        )
        assert parse(jwks_file="/etc/keys.json").jwks_file == "/etc/keys.json"
        assert parse(jwks_url="http://127.0.0.1:8001/keys").jwks_url == "http://127.0.0.1:8001/keys"

    @pytest.mark.parametrize(
        ("value", "paths"),
        [
            ("groups", (("groups",),)),
            ("https://example.com/roles", (("https://example.com/roles",),)),
            ("realm_access.roles", (("realm_access.roles",),)),
            ([["realm_access", "roles"], ["groups"]], (("realm_access", "roles"), ("groups",))),
        ],
    )
    def test_group_claims_are_one_name_one_path_or_several_paths(self, value, paths):
        assert parse(groups_claim=value).group_claims == paths

    @pytest.mark.parametrize("algorithm", sorted(SIGNATURE_ALGORITHMS))
    def test_each_asymmetric_algorithm_can_be_chosen_alone(self, algorithm):
        assert parse(algorithms=[algorithm]).algorithms == {algorithm}

    @pytest.mark.parametrize(
        ("algorithm", "reason"),
        [
            ("none", "no signature"), ("None", "no signature"), ("HS256", "shared secret"), ("hs512", "shared secret"),
            ("RS1", "not a known"), ("rs256", "not a known"), ("ES256K", "not a known"),
        ],
    )  # fmt: skip
    def test_another_algorithm_is_refused_with_the_reason(self, algorithm, reason):
        error = refusal({**ENTRY, "algorithms": ["RS256", algorithm]})

        assert error.key == "ENTRY.algorithms[1]"
        assert reason in str(error)
        assert "ES256, ES384" in error.remedy

    def test_tokens_without_audience_are_held_by_application_and_use(self):
        [setting] = parse_issuer(WITHOUT_AUDIENCE, "ENTRY", known_roles=None)

        assert (setting.audiences, setting.client_ids) == ((), ("app",))
        assert setting.required_claims == {"token_use": ("access",)}
        for name in ("client_ids", "required_claims"):
            entry = {member: value for member, value in WITHOUT_AUDIENCE.items() if member != name}
            assert refusal(entry).key.startswith(f"ENTRY.{name}")

    @pytest.mark.parametrize(
        ("members", "key"),
        [
            ({"audience": "lake"}, "audience"), ({"client_ids": None}, "client_ids"),
            ({"client_ids": []}, "client_ids"),
            ({"required_claims": {}}, "required_claims.token_use"),
            ({"required_claims": {"token_use": None}}, "required_claims.token_use"),
            ({"required_claims": []}, "required_claims"), ({"rfc9068": True}, "rfc9068"),
            ({"without_audience": "yes"}, "without_audience"), ({"without_audience": False}, "audience"),
        ],
    )  # fmt: skip
    def test_tokens_without_audience_need_the_other_rules(self, members, key):
        assert refusal({**WITHOUT_AUDIENCE, **members}).key == f"ENTRY.{key}"

    @pytest.mark.parametrize("names", [("discovery_url", "jwks_url"), ("jwks_url", "jwks_file")])
    def test_keys_are_in_one_location_only(self, names):
        error = refusal({**ENTRY, **dict.fromkeys(names, "https://keys.example.com")})

        assert error.key == f"ENTRY.{names[1]}"
        assert all(name in str(error) for name in names)

    def test_a_credential_for_fetching_needs_the_certificate_of_who_receives_it(self):
        error = refusal({**ENTRY, "bearer_token_file": "/var/token"})

        assert error.key == "ENTRY.bearer_token_file"
        assert "ca_file" in error.remedy

    @pytest.mark.parametrize(
        ("member", "value", "place"),
        [
            *(("issuer", value, "") for value in ("https://user:hunter2@id.example.com", "accounts.google.com", None)),
            ("audience", None, ""), ("audience", [], ""), ("audience", ["lake", 5], "[1]"),
            ("aliases", "a", ""), ("aliases", ["a", ""], "[1]"),
            ("discovery_url", "https://id.example.com/#hunter2", ""),
            ("jwks_url", "http://id.example.com/keys?hunter2", ""), ("jwks_url", "/etc/keys.json", ""),
            ("jwks_file", "", ""), ("ca_file", 5, ""),
            ("algorithms", "RS256", ""), ("algorithms", [], ""), ("algorithms", ["RS256", None], "[1]"),
            ("subject_claim", [], ""), ("client_ids", [], ""), ("client_ids", "app", ""),
            *(("subjects", value, "") for value in ([], "alice", ["*"], ["a", "**"], ["repo:*:main"], ["*:main"])),
            *(("groups_claim", value, "") for value in (None, "", {}, [], ["a"] * 9, [["a"]] * 17)),
            ("groups_claim", [[]], "[0]"), ("groups_claim", [5], "[0]"), ("groups_claim", [["a"], "b"], "[1]"),
            ("groups_claim", [["a"], []], "[1]"), ("groups_claim", [["a", ""]], "[0][1]"),
            ("required_claims", None, ""), ("required_claims", [], ""), ("required_claims", {"": "a"}, ""),
            *(("required_claims", {"hd": value}, ".hd") for value in (None, "", 1.5, {}, [], ["a"] * 10_001)),
            ("required_claims", {"hd": ["a", []]}, ".hd[1]"),
            ("trusted_for_email", "true", ""), ("trusted_for_email", 1, ""), ("token_kind", "refresh", ""),
            ("rfc9068", 1, ""), *(("leeway_secs", value, "") for value in (61, -1, 1.5, True)),
            ("admin_groups", [], ""), ("admin_groups", "admins", ""), ("group_roles", [], ""),
            ("group_roles", {"": "viewer"}, ""), ("group_roles", {"staff": []}, ".staff"),
            ("group_roles", {"staff": ["viewer", "owner"]}, ".staff"),
        ],
    )  # fmt: skip
    def test_a_malformed_member_is_refused_by_its_place_without_what_may_be_secret(self, member, value, place):
        error = refusal({**ENTRY, member: value})

        assert error.key == f"ENTRY.{member}{place}"
        assert error.key in str(error)

    @pytest.mark.parametrize(
        ("entry", "key"),
        [
            ({**ENTRY, "ca_file": "/ca", "bearer_token_file": None}, "ENTRY.bearer_token_file"),
            ({**ENTRY, "rfc9068": True, "token_kind": "id"}, "ENTRY.rfc9068"),
            ({**ENTRY, "tenants": ["one"]}, "ENTRY.issuer"),
            ({**ENTRY, "client_secret": "hunter2"}, "ENTRY"),
            *((value, "ENTRY") for value in (None, [], "https://id.example.com", 5)),
        ],
    )
    def test_members_that_do_not_fit_together_and_other_values_are_refused(self, entry, key):
        assert refusal(entry).key == key


class TestTenants:
    """A template becomes one issuer for each listed tenant."""

    def refusal(self, **values: object) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            list(expand_tenants(values, "ENTRY"))
        return caught.value

    def test_each_tenant_is_an_issuer_of_its_own_and_must_match_tid(self):
        values = {
            "issuer": TEMPLATE,
            "tenants": ["one", "two"],
            "aliases": ["https://sts.windows.net/{tenantid}/"],
            "discovery_url": "https://example.com/{tenantid}/discovery?t={tenantid}",
            "jwks_url": "https://example.com/{tenantid}/keys",
            "required_claims": {"azpacr": "1"},
            "audience": "lake",
        }

        expanded = dict(expand_tenants(values, "ENTRY"))

        assert list(expanded) == ["one", "two"]
        assert expanded["two"] == {
            "issuer": "https://login.microsoftonline.com/two/v2.0",
            "aliases": ["https://sts.windows.net/two/"],
            "discovery_url": "https://example.com/two/discovery?t=two",
            "jwks_url": "https://example.com/two/keys",
            "required_claims": {"azpacr": "1", "tid": "two"},
            "audience": "lake",
        }
        entry = {"issuer": TEMPLATE, "audience": "lake", "tenants": ["one", "two"]}
        assert [setting.tenant for setting in parse_issuer(entry, "ENTRY", known_roles=None)] == ["one", "two"]

    @pytest.mark.parametrize("issuer", ["https://id.example.com", "https://id.example.com/common", "https://[::1"])
    def test_an_issuer_without_tenants_stays_as_it_is(self, issuer):
        assert list(expand_tenants({"issuer": issuer}, "ENTRY")) == [(None, {"issuer": issuer})]

    def test_a_thousand_tenants_are_accepted_and_one_more_is_not(self):
        tenants = [f"t{number}" for number in range(1001)]

        assert len(list(expand_tenants({"issuer": TEMPLATE, "tenants": tenants[:1000]}, "ENTRY"))) == 1000
        assert self.refusal(issuer=TEMPLATE, tenants=tenants).key == "ENTRY.tenants"

    def test_a_template_without_tenants_is_refused_with_the_reason(self):
        error = self.refusal(issuer=TEMPLATE)

        assert error.key == "ENTRY.tenants"
        assert "every tenant" in str(error)

    @pytest.mark.parametrize(
        ("host", "name"),
        [
            ("login.microsoftonline.com", "common"), ("LOGIN.MICROSOFTONLINE.US", "organizations"),
            ("sts.windows.net", "consumers"), ("login.microsoftonline.com", "Common"),
        ],
    )  # fmt: skip
    def test_an_entra_issuer_for_every_tenant_is_refused_with_the_reason(self, host, name):
        error = self.refusal(issuer=f"https://{host}/{name}/v2.0")

        assert error.key == "ENTRY.issuer"
        assert "every tenant" in str(error)
        assert "tenants" in error.remedy

    @pytest.mark.parametrize(
        ("issuer", "members", "key"),
        [
            (None, {}, "issuer"), (5, {}, "issuer"), ("https://id.example.com", {"tenants": ["one"]}, "issuer"),
            ("https://{tenantid}.example.com/{tenantid}", {"tenants": ["one"]}, "issuer"),
            ("https://{tenant}.example.com/{tenantid}", {"tenants": ["one"]}, "issuer"),
            ("https://id.example.com/{realm}", {}, "issuer"), (TEMPLATE, {"tenants": ["common"]}, "issuer"),
            ("https://id.example.com", {"aliases": ["a", "https://sts.windows.net/common/"]}, "aliases[1]"),
            ("https://id.example.com", {"aliases": ["a", "{tenantid}"]}, "aliases[1]"),
            ("https://id.example.com", {"discovery_url": "https://a/{tenantid}"}, "discovery_url"),
            ("https://id.example.com", {"jwks_url": "https://a/}"}, "jwks_url"),
            *((TEMPLATE, {"tenants": tenants}, "tenants") for tenants in (
                [], "one", ["../one"], ["a/b"], ["{tenantid}"])),
            (TEMPLATE, {"tenants": [5]}, "tenants[0]"), (TEMPLATE, {"tenants": ["one"], "aliases": "a"}, "aliases"),
            (TEMPLATE, {"tenants": ["one"], "discovery_url": 5}, "discovery_url"),
            (TEMPLATE, {"tenants": ["one"], "required_claims": []}, "required_claims"),
            (TEMPLATE, {"tenants": ["one"], "required_claims": {"tid": "one"}}, "required_claims.tid"),
        ],
    )  # fmt: skip
    def test_tenants_that_do_not_fit_are_refused_by_their_place(self, issuer, members, key):
        assert self.refusal(**({} if issuer is None else {"issuer": issuer}), **members).key == f"ENTRY.{key}"


class TestAllIssuers:
    """What `MICROMEGAS_OIDC_CONFIG` holds."""

    def parse(self, *entries: object, **numbers: object) -> OidcServerSettings:
        return parse_oidc_config({"issuers": list(entries), **numbers}, "OIDC", known_roles=None)

    def refusal(self, *entries: object, **numbers: object) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            self.parse(*entries, **numbers)
        return caught.value

    def test_numbers_are_read_and_have_upstreams_defaults(self):
        read = self.parse(
            ENTRY,
            jwks_refresh_interval_secs=60,
            jwks_stale_limit_secs=120,
            jwks_cool_down_secs=10,
            token_cache_size=20_000,
            token_cache_ttl_secs=7,
        )
        defaults = self.parse(ENTRY)

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
            ("jwks_stale_limit_secs", 604_801), ("jwks_stale_limit_secs", 3599), ("jwks_cool_down_secs", 9),
            ("jwks_cool_down_secs", 61), ("jwks_cool_down_secs", None),
        ],
    )  # fmt: skip
    def test_a_number_out_of_range_is_refused_by_its_place(self, name, value):
        assert self.refusal(ENTRY, **{name: value}).key == f"OIDC.{name}"

    def test_a_number_at_its_limit_is_accepted_and_a_long_interval_raises_the_stale_limit(self):
        self.parse(ENTRY, jwks_stale_limit_secs=3600, jwks_cool_down_secs=60)

        assert self.parse(ENTRY, jwks_refresh_interval_secs=604_800).jwks_stale_limit_seconds == 604_800

    def test_an_issuer_that_is_listed_several_times_has_all_its_audiences_once(self):
        more = {"aliases": ["id"], "required_claims": {"hd": "example.com"}, "group_roles": {"staff": "viewer"}}
        entry = {**ENTRY, **more}

        read = self.parse(entry, OTHER, {**entry, "audience": ["second", "lake"]}, entry)

        assert [(issuer.issuer, issuer.audiences) for issuer in read.issuers] == [
            ("https://id.example.com", ("lake", "second")),
            ("https://other.example.com", ("lake",)),
        ]

    @pytest.mark.parametrize(
        "members",
        [{"token_kind": "access"}, {"required_claims": {"hd": "a"}}, {"admin_groups": ["a"]}, {"leeway_secs": 5},
         {"aliases": ["id"]}],
    )  # fmt: skip
    def test_entries_of_one_issuer_with_other_members_are_refused_with_both_places(self, members):
        error = self.refusal(OTHER, ENTRY, {**ENTRY, **members})

        assert error.key == "OIDC.issuers[2]"
        assert "OIDC.issuers[1]" in str(error)

    def test_an_issuer_cannot_have_an_audience_and_none_or_be_a_tenant_of_a_template_too(self):
        with_audience = {**WITHOUT_AUDIENCE, "without_audience": False, "audience": "lake"}
        template = {"issuer": "https://i/{tenantid}", "audience": "lake", "tenants": ["one"]}

        assert self.refusal(WITHOUT_AUDIENCE, with_audience).key == "OIDC.issuers[1]"
        assert self.refusal(template, {"issuer": "https://i/one", "audience": "lake"}).key == "OIDC.issuers[1]"

    @pytest.mark.parametrize(
        ("entries", "index"),
        [
            ([{**ENTRY, "aliases": ["https://other.example.com"]}, OTHER], 0),
            ([OTHER, {**ENTRY, "aliases": ["https://other.example.com"]}], 1),
            ([{**ENTRY, "aliases": ["a"]}, {**OTHER, "aliases": ["b", "a"]}], 1),
            ([{**ENTRY, "aliases": ["https://id.example.com"]}], 0),
            ([{**ENTRY, "aliases": ["a", "a"]}], 0),
            ([{"issuer": "https://i/{tenantid}", "audience": "x", "tenants": ["a", "b"], "aliases": ["c"]}], 0),
        ],
    )
    def test_a_name_that_means_two_issuers_is_refused(self, entries, index):
        assert self.refusal(*entries).key == f"OIDC.issuers[{index}].aliases"

    def test_aliases_are_compared_byte_for_byte(self):
        [issuer] = self.parse({**ENTRY, "aliases": ["https://id.example.com/", "HTTPS://id.example.com"]}).issuers

        assert issuer.aliases == ("https://id.example.com/", "HTTPS://id.example.com")

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            (None, "OIDC"), ([], "OIDC"), ({}, "OIDC.issuers"), ({"issuers": {}}, "OIDC.issuers"),
            ({"issuers": []}, "OIDC"), ({"issuers": [ENTRY], "token_cache": 5}, "OIDC"),
            ({"issuers": [ENTRY] * 2001}, "OIDC.issuers"),
        ],
    )  # fmt: skip
    def test_another_value_is_refused(self, value, key):
        with pytest.raises(ConfigurationError) as caught:
            parse_oidc_config(value, "OIDC", known_roles=None)

        assert caught.value.key == key

    def test_tenants_and_audiences_are_limited_in_all(self):
        tenants, names = [f"t{number}" for number in range(1000)], [str(number) for number in range(10_000)]
        entries = [
            {"issuer": f"https://id{number}.example.com/{{tenantid}}", "audience": "lake", "tenants": tenants}
            for number in range(3)
        ]

        assert len(self.parse(*entries[:2]).issuers) == 2000
        assert self.refusal(*entries).key == "OIDC.issuers"
        assert self.refusal({**ENTRY, "audience": names}, {**ENTRY, "audience": "one more"}).key == "OIDC.issuers[1]"
