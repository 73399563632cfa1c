"""What the provider remembers between two requests, as values.

Authlib asks codes and tokens the questions spelled here as `get_…` and `check_…`; where they are kept and when
they end is the state's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from micromegas_jupyter.demo.provider.clients import DemoClient
    from micromegas_jupyter.demo.provider.people import SignedIn


@dataclass(slots=True, kw_only=True, eq=False)
class Grant:
    """What a person allowed one application; everything issued from it ends with it.

    Attributes:
        client_id: The application.
        signed_in: Who allowed it, and when they signed in.
        scope: The scopes, separated by spaces.
        audience: The audience of its access tokens.
        revoked: Whether it has ended. Written by the state alone, under its lock.
    """

    client_id: str
    signed_in: SignedIn
    scope: str
    audience: str
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationCode:
    """A code and everything that the token request is compared with."""

    grant: Grant
    redirect_uri: str
    code_challenge: str
    nonce: str | None
    code_challenge_method: str = "S256"

    def get_redirect_uri(self) -> str:
        """Return the redirect URI of the authorization request."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """Return the granted scope."""
        return self.grant.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """A refresh token that has not been used yet, or whose second use has to be noticed."""

    text_digest: str
    grant: Grant

    def check_client(self, client: DemoClient) -> bool:
        """Whether the token was issued to this application."""
        return self.grant.client_id == client.client_id

    def get_scope(self) -> str:
        """Return the scope that the person granted."""
        return self.grant.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """An access token as the userinfo endpoint needs to know it."""

    client_id: str
    grant: Grant | None
    scope: str
    expires_at: datetime

    def check_client(self, client: DemoClient) -> bool:
        """Whether the token was issued to this application."""
        return self.client_id == client.client_id


@dataclass(slots=True, kw_only=True, eq=False)
class DeviceAuthorization:
    """A device that waits for a person (RFC 8628). Written by the state alone, under its lock.

    Attributes:
        client_id: The application on the device.
        scope: What it asks for.
        audience: The audience of the access token it asks for.
        user_code: What the person types.
        expires_at: When the person's time is over (aware UTC).
        interval_seconds: How long the device has to wait between two questions.
        last_asked_at: Monotonic seconds of its last question.
        grant: What the person allowed.
        is_denied: Whether the person said no.
    """

    client_id: str
    scope: str
    audience: str
    user_code: str
    expires_at: datetime
    interval_seconds: float
    last_asked_at: float | None = None
    grant: Grant | None = None
    is_denied: bool = False

    @property
    def is_decided(self) -> bool:
        """Whether the person has answered."""
        return self.is_denied or self.grant is not None

    def get_client_id(self) -> str:
        """Return the application on the device."""
        return self.client_id

    def get_scope(self) -> str:
        """Return what the device asked for."""
        return self.scope

    def get_user_code(self) -> str:
        """Return what the person types."""
        return self.user_code
