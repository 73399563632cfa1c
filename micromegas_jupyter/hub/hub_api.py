"""Calls to the Hub: who bears a token and what they may do, and the stored auth state of a person.

Nothing is cached: a token that the Hub has revoked is worthless at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.refusals import refuse

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from tornado.httpclient import HTTPResponse

    from micromegas_jupyter.core.system import Secret

CALL_SECONDS: Final = 20.0
"""A look-up may wait for one refresh at the identity provider, which the Hub does before it answers."""

MAX_ANSWER_BYTES: Final = 1_000_000
MAX_CALLS: Final = 50
DANGEROUS_SCOPES: Final = ("admin:auth_state", "admin:users")
"""Scopes with which people's refresh tokens can be read at the Hub; the second includes the first."""

SERVICE_SCOPES: Final = ("admin:auth_state", "read:users:name")
"""All scopes of the service's role: it reads a person's record with the stored auth state."""

_OK: Final = 200
_NOT_FOUND: Final = 404
_NOT_RECOGNIZED: Final = frozenset({401, 403})
_ROLES_KEY: Final = "JupyterHub.load_roles"


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
    """Calls the Hub's API; for one event loop. Every call raises `Refused` when the Hub does not answer properly."""

    def __init__(self, url: str, token: Secret, *, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._token = token
        self._tls = tls
        self._http = AsyncHTTPClient(force_instance=True, max_clients=MAX_CALLS, max_body_size=MAX_ANSWER_BYTES)

    async def fetch_owner(self, token: Secret) -> TokenOwner | None:
        """Return who bears a token; None when the Hub does not recognize it. Meanwhile the Hub refreshes auth state."""
        answer = await self._get("/user", token)
        if answer.code in _NOT_RECOGNIZED:
            return None
        body = _read(answer)
        kind, name, scopes = body.get("kind"), body.get("name"), body.get("scopes")
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(scopes, list):
            raise refuse("hub_unavailable")
        return TokenOwner(kind=kind, name=name, scopes=frozenset(map(str, scopes)))

    async def fetch_service(self) -> TokenOwner | None:
        """Return what the Hub knows of the service's own token."""
        return await self.fetch_owner(self._token)

    async def fetch_auth_state(self, name: str) -> dict[str, object] | None:
        """Return a person's stored auth state; None when there is none."""
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
            raise refuse("hub_unavailable") from None


def _read(answer: HTTPResponse) -> dict[str, object]:
    try:
        body = json.loads(answer.body) if answer.code == _OK else None
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise refuse("hub_unavailable")
    return body


def check_caller(owner: TokenOwner) -> str:
    """Return the Hub's name of the person whose own server bears the token; raises `Refused` for any other token.

    A token that may use one of the person's servers could run code in it and learn all that a kernel there learns, so
    it gets what a kernel gets. A token that may not was given to another program, such as a service or the shared
    server of somebody else that the person visited, and gets nothing.
    """
    if owner.kind != "user":
        raise refuse("not_a_user")
    dangerous = find_dangerous_scope(owner.scopes)
    if dangerous is not None:
        raise refuse("dangerous_role", scope=dangerous)
    own_servers = f"access:servers!server={owner.name}/"
    all_own = {"access:servers", f"access:servers!user={owner.name}"}
    if not any(scope in all_own or scope.startswith(own_servers) for scope in owner.scopes):
        raise refuse("not_their_server")
    return owner.name


def find_dangerous_scope(scopes: Iterable[str]) -> str | None:
    """Return a scope that lets its bearer read refresh tokens at the Hub; None when there is none.

    `admin:auth_state!user` is one, too: it shows a person's own refresh token to every kernel of that person.
    """
    return next((scope for scope in sorted(scopes) if scope.partition("!")[0] in DANGEROUS_SCOPES), None)


def check_service_rights(service: TokenOwner | None) -> None:
    """Check that the service's own token has exactly the rights it needs."""
    if service is None or service.kind != "service":
        raise ConfigurationError(
            "The Hub does not recognize this program's token as a service's.",
            key="JUPYTERHUB_API_TOKEN",
            remedy="Start this program as a service in jupyterhub_config.py (docs/jupyterhub.md).",
        )
    missing = [scope for scope in SERVICE_SCOPES if scope not in service.scopes]
    if missing:
        raise ConfigurationError(
            f"The service's role lacks {' and '.join(missing)}.",
            key=_ROLES_KEY,
            remedy="Call micromegas_jupyter.hub.configure last in jupyterhub_config.py, and change its role nowhere.",
        )
    extra = sorted(scope for scope in service.scopes if scope not in SERVICE_SCOPES)
    if extra:
        raise ConfigurationError(
            f"The service has more rights at the Hub than it needs: {', '.join(extra)}.",
            key=_ROLES_KEY,
            remedy="Take the service out of every other role, and do not make it an admin.",
        )
