"""The ways to a token, on Authlib's grant classes: code with PKCE, refresh with rotation, service account, device.

Authlib runs the protocol; here it is told what is remembered, and the rules it leaves open are closed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.errors import AccessDeniedError, InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceCodeGrant
from authlib.oauth2.rfc8628.errors import AuthorizationPendingError, ExpiredTokenError, SlowDownError

from micromegas_jupyter.demo.provider.records import AuthorizationCode, Grant

if TYPE_CHECKING:
    from micromegas_jupyter.demo.provider.clients import DemoClient
    from micromegas_jupyter.demo.provider.issuance import TokenIssuer
    from micromegas_jupyter.demo.provider.people import SignedIn
    from micromegas_jupyter.demo.provider.records import DeviceAuthorization, RefreshToken
    from micromegas_jupyter.demo.provider.state import ProviderState
    from micromegas_jupyter.seams import Clock

_KNOWN_PROMPTS = frozenset({"none", "login", "consent", "select_account"})
_SECONDS = re.compile(r"[0-9]{1,9}")
_SINGLE_PARAMETERS = ("code_challenge", "code_challenge_method", "nonce", "prompt", "max_age", "response_mode")


class RequestRules:
    """An Authlib extension with the rules for an authorization request that Authlib leaves open."""

    def __call__(self, grant: Any) -> None:
        """Ask to be called for each authorization request of `grant`."""
        grant.register_hook("after_validate_authorization_request_payload", self.check_request)

    def check_request(self, grant: Any, _redirect_uri: str) -> None:
        """Check prompt, age, answer mode and audience.

        Raises:
            OAuth2Error: With the code of OpenID Connect Core 1.0 section 3.1.2.6 or RFC 8707.
        """
        payload = grant.request.payload
        for name in _SINGLE_PARAMETERS:
            if len(payload.datalist.get(name, [])) > 1:
                raise InvalidRequestError(f"More than one {name} in the request.")
        for name in ("request", "request_uri"):
            if name in payload.data:
                raise OAuth2Error(error=f"{name}_not_supported", description="Request objects are not read here.")
        if payload.data.get("response_mode", "query") != "query":
            raise InvalidRequestError("The answer can be sent in the query only.")
        prompts = set(payload.data.get("prompt", "").split())
        if not prompts <= _KNOWN_PROMPTS or ("none" in prompts and len(prompts) > 1):
            raise InvalidRequestError("The prompt cannot be understood.")
        if not _SECONDS.fullmatch(payload.data.get("max_age", "0")):
            raise InvalidRequestError("max_age is a number of seconds.")
        grant.server.tokens.policy.resolve_audience(requested_audiences(payload))


class RequiredS256(CodeChallenge):  # type: ignore[misc]  # Authlib has no types
    """PKCE with S256, required where the request is made (RFC 9700 section 2.1.1).

    Authlib's own extension sends a code even without a challenge and refuses at the token endpoint, and takes
    `plain`.
    """

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Check the challenge of an authorization request."""
        data = grant.request.payload.data
        if not data.get("code_challenge"):
            raise InvalidRequestError("This provider requires PKCE: code_challenge is missing.")
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("This provider requires PKCE with code_challenge_method S256.")
        super().validate_code_challenge(grant, redirect_uri)


class _Grant:
    """What the grants have in common: where they remember, and tokens made by the issuer."""

    server: Any
    request: Any

    @property
    def _state(self) -> ProviderState:
        return cast("ProviderState", self.server.state)

    @property
    def _tokens(self) -> TokenIssuer:
        return cast("TokenIssuer", self.server.tokens)

    @property
    def _clock(self) -> Clock:
        return cast("Clock", self.server.clock)

    def save_token(self, _token: dict[str, object]) -> None:
        """Do nothing: the issuer has remembered it."""


class CodeGrant(_Grant, grants.AuthorizationCodeGrant):  # type: ignore[misc]  # Authlib has no types
    """Authorization code for the public client."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def generate_authorization_code(self) -> str:
        """Return a new code."""
        return self._tokens.build_secret_text()

    def save_authorization_code(self, code: str, request: Any) -> None:
        """Remember what the person allowed."""
        data = request.payload.data
        grant = Grant(
            client_id=request.client.client_id,
            signed_in=request.user,
            scope=request.client.get_allowed_scope(request.payload.scope),
            audience=self._tokens.policy.resolve_audience(requested_audiences(request.payload)),
        )
        record = AuthorizationCode(
            grant=grant,
            redirect_uri=request.payload.redirect_uri,
            code_challenge=data["code_challenge"],
            nonce=data.get("nonce"),
        )
        self._state.save_code(code, record)

    def query_authorization_code(self, code: str, client: DemoClient) -> AuthorizationCode | None:
        """Return the code for its one use: one wrong verifier or redirect URI uses it up as well."""
        return self._state.take_code(code, client_id=client.client_id)

    def delete_authorization_code(self, _code: AuthorizationCode) -> None:
        """Do nothing: it was used up when it was looked at."""

    def authenticate_user(self, code: AuthorizationCode) -> SignedIn:
        """Return who allowed it."""
        return code.grant.signed_in

    def generate_token(self, **_arguments: object) -> dict[str, object]:
        """Make the tokens of this code."""
        code: AuthorizationCode = self.request.authorization_code
        check_same_audience(self.request, code.grant)
        return self._tokens.issue_to_person(code.grant, scope=code.grant.scope, nonce=code.nonce)


class RotatingRefreshGrant(_Grant, grants.RefreshTokenGrant):  # type: ignore[misc]  # Authlib has no types
    """Refresh: each refresh token is good once, and a second use ends its family."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken | None:
        """Return the token if it may be used."""
        return self._state.find_refresh(refresh_token)

    def authenticate_user(self, refresh_token: RefreshToken) -> SignedIn:
        """Return who allowed it."""
        return refresh_token.grant.signed_in

    def issue_token(self, _user: SignedIn, refresh_token: RefreshToken) -> dict[str, object]:
        """Use the old token up and make new ones."""
        check_same_audience(self.request, refresh_token.grant)
        if not self._state.use_refresh(refresh_token):
            raise InvalidGrantError
        scope = self.request.payload.scope or refresh_token.grant.scope
        return self._tokens.issue_to_person(refresh_token.grant, scope=scope, nonce=None)

    def revoke_old_credential(self, _refresh_token: RefreshToken) -> None:
        """Do nothing: it was used up before new tokens were made, so that two cannot win."""


class ServiceGrant(_Grant, grants.ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    """Client credentials for the service account."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def generate_token(self, **_arguments: object) -> dict[str, object]:
        """Make an access token for the audience that was asked for."""
        client: DemoClient = self.request.client
        return self._tokens.issue_to_service(
            client.client_id,
            scope=client.get_allowed_scope(self.request.payload.scope),
            audience=self._tokens.policy.resolve_audience(requested_audiences(self.request.payload)),
        )


class DeviceGrant(_Grant, DeviceCodeGrant):  # type: ignore[misc]  # Authlib has no types
    """Device code: polling, slow_down and single use (RFC 8628 section 3.5)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def query_device_credential(self, device_code: str) -> DeviceAuthorization:
        """Return the waiting device; an unknown code, or one that was answered already, is `invalid_grant`."""
        device = self._state.find_device(device_code)
        if device is None:
            raise InvalidGrantError
        return device

    def validate_device_credential(self, device: DeviceAuthorization) -> SignedIn:
        """Return who allowed it, or raise what the device should be told."""
        if not device.is_decided:
            if self._clock.now() >= device.expires_at:
                raise ExpiredTokenError
            if self._state.is_asking_too_often(device):
                raise SlowDownError
            raise AuthorizationPendingError
        if self._state.take_device(self.request.payload.data["device_code"]) is None:
            raise InvalidGrantError
        if device.grant is None:
            raise AccessDeniedError
        return device.grant.signed_in

    def generate_token(self, **_arguments: object) -> dict[str, object]:
        """Make the tokens of this device."""
        grant: Grant = self.request.credential.grant
        return self._tokens.issue_to_person(grant, scope=grant.scope, nonce=None)


def requested_audiences(payload: Any) -> list[str]:
    """Return all that the request names as `resource` (RFC 8707) or, as some providers have it, `audience`."""
    return [value for name in ("resource", "audience") for value in payload.datalist.get(name, [])]


def check_same_audience(request: Any, grant: Grant) -> None:
    """Check that a token request names no other audience than the person allowed.

    Raises:
        OAuth2Error: `invalid_target`.
    """
    if set(requested_audiences(request.payload)) - {grant.audience}:
        raise OAuth2Error(error="invalid_target", description="The person did not allow this resource.")
