"""Stand-ins for token endpoints that trust keys and platforms, on loopback and over real HTTP.

They were written from the vendors' documents and are as strict as those; they were not tried against the vendors:

- Google, "Using OAuth 2.0 for Server to Server Applications", and its client libraries for `target_audience`;
- Microsoft Learn, "Workload identity federation";
- RFC 7523 and RFC 8693.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.mint import rsa_key
from tests.fakes.scripted_http import Reply, Seen
from tests.fakes.stand_in import EMAIL, GOOGLE_ISSUER, PLATFORM_KEY, StandIn, verified_claims

if TYPE_CHECKING:
    from micromegas_jupyter.core.system import Clock

KEY_ID = "4f3c2b1a"


class GoogleTokenEndpoint(StandIn):
    """Google's token endpoint, which knows one service account with one key."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock=clock)
        self.key = rsa_key("service-account")
        self.token_uri = f"{self.base}/token"

    def key_file(self, **changes: object) -> str:
        """Return the content of the service account's key file; a change to None removes a member."""
        private = self.key.private
        assert isinstance(private, rsa.RSAPrivateKey)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        members: dict[str, object] = {
            "type": "service_account",
            "project_id": "example-project",
            "private_key_id": KEY_ID,
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1234567890",
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
            **changes,
        }
        return json.dumps({name: value for name, value in members.items() if value is not None})

    def answer(self, call: Seen) -> Reply:
        """Exchange an assertion for an ID token or an access token."""
        if (call.method, call.path) != ("POST", "/token"):
            return Reply(status=404, body={"error": "not_found"})
        if call.form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return Reply(status=400, body={"error": "unsupported_grant_type"})
        claims = verified_claims(call.form.get("assertion", ""), self.key, key_id=KEY_ID)
        if claims is None:
            return _refused("Invalid JWT Signature.")
        problem = self._problem_of(claims)
        return self._granted(claims) if problem is None else _refused(problem)

    def _problem_of(self, claims: dict[str, object]) -> str | None:
        now, issued_at, expires_at = self.now_seconds(), claims.get("iat"), claims.get("exp")
        if claims.get("iss") != EMAIL or claims.get("aud") != self.token_uri or "sub" in claims:
            return "Invalid JWT: issuer, subject or audience."
        if type(issued_at) is not int or type(expires_at) is not int or not 0 < expires_at - issued_at <= 3600:
            return "Invalid JWT: Token must be a short-lived token (60 minutes)."
        if not now - 300 <= issued_at <= now + 300:
            return "Invalid JWT: Token must be in a reasonable timeframe. Check your iat and exp values."
        return None

    def _granted(self, claims: dict[str, object]) -> Reply:
        audience, scope = claims.get("target_audience"), claims.get("scope")
        if (audience is None) == (scope is None):
            return Reply(status=400, body={"error": "invalid_scope", "error_description": "Invalid OAuth scope."})
        if audience is not None:
            token = self.mint(issuer=GOOGLE_ISSUER, subject="1234567890", audience=audience, email=EMAIL)
            return Reply(body={"id_token": token})
        text = f"ya29.opaque-{len(self.calls)}"
        return Reply(body={"access_token": text, "expires_in": 3599, "token_type": "Bearer"})


class ExchangingProvider(StandIn):
    """A provider that trusts the platform's tokens: token exchange, and client credentials with a client assertion.

    Args:
        trusted_audience: What the platform's tokens have to be for; the issuer when None.
        clock: Tells its time.
        client_secret: What the application proves itself with in a token exchange; None for a public one.
    """

    client_id = "lake-service"

    def __init__(
        self, *, trusted_audience: str | None = None, clock: Clock = SYSTEM_CLOCK, client_secret: str | None = None
    ) -> None:
        super().__init__(clock=clock)
        self.issuer = self.base
        self.trusted_audience = trusted_audience or self.issuer
        self.client_secret = client_secret

    def token_calls(self) -> list[Seen]:
        """Return the calls of the token endpoint."""
        return [call for call in self.calls if call.path == "/token"]

    def answer(self, call: Seen) -> Reply:
        """Answer for the discovery document and the token endpoint."""
        if call.path == "/.well-known/openid-configuration":
            return Reply(
                body={
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.base}/authorize",
                    "token_endpoint": f"{self.base}/token",
                    "jwks_uri": f"{self.base}/keys",
                    "code_challenge_methods_supported": ["S256"],
                }
            )
        if (call.method, call.path) != ("POST", "/token"):
            return Reply(status=404, body={"error": "not_found"})
        match call.form.get("grant_type"):
            case "urn:ietf:params:oauth:grant-type:token-exchange":
                return self._exchange(call)
            case "client_credentials":
                return self._client_credentials(call)
            case _:
                return Reply(status=400, body={"error": "unsupported_grant_type"})

    def _exchange(self, call: Seen) -> Reply:
        if not self._is_authenticated(call):
            return Reply(status=401, body={"error": "invalid_client"})
        if call.form.get("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt":
            return Reply(status=400, body={"error": "invalid_request"})
        claims = self._trusted(call.form.get("subject_token", ""))
        if claims is None:
            return _refused("The subject token is not acceptable.")
        wanted = call.form.get("audience") or call.form.get("resource")
        if wanted != "lake":
            return Reply(status=400, body={"error": "invalid_target"})
        return Reply(
            body={
                "access_token": self.mint(issuer=self.issuer, subject=str(claims["sub"]), audience=wanted),
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": self.lifetime_seconds,
            }
        )

    def _client_credentials(self, call: Seen) -> Reply:
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        if call.form.get("client_assertion_type") != kind or "authorization" in call.headers:
            return Reply(status=401, body={"error": "invalid_client"})
        claims = self._trusted(call.form.get("client_assertion", ""))
        if claims is None or call.form.get("client_id") != self.client_id:
            return Reply(status=401, body={"error": "invalid_client", "error_description": "AADSTS700016: not found"})
        if not call.form.get("scope", "").endswith("/.default"):
            return Reply(status=400, body={"error": "invalid_scope"})
        return Reply(
            body={
                "access_token": self.mint(issuer=self.issuer, subject=self.client_id, audience="lake"),
                "token_type": "Bearer",
                "expires_in": self.lifetime_seconds,
            }
        )

    def _trusted(self, token: str) -> dict[str, object] | None:
        claims = verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)
        if claims is None or claims.get("aud") != self.trusted_audience:
            return None
        expires_at = claims.get("exp")
        return claims if isinstance(expires_at, int) and expires_at > self.now_seconds() else None

    def _is_authenticated(self, call: Seen) -> bool:
        if self.client_secret is None:
            return call.form.get("client_id") == self.client_id and "authorization" not in call.headers
        expected = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return call.headers.get("authorization") == f"Basic {expected}"


def _refused(description: str) -> Reply:
    return Reply(status=400, body={"error": "invalid_grant", "error_description": description})
