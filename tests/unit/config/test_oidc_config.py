"""Tests of `settings.issuer_config`."""

import pytest

from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings
from micromegas_jupyter.config.issuer_config import parse_oidc_config
from micromegas_jupyter.errors import ConfigurationError

ENTRY: dict[str, object] = {"issuer": "https://id.example.com", "audience": "lake"}
OTHER: dict[str, object] = {"issuer": "https://other.example.com", "audience": "lake"}


def parse(*entries: object, **numbers: object) -> OidcServerSettings:
    return parse_oidc_config({"issuers": list(entries), **numbers}, "OIDC", known_roles=None)


def refusal(*entries: object, **numbers: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(*entries, **numbers)
    return caught.value


def test_numbers_have_upstreams_defaults():
    assert parse(ENTRY) == OidcServerSettings(
        issuers=(IssuerSetting(issuer="https://id.example.com", audiences=("lake",)),),
        jwks_refresh_interval_seconds=3600,
        jwks_stale_limit_seconds=24 * 3600,
        jwks_cool_down_seconds=30,
        token_cache_size=1000,
        token_cache_ttl_seconds=300,
    )


def test_numbers_are_read():
    read = parse(
        ENTRY,
        jwks_refresh_interval_secs=60,
        jwks_stale_limit_secs=120,
        jwks_cool_down_secs=10,
        token_cache_size=20_000,
        token_cache_ttl_secs=7,
    )

    assert (read.jwks_refresh_interval_seconds, read.jwks_stale_limit_seconds) == (60, 120)
    assert (read.jwks_cool_down_seconds, read.token_cache_size, read.token_cache_ttl_seconds) == (10, 20_000, 7)


def test_an_issuer_that_stands_several_times_has_all_its_audiences_once():
    read = parse(ENTRY, OTHER, {**ENTRY, "audience": ["second", "lake"]}, ENTRY)

    assert [(issuer.issuer, issuer.audiences) for issuer in read.issuers] == [
        ("https://id.example.com", ("lake", "second")),
        ("https://other.example.com", ("lake",)),
    ]


def test_entries_that_merge_may_have_other_members_when_those_are_equal():
    more = {"aliases": ["id"], "required_claims": {"hd": "example.com"}, "group_roles": {"staff": "viewer"}}

    [issuer] = parse({**ENTRY, **more}, {**ENTRY, **more, "audience": "second"}).issuers

    assert issuer.audiences == ("lake", "second")


@pytest.mark.parametrize(
    "members",
    [
        {"token_kind": "access"},
        {"required_claims": {"hd": "example.com"}},
        {"admin_groups": ["admins"]},
        {"leeway_secs": 5},
        {"aliases": ["id"]},
    ],
)
def test_entries_of_one_issuer_with_other_members_are_refused_with_both_places(members):
    error = refusal(OTHER, ENTRY, {**ENTRY, **members})

    assert error.key == "OIDC.issuers[2]"
    assert "OIDC.issuers[1]" in str(error)


def test_an_issuer_cannot_have_an_audience_and_none():
    rules = {"client_ids": ["app"], "required_claims": {"token_use": "access"}}

    error = refusal(
        {"issuer": "https://id.example.com", "without_audience": True, **rules},
        {"issuer": "https://id.example.com", "audience": "lake", **rules},
    )

    assert error.key == "OIDC.issuers[1]"


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ([{**ENTRY, "aliases": ["https://other.example.com"]}, OTHER], "OIDC.issuers[0].aliases"),
        ([OTHER, {**ENTRY, "aliases": ["https://other.example.com"]}], "OIDC.issuers[1].aliases"),
        ([{**ENTRY, "aliases": ["a"]}, {**OTHER, "aliases": ["b", "a"]}], "OIDC.issuers[1].aliases"),
        ([{**ENTRY, "aliases": ["https://id.example.com"]}], "OIDC.issuers[0].aliases"),
        ([{**ENTRY, "aliases": ["a", "a"]}], "OIDC.issuers[0].aliases"),
        (
            [{"issuer": "https://i/{tenantid}", "audience": "lake", "tenants": ["one", "two"], "aliases": ["a"]}],
            "OIDC.issuers[0].aliases",
        ),
    ],
)
def test_a_name_that_means_two_issuers_is_refused(entries, key):
    assert refusal(*entries).key == key


def test_aliases_are_compared_byte_for_byte():
    [issuer] = parse({**ENTRY, "aliases": ["https://id.example.com/", "HTTPS://id.example.com"]}).issuers

    assert issuer.aliases == ("https://id.example.com/", "HTTPS://id.example.com")


def test_a_tenant_written_out_is_the_issuer_that_a_template_gives():
    error = refusal(
        {"issuer": "https://i/{tenantid}", "audience": "lake", "tenants": ["one"]},
        {"issuer": "https://i/one", "audience": "lake"},
    )

    assert error.key == "OIDC.issuers[1]"


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ({"token_cache_size": 0}, "token_cache_size"),
        ({"token_cache_size": 1_000_001}, "token_cache_size"),
        ({"token_cache_ttl_secs": "300"}, "token_cache_ttl_secs"),
        ({"jwks_refresh_interval_secs": 1.5}, "jwks_refresh_interval_secs"),
        ({"jwks_refresh_interval_secs": 604_801}, "jwks_refresh_interval_secs"),
        ({"jwks_stale_limit_secs": 0}, "jwks_stale_limit_secs"),
        ({"jwks_stale_limit_secs": 604_801}, "jwks_stale_limit_secs"),
        ({"jwks_stale_limit_secs": 3599}, "jwks_stale_limit_secs"),
        ({"jwks_cool_down_secs": 9}, "jwks_cool_down_secs"),
        ({"jwks_cool_down_secs": 61}, "jwks_cool_down_secs"),
        ({"jwks_cool_down_secs": None}, "jwks_cool_down_secs"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_place(numbers, name):
    assert refusal(ENTRY, **numbers).key == f"OIDC.{name}"


@pytest.mark.parametrize(
    "numbers",
    [{"jwks_stale_limit_secs": 3600}, {"jwks_cool_down_secs": 10}, {"jwks_cool_down_secs": 60}],
)
def test_a_number_at_its_limit_is_accepted(numbers):
    parse(ENTRY, **numbers)


def test_upstreams_long_refresh_interval_raises_the_stale_limit():
    assert parse(ENTRY, jwks_refresh_interval_secs=604_800).jwks_stale_limit_seconds == 604_800


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "OIDC"),
        ([], "OIDC"),
        ({}, "OIDC.issuers"),
        ({"issuers": {}}, "OIDC.issuers"),
        ({"issuers": []}, "OIDC"),
        ({"issuers": [ENTRY], "token_cache": 5}, "OIDC"),
        ({"issuers": [ENTRY] * 2001}, "OIDC.issuers"),
    ],
)
def test_another_value_is_no_configuration(value, key):
    with pytest.raises(ConfigurationError) as caught:
        parse_oidc_config(value, "OIDC", known_roles=None)

    assert caught.value.key == key


def test_tenants_of_many_entries_are_limited_in_all():
    entries = [
        {
            "issuer": f"https://id{number}.example.com/{{tenantid}}",
            "audience": "lake",
            "tenants": [f"t{tenant}" for tenant in range(1000)],
        }
        for number in range(3)
    ]

    assert len(parse(*entries[:2]).issuers) == 2000
    assert refusal(*entries).key == "OIDC.issuers"


def test_audiences_of_one_issuer_are_limited_in_all():
    names = [str(number) for number in range(10_000)]

    assert refusal({**ENTRY, "audience": names}, {**ENTRY, "audience": "one more"}).key == "OIDC.issuers[1]"
