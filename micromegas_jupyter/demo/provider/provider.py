"""`DemoProvider`: the endpoints for programs, and their server; tests use a differently scripted provider."""

import hashlib
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Self
from urllib.parse import unquote_plus

import flask
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.demo.provider.pages import Pages
from micromegas_jupyter.demo.provider.state import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    DEVICE_LIFETIME_SECONDS,
    HOST,
    REFRESH_TOKEN,
    SCOPE_MEANINGS,
    SIGNING_ALGORITHM,
    Client,
    DeviceAuthorization,
    Grant,
    Json,
    OAuthError,
    TokenIssuer,
    encode_base64url,
)

log = logging.getLogger("micromegas_jupyter.demo.provider")

_STOP_TIMEOUT_SECONDS = 5.0
_MAX_BODY_BYTES = 64 * 1024
_HEADERS = {
    # No form-action: browsers also apply it to redirects after a form, and the consent form redirects to the
    # application, on any port.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# RFC 8628 section 6.1: letters without vowels, which are easy to distinguish and form no words.
_USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
# RFC 8628 section 3.5: after slow_down, the interval is permanently 5 seconds longer. Network delays can make requests
# arrive early or late, so only a clearly early one counts.
_SLOW_DOWN_SECONDS = 5
_INTERVAL_TOLERANCE = 0.9
_MAX_LOGGED_CHARACTERS = 64
# Responses to a device while its user is still typing; these aren't errors.
_PENDING = frozenset({"authorization_pending", "slow_down"})

Form = Mapping[str, str]


class QuietHandler(WSGIRequestHandler):
    """Handles one request per connection and logs nothing: the default log lines contain the query and thus codes."""

    protocol_version = "HTTP/1.0"
    timeout = 30

    def log(self, _type: str, _message: str, *_args: object) -> None:
        """Do nothing; the application logs each request without its query."""


class DemoProvider(TokenIssuer):
    """An in-memory OpenID provider on loopback; a context manager.

    Tokens are short-lived, so that users see renewals. `jupyter_base_url` is the path, with slashes at both ends, of
    the Jupyter server that shows the pages to browsers, on any host.
    """

    poll_seconds = 0.05
    request_handler: type[WSGIRequestHandler] = QuietHandler

    def __init__(
        self,
        *,
        token_lifetime_seconds: int = 600,
        device_interval_seconds: int = 5,
        jupyter_base_url: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(token_lifetime_seconds=token_lifetime_seconds, jupyter_base_url=jupyter_base_url, clock=clock)
        self.refresh_count = 0
        self._device_interval_seconds = device_interval_seconds
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @cached_property
    def app(self) -> flask.Flask:
        """The application, which can be used without a socket."""
        app = _SerialApp()
        # Any other host name is rejected, to prevent DNS rebinding.
        app.config.update(TRUSTED_HOSTS=[HOST, "localhost"], MAX_CONTENT_LENGTH=_MAX_BODY_BYTES)
        self.register(app)
        app.after_request(_finish)
        app.register_error_handler(OAuthError, _refuse)
        app.register_error_handler(Exception, _fail)
        return app

    def start(self) -> None:
        """Listen on any free port and handle requests on a daemon thread. Returns once requests are accepted."""
        with socket.create_server((HOST, 0), backlog=64) as listener:
            self.port = listener.getsockname()[1]
            self._server = make_server(
                HOST, self.port, self.app, threaded=True, request_handler=self.request_handler, fd=listener.fileno()
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(self.poll_seconds,), name="demo-provider", daemon=True
        )
        self._thread.start()
        log.info("provider started", extra={"issuer": self.issuer})

    def stop(self) -> None:
        """Stop handling requests and close the port. All sign-ins are lost; repeated calls do nothing."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.shutdown()
        thread.join(_STOP_TIMEOUT_SECONDS)
        log.info("provider stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def register(self, app: flask.Flask) -> None:
        """Add the routes."""
        app.add_url_rule("/.well-known/openid-configuration", "metadata", lambda: flask.jsonify(self.metadata()))
        app.add_url_rule("/keys", "keys", lambda: flask.jsonify(self.public_keys()))
        for name, answer in (
            ("token", self.answer_token),
            ("revoke", self.answer_revocation),
            ("device_authorization", self.answer_device_authorization),
        ):
            app.add_url_rule(f"/{name}", name, self._answer, methods=["POST"], defaults={"answer": answer})
        Pages(self).register(app)

    def metadata(self) -> Json:
        """Return the discovery document; below a Jupyter server, without the endpoints that need the pages' URL."""
        has_pages = self.jupyter_base_url is None
        person_endpoints = {
            "end_session_endpoint": f"{self.issuer}/logout",
            "device_authorization_endpoint": f"{self.issuer}/device_authorization",
        }
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "revocation_endpoint": f"{self.issuer}/revoke",
            **(person_endpoints if has_pages else {}),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": [
                AUTHORIZATION_CODE,
                REFRESH_TOKEN,
                CLIENT_CREDENTIALS,
                *([DEVICE_CODE] if has_pages else []),
            ],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [SIGNING_ALGORITHM],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "scopes_supported": list(SCOPE_MEANINGS),
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": True,
        }

    def _answer(self, answer: Callable[[Client, Form], Json]) -> Response:
        request = flask.request
        # RFC 6749 sections 3.2 and 2.3.1: credentials in a URL end up in logs.
        if request.query_string or request.mimetype != "application/x-www-form-urlencoded":
            raise OAuthError("invalid_request", "Parameters must be in the request body, which must be a form.")
        self.check_request(request.form)
        client_id, secret = _read_basic() or (request.form.get("client_id", ""), request.form.get("client_secret"))
        client = self.find_client(client_id)
        if client is None or not client.is_secret(secret):
            raise OAuthError("invalid_client")
        return flask.jsonify(answer(client, request.form))

    def answer_token(self, client: Client, form: Form) -> Json:
        """Handle a request to the token endpoint."""
        grants: dict[str, Callable[[Client, Form], Json]] = {
            AUTHORIZATION_CODE: self._exchange_code,
            REFRESH_TOKEN: self.refresh,
            CLIENT_CREDENTIALS: lambda client, form: self.issue_access_token(
                client, None, "", resource=form.get("resource")
            ),
            DEVICE_CODE: self.answer_device,
        }
        grant_type = _require(form, "grant_type")
        if grant_type not in grants:
            raise OAuthError("unsupported_grant_type")
        _check_grant_type(client, grant_type)
        return grants[grant_type](client, form)

    def answer_revocation(self, client: Client, form: Form) -> Json:
        """Revoke a refresh token's whole family (RFC 7009)."""
        text = _require(form, "token")
        if text.count(".") == 2:  # noqa: PLR2004 - a signed token (RFC 7515 section 3.1)
            raise OAuthError("unsupported_token_type", "A signed access token remains valid until it expires.")
        token = self.state.refresh_tokens.get(text)
        if token is not None:
            if token.grant.client.client_id != client.client_id:
                raise OAuthError("invalid_grant", "The token was issued to a different application.")
            token.grant.is_revoked = True
        return {}

    def answer_device_authorization(self, client: Client, form: Form) -> Json:
        """Return a device code and a user code for a device (RFC 8628 section 3.2)."""
        _check_grant_type(client, DEVICE_CODE)
        letters = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(8))
        user_code, device_code = f"{letters[:4]}-{letters[4:]}", secrets.token_urlsafe()
        self.state.devices[device_code] = DeviceAuthorization(
            client=client,
            scope=self.select_scope(client, form.get("scope")),
            user_code=user_code,
            expires_at=self.clock.now() + timedelta(seconds=DEVICE_LIFETIME_SECONDS),
            interval_seconds=self._device_interval_seconds,
            resource=form.get("resource"),
        )
        return {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": f"{self.issuer}/device",
            "verification_uri_complete": f"{self.issuer}/device?user_code={user_code}",
            "expires_in": DEVICE_LIFETIME_SECONDS,
            "interval": self._device_interval_seconds,
        }

    def _exchange_code(self, client: Client, form: Form) -> Json:
        code = self.state.codes.get(_require(form, "code"))
        verifier = _require(form, "code_verifier")
        if code is None or code.grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant")
        _check_resource(code.grant, form)
        if code.is_used:
            # RFC 6749 section 4.1.2: a second use revokes everything issued from the first.
            code.grant.is_revoked = True
        is_used, code.is_used = code.is_used, True
        challenge = encode_base64url(hashlib.sha256(verifier.encode("utf-8", "replace")).digest())
        if (
            is_used
            or self.clock.now() >= code.expires_at
            or form.get("redirect_uri") != code.redirect_uri
            or challenge != code.code_challenge
        ):
            raise OAuthError("invalid_grant")
        return self.issue_tokens(code.grant, scope=code.grant.scope, nonce=code.nonce)

    def refresh(self, client: Client, form: Form) -> Json:
        """Exchange a refresh token, which is single-use."""
        token = self.state.refresh_tokens.get(_require(form, "refresh_token"))
        if token is None or token.grant.client.client_id != client.client_id:
            raise OAuthError("invalid_grant")
        _check_resource(token.grant, form)
        if token.is_used:
            # RFC 9700 section 4.14.2: a second use revokes the whole family.
            token.grant.is_revoked = True
        if token.grant.is_revoked:
            raise OAuthError("invalid_grant")
        scope = form.get("scope") or token.grant.scope
        if not set(scope.split()) <= set(token.grant.scope.split()):
            raise OAuthError("invalid_scope", "The user did not allow this scope.")
        token.is_used = True
        self.refresh_count += 1
        return self.issue_tokens(token.grant, scope=scope)

    def answer_device(self, client: Client, form: Form) -> Json:
        """Handle a poll (RFC 8628 section 3.5); a used code is treated like an unknown one."""
        device_code = _require(form, "device_code")
        device = self.state.devices.get(device_code)
        if device is None or device.client is not client:
            raise OAuthError("invalid_grant")
        if not device.is_decided:
            if self.clock.now() >= device.expires_at:
                raise OAuthError("expired_token")
            now, last = self.clock.monotonic(), device.last_polled_at
            device.last_polled_at = now
            if last is not None and now - last < device.interval_seconds * _INTERVAL_TOLERANCE:
                device.interval_seconds += _SLOW_DOWN_SECONDS
                raise OAuthError("slow_down")
            raise OAuthError("authorization_pending")
        del self.state.devices[device_code]
        if device.grant is None:
            raise OAuthError("access_denied")
        return self.issue_tokens(device.grant, scope=device.scope)


class _SerialApp(flask.Flask):
    """Handles one request at a time, so that its state needs no locks."""

    def __init__(self) -> None:
        super().__init__(__name__)
        self._lock = threading.Lock()

    def dispatch_request(self) -> ResponseReturnValue:
        """Handle a request after its body has been read, which takes as long as the client chooses."""
        _ = flask.request.form
        with self._lock:
            return super().dispatch_request()


def _require(form: Form, name: str) -> str:
    value = form.get(name)
    if not value:
        raise OAuthError("invalid_request", f"{name} is missing.")
    return value


def _check_resource(grant: Grant, form: Form) -> None:
    """Check that a token is requested for the resource that the user allowed (RFC 8707 section 2.2)."""
    requested = form.get("resource")
    if requested is not None and requested != (grant.resource or TokenIssuer.lake_audience):
        raise OAuthError("invalid_target", "The user allowed access to a different resource.")


def _check_grant_type(client: Client, grant_type: str) -> None:
    if grant_type not in client.grant_types:
        raise OAuthError("unauthorized_client")


def _read_basic() -> tuple[str, str] | None:
    """Return the name and secret from an Authorization header; its parts are form-encoded (RFC 6749 section 2.3.1)."""
    if "Authorization" not in flask.request.headers:
        return None
    authorization = flask.request.authorization
    if authorization is None or authorization.type != "basic":
        return "", ""
    return unquote_plus(authorization.username or ""), unquote_plus(authorization.password or "")


def _refuse(error: OAuthError) -> Response:
    """Return the error, and log the rejected application's name, which is unverified."""
    if error.code not in _PENDING:
        name = (_read_basic() or (flask.request.form.get("client_id", ""), ""))[0][:_MAX_LOGGED_CHARACTERS]
        extra = {"endpoint": flask.request.endpoint, "client_id": name, "error": error.code}
        log.warning("request refused", extra=extra)
    described = {"error_description": error.description} if error.description else {}
    response = flask.jsonify({"error": error.code, **described})
    response.status_code = 400
    if error.code == "invalid_client":
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="micromegas-demo"'
    return response


def _finish(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    endpoint = flask.request.endpoint or "none"
    extra = {"method": flask.request.method, "endpoint": endpoint, "status": response.status_code}
    log.info("request answered", extra=extra)
    return response


def _fail(error: Exception) -> HTTPException:
    if isinstance(error, HTTPException):
        return error
    # The exception's text may contain a code or a token, so only its type and the endpoint are logged.
    log.error("request failed", extra={"endpoint": flask.request.endpoint or "none", "error": type(error).__name__})
    return InternalServerError()
