"""Tests of `oidc.groups`."""

import pytest

from micromegas_jupyter.oidc.claims import MAX_GROUPS, read_groups


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({}, ()),
        ({"groups": ["a", "b", "a", ""]}, ("a", "b")),
        ({"groups": "a"}, ("a",)),
        ({"groups": ["a"], "roles": ["b", "a"]}, ("a", "b")),
        ({"realm_access": {"roles": ["offline_access"]}}, ("offline_access",)),
        ({"cognito:groups": ["team"]}, ("team",)),
    ],
)
def test_names_come_from_wherever_providers_put_them(claims: dict[str, object], groups: tuple[str, ...]) -> None:
    assert read_groups(claims) == groups


@pytest.mark.parametrize("odd", [7, {"a": "b"}, ["a", 7], [["a"]], None])
def test_what_has_another_shape_counts_as_none(odd: object) -> None:
    assert read_groups({"groups": odd, "realm_access": odd}) == ()


def test_a_path_leads_into_a_claim_and_replaces_the_usual_places() -> None:
    claims = {"groups": ["not this"], "resource_access": {"lake": {"roles": ["reader"]}}}

    assert read_groups(claims, [("resource_access", "lake", "roles")]) == ("reader",)


def test_there_is_an_end_to_the_names() -> None:
    assert len(read_groups({"groups": [f"group{number}" for number in range(1000)]})) == MAX_GROUPS
