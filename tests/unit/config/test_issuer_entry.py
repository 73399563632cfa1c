"""Tests of `settings.issuer_config`."""

import pytest

from micromegas_jupyter.config.access import IssuerSetting, TokenKind
from micromegas_jupyter.config.decoding import SIGNATURE_ALGORITHMS
from micromegas_jupyter.config.issuer_config import parse_issuer
from micromegas_jupyter.errors import ConfigurationError

ENTRY: dict[str, object] = {"issuer": "https://id.example.com", "audience": "lake"}
WITHOUT_AUDIENCE: dict[str, object] = {
    "issuer": "https://id.example.com",
    "without_audience": True,
    "client_ids": ["app"],
    "required_claims": {"token_use": "access"},
}


def parse(**members: object) -> IssuerSetting:
    [setting] = parse_issuer({**ENTRY, **members}, "ENTRY", known_roles={"viewer", "editor"})
    return setting


def refusal(entry: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse_issuer(entry, "ENTRY", known_roles={"viewer"})
    return caught.value


def test_upstreams_entry_accepts_either_kind_with_every_algorithm():
    assert parse() == IssuerSetting(
        issuer="https://id.example.com",
        audiences=("lake",),
        algorithms=SIGNATURE_ALGORITHMS,
        subject_claim="sub",
        token_kind=TokenKind.EITHER,
        is_trusted_for_email=None,
        leeway_seconds=60,
    )


def test_every_member_is_read():
    setting = parse(
        audience=["lake", "second"],
        aliases=["id.example.com"],
        discovery_url="https://keys.example.com/discovery?t=a",
        ca_file="/etc/ca.pem",
        bearer_token_file="/var/token",
        algorithms=["ES256", "EdDSA"],
        subject_claim="uid",
        subjects=["alice", "robot-*"],
        groups_claim=["realm_access", "roles"],
        required_claims={"hd": ["example.com", "example.org"], "active": True},
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
        required_claims={"hd": ("example.com", "example.org"), "active": (True,)},
        client_ids=("app",),
        is_trusted_for_email=True,
        token_kind=TokenKind.ACCESS,
        is_rfc9068=True,
        leeway_seconds=0,
        admin_groups=("admins",),
        group_roles={"staff": ("viewer",), "authors": ("viewer", "editor")},
    )


def test_keys_may_be_in_a_file_or_at_an_address_of_their_own():
    assert parse(jwks_file="/etc/keys.json").jwks_file == "/etc/keys.json"
    assert parse(jwks_url="http://127.0.0.1:8001/openid/v1/jwks").jwks_url == "http://127.0.0.1:8001/openid/v1/jwks"


def test_an_audience_that_stands_twice_counts_once():
    assert parse(audience=["lake", "lake"]).audiences == ("lake",)


def test_tokens_without_audience_are_held_by_application_and_use():
    [setting] = parse_issuer(WITHOUT_AUDIENCE, "ENTRY", known_roles=None)

    assert (setting.audiences, setting.client_ids) == ((), ("app",))
    assert setting.required_claims == {"token_use": ("access",)}


def test_each_tenant_is_an_issuer_of_its_own():
    first, second = parse_issuer(
        {"issuer": "https://id.example.com/{tenantid}", "audience": "lake", "tenants": ["one", "two"]},
        "ENTRY",
        known_roles=None,
    )

    assert (first.issuer, first.tenant, first.required_claims) == (
        "https://id.example.com/one",
        "one",
        {"tid": ("one",)},
    )
    assert (second.issuer, second.tenant) == ("https://id.example.com/two", "two")


@pytest.mark.parametrize("algorithm", sorted(SIGNATURE_ALGORITHMS))
def test_each_asymmetric_algorithm_can_be_chosen_alone(algorithm):
    assert parse(algorithms=[algorithm]).algorithms == {algorithm}


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        ("none", "no signature"),
        ("None", "no signature"),
        ("HS256", "shared secret"),
        ("hs512", "shared secret"),
        ("RS1", "not a known signature algorithm"),
        ("rs256", "not a known signature algorithm"),
        ("ES256K", "not a known signature algorithm"),
    ],
)
def test_another_algorithm_is_refused_with_the_reason(algorithm, reason):
    error = refusal({**ENTRY, "algorithms": ["RS256", algorithm]})

    assert error.key == "ENTRY.algorithms[1]"
    assert reason in str(error)
    assert "ES256, ES384" in error.remedy


@pytest.mark.parametrize(
    "names",
    [("discovery_url", "jwks_url"), ("jwks_url", "jwks_file"), ("discovery_url", "jwks_file")],
)
def test_keys_are_in_one_place_only(names):
    error = refusal({**ENTRY, **dict.fromkeys(names, "https://keys.example.com")})

    assert error.key == f"ENTRY.{names[1]}"
    assert all(name in str(error) for name in names)


def test_a_credential_for_fetching_needs_the_certificate_of_who_receives_it():
    error = refusal({**ENTRY, "bearer_token_file": "/var/token"})

    assert error.key == "ENTRY.bearer_token_file"
    assert "ca_file" in error.remedy


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"audience": "lake"}, "ENTRY.audience"),
        ({"client_ids": None}, "ENTRY.client_ids"),
        ({"client_ids": []}, "ENTRY.client_ids"),
        ({"required_claims": {}}, "ENTRY.required_claims.token_use"),
        ({"required_claims": {"token_use": None}}, "ENTRY.required_claims.token_use"),
        ({"required_claims": []}, "ENTRY.required_claims"),
        ({"rfc9068": True}, "ENTRY.rfc9068"),
        ({"without_audience": "yes"}, "ENTRY.without_audience"),
        ({"without_audience": False}, "ENTRY.audience"),
    ],
)
def test_tokens_without_audience_need_the_other_rules(members, key):
    assert refusal({**WITHOUT_AUDIENCE, **members}).key == key


@pytest.mark.parametrize("name", ["client_ids", "required_claims"])
def test_tokens_without_audience_cannot_be_accepted_by_that_alone(name):
    entry = dict(WITHOUT_AUDIENCE)
    del entry[name]

    assert refusal(entry).key.startswith(f"ENTRY.{name}")


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"issuer": "https://user:hunter2@id.example.com"}, "ENTRY.issuer"),
        ({"issuer": "accounts.google.com"}, "ENTRY.issuer"),
        ({"issuer": None}, "ENTRY.issuer"),
        ({"audience": None}, "ENTRY.audience"),
        ({"audience": []}, "ENTRY.audience"),
        ({"audience": ["lake", 5]}, "ENTRY.audience[1]"),
        ({"aliases": "a"}, "ENTRY.aliases"),
        ({"aliases": ["a", ""]}, "ENTRY.aliases[1]"),
        ({"discovery_url": "https://id.example.com/#hunter2"}, "ENTRY.discovery_url"),
        ({"jwks_url": "http://id.example.com/keys?hunter2"}, "ENTRY.jwks_url"),
        ({"jwks_url": "/etc/keys.json"}, "ENTRY.jwks_url"),
        ({"jwks_file": ""}, "ENTRY.jwks_file"),
        ({"ca_file": 5}, "ENTRY.ca_file"),
        ({"ca_file": "/ca", "bearer_token_file": None}, "ENTRY.bearer_token_file"),
        ({"algorithms": "RS256"}, "ENTRY.algorithms"),
        ({"algorithms": []}, "ENTRY.algorithms"),
        ({"algorithms": ["RS256", None]}, "ENTRY.algorithms[1]"),
        ({"subject_claim": []}, "ENTRY.subject_claim"),
        ({"subjects": []}, "ENTRY.subjects"),
        ({"subjects": "alice"}, "ENTRY.subjects"),
        ({"groups_claim": []}, "ENTRY.groups_claim"),
        ({"groups_claim": [["a"], []]}, "ENTRY.groups_claim[1]"),
        ({"required_claims": {"hd": []}}, "ENTRY.required_claims.hd"),
        ({"client_ids": []}, "ENTRY.client_ids"),
        ({"client_ids": "app"}, "ENTRY.client_ids"),
        ({"trusted_for_email": "true"}, "ENTRY.trusted_for_email"),
        ({"trusted_for_email": 1}, "ENTRY.trusted_for_email"),
        ({"token_kind": "refresh"}, "ENTRY.token_kind"),
        ({"rfc9068": 1}, "ENTRY.rfc9068"),
        ({"rfc9068": True, "token_kind": "id"}, "ENTRY.rfc9068"),
        ({"leeway_secs": 61}, "ENTRY.leeway_secs"),
        ({"leeway_secs": -1}, "ENTRY.leeway_secs"),
        ({"leeway_secs": 1.5}, "ENTRY.leeway_secs"),
        ({"leeway_secs": True}, "ENTRY.leeway_secs"),
        ({"admin_groups": []}, "ENTRY.admin_groups"),
        ({"admin_groups": "admins"}, "ENTRY.admin_groups"),
        ({"group_roles": []}, "ENTRY.group_roles"),
        ({"group_roles": {"": "viewer"}}, "ENTRY.group_roles"),
        ({"group_roles": {"staff": []}}, "ENTRY.group_roles.staff"),
        ({"group_roles": {"staff": ["viewer", "owner"]}}, "ENTRY.group_roles.staff"),
        ({"tenants": ["one"]}, "ENTRY.issuer"),
        ({"client_secret": "hunter2"}, "ENTRY"),
    ],
)
def test_a_malformed_member_is_refused_by_its_place_without_what_may_be_secret(members, key):
    error = refusal({**ENTRY, **members})

    assert error.key == key
    assert key in str(error)
    assert "hunter2" not in str(error)


def test_a_role_that_a_group_gives_and_that_is_not_configured_is_named():
    assert "'owner'" in str(refusal({**ENTRY, "group_roles": {"staff": "owner"}}))


@pytest.mark.parametrize("entry", [None, [], "https://id.example.com", 5])
def test_another_value_is_no_entry(entry):
    assert refusal(entry).key == "ENTRY"
