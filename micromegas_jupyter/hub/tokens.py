"""Users' tokens: refreshed in the Hub by an OAuthenticator hook, and exchanged by the service.

The service's calls to the identity provider block, so they run on a limited number of threads.
"""

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret
from micromegas_jupyter.errors import AuthenticationError, LoginRequired, MicromegasError, ProviderUnavailable
from micromegas_jupyter.hub.callers import Refused, refuse
from micromegas_jupyter.hub.settings import ServiceSettings
from micromegas_jupyter.oidc.authorization import (
    ACCESS_TOKEN_TYPE,
    ID_TOKEN_TYPE,
    ProviderMetadata,
    build_token_error,
    build_token_exchange_request,
    parse_token_exchange_answer,
    usable_token,
)
from micromegas_jupyter.oidc.jwt import TokenProblem, expiry_of, parse_token

MAX_THREADS: Final = 8
MAX_CACHED: Final = 10_000
MARGIN_SECONDS: Final = 30.0
EXCHANGE_PAUSE_SECONDS: Final = 5.0
"""The pause after a user's failed exchange, so that one failure does not cause many requests."""

_SHARE_OF_LIFETIME: Final = 0.5
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_SUBJECT_TOKEN_TYPES: Final = {Bearer.ID_TOKEN: ID_TOKEN_TYPE, Bearer.ACCESS_TOKEN: ACCESS_TOKEN_TYPE}

Answer = TypeVar("Answer")

REFUSED_KEY: Final = "micromegas_refresh_refused"
"""True in the auth state if the provider has rejected a refresh; the next sign-in replaces the whole auth state."""
STALE_KEY: Final = "micromegas_renewed_without_token"
"""True in the auth state if a refresh returned no new token of the kind that kernels get."""
FAILURE_PAUSE_SECONDS: Final = 10.0
"""The pause after a user's failed refresh, so that calls do not queue up behind each other."""
FALLBACK_PAUSE_SECONDS: Final = 300.0
"""The pause between two calls to OAuthenticator for users whose sign-in cannot be refreshed here."""
MAX_PAUSES: Final = 10_000
_CLIENT_ERRORS: Final = range(400, 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBearer:
    """A token that can be sent to a server; `lifetime_seconds` is its total lifetime, if known."""

    token: Secret
    expires_at: datetime
    subject: str | None = None
    lifetime_seconds: float | None = None


class HubProvider:
    """The identity provider, for one event loop."""

    def __init__(self, settings: ServiceSettings, *, clock: Clock, http: ProviderCalls | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._connection = ProviderConnection(
            settings.issuer, settings.client_id, settings.client_secret, http=http, clock=clock
        )
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="provider")
        self._cached: LRUCache[str, StoredBearer] = LRUCache(MAX_CACHED)
        self._failures: TTLCache[str, Refused] = TTLCache(MAX_CACHED, EXCHANGE_PAUSE_SECONDS, timer=clock.monotonic)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def authorization_endpoint(self) -> str | None:
        """Return the URL of the sign-in page, or None if the provider doesn't have one."""
        return (await self._on_thread(self._metadata)).authorization_endpoint

    async def exchange(self, owner: str, stored: StoredBearer) -> StoredBearer:
        """Exchange a user's token (RFC 8693) once per expiry; return it unchanged if no exchange is configured."""
        target = self._settings.exchange
        if target is None:
            return stored
        lock = self._locks.setdefault(owner, asyncio.Lock())
        async with lock:
            cached = self._cached.get(owner)
            # A Hub user name can be reassigned to another user.
            if cached is not None and cached.subject != stored.subject:
                cached = None
            if cached is not None and self._has_time_left(cached):
                return cached
            try:
                fresh = await self._exchange_unless_paused(owner, target, stored)
            except Refused as refused:
                # An unexpired token remains in use during an outage.
                if cached is None or refused.retry_after_seconds is None or cached.expires_at <= self._clock.now():
                    raise
                return cached
            self._cached[owner] = fresh
            return fresh

    async def _exchange_unless_paused(
        self, owner: str, target: Mapping[str, str | None], stored: StoredBearer
    ) -> StoredBearer:
        with suppress(KeyError):  # `get` would look up twice, and the token may expire in between
            raise self._failures[owner].with_traceback(None)
        try:
            return await self._on_thread(lambda: self._exchange(target, stored))
        except Refused as error:
            _LOG.warning("The token of %s could not be exchanged: %s", owner, error.message)
            self._failures[owner] = error
            raise

    def close(self) -> None:
        """Stop waiting for calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _has_time_left(self, stored: StoredBearer) -> bool:
        left = stored.expires_at.timestamp() - self._clock.now().timestamp()
        lifetime = stored.lifetime_seconds
        return left > (MARGIN_SECONDS if lifetime is None else min(MARGIN_SECONDS, lifetime * _SHARE_OF_LIFETIME))

    def _metadata(self) -> ProviderMetadata:
        try:
            return self._connection.metadata()
        except MicromegasError:
            raise refuse("provider_unavailable") from None

    def _exchange(self, target: Mapping[str, str | None], stored: StoredBearer) -> StoredBearer:
        self._metadata()
        token_type = _SUBJECT_TOKEN_TYPES[self._settings.bearer]
        fields = build_token_exchange_request(stored.token, **target, subject_token_type=token_type)
        now = self._clock.now()
        try:
            answer = self._connection.request_token_answer(fields, requested_scope=target["scope"])
            issued = parse_token_exchange_answer(answer, now=now, requested_scope=target["scope"])
        except MicromegasError as error:
            if error.retryable:
                raise refuse("provider_unavailable") from None
            raise refuse("exchange_refused", what=error.what) from None
        expires_at = issued.expires_at or stored.expires_at
        return StoredBearer(
            token=issued.access_token,
            expires_at=expires_at,
            subject=stored.subject,
            lifetime_seconds=(expires_at - now).total_seconds(),
        )

    async def _on_thread(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def read_bearer(auth_state: Mapping[str, object], bearer: Bearer) -> StoredBearer | None:
    """Return the token of this kind that has an expiry time, or None."""
    token = usable_token(auth_state.get(bearer.value))
    claims = None if token is None else _parse_claims(token)
    if token is None or claims is None:
        return None
    try:
        expires_at = expiry_of(claims)
    except TokenProblem:
        return None
    issued, subject = claims.get("iat"), claims.get("sub")
    is_number = isinstance(issued, int | float) and not isinstance(issued, bool)
    return StoredBearer(
        token=token,
        expires_at=expires_at,
        subject=subject if isinstance(subject, str) else None,
        lifetime_seconds=expires_at.timestamp() - float(issued) if is_number else None,  # type: ignore[arg-type]  # a number
    )


def _parse_claims(token: Secret) -> Mapping[str, object] | None:
    try:
        return parse_token(token.reveal()).claims
    except TokenProblem:
        return None


def is_same_sign_in(old: Secret | None, new: Secret | None) -> bool:
    """Whether a refreshed ID token continues the sign-in of the old one; true if either is missing.

    The new audience may be larger. Source: OpenID Connect Core 1.0 section 12.2.
    """
    if old is None or new is None:
        return True
    before, after = _parse_claims(old), _parse_claims(new)
    if before is None or after is None:
        return after is not None
    is_same_person = all(before.get(name) == after.get(name) for name in ("iss", "sub"))
    return is_same_person and _audience(before) <= _audience(after)


def _audience(claims: Mapping[str, object]) -> frozenset[str]:
    stated = claims.get("aud")
    return frozenset(map(str, stated)) if isinstance(stated, list) else frozenset({str(stated)})


class AuthStateRefresher:
    """Refreshes a user's auth state shortly before the kernels' token expires.

    A lock per user is held while reading, refreshing, and writing. The margin is limited to half of a token's
    lifetime.
    """

    def __init__(self, bearer: Bearer, *, margin_seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._bearer = bearer
        self._margin_seconds = margin_seconds
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pauses: LRUCache[str, float] = LRUCache(MAX_PAUSES)
        self._has_warned = False

    async def __call__(self, authenticator: Any, user: Any, _auth_state: object) -> bool | dict[str, Any] | None:
        """Refresh the auth state when it is due.

        True means that the user's record is unchanged, False that the user has to sign in again, and None that
        OAuthenticator handles it.
        """
        lock = self._locks.setdefault(user.name, asyncio.Lock())
        async with lock:
            state = await user.get_auth_state()
            if state and state.get(REFUSED_KEY) is True:
                return False
            stored = read_bearer(state, self._bearer) if state else None
            if not state or stored is None or usable_token(state.get("refresh_token")) is None:
                self._warn_once(user.name, has_token=stored is not None)
                # When it expires, OAuthenticator requests a new sign-in, but only once.
                if (stored is not None and not self._is_due(stored)) or self._is_paused(user.name):
                    return True
                self._pause(user.name, FALLBACK_PAUSE_SECONDS)
                return None
            if not self._is_due(stored) or self._is_paused(user.name):
                return True
            return await self._refresh(authenticator, user, state, stored)

    def _warn_once(self, name: str, *, has_token: bool) -> None:
        if has_token and not self._has_warned:
            self._has_warned = True
            _LOG.warning(
                "The identity provider didn't give the Hub a refresh token for %s, who has to sign in again whenever a "
                "token expires. Providers issue one for the scope offline_access, some of them only with "
                'c.OAuthenticator.extra_authorize_params = {"prompt": "consent"}.',
                name,
            )

    def _pause(self, name: str, seconds: float) -> None:
        self._pauses[name] = self._clock.monotonic() + seconds

    def _is_paused(self, name: str) -> bool:
        return self._pauses.get(name, 0.0) > self._clock.monotonic()

    def _is_due(self, stored: StoredBearer) -> bool:
        margin = self._margin_seconds
        if stored.lifetime_seconds is not None:
            margin = min(margin, stored.lifetime_seconds * _SHARE_OF_LIFETIME)
        return stored.expires_at.timestamp() - self._clock.now().timestamp() < margin

    async def _refresh(
        self, authenticator: Any, user: Any, state: dict[str, Any], stored: StoredBearer
    ) -> bool | dict[str, Any]:
        # Interrupted only by its own timeout, because the provider may already have rotated the refresh token.
        fields = authenticator.build_refresh_token_request_params(state["refresh_token"])
        try:
            answer = await authenticator.get_token_info(None, fields)
        except Exception as failure:  # noqa: BLE001 - only a rejection by the provider ends a sign-in
            error = _parse_failure(failure, secret=state["refresh_token"])
            if isinstance(error, LoginRequired):
                _LOG.warning("The identity provider rejected the refresh of the sign-in of %s.", user.name)
                return await self._end_sign_in(user, state)
            _LOG.error("The sign-in of %s could not be refreshed: %s", user.name, error.what)
            self._pause(user.name, FAILURE_PAUSE_SECONDS)
            return True
        if not is_same_sign_in(usable_token(state.get("id_token")), usable_token(answer.get("id_token"))):
            _LOG.error("The identity provider refreshed the sign-in of %s with another user's token.", user.name)
            return await self._end_sign_in(user, state)
        refreshed = {**_merged(state, answer), STALE_KEY: False}
        fresh = read_bearer(refreshed, self._bearer)
        if fresh is None or fresh.expires_at <= stored.expires_at:
            # Further calls would return nothing new, and each would use up a refresh token.
            self._pause(user.name, FAILURE_PAUSE_SECONDS)
        if fresh is not None and fresh.token == stored.token:
            # A new token with the same expiry expires with the user's provider session.
            _LOG.error("The sign-in of %s was refreshed without a new %s.", user.name, self._bearer.value)
            refreshed[STALE_KEY] = True
        await user.save_auth_state(refreshed)
        _LOG.info("The sign-in of %s was refreshed.", user.name)
        return await _with_groups(authenticator, user, refreshed) if authenticator.manage_groups else True

    async def _end_sign_in(self, user: Any, state: dict[str, Any]) -> bool:
        # Removes the refresh token, so that it is not sent repeatedly (RFC 9700 section 4.14.2).
        await user.save_auth_state({**state, "refresh_token": None, REFUSED_KEY: True})
        return False


def _merged(state: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the auth state with the response's tokens, keeping old ones that it lacks (RFC 6749 section 6)."""
    tokens = {name: answer.get(name) or state.get(name) for name in ("access_token", "id_token", "refresh_token")}
    scope = answer.get("scope")
    scopes = scope.split(" ") if isinstance(scope, str) and scope else state.get("scope")
    return {**state, **tokens, "scope": scopes, "token_response": {**answer, **tokens}}


async def _with_groups(authenticator: Any, user: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the user's model with the provider's current groups, or unchanged if the provider does not respond."""
    groups: list[str] | None = None
    try:
        state = {**state, authenticator.user_auth_state_key: await authenticator.token_to_user(state["token_response"])}
        found = authenticator.get_user_groups(state)
        groups = sorted(await found if inspect.isawaitable(found) else found)
        await user.save_auth_state(state)
    except Exception as error:  # noqa: BLE001 - groups matter less than the tokens that have just been refreshed
        _LOG.warning("The groups of %s could not be read: %s", user.name, type(error).__name__)
    # The Hub keeps the already saved auth state.
    return {"name": user.name, "admin": None, "groups": groups}


def _parse_failure(error: Exception, *, secret: str) -> AuthenticationError | ProviderUnavailable:
    status = getattr(error, "code", 0)
    body = getattr(getattr(error, "response", None), "body", None)
    if status not in _CLIENT_ERRORS or not body:
        return ProviderUnavailable(f"The identity provider didn't return a token ({type(error).__name__}).")
    try:
        decoded: object = json.loads(body)
    except ValueError:
        return ProviderUnavailable("The identity provider returned neither a token nor an error code.")
    return build_token_error(decoded, is_refresh=True, secrets=[Secret(secret)])
