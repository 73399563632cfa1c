"""The service's callers: token checks by the Hub, rate limits, errors, and the audit log.

The Hub's responses are not cached, so a token that the Hub has revoked stops working immediately.
"""

import hashlib
import json
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote

from cachetools import LRUCache, TTLCache
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPServerRequest

from micromegas_jupyter.access.audit import TokenBuckets, encode_line, presentable, utc_text
from micromegas_jupyter.access.validator import CallLimits
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret
from micromegas_jupyter.errors import ConfigurationError, ResourcesExhausted

CALL_SECONDS: Final = 20.0
"""A lookup may wait for a refresh with the identity provider, which the Hub completes before it responds."""

MAX_ANSWER_BYTES: Final = 1_000_000
MAX_CALLS: Final = 50
DANGEROUS_SCOPES: Final = ("admin:auth_state", "admin:users")
"""Scopes that can read users' refresh tokens on the Hub; the second includes the first."""

SERVICE_SCOPES: Final = ("admin:auth_state", "read:users:name")
"""All scopes of the service's role: it reads a user's record with the stored auth state."""

_OK: Final = 200
_NOT_FOUND: Final = 404
_NOT_RECOGNIZED: Final = frozenset({401, 403})
_ROLES_KEY: Final = "JupyterHub.load_roles"

REFUSALS: Final = {
    "invalid_token": (401, "JupyterHub no longer recognizes this server's token."),
    "not_a_user": (403, "This JupyterHub token belongs to a service, not to a user."),
    "not_their_server": (403, "This JupyterHub token was issued to a program other than the user's own server."),
    "dangerous_role": (403, "The Hub gives this server the scope {scope}, so code in it can read refresh tokens."),
    "no_auth_state": (409, "JupyterHub doesn't have a {bearer} with an expiry time for you."),
    "sign_in_again": (409, "Your JupyterHub sign-in has expired with the identity provider."),
    "not_renewed": (409, "The identity provider renews your sign-in without a new {bearer}, and the last has expired."),
    "slow_down": (429, "This server requests tokens too frequently."),
    "hub_unavailable": (503, "JupyterHub is not responding to its sign-in service."),
    "provider_unavailable": (503, "The identity provider is not responding, and the stored token has expired."),
    "exchange_refused": (409, "{what}"),
    "no_redirect": (409, "This JupyterHub doesn't offer redirect sign-in for kernels; sign in with a device code."),
    "unknown_sign_in": (404, "This sign-in is no longer waiting."),
    "invalid_sign_in": (400, "The browser URL {what}."),
    "invalid_request": (400, "{what}"),
    "internal_error": (500, "The service could not respond."),
}
"""HTTP status and message by code; notebooks have their own messages (`auth.flows.hub.REFUSALS`)."""
_RETRY_AFTER_SECONDS: Final = {"hub_unavailable": 2, "provider_unavailable": 5}
AUDIT_LOGGER: Final = "micromegas_jupyter.audit.hub"
_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_AUDIT.setLevel(logging.INFO)
# Maximum calls per user.
CALLS_PER_SECOND: Final = 5.0
BURST_CALLS: Final = 300
# Maximum unrecognized tokens per address.
UNKNOWN_PER_SECOND: Final = 2.0
BURST_UNKNOWN: Final = 100
UNKNOWN_SECONDS: Final = 10.0
"""How long a token that the Hub did not recognize is rejected without another check."""
AUDIT_PAUSE_SECONDS: Final = 10.0
"""The minimum interval between audit lines about rate-limited calls."""
MAX_TRACKED: Final = 10_000
_FORWARDED: Final = "X-Forwarded-For"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOwner:
    """The owner of a Hub token (of kind `user` or `service`), and the token's scopes as expanded by the Hub."""

    kind: str
    name: str
    scopes: frozenset[str] = field(repr=False)


class HubApi:
    """Calls the Hub's API; for one event loop. Raises `Refused` if the Hub's response is missing or invalid."""

    def __init__(self, url: str, token: Secret, *, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._token = token
        self._tls = tls
        self._http = AsyncHTTPClient(force_instance=True, max_clients=MAX_CALLS, max_body_size=MAX_ANSWER_BYTES)

    async def fetch_owner(self, token: Secret) -> TokenOwner | None:
        """Return a token's owner, or None if the Hub does not recognize it. The lookup also refreshes auth state."""
        answer = await self._get("/user", token)
        if answer.code in _NOT_RECOGNIZED:
            return None
        body = _read(answer)
        kind, name, scopes = body.get("kind"), body.get("name"), body.get("scopes")
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(scopes, list):
            raise refuse("hub_unavailable")
        return TokenOwner(kind=kind, name=name, scopes=frozenset(map(str, scopes)))

    async def fetch_auth_state(self, name: str) -> dict[str, object] | None:
        """Return a user's stored auth state, or None."""
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
    """Return the Hub user name of a token's owner; raises `Refused` for a token that can't access the owner's servers.

    A token that can access one of the user's servers could run code there and learn all that its kernels learn, so it
    gets the same as a kernel. A token that cannot belongs to another program, such as a service or another user's
    shared server that the user visited, and gets nothing.
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
    """Return a scope that can read refresh tokens, even if only the user's own (`!user`), or None."""
    return next((scope for scope in sorted(scopes) if scope.partition("!")[0] in DANGEROUS_SCOPES), None)


def check_service_rights(service: TokenOwner | None) -> None:
    """Check that the service's own token has exactly the permissions that it needs."""
    if service is None or service.kind != "service":
        raise ConfigurationError(
            "The Hub does not recognize this program's token as a service token.",
            key="JUPYTERHUB_API_TOKEN",
            remedy="Start this program as a service in jupyterhub_config.py (docs/jupyterhub.md).",
        )
    missing = [scope for scope in SERVICE_SCOPES if scope not in service.scopes]
    if missing:
        raise ConfigurationError(
            f"The service's role lacks {' and '.join(missing)}.",
            key=_ROLES_KEY,
            remedy="Call micromegas_jupyter.hub.configure last in jupyterhub_config.py, and don't change its role "
            "anywhere else.",
        )
    extra = sorted(scope for scope in service.scopes if scope not in SERVICE_SCOPES)
    if extra:
        raise ConfigurationError(
            f"The service has more Hub permissions than it needs: {', '.join(extra)}.",
            key=_ROLES_KEY,
            remedy="Remove the service from every other role, and don't make it an admin.",
        )


@dataclass(kw_only=True, eq=False)
class Refused(Exception):
    """The service rejects a call; `retry_after_seconds` is set if a retry may succeed."""

    status: int
    error: str
    message: str
    retry_after_seconds: int | None = None
    is_audited: bool = True

    def __str__(self) -> str:
        return self.message


def refuse(error: str, *, retry_after_seconds: int | None = None, **facts: object) -> Refused:
    """Return the error with this code; its message includes the facts."""
    status, message = REFUSALS[error]
    retry_after_seconds = retry_after_seconds or _RETRY_AFTER_SECONDS.get(error)
    return Refused(status=status, error=error, message=message.format(**facts), retry_after_seconds=retry_after_seconds)


def client_address(request: HTTPServerRequest) -> str:
    """Return a call's origin: the peer, or the address reported by a proxy on this machine.

    A proxy appends its caller to the header; anyone can forge the values before that.
    """
    peer = str(request.remote_ip)
    forwarded = ",".join(request.headers.get_list(_FORWARDED)).rpartition(",")[2].strip()
    try:
        return str(ip_address(forwarded)) if ip_address(peer).is_loopback else peer
    except ValueError:
        return peer


class CallerLimits:
    """Asks the Hub who owns a token, within rate limits; for one event loop.

    A token that the Hub has recognized before counts only against its user's limit, so a flood of unknown tokens locks
    out no active user, regardless of its address.
    """

    def __init__(self, *, audit: "HubAudit", clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._people: TokenBuckets[str] = TokenBuckets(
            per_second=CALLS_PER_SECOND, burst=BURST_CALLS, max_tracked=MAX_TRACKED, clock=clock
        )
        limits = RateLimits(
            refusals_per_second=UNKNOWN_PER_SECOND, burst_refusals=BURST_UNKNOWN, max_tracked=MAX_TRACKED
        )
        self._addresses = CallLimits(limits, clock=clock)
        self._known: LRUCache[bytes, str] = LRUCache(MAX_TRACKED)
        self._unknown: TTLCache[bytes, bool] = TTLCache(MAX_TRACKED, UNKNOWN_SECONDS, timer=clock.monotonic)
        self._turned_away = 0
        self._next_line_at = 0.0

    async def fetch_owner(
        self, token: Secret | None, *, address: str, fetch: Callable[[Secret], Awaitable[TokenOwner | None]]
    ) -> TokenOwner:
        """Return the token's current owner according to the Hub, or None without a token; raises `Refused`."""
        digest = b"" if token is None else hashlib.sha256(token.reveal().encode()).digest()
        name = self._known.get(digest)
        if name is not None:
            self._take_call(name)
        else:
            self._take_unknown(address)
        if token is None or digest in self._unknown:
            raise refuse("invalid_token")
        try:
            owner = await fetch(token)
        except Refused:
            if name is None:
                self._addresses.forgive_refusal(address)
            raise
        if owner is None:
            self._known.pop(digest, None)
            self._unknown[digest] = True
            raise refuse("invalid_token")
        if name is None:
            self._addresses.forgive_refusal(address)
            self._take_call(owner.name)
        self._known[digest] = owner.name
        return owner

    def _take_call(self, name: str) -> None:
        wait_seconds = self._people.take(name)
        if wait_seconds:
            raise refuse("slow_down", retry_after_seconds=math.ceil(wait_seconds))

    def _take_unknown(self, address: str) -> None:
        # Counted before the Hub responds, because many calls may arrive together.
        try:
            self._addresses.count_refusal(address)
        except ResourcesExhausted as exhausted:
            refused = refuse("slow_down", retry_after_seconds=math.ceil(exhausted.retry_after_seconds or 1.0))
        else:
            return
        self._turned_away += 1
        now = self._clock.monotonic()
        if now >= self._next_line_at:
            self._audit.write("calls_turned_away", client_ip=address, calls=self._turned_away)
            self._turned_away, self._next_line_at = 0, now + AUDIT_PAUSE_SECONDS
        refused.is_audited = False  # a flood of unknown tokens must not flood the audit log, too
        raise refused


class HubAudit:
    """Writes one JSON line per issued token or error; lines never contain tokens, codes, or states."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock

    def write(self, event: str, **facts: str | int | None) -> None:
        """Write a line; facts that are None are omitted."""
        known = {name: presentable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        record = {"event": event, **known, "time": utc_text(self._clock.now())}
        _AUDIT.info("%s", encode_line({name: fact for name, fact in record.items() if fact is not None}))
