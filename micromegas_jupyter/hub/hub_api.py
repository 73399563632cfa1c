"""What the service asks the Hub: whose a token is, and what the Hub keeps of a person's sign-in.

Every answer counts for one call of a kernel: nothing is remembered, so a token that the Hub has withdrawn is worth
nothing at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from micromegas_jupyter.hub.refusals import hub_unavailable

if TYPE_CHECKING:
    import ssl

    from tornado.httpclient import HTTPResponse

    from micromegas_jupyter.core.secrets import Secret

CALL_SECONDS: Final = 20.0
"""A look-up may wait for one renewal at the identity provider, which the Hub does before it answers."""

MAX_ANSWER_BYTES: Final = 1_000_000
MAX_CALLS: Final = 50

_OK: Final = 200
_NOT_FOUND: Final = 404
_NOT_KNOWN: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOwner:
    """Who bears a Hub token, and what it may do.

    Attributes:
        kind: `user` or `service`.
        name: The Hub's name of the person or service.
        scopes: The token's scopes, expanded by the Hub.
    """

    kind: str
    name: str
    scopes: frozenset[str] = field(repr=False)


class HubApi:
    """Calls the Hub's API; for one event loop.

    Args:
        url: The API's address, without a slash at its end.
        token: The service's own token.
        tls: How https is spoken; as everywhere when left out.
    """

    def __init__(self, url: str, token: Secret, *, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._token = token
        self._tls = tls
        self._http = AsyncHTTPClient(force_instance=True, max_clients=MAX_CALLS, max_body_size=MAX_ANSWER_BYTES)

    async def owner_of(self, token: Secret) -> TokenOwner | None:
        """Return who bears a token; None when the Hub does not know it. The Hub renews a person's sign-in meanwhile.

        Raises:
            Refused: The Hub does not answer properly.
        """
        answer = await self._get("/user", token)
        if answer.code in _NOT_KNOWN:
            return None
        body = _read(answer)
        kind, name, scopes = body.get("kind"), body.get("name"), body.get("scopes")
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(scopes, list):
            raise hub_unavailable()
        return TokenOwner(kind=kind, name=name, scopes=frozenset(map(str, scopes)))

    async def own(self) -> TokenOwner | None:
        """Return what the Hub knows of the service's own token; raises as `owner_of` does."""
        return await self.owner_of(self._token)

    async def auth_state(self, name: str) -> dict[str, object] | None:
        """Return what the Hub keeps of a person's sign-in; None when it keeps nothing; raises as `owner_of` does."""
        answer = await self._get(f"/users/{quote(name, safe='')}", self._token)
        if answer.code == _NOT_FOUND:
            return None
        state = _read(answer).get("auth_state")
        return state if isinstance(state, dict) else None

    async def _get(self, path: str, token: Secret) -> HTTPResponse:
        request = HTTPRequest(
            f"{self._url}{path}",
            headers={"Authorization": f"Bearer {token.reveal()}", "Accept": "application/json"},
            connect_timeout=CALL_SECONDS,
            request_timeout=CALL_SECONDS,
            follow_redirects=False,
            ssl_options=self._tls,
        )
        try:
            return await self._http.fetch(request, raise_error=False)
        except (HTTPClientError, OSError, ValueError):
            raise hub_unavailable() from None


def _read(answer: HTTPResponse) -> dict[str, object]:
    if answer.code != _OK:
        raise hub_unavailable()
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise hub_unavailable()
    return body
