"""The authorization server: Authlib's, joined with the demo's clients, memory and tokens.

It answers requests that are about the protocol alone; sign-in and consent pages are drawn elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from authlib.common.urls import add_params_to_uri
from authlib.integrations.flask_oauth2 import AuthorizationServer

from micromegas_jupyter.demo.provider.endpoints import DeviceEndpoint, TokenRevocation
from micromegas_jupyter.demo.provider.grants import (
    CodeGrant,
    DeviceGrant,
    RequestRules,
    RequiredS256,
    RotatingRefreshGrant,
    ServiceGrant,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.demo.provider.clients import DemoClient
    from micromegas_jupyter.demo.provider.issuance import TokenIssuer
    from micromegas_jupyter.demo.provider.state import ProviderState
    from micromegas_jupyter.seams import Clock

_FOUND = 302
_SEE_OTHER = 303
_AUTHLIB_TOKEN_LOGGERS = (
    "authlib.oauth2.rfc6749.grants.authorization_code",
    "authlib.oauth2.rfc6749.grants.refresh_token",
    "authlib.oauth2.rfc6749.grants.client_credentials",
    "authlib.oauth2.rfc8628.device_code",
)


class DemoAuthorizationServer(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    """Authlib's server with this provider's parts; it borrows them and closes none."""

    def __init__(
        self, *, clients: Mapping[str, DemoClient], state: ProviderState, tokens: TokenIssuer, clock: Clock
    ) -> None:
        super().__init__(query_client=clients.get)
        self.state = state
        self.tokens = tokens
        self.clock = clock
        keep_tokens_out_of_authlibs_log()
        self.register_client_auth_method("client_secret_basic", authenticate_basic)
        self.register_grant(CodeGrant, [RequiredS256(required=True), RequestRules()])
        self.register_grant(RotatingRefreshGrant)
        self.register_grant(ServiceGrant)
        self.register_grant(DeviceGrant)
        self.register_endpoint(TokenRevocation)

    def open_device_endpoint(self, *, verification_uri: str, interval_seconds: int) -> None:
        """Let devices sign in, with the page where a person types the code."""
        self.register_endpoint(
            DeviceEndpoint(self, verification_uri=verification_uri, interval_seconds=interval_seconds)
        )

    def handle_response(self, status_code: int, payload: Any, headers: list[tuple[str, str]]) -> Any:
        """Build the Flask response; every redirect, errors included, names the issuer.

        Source: RFC 9207 section 2; RFC 9700 section 4.12 asks for 303.
        """
        issuer = self.tokens.policy.issuer
        named = [
            (name, add_params_to_uri(value, [("iss", issuer)]) if name == "Location" else value)
            for name, value in headers
        ]
        return super().handle_response(_SEE_OTHER if status_code == _FOUND else status_code, payload, named)


def authenticate_basic(query_client: Callable[[str], DemoClient | None], request: Any) -> DemoClient | None:
    """Return the client of an HTTP Basic header, or None."""
    name, secret = read_basic(request.headers.get("Authorization", ""))
    client = query_client(name)
    return client if client is not None and client.check_client_secret(secret) else None


def read_basic(header: str) -> tuple[str, str]:
    """Return name and secret of an HTTP Basic header whose parts are form-encoded (RFC 6749 section 2.3.1).

    Both are empty when it is none. Authlib's own reader raises on bytes that are not UTF-8 and does not take `+` for a
    space.
    """
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote_plus(name), unquote_plus(secret)


class _WithoutTokens(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.msg.startswith("Issue token")


_WITHOUT_TOKENS = _WithoutTokens()


def keep_tokens_out_of_authlibs_log() -> None:
    """Drop the line in which Authlib logs, at DEBUG, each token that it makes."""
    for name in _AUTHLIB_TOKEN_LOGGERS:
        logging.getLogger(name).addFilter(_WITHOUT_TOKENS)
