"""Who can sign in and which applications may ask: two people, two clients."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import Secret

PASSWORD = "demo"  # noqa: S105 - stated on the sign-in page: the demo protects nothing

# Below a Jupyter server's base URL, where its proxy shows the pages.
PAGES = "micromegas-demo"

AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant, RFC 6749 section 6
CLIENT_CREDENTIALS = "client_credentials"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

SCOPE_MEANINGS = {
    "openid": "Know that it is you",
    "profile": "See your name and your groups",
    "email": "See your e-mail address",
    "offline_access": "Keep you signed in, renewing by itself until you sign out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who can sign in. Who is an administrator is the server's setting, not a claim made here."""

    key: str
    given_name: str
    family_name: str
    groups: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The `sub` claim; the same after every start."""
        return f"demo-{self.key}"

    @property
    def name(self) -> str:
        """The name for display."""
        return f"{self.given_name} {self.family_name}"

    @property
    def initials(self) -> str:
        """Two letters for the picture on the page."""
        return self.given_name[0] + self.family_name[0]

    @property
    def email(self) -> str:
        """An address that this provider vouches for."""
        return f"{self.key}@example.com"

    def build_claims(self, scope: str) -> dict[str, object]:
        """Return the claims that the scopes open, without `sub` (OpenID Connect Core 1.0 section 5.4).

        `groups` has no standard scope; it comes with `profile`.
        """
        scopes = scope.split()
        claims: dict[str, object] = {}
        if "profile" in scopes:
            claims |= {
                "name": self.name,
                "given_name": self.given_name,
                "family_name": self.family_name,
                "preferred_username": self.key,
                "groups": list(self.groups),
            }
        if "email" in scopes:
            claims |= {"email": self.email, "email_verified": True}
        return claims


PEOPLE = {
    person.key: person
    for person in (
        Person(key="alice", given_name="Alice", family_name="Martin", groups=("lake-admins", "analysts")),
        Person(key="bob", given_name="Bob", family_name="Singh", groups=("analysts",)),
    )
}


# RFC 8252 section 7.3: any port, decided by the application at the time of the request; nothing else may vary, but for
# the base URL of a Jupyter server, which is what the demo's reader chose.
_LOOPBACK_CALLBACK = r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9]\d{0,4})?(?:(?:/[\w~-]+)*/micromegas)?/callback"
# RFC 3986 section 3.2: a name, an IPv4 or a bracketed IPv6 address, and a port; no user.
_ORIGIN = r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A registered application.

    Attributes:
        client_id: Its name on the wire.
        grant_types: What it may use at the token endpoint.
        secret: Its secret, None for a public client.
        redirect_uris: A regular expression for the whole of a redirect URI, None when it has none.
    """

    client_id: str
    grant_types: tuple[str, ...]
    secret: Secret | None = None
    redirect_uris: str | None = None

    def is_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether an answer may be sent there."""
        return self.redirect_uris is not None and bool(re.fullmatch(self.redirect_uris, redirect_uri, re.ASCII))

    def is_secret(self, secret: str | None) -> bool:
        """Whether this is the client's secret, or None for a public client."""
        if self.secret is None or secret is None:
            return self.secret is None and secret is None
        return hmac.compare_digest(secret.encode("utf-8", "replace"), self.secret.reveal().encode())

    def select_scope(self, scope: str | None) -> str:
        """Return those of the requested scopes that this client may have; the rest is left out."""
        known = SCOPE_MEANINGS if self.secret is None else ()
        return " ".join(name for name in dict.fromkeys((scope or "").split()) if name in known)


def build_clients(
    person_id: str, service_id: str, *, secret: Secret, jupyter_base_url: str | None
) -> dict[str, Client]:
    """Return the registered applications by their client id.

    Args:
        person_id: The public client through which people sign in.
        service_id: The client of the service account.
        secret: The service account's secret.
        jupyter_base_url: The path of the Jupyter server whose callback is a redirect URI too, at any host: the
            provider never learns it.
    """
    redirect_uris = _LOOPBACK_CALLBACK
    if jupyter_base_url is not None:
        redirect_uris += f"|{_ORIGIN}{re.escape(jupyter_base_url)}micromegas/callback"
    person_client = Client(
        client_id=person_id,
        grant_types=(AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE),
        redirect_uris=redirect_uris,
    )
    service_client = Client(
        client_id=service_id,
        grant_types=(CLIENT_CREDENTIALS,),
        secret=secret,
    )
    return {client.client_id: client for client in (person_client, service_client)}
