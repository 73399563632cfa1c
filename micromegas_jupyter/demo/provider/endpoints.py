"""Two endpoints on Authlib's classes: a device begins to wait, and a token is given back.

The pages on which a person answers a device are in `device_pages`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import flask
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError, UnauthorizedClientError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint

from micromegas_jupyter.demo.provider.clients import DEVICE_CODE
from micromegas_jupyter.demo.provider.records import DeviceAuthorization, RefreshToken
from micromegas_jupyter.demo.provider.state import DEVICE_LIFETIME_SECONDS

if TYPE_CHECKING:
    from micromegas_jupyter.demo.provider.clients import DemoClient
    from micromegas_jupyter.demo.provider.records import AccessToken


class DeviceEndpoint(DeviceAuthorizationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """Gives a device its pair of codes (RFC 8628 section 3.2).

    Authlib makes the user code of eight letters without vowels: 34 bits, which at most 1,000 waiting devices for
    ten minutes do not make worth guessing.
    """

    CLIENT_AUTH_METHODS = ("none",)
    EXPIRES_IN = DEVICE_LIFETIME_SECONDS

    def __init__(self, server: Any, *, verification_uri: str, interval_seconds: int) -> None:
        super().__init__(server)
        self.INTERVAL = interval_seconds
        self._verification_uri = verification_uri

    def get_verification_uri(self) -> str:
        """Return the page where the person types the code."""
        return self._verification_uri

    def authenticate_client(self, request: Any) -> DemoClient:
        """Return the client, which must be one that may use this grant."""
        client: DemoClient = super().authenticate_client(request)
        if not client.check_grant_type(DEVICE_CODE):
            raise UnauthorizedClientError
        return client

    def save_device_credential(self, client_id: str, scope: str | None, data: dict[str, Any]) -> None:
        """Remember the device."""
        form = flask.request.form
        audience = self.server.tokens.policy.resolve_audience(form.getlist("resource") + form.getlist("audience"))
        device = DeviceAuthorization(
            client_id=client_id,
            scope=self.server.query_client(client_id).get_allowed_scope(scope),
            audience=audience,
            user_code=data["user_code"],
            expires_at=self.server.clock.now() + timedelta(seconds=data["expires_in"]),
            interval_seconds=data["interval"],
        )
        self.server.state.save_device(data["device_code"], device)


class TokenRevocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """Ends the family of a refresh token (RFC 7009)."""

    CLIENT_AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post")

    def check_params(self, request: Any, _client: DemoClient) -> None:
        """Require a token; a hint is no more than that (RFC 7009 section 2.1) and is not needed here."""
        if not request.form.get("token"):
            raise InvalidRequestError("The token to revoke is missing.")

    def query_token(self, token_string: str, _token_type_hint: str | None) -> RefreshToken | AccessToken | None:
        """Return the token, whatever its kind."""
        found: RefreshToken | AccessToken | None = self.server.state.find_for_revocation(token_string)
        return found

    def revoke_token(self, token: RefreshToken | AccessToken, _request: Any) -> None:
        """End the family of a refresh token, and say openly that a signed access token cannot be called back."""
        if not isinstance(token, RefreshToken):
            raise OAuth2Error(
                error="unsupported_token_type", description="A signed access token is good until it expires."
            )
        self.server.state.revoke(token.grant)
