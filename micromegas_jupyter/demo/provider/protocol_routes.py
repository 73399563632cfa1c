"""The endpoints for programs: metadata, keys, tokens, revocation, devices, userinfo.

What they answer is decided by the authorization server; here requests that no standard allows are turned away.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

import flask
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError

from micromegas_jupyter.demo.provider.clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PERSON_SCOPES,
    REFRESH_TOKEN,
)
from micromegas_jupyter.demo.provider.people import build_person_claims
from micromegas_jupyter.demo.provider.server import read_basic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.issuance import TokenPolicy
    from micromegas_jupyter.demo.provider.keys import SigningKeys
    from micromegas_jupyter.demo.provider.server import DemoAuthorizationServer

log = logging.getLogger("micromegas_jupyter.demo.provider")

_MAX_LOGGED_CHARACTERS = 64
# What a device is told while its person still types: nothing is wrong.
_PATIENCE = frozenset({"authorization_pending", "slow_down"})
# RFC 8707 section 2 allows several; all other parameters at most once (RFC 6749 section 3.2).
_REPEATABLE = frozenset({"resource"})


class ProtocolRoutes:
    """Everything that is not a page."""

    def __init__(self, server: DemoAuthorizationServer, keys: SigningKeys, metadata: Mapping[str, object]) -> None:
        self._server = server
        self._keys = keys
        self._metadata = metadata

    def register(self, app: flask.Flask) -> None:
        """Add the routes."""
        app.add_url_rule("/.well-known/openid-configuration", "openid", self.describe)
        app.add_url_rule("/.well-known/oauth-authorization-server", "oauth", self.describe)
        app.add_url_rule("/jwks", "jwks", self.jwks)
        app.add_url_rule("/userinfo", "userinfo", self.userinfo, methods=["GET", "POST"])
        for path, answer in {
            "/token": self._server.create_token_response,
            "/revoke": lambda: self._server.create_endpoint_response("revocation"),
            "/device_authorization": lambda: self._server.create_endpoint_response("device_authorization"),
        }.items():
            app.add_url_rule(path, path.strip("/"), self._guarded(answer), methods=["POST"])

    def describe(self) -> Response:
        """Return the provider's metadata."""
        return flask.jsonify(self._metadata)

    def jwks(self) -> Response:
        """Return the public keys."""
        return flask.jsonify(self._keys.build_public_document())

    def userinfo(self) -> Response:
        """Return the claims of the person behind an access token (OpenID Connect Core 1.0 section 5.3)."""
        scheme, _, text = flask.request.headers.get("Authorization", "").partition(" ")
        token = self._server.state.find_access(text.strip()) if scheme.lower() == "bearer" else None
        if token is None or token.grant is None or "openid" not in token.scope.split():
            return flask.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        person = token.grant.signed_in.person
        return flask.jsonify({"sub": person.subject} | build_person_claims(person, frozenset(token.scope.split())))

    def _guarded(self, answer: Callable[[], Response]) -> Callable[[], Response]:
        def view() -> Response:
            response = self._answer_or_refuse(answer)
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                _log_refusal(response)
            return response

        return view

    def _answer_or_refuse(self, answer: Callable[[], Response]) -> Response:
        try:
            check_form_request(flask.request)
            return answer()
        except OAuth2Error as error:
            refusal = error
        except ValueError:
            # Authlib raises it where a value cannot be repeated in an error description.
            refusal = InvalidRequestError("A parameter has characters that are not allowed.")
        response: Response = self._server.handle_error_response(None, refusal)
        return response


def _log_refusal(response: Response) -> None:
    """Log which application was refused and why; it is a name that nobody checked."""
    answer = response.get_json(silent=True)
    error = answer.get("error") if isinstance(answer, dict) else None
    if error in _PATIENCE:
        return
    name, _secret = read_basic(flask.request.headers.get("Authorization", ""))
    log.warning(
        "request refused",
        extra={
            "endpoint": flask.request.endpoint,
            "client_id": (name or flask.request.form.get("client_id", ""))[:_MAX_LOGGED_CHARACTERS],
            "error": error or "none",
        },
    )


def check_form_request(request: flask.Request) -> None:
    """Check that a request carries its parameters in a form, once each, and none in the URL.

    Source: RFC 6749 sections 3.2 and 2.3.1: credentials in a URL end up in logs.

    Raises:
        OAuth2Error: `invalid_request`.
    """
    if request.query_string:
        raise InvalidRequestError("Parameters belong in the body of the request.")
    if request.mimetype != "application/x-www-form-urlencoded":
        raise InvalidRequestError("The body has to be a form.")
    for name, values in request.form.lists():
        if len(values) > 1 and name not in _REPEATABLE:
            raise InvalidRequestError("A parameter appears more than once.")


def build_metadata(policy: TokenPolicy, *, public_base_url: str, is_behind_jupyter: bool = False) -> dict[str, object]:
    """Return the discovery document (OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2).

    Args:
        policy: The issuer and how it signs.
        public_base_url: Where a person's browser finds the pages; programs use the issuer's address.
        is_behind_jupyter: Whether browsers find them below a Jupyter server only, which sends them there itself. What
            needs an address that a person can open is left out then.
    """
    issuer = policy.issuer
    metadata: dict[str, object] = {
        "issuer": issuer,
        "authorization_endpoint": f"{public_base_url}/authorize",
        "end_session_endpoint": f"{public_base_url}/logout",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "revocation_endpoint": f"{issuer}/revoke",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, DEVICE_CODE],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [policy.algorithm],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "scopes_supported": list(PERSON_SCOPES),
        "claims_supported": [
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "at_hash",
            "amr",
            "name",
            "given_name",
            "family_name",
            "preferred_username",
            "groups",
            "email",
            "email_verified",
        ],
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    if is_behind_jupyter:
        del metadata["end_session_endpoint"], metadata["device_authorization_endpoint"]
        metadata["grant_types_supported"] = [AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS]
    return metadata
