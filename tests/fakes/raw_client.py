"""A client that speaks OpenID Connect by hand, with nothing but an HTTP library.

It shares no code with the package, so that what works with it works with any client. It checks nothing.
"""

import base64
import hashlib
import json
import secrets
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import requests

TIMEOUT_SECONDS = 60


class RawClient:
    """One application at one provider."""

    def __init__(self, issuer, client_id, *, redirect_uri="http://127.0.0.1:40404/callback"):
        self.issuer = issuer
        self.client_id = client_id
        self.redirect_uri = redirect_uri
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(24)
        self.metadata = self.get("/.well-known/openid-configuration").json()

    def authorization_url(self, **changes):
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        parameters = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": self.redirect_uri,
            "scope": "openid email profile offline_access", "state": self.state, "nonce": self.nonce,
            "code_challenge": challenge, "code_challenge_method": "S256", "prompt": "consent", **changes,
        }  # fmt: skip
        given = {name: value for name, value in parameters.items() if value is not None}
        return f"{self.metadata['authorization_endpoint']}?{urlencode(given)}"

    def exchange(self, code, /, **changes):
        fields = {
            "grant_type": "authorization_code", "client_id": self.client_id, "code": code,
            "redirect_uri": self.redirect_uri, "code_verifier": self.verifier,
        }  # fmt: skip
        return self.post("token_endpoint", fields | changes)

    def refresh(self, refresh_token, /, **changes):
        fields = {"grant_type": "refresh_token", "client_id": self.client_id, "refresh_token": refresh_token}
        return self.post("token_endpoint", fields | changes)

    def ask_for_device(self, device_code):
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        fields = {"grant_type": grant, "client_id": self.client_id, "device_code": device_code}
        return self.post("token_endpoint", fields)

    def post(self, endpoint, fields, *, basic=None):
        headers = {}
        if basic is not None:
            pair = ":".join(quote_plus(part) for part in basic)
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        given = {name: value for name, value in fields.items() if value is not None}
        return requests.post(
            self.metadata[endpoint], data=given, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )

    def get(self, path, **headers):
        return requests.get(f"{self.issuer}{path}", headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)


def query_of(url):
    found = parse_qs(urlsplit(url).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


def claims_of(token):
    return json.loads(_segment(token, 1))


def header_of(token):
    return json.loads(_segment(token, 0))


def _segment(token, index):
    text = token.split(".")[index]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
