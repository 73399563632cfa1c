"""What the scopes open."""

from micromegas_jupyter.demo.provider.people import BOB, build_person_claims


def test_each_scope_opens_its_claims_and_no_more() -> None:
    assert build_person_claims(BOB, frozenset({"openid"})) == {}
    assert build_person_claims(BOB, frozenset({"email"})) == {"email": "bob@example.com", "email_verified": True}
    assert build_person_claims(BOB, frozenset({"profile"})) == {
        "name": "Bob Singh",
        "given_name": "Bob",
        "family_name": "Singh",
        "preferred_username": "bob",
        "groups": ["analysts"],
    }
