"""Ends the session that a person's browser has at the provider. Source: OpenID Connect RP-Initiated Logout 1.0.

Tokens are `revocation`'s.
"""

from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.revocation import LogoutCalls, ProviderCallFailed
from micromegas_jupyter.core.system import Browser


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """What was done about the session.

    Attributes:
        url: The page that ends it; None when there is none.
        opened: Whether a browser shows that page.
        problem: Why there is no such page.
    """

    url: str | None = None
    opened: bool = False
    problem: str | None = None


def end_provider_session(connection: ProviderConnection, calls: LogoutCalls, browser: Browser) -> SessionEnd:
    """Open the provider's page that ends the session; the person confirms there, if the provider asks."""
    try:
        endpoint = calls.call(connection.issuer, connection.end_session_endpoint)
    except ProviderCallFailed as failure:
        return SessionEnd(problem=str(failure))
    if endpoint is None:
        return SessionEnd(problem="The identity provider has no page that ends a session.")
    url = build_end_session_url(endpoint, client_id=connection.client_id)
    return SessionEnd(url=url, opened=browser.open(url))


def build_end_session_url(endpoint: str, *, client_id: str) -> str:
    """Return the address to open.

    It names the application and carries no `id_token_hint`, which section 2 recommends: the ID token is what the
    server takes as bearer, and an address stays in the browser's history, in proxies and in logs. Without the hint
    the provider asks the person whether to end the session.
    """
    parts = urlsplit(endpoint)
    query = "&".join(each for each in (parts.query, urlencode({"client_id": client_id})) if each)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
