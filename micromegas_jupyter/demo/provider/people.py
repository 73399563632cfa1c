"""The two people of the demo and what a token says about them.

Which of them is an administrator is the server's setting, not a claim made here.
"""

from dataclasses import dataclass
from datetime import datetime

PASSWORD = "demo"  # noqa: S105 - stated on the sign-in page: the demo protects nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who can sign in.

    Attributes:
        key: The short name used by forms and commands.
        subject: The `sub` claim; the same after every start.
        given_name: First name.
        family_name: Last name.
        email: An address that this provider vouches for.
        groups: The `groups` claim.
    """

    key: str
    subject: str
    given_name: str
    family_name: str
    email: str
    groups: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name for display."""
        return f"{self.given_name} {self.family_name}"

    @property
    def initials(self) -> str:
        """Two letters for the picture on the page."""
        return self.given_name[0] + self.family_name[0]


ALICE = Person(
    key="alice",
    subject="demo-alice",
    given_name="Alice",
    family_name="Martin",
    email="alice@example.com",
    groups=("lake-admins", "analysts"),
)
BOB = Person(
    key="bob",
    subject="demo-bob",
    given_name="Bob",
    family_name="Singh",
    email="bob@example.com",
    groups=("analysts",),
)
PEOPLE = {person.key: person for person in (ALICE, BOB)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A person together with the moment at which they gave their password (aware UTC)."""

    person: Person
    authenticated_at: datetime


def build_person_claims(person: Person, scopes: frozenset[str]) -> dict[str, object]:
    """Return the claims that the granted scopes open (OpenID Connect Core 1.0 section 5.4), without `sub`.

    `groups` has no standard scope; it comes with `profile`.
    """
    claims: dict[str, object] = {}
    if "profile" in scopes:
        claims |= {
            "name": person.name,
            "given_name": person.given_name,
            "family_name": person.family_name,
            "preferred_username": person.key,
            "groups": list(person.groups),
        }
    if "email" in scopes:
        claims |= {"email": person.email, "email_verified": True}
    return claims
