"""Tests of `settings.issuer_config`."""

import pytest

from micromegas_jupyter.config.issuer_config import expand_tenants
from micromegas_jupyter.errors import ConfigurationError

TEMPLATE = "https://login.microsoftonline.com/{tenantid}/v2.0"


def refusal(**values: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        list(expand_tenants(values, "ENTRY"))
    return caught.value


def test_an_issuer_without_tenants_stays_as_it_is():
    values = {"issuer": "https://id.example.com", "audience": "lake"}

    assert list(expand_tenants(values, "ENTRY")) == [(None, values)]


def test_a_template_becomes_one_issuer_per_tenant_that_must_match_tid():
    values = {
        "issuer": TEMPLATE,
        "tenants": ["one", "two"],
        "aliases": ["https://sts.windows.net/{tenantid}/"],
        "discovery_url": "https://example.com/{tenantid}/discovery?t={tenantid}",
        "required_claims": {"azpacr": "1"},
        "audience": "lake",
    }

    expanded = dict(expand_tenants(values, "ENTRY"))

    assert list(expanded) == ["one", "two"]
    assert expanded["two"] == {
        "issuer": "https://login.microsoftonline.com/two/v2.0",
        "aliases": ["https://sts.windows.net/two/"],
        "discovery_url": "https://example.com/two/discovery?t=two",
        "required_claims": {"azpacr": "1", "tid": "two"},
        "audience": "lake",
    }


def test_the_address_of_the_keys_is_expanded_too():
    values = {"issuer": TEMPLATE, "tenants": ["one"], "jwks_url": "https://example.com/{tenantid}/keys"}

    [(_, expanded)] = expand_tenants(values, "ENTRY")

    assert expanded["jwks_url"] == "https://example.com/one/keys"


def test_a_thousand_tenants_are_accepted_and_one_more_is_not():
    tenants = [f"t{number}" for number in range(1001)]

    assert len(list(expand_tenants({"issuer": TEMPLATE, "tenants": tenants[:1000]}, "ENTRY"))) == 1000
    assert refusal(issuer=TEMPLATE, tenants=tenants).key == "ENTRY.tenants"


def test_a_template_without_tenants_is_refused_with_the_reason():
    error = refusal(issuer=TEMPLATE)

    assert error.key == "ENTRY.tenants"
    assert "every tenant" in str(error)


@pytest.mark.parametrize("name", ["common", "organizations", "consumers", "Common"])
@pytest.mark.parametrize("host", ["login.microsoftonline.com", "LOGIN.MICROSOFTONLINE.US", "sts.windows.net"])
def test_an_entra_issuer_for_every_tenant_is_refused_with_the_reason(host, name):
    error = refusal(issuer=f"https://{host}/{name}/v2.0")

    assert error.key == "ENTRY.issuer"
    assert "every tenant" in str(error)
    assert "tenants" in error.remedy


def test_a_tenant_cannot_be_a_name_for_every_tenant():
    assert refusal(issuer=TEMPLATE, tenants=["common"]).key == "ENTRY.issuer"


def test_an_alias_cannot_be_an_entra_issuer_for_every_tenant():
    aliases = ["other", "https://sts.windows.net/common/"]

    assert refusal(issuer="https://id.example.com", aliases=aliases).key == "ENTRY.aliases[1]"


def test_another_providers_path_may_have_such_a_name():
    assert len(list(expand_tenants({"issuer": "https://id.example.com/common"}, "ENTRY"))) == 1


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "ENTRY.issuer"),
        ({"issuer": 5}, "ENTRY.issuer"),
        ({"issuer": "https://id.example.com", "tenants": ["one"]}, "ENTRY.issuer"),
        ({"issuer": "https://{tenantid}.example.com/{tenantid}", "tenants": ["one"]}, "ENTRY.issuer"),
        ({"issuer": "https://{tenant}.example.com/{tenantid}", "tenants": ["one"]}, "ENTRY.issuer"),
        ({"issuer": "https://id.example.com/{realm}"}, "ENTRY.issuer"),
        ({"issuer": "https://id.example.com", "aliases": ["a", "{tenantid}"]}, "ENTRY.aliases[1]"),
        ({"issuer": "https://id.example.com", "discovery_url": "https://a/{tenantid}"}, "ENTRY.discovery_url"),
        ({"issuer": "https://id.example.com", "jwks_url": "https://a/}"}, "ENTRY.jwks_url"),
        ({"issuer": TEMPLATE, "tenants": []}, "ENTRY.tenants"),
        ({"issuer": TEMPLATE, "tenants": "one"}, "ENTRY.tenants"),
        ({"issuer": TEMPLATE, "tenants": [5]}, "ENTRY.tenants[0]"),
        ({"issuer": TEMPLATE, "tenants": ["../one"]}, "ENTRY.tenants"),
        ({"issuer": TEMPLATE, "tenants": ["a/b"]}, "ENTRY.tenants"),
        ({"issuer": TEMPLATE, "tenants": ["{tenantid}"]}, "ENTRY.tenants"),
        ({"issuer": TEMPLATE, "tenants": ["one"], "aliases": "a"}, "ENTRY.aliases"),
        ({"issuer": TEMPLATE, "tenants": ["one"], "discovery_url": 5}, "ENTRY.discovery_url"),
        ({"issuer": TEMPLATE, "tenants": ["one"], "required_claims": []}, "ENTRY.required_claims"),
        ({"issuer": TEMPLATE, "tenants": ["one"], "required_claims": {"tid": "one"}}, "ENTRY.required_claims.tid"),
    ],
)
def test_tenants_that_do_not_fit_are_refused_by_their_place(values, key):
    assert refusal(**values).key == key


def test_an_issuer_that_cannot_be_split_is_left_to_the_check_of_urls():
    assert len(list(expand_tenants({"issuer": "https://[::1"}, "ENTRY"))) == 1
