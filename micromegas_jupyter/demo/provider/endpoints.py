"""The endpoints for programs: metadata, keys, tokens, revocation, devices, userinfo."""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import flask

from micromegas_jupyter.demo.provider.registrations import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    SCOPE_MEANINGS,
)
from micromegas_jupyter.demo.provider.state import DEVICE_LIFETIME_SECONDS, DeviceAuthorization
from micromegas_jupyter.demo.provider.tokens import SIGNING_ALGORITHM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.datastructures import MultiDict
    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.registrations import Client
    from micromegas_jupyter.demo.provider.state import ProviderState
    from micromegas_jupyter.demo.provider.tokens import TokenIssuer

    _Answer = Callable[[Client, Mapping[str, str]], dict[str, object]]

log = logging.getLogger("micromegas_jupyter.demo.provider")

# RFC 8628 section 6.1: letters without vowels, which are easy to tell apart and make no words.
_USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
# RFC 8628 section 3.5: after slow_down the interval is 5 seconds longer, for good. A network delivers a question early
# or late; only a clearly early one is an offense.
_SLOW_DOWN_SECONDS = 5
_INTERVAL_TOLERANCE = 0.9
_MAX_LOGGED_CHARACTERS = 64
# What a device is told while its person still types: nothing is wrong.
_PATIENCE = frozenset({"authorization_pending", "slow_down"})


class OAuthError(Exception):
    """A request that is refused with one of the codes that RFC 6749 and its companions define."""

    def __init__(self, code: str, description: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.description = description


def check_parameters(parameters: MultiDict[str, str], *, audience: str) -> None:
    """Check that each parameter comes once (RFC 6749 section 3.2) and that only the one known resource is asked for.

    Args:
        parameters: The query of an authorization request or the form of another.
        audience: What access tokens are made for, which a request may name as `resource` (RFC 8707, which allows
            several) or, as some providers have it, `audience`.

    Raises:
        OAuthError: `invalid_request` or `invalid_target`.
    """
    for name, values in parameters.lists():
        if len(values) > 1 and name != "resource":
            raise OAuthError("invalid_request", "A parameter appears more than once.")
        if name in {"resource", "audience"} and set(values) != {audience}:
            raise OAuthError("invalid_target", "No tokens are made for this resource here.")


class Endpoints:
    """Everything that is not a page."""

    def __init__(
        self,
        *,
        clients: Mapping[str, Client],
        state: ProviderState,
        tokens: TokenIssuer,
        device_interval_seconds: int,
        has_public_address: bool,
    ) -> None:
        self._clients = clients
        self._state = state
        self._tokens = tokens
        self._device_interval_seconds = device_interval_seconds
        self._metadata = build_metadata(tokens.issuer, has_public_address=has_public_address)

    def register(self, app: flask.Flask) -> None:
        """Add the routes."""
        app.add_url_rule("/.well-known/openid-configuration", "openid", lambda: flask.jsonify(self._metadata))
        app.add_url_rule("/.well-known/oauth-authorization-server", "oauth", lambda: flask.jsonify(self._metadata))
        app.add_url_rule("/jwks", "jwks", lambda: flask.jsonify(self._tokens.build_public_keys()))
        app.add_url_rule("/userinfo", "userinfo", self.userinfo, methods=["GET", "POST"])
        answers: dict[str, _Answer] = {
            "token": self.token,
            "revoke": self.revoke,
            "device_authorization": self.authorize_device,
        }
        for name, answer in answers.items():
            app.add_url_rule(f"/{name}", name, self._answer, methods=["POST"], defaults={"answer": answer})
        app.register_error_handler(OAuthError, _refuse)

    def userinfo(self) -> Response:
        """Return the claims of the person behind an access token (OpenID Connect Core 1.0 section 5.3)."""
        authorization = flask.request.authorization
        text = authorization.token if authorization is not None and authorization.type == "bearer" else None
        token = self._state.access_tokens.get(text or "")
        if token is None or token.grant is None or token.grant.is_revoked or "openid" not in token.scope.split():
            return flask.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        person = token.grant.signed_in.person
        return flask.jsonify({"sub": person.subject, **person.build_claims(token.scope)})

    def token(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        """Answer the token endpoint."""
        grants: dict[str, _Answer] = {
            AUTHORIZATION_CODE: self._exchange_code,
            REFRESH_TOKEN: self._refresh,
            CLIENT_CREDENTIALS: lambda client, _form: self._tokens.issue_to_service(client),
            DEVICE_CODE: self._answer_device,
        }
        grant_type = _require(form, "grant_type")
        if grant_type not in grants:
            raise OAuthError("unsupported_grant_type")
        _check_grant_type(client, grant_type)
        return grants[grant_type](client, form)

    def revoke(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        """End the family of a refresh token (RFC 7009)."""
        text = _require(form, "token")
        if text in self._state.access_tokens:
            raise OAuthError("unsupported_token_type", "A signed access token is good until it expires.")
        token = self._state.refresh_tokens.get(text)
        if token is not None:
            if token.grant.client is not client:
                raise OAuthError("invalid_grant", "The token was issued to another application.")
            token.grant.is_revoked = True
        return {}

    def authorize_device(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        """Give a device its pair of codes (RFC 8628 section 3.2)."""
        _check_grant_type(client, DEVICE_CODE)
        letters = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(8))
        user_code, device_code = f"{letters[:4]}-{letters[4:]}", secrets.token_urlsafe()
        self._state.devices[device_code] = DeviceAuthorization(
            client=client,
            scope=client.select_scope(form.get("scope")),
            user_code=user_code,
            expires_at=self._state.clock.now() + timedelta(seconds=DEVICE_LIFETIME_SECONDS),
            interval_seconds=self._device_interval_seconds,
        )
        return {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": f"{self._tokens.issuer}/device",
            "verification_uri_complete": f"{self._tokens.issuer}/device?user_code={user_code}",
            "expires_in": DEVICE_LIFETIME_SECONDS,
            "interval": self._device_interval_seconds,
        }

    def _answer(self, answer: _Answer) -> Response:
        request = flask.request
        # RFC 6749 sections 3.2 and 2.3.1: credentials in a URL end up in logs.
        if request.query_string or request.mimetype != "application/x-www-form-urlencoded":
            raise OAuthError("invalid_request", "Parameters belong in the body of the request, which has to be a form.")
        check_parameters(request.form, audience=self._tokens.audience)
        return flask.jsonify(answer(self._authenticate_client(), request.form))

    def _authenticate_client(self) -> Client:
        form = flask.request.form
        client_id, secret = _read_basic() or (form.get("client_id", ""), form.get("client_secret"))
        client = self._clients.get(client_id)
        if client is None or not client.is_secret(secret):
            raise OAuthError("invalid_client")
        return client

    def _exchange_code(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        code = self._state.codes.get(_require(form, "code"))
        verifier = _require(form, "code_verifier")
        if code is None or code.grant.client is not client:
            raise OAuthError("invalid_grant")
        if code.is_used:
            # RFC 6749 section 4.1.2: a second use ends everything issued from the first.
            code.grant.is_revoked = True
        is_used, code.is_used = code.is_used, True
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("utf-8", "replace")).digest())
        if (
            is_used
            or self._state.clock.now() >= code.expires_at
            or form.get("redirect_uri") != code.redirect_uri
            or challenge.rstrip(b"=").decode() != code.code_challenge
        ):
            raise OAuthError("invalid_grant")
        return self._tokens.issue_to_person(code.grant, scope=code.grant.scope, nonce=code.nonce)

    def _refresh(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        token = self._state.refresh_tokens.get(_require(form, "refresh_token"))
        if token is None or token.grant.client is not client:
            raise OAuthError("invalid_grant")
        if token.is_used:
            # RFC 9700 section 4.14.2: a second use ends the whole family.
            token.grant.is_revoked = True
        if token.grant.is_revoked:
            raise OAuthError("invalid_grant")
        scope = form.get("scope") or token.grant.scope
        if not set(scope.split()) <= set(token.grant.scope.split()):
            raise OAuthError("invalid_scope", "The person did not allow this.")
        token.is_used = True
        self._state.refreshes += 1
        return self._tokens.issue_to_person(token.grant, scope=scope)

    def _answer_device(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        # RFC 8628 section 3.5. A code that was answered already is as good as an unknown one.
        device_code = _require(form, "device_code")
        device = self._state.devices.get(device_code)
        if device is None or device.client is not client:
            raise OAuthError("invalid_grant")
        if not device.is_decided:
            if self._state.clock.now() >= device.expires_at:
                raise OAuthError("expired_token")
            now, last = self._state.clock.monotonic(), device.last_asked_at
            device.last_asked_at = now
            if last is not None and now - last < device.interval_seconds * _INTERVAL_TOLERANCE:
                device.interval_seconds += _SLOW_DOWN_SECONDS
                raise OAuthError("slow_down")
            raise OAuthError("authorization_pending")
        del self._state.devices[device_code]
        if device.grant is None:
            raise OAuthError("access_denied")
        return self._tokens.issue_to_person(device.grant, scope=device.scope)


def _require(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if not value:
        raise OAuthError("invalid_request", f"{name} is missing.")
    return value


def _check_grant_type(client: Client, grant_type: str) -> None:
    if grant_type not in client.grant_types:
        raise OAuthError("unauthorized_client")


def _read_basic() -> tuple[str, str] | None:
    """Return name and secret of an Authorization header; its parts are form-encoded (RFC 6749 section 2.3.1)."""
    if "Authorization" not in flask.request.headers:
        return None
    authorization = flask.request.authorization
    if authorization is None or authorization.type != "basic":
        return "", ""
    return unquote_plus(authorization.username or ""), unquote_plus(authorization.password or "")


def _refuse(error: OAuthError) -> Response:
    """Answer with the error, and log which application was refused; it is a name that nobody checked."""
    if error.code not in _PATIENCE:
        name = (_read_basic() or (flask.request.form.get("client_id", ""), ""))[0]
        log.warning(
            "request refused",
            extra={
                "endpoint": flask.request.endpoint,
                "client_id": name[:_MAX_LOGGED_CHARACTERS],
                "error": error.code,
            },
        )
    described = {"error_description": error.description} if error.description else {}
    response = flask.jsonify({"error": error.code, **described})
    response.status_code = 400
    if error.code == "invalid_client":
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="micromegas-demo"'
    return response


def build_metadata(issuer: str, *, has_public_address: bool) -> dict[str, object]:
    """Return the discovery document (OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2).

    Args:
        issuer: The issuer URL.
        has_public_address: Whether a person can open the pages at the issuer. Below a Jupyter server, which sends
            browsers there itself, they cannot, and what needs such an address is left out.
    """
    person_endpoints = {
        "end_session_endpoint": f"{issuer}/logout",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
    }
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "revocation_endpoint": f"{issuer}/revoke",
        **(person_endpoints if has_public_address else {}),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            AUTHORIZATION_CODE,
            REFRESH_TOKEN,
            CLIENT_CREDENTIALS,
            *([DEVICE_CODE] if has_public_address else []),
        ],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [SIGNING_ALGORITHM],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "scopes_supported": list(SCOPE_MEANINGS),
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
