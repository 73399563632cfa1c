"""What the provider remembers: codes, tokens, waiting devices and browser sessions.

The application answers one request at a time (`provider`), so nothing here needs a lock. Secret texts have 256 bits,
twice what RFC 6749 section 10.10 asks for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cachetools import TTLCache

if TYPE_CHECKING:
    from datetime import datetime

    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.demo.provider.registrations import Client, Person

CODE_LIFETIME_SECONDS = 60
DEVICE_LIFETIME_SECONDS = 600
_REFRESH_LIFETIME_SECONDS = 24 * 3600
_SESSION_LIFETIME_SECONDS = 8 * 3600
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A person together with the moment at which they gave their password (aware UTC)."""

    person: Person
    authenticated_at: datetime


@dataclass(slots=True, kw_only=True)
class Session:
    """One browser.

    Attributes:
        cookie: What the browser holds.
        form_token: What each form of this browser has to bring back.
        signed_in: Who is signed in, None for nobody.
        fresh_for: The query of the request for which the person has just given the password.
    """

    cookie: str = field(default_factory=secrets.token_urlsafe, repr=False)
    form_token: str = field(default_factory=secrets.token_urlsafe, repr=False)
    signed_in: SignedIn | None = None
    fresh_for: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Grant:
    """What a person allowed one application; everything issued from it ends when it is revoked."""

    client: Client
    signed_in: SignedIn
    scope: str
    is_revoked: bool = False


@dataclass(slots=True, kw_only=True)
class AuthorizationCode:
    """A code and everything that the token request is compared with."""

    grant: Grant
    redirect_uri: str
    code_challenge: str
    nonce: str | None
    expires_at: datetime
    is_used: bool = False


@dataclass(slots=True, kw_only=True)
class RefreshToken:
    """A refresh token, remembered after its use so that a second one is noticed."""

    grant: Grant
    is_used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """An access token as the userinfo endpoint needs to know it; without a grant it is a service account's."""

    grant: Grant | None
    scope: str


@dataclass(slots=True, kw_only=True)
class DeviceAuthorization:
    """A device that waits for a person (RFC 8628).

    Attributes:
        client: The application on the device.
        scope: What it asks for.
        user_code: What the person types.
        expires_at: When the person's time is over (aware UTC).
        interval_seconds: How long the device has to wait between two questions.
        last_asked_at: Monotonic seconds of its last question.
        is_decided: Whether the person has answered.
        grant: What the person allowed; None when they said no.
    """

    client: Client
    scope: str
    user_code: str
    expires_at: datetime
    interval_seconds: float
    last_asked_at: float | None = None
    is_decided: bool = False
    grant: Grant | None = None


class ProviderState:
    """Everything that is remembered, by the secret text that names it, each for a limited time."""

    def __init__(self, *, clock: Clock, token_lifetime_seconds: int) -> None:
        timer = clock.monotonic
        # Codes are remembered longer than they are good for, so that a second use is noticed and an expired one is
        # told from an unknown one.
        self.codes: TTLCache[str, AuthorizationCode] = TTLCache(_MAX_ENTRIES, 10 * CODE_LIFETIME_SECONDS, timer)
        self.devices: TTLCache[str, DeviceAuthorization] = TTLCache(_MAX_ENTRIES, 2 * DEVICE_LIFETIME_SECONDS, timer)
        self.refresh_tokens: TTLCache[str, RefreshToken] = TTLCache(_MAX_ENTRIES, _REFRESH_LIFETIME_SECONDS, timer)
        self.access_tokens: TTLCache[str, AccessToken] = TTLCache(_MAX_ENTRIES, token_lifetime_seconds, timer)
        self.sessions: TTLCache[str, Session] = TTLCache(_MAX_ENTRIES, _SESSION_LIFETIME_SECONDS, timer)
        self.clock = clock
        self.refreshes = 0

    def open_session(self, signed_in: SignedIn | None = None, *, fresh_for: bytes | None = None) -> Session:
        """Return a new browser session."""
        session = Session(signed_in=signed_in, fresh_for=fresh_for)
        self.sessions[session.cookie] = session
        return session

    def find_waiting_device(self, user_code: str) -> DeviceAuthorization | None:
        """Return the device that waits for this code to be typed, or None."""
        now = self.clock.now()
        for device in self.devices.values():
            if device.user_code == user_code and not device.is_decided and now < device.expires_at:
                return device
        return None
