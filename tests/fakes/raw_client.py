"""A client that speaks OpenID Connect by hand, with nothing but an HTTP library.

It shares no code with the package, so that what works with it works with any client. It checks nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import requests

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS = 60


class RawClient:
    """One application at one provider."""

    def __init__(self, issuer: str, client_id: str, *, redirect_uri: str = "http://127.0.0.1:40404/callback") -> None:
        self.issuer = issuer
        self.client_id = client_id
        self.redirect_uri = redirect_uri
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(24)
        self.metadata = self.get("/.well-known/openid-configuration").json()

    def authorization_url(self, **changes: str | None) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid email profile offline_access",
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "prompt": "consent",
        }
        parameters |= changes
        given = {name: value for name, value in parameters.items() if value is not None}
        return f"{self.metadata['authorization_endpoint']}?{urlencode(given)}"

    def exchange(self, code: str, /, **changes: str | None) -> requests.Response:
        fields = {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
        }
        return self.post("token_endpoint", fields | changes)

    def refresh(self, refresh_token: str, /, **changes: str | None) -> requests.Response:
        fields = {"grant_type": "refresh_token", "client_id": self.client_id, "refresh_token": refresh_token}
        return self.post("token_endpoint", fields | changes)

    def ask_for_device(self, device_code: str) -> requests.Response:
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "client_id": self.client_id,
            "device_code": device_code,
        }
        return self.post("token_endpoint", fields)

    def post(
        self, endpoint: str, fields: Mapping[str, str | None], *, basic: tuple[str, str] | None = None
    ) -> requests.Response:
        headers = {}
        if basic is not None:
            pair = ":".join(quote_plus(part) for part in basic)
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        given = {name: value for name, value in fields.items() if value is not None}
        return requests.post(
            self.metadata[endpoint], data=given, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"{self.issuer}{path}", headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)


def query_of(url: str) -> dict[str, str]:
    found = parse_qs(urlsplit(url).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


def claims_of(token: str) -> dict[str, object]:
    return json.loads(_segment(token, 1))


def header_of(token: str) -> dict[str, object]:
    return json.loads(_segment(token, 0))


def _segment(token: str, index: int) -> bytes:
    text = token.split(".")[index]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
