"""What the Hub keeps of a person's sign-in (OAuthenticator's auth state), and the hook that alone renews it.

The hook runs in the Hub (`refresh_user_hook`): one renewal for each expiry, whoever asks. A second place that renewed
the same sign-in would use a refresh token that the provider has replaced, and the provider would end the sign-in
(RFC 9700 section 4.14.2).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from cachetools import LRUCache

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import AuthenticationError, LoginRequired, ProviderUnavailable
from micromegas_jupyter.oidc.claims import expiry_of
from micromegas_jupyter.oidc.jws import TokenProblem, parse_token
from micromegas_jupyter.oidc.tokens import build_token_error, usable_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from micromegas_jupyter.config.client import Bearer

REFUSED_MARK: Final = "micromegas_refresh_refused"
"""Set in the auth state when the provider has refused to renew a sign-in; the next sign-in replaces it all."""

STALE_MARK: Final = "micromegas_renewed_without_token"
"""Set in the auth state when the provider has renewed a sign-in and brought no new token of the wanted kind."""

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_SHARE_OF_LIFETIME: Final = 0.5
_CLIENT_ERRORS: Final = range(400, 500)
FAILURE_PAUSE_SECONDS: Final = 10.0
"""How long a renewal that failed is not tried again for that person, so that calls do not wait one after the other."""

OTHERS_PAUSE_SECONDS: Final = 300.0
"""How often people whose sign-in cannot be renewed here are left to OAuthenticator, which asks the provider."""

MAX_PAUSES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBearer:
    """A token that can be sent to a server.

    Attributes:
        token: The token.
        expires_at: When it ends (aware UTC).
        subject: What the provider calls the person; None when it does not say.
        lifetime_seconds: How long it was made for; None when it does not say.
    """

    token: Secret
    expires_at: datetime
    subject: str | None = None
    lifetime_seconds: float | None = None


def read_bearer(auth_state: Mapping[str, object], bearer: Bearer) -> HeldBearer | None:
    """Return the token of the wanted kind; None when there is none that says when it ends."""
    token = usable_token(auth_state.get(bearer.value))
    return None if token is None else _held(token)


def is_refused(auth_state: Mapping[str, object]) -> bool:
    """Whether the provider has refused to renew this sign-in."""
    return auth_state.get(REFUSED_MARK) is True


def is_stale(auth_state: Mapping[str, object]) -> bool:
    """Whether the provider's renewals bring no new token of the wanted kind."""
    return auth_state.get(STALE_MARK) is True


def is_same_sign_in(old: Secret | None, new: Secret | None) -> bool:
    """Whether a renewed ID token continues the sign-in of the old one; it does when either is missing.

    Its audience may have become larger. Source: OpenID Connect Core 1.0 section 12.2.
    """
    if old is None or new is None:
        return True
    before, after = _claims(old), _claims(new)
    if before is None or after is None:
        return after is not None
    is_same_person = all(before.get(name) == after.get(name) for name in ("iss", "sub"))
    return is_same_person and _audience(before) <= _audience(after)


def _audience(claims: Mapping[str, object]) -> frozenset[str]:
    stated = claims.get("aud")
    return frozenset(map(str, stated)) if isinstance(stated, list) else frozenset({str(stated)})


def _held(token: Secret) -> HeldBearer | None:
    claims = _claims(token)
    if claims is None:
        return None
    try:
        expires_at = expiry_of(claims)
    except TokenProblem:
        return None
    issued = claims.get("iat")
    is_number = isinstance(issued, int | float) and not isinstance(issued, bool)
    lifetime = expires_at.timestamp() - float(issued) if is_number else None  # type: ignore[arg-type]  # a number
    subject = claims.get("sub")
    return HeldBearer(
        token=token,
        expires_at=expires_at,
        subject=subject if isinstance(subject, str) else None,
        lifetime_seconds=lifetime,
    )


def _claims(token: Secret) -> Mapping[str, object] | None:
    try:
        return parse_token(token.reveal()).claims
    except TokenProblem:
        return None


class SignInRefresher:
    """Renews a person's sign-in when less than a margin is left of the token that kernels get.

    State shared by the Hub's requests is the lock of each person, which is held across reading, renewing and writing,
    and until when a person is left alone.

    Args:
        bearer: The token that kernels get.
        margin_seconds: How much must be left. Of a token that was made for less than twice that, half counts.
        clock: Tells the time.
    """

    def __init__(self, bearer: Bearer, *, margin_seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._bearer = bearer
        self._margin_seconds = margin_seconds
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pauses: LRUCache[str, float] = LRUCache(MAX_PAUSES)

    async def __call__(self, authenticator: Any, user: Any, _auth_state: object) -> bool | dict[str, Any] | None:
        """Renew the sign-in when it is time.

        Args:
            authenticator: OAuthenticator.
            user: The Hub's object for the person.
            _auth_state: What was kept when the Hub called; it is read again under the lock.

        Returns:
            What OAuthenticator expects: True when nothing about the person changes, False when the person has to sign
            in again, a model of the person, or None to leave the person to OAuthenticator.
        """
        lock = self._locks.setdefault(user.name, asyncio.Lock())
        async with lock:
            state = await user.get_auth_state()
            if state and is_refused(state):
                return False
            held = read_bearer(state, self._bearer) if state else None
            if not state or held is None or usable_token(state.get("refresh_token")) is None:
                return self._leave(user.name, is_due=held is None or self._is_due(held))
            if not self._is_due(held) or self._is_paused(user.name):
                return True
            return await self._renew(authenticator, user, state, held=held)

    def _leave(self, name: str, *, is_due: bool) -> bool | None:
        """Leave a person to OAuthenticator, which asks for a new sign-in at the end, but not again and again."""
        if not is_due or self._is_paused(name):
            return True
        self._pause(name, OTHERS_PAUSE_SECONDS)
        return None

    def _pause(self, name: str, seconds: float) -> None:
        self._pauses[name] = self._clock.monotonic() + seconds

    def _is_paused(self, name: str) -> bool:
        return self._pauses.get(name, 0.0) > self._clock.monotonic()

    def _is_due(self, held: HeldBearer) -> bool:
        margin = self._margin_seconds
        if held.lifetime_seconds is not None:
            margin = min(margin, held.lifetime_seconds * _SHARE_OF_LIFETIME)
        return held.expires_at.timestamp() - self._clock.now().timestamp() < margin

    async def _renew(
        self, authenticator: Any, user: Any, state: dict[str, Any], *, held: HeldBearer
    ) -> bool | dict[str, Any]:
        # Never cut off, but by its own time-out: the provider may have replaced the refresh token already.
        fields = authenticator.build_refresh_token_request_params(state["refresh_token"])
        try:
            answer = await authenticator.get_token_info(None, fields)
        except Exception as error:  # noqa: BLE001 - whatever it is, the person keeps what is kept until it is refused
            return await self._keep_or_refuse(user, state, _read_error(error, secret=state["refresh_token"]))
        if not is_same_sign_in(usable_token(state.get("id_token")), usable_token(answer.get("id_token"))):
            _LOG.error("The identity provider renewed the sign-in of %s with a token for somebody else.", user.name)
            return await self._refuse(user, state)
        renewed = {**_merged(state, answer), STALE_MARK: False}
        fresh = read_bearer(renewed, self._bearer)
        if fresh is None or fresh.expires_at <= held.expires_at:
            # At each call it would bring no more, and use a refresh token up each time.
            self._pause(user.name, FAILURE_PAUSE_SECONDS)
        if fresh is not None and fresh.token == held.token:
            # A new token that lasts no longer is another matter: it ends with the person's session at the provider.
            _LOG.error("The sign-in of %s was renewed without a new %s.", user.name, self._bearer.value)
            renewed[STALE_MARK] = True
        await user.save_auth_state(renewed)
        _LOG.info("The sign-in of %s was renewed.", user.name)
        return await _with_groups(authenticator, user, renewed) if authenticator.manage_groups else True

    async def _keep_or_refuse(
        self, user: Any, state: dict[str, Any], error: AuthenticationError | ProviderUnavailable
    ) -> bool:
        if isinstance(error, LoginRequired):
            _LOG.warning("The identity provider refused to renew the sign-in of %s.", user.name)
            return await self._refuse(user, state)
        _LOG.error("The sign-in of %s could not be renewed now: %s", user.name, error.what)
        self._pause(user.name, FAILURE_PAUSE_SECONDS)
        return True

    async def _refuse(self, user: Any, state: dict[str, Any]) -> bool:
        # Without its refresh token, so that it is not sent again and again (RFC 9700 section 4.14.2).
        await user.save_auth_state({**state, "refresh_token": None, REFUSED_MARK: True})
        return False


def _merged(state: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the auth state with the answer's tokens, and the old ones where it brought none (RFC 6749 section 6)."""
    kept = {name: answer.get(name) or state.get(name) for name in ("access_token", "id_token", "refresh_token")}
    scope = answer.get("scope")
    scopes = scope.split(" ") if isinstance(scope, str) and scope else state.get("scope")
    return {**state, **kept, "scope": scopes, "token_response": {**answer, **kept}}


async def _with_groups(authenticator: Any, user: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the person's model with the groups that the provider names now; as they were where it does not answer."""
    groups: list[str] | None = None
    try:
        state = {**state, authenticator.user_auth_state_key: await authenticator.token_to_user(state["token_response"])}
        found = authenticator.get_user_groups(state)
        groups = sorted(await found if inspect.isawaitable(found) else found)
        await user.save_auth_state(state)
    except Exception as error:  # noqa: BLE001 - groups are worth less than the tokens that have just been renewed
        _LOG.warning("The groups of %s could not be read: %s", user.name, type(error).__name__)
    # The Hub keeps the auth state that is saved already.
    return {"name": user.name, "admin": None, "groups": groups}


def _read_error(error: Exception, *, secret: str) -> AuthenticationError | ProviderUnavailable:
    """Return what a failed renewal means; only the provider's own refusal ends a sign-in."""
    response = getattr(error, "response", None)
    status = getattr(error, "code", 0)
    body = getattr(response, "body", None)
    if status not in _CLIENT_ERRORS or not body:
        return ProviderUnavailable(f"The identity provider gave no token ({type(error).__name__}).")
    try:
        decoded: object = json.loads(body)
    except ValueError:
        return ProviderUnavailable("The identity provider gave no token and no reason.")
    return build_token_error(decoded, is_refresh=True, secrets=[Secret(secret)])
