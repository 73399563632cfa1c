"""Tests of `access.identity`."""

import pytest

from micromegas_jupyter.access.admins import parse_admin_rules
from micromegas_jupyter.access.identity import MAX_GROUPS, context_from_claims
from micromegas_jupyter.contracts import AuthContext
from tests.fakes.mint import ISSUER, NOW, NOW_SECONDS


def context_of(*admins: str, **claims: object) -> AuthContext:
    rules = parse_admin_rules(admins, issuers=(ISSUER,))
    return context_from_claims({"sub": "alice", "exp": NOW_SECONDS, **claims}, issuer=ISSUER, admins=rules)


def test_a_bare_token_gives_subject_issuer_and_expiry():
    context = context_of()

    assert (context.subject, context.issuer, context.expires_at) == ("alice", ISSUER, NOW)
    assert (context.email, context.name, context.groups, context.client_id) == (None, None, (), None)
    assert (context.is_admin, context.may_delegate, context.email_verified) == (False, False, False)


EMAIL_CLAIMS = [
    "verified_primary_email",
    "email",
    "https://micromegas.io/email",
    "preferred_username",
    "upn",
    "unique_name",
]


@pytest.mark.parametrize("position", range(6))
def test_the_shown_address_is_the_first_that_is_there(position):
    claims = {name: f"{number}@example.com" for number, name in enumerate(EMAIL_CLAIMS) if number >= position}

    assert context_of(**claims).email == f"{position}@example.com"


@pytest.mark.parametrize("odd", ["", None, 5, True, [], [5], {}])
def test_an_odd_address_is_passed_over(odd):
    assert context_of(email=odd, upn="a@example.com").email == "a@example.com"


def test_the_first_of_several_primary_addresses_is_shown():
    assert context_of(verified_primary_email=["a@example.com", "b@example.com"]).email == "a@example.com"


@pytest.mark.parametrize("stated", [None, False, "true", "True", 1, [True], {}])
def test_only_json_true_verifies_an_address(stated):
    context = context_of("a@example.com", email="a@example.com", email_verified=stated)

    assert (context.email_verified, context.is_admin) == (False, False)


def test_a_verified_address_makes_an_administrator():
    context = context_of("a@example.com", email="a@example.com", email_verified=True)

    assert (context.email_verified, context.is_admin) == (True, True)


@pytest.mark.parametrize("name", ["preferred_username", "upn", "unique_name", "verified_primary_email", "name"])
def test_no_other_claim_makes_an_administrator(name):
    context = context_of("a@example.com", email_verified=True, **{name: "a@example.com"})

    assert (context.email_verified, context.is_admin) == (False, False)


def test_a_shown_address_is_not_verified_because_another_one_is():
    context = context_of(verified_primary_email="b@example.com", email="a@example.com", email_verified=True)

    assert (context.email, context.email_verified) == ("b@example.com", False)


def test_groups_come_from_four_places_each_once():
    context = context_of(
        groups=["ops", "dev"],
        roles=["dev", "writer"],
        realm_access={"roles": ["offline_access"]},
        **{"cognito:groups": ["eu"]},
    )

    assert context.groups == ("ops", "dev", "writer", "offline_access", "eu")


@pytest.mark.parametrize("odd", [None, "ops", 5, ["ops", 5], {"ops": 1}, [["ops"]]])
def test_a_place_that_is_no_list_of_texts_gives_no_groups(odd):
    assert context_of(groups=odd, realm_access={"roles": odd}, roles=["dev"]).groups == ("dev",)


@pytest.mark.parametrize("odd", [None, [], "roles"])
def test_odd_realm_access_gives_no_groups(odd):
    assert context_of(realm_access=odd).groups == ()


def test_groups_are_bounded():
    assert len(context_of(groups=[f"group{number}" for number in range(1000)]).groups) == MAX_GROUPS


@pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
def test_the_application_has_four_names(name):
    assert context_of(**{name: "notebook"}).client_id == "notebook"


def test_control_characters_in_display_claims_are_kept_as_text():
    context = context_of(email="a\r\n@example.com", name="A\x1b[31m\u2028Zoë")

    assert (context.email, context.name) == ("a\r\n@example.com", "A\x1b[31m\u2028Zoë")
