"""The signing key, what each token says, and the answers of the token endpoint."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from micromegas_jupyter.demo.provider.state import AccessToken, Grant, RefreshToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.demo.provider.registrations import Client
    from micromegas_jupyter.demo.provider.state import ProviderState

SIGNING_ALGORITHM = "RS256"


class TokenIssuer:
    """Signs tokens with a key made at start and gone at stop, and remembers them.

    Args:
        issuer: The issuer URL.
        audience: The audience of access tokens.
        lifetime_seconds: Life of ID and access tokens.
        state: Where they are remembered.
    """

    def __init__(self, *, issuer: str, audience: str, lifetime_seconds: int, state: ProviderState) -> None:
        self.issuer = issuer
        self.audience = audience
        self._lifetime_seconds = lifetime_seconds
        self._state = state
        self._key = RSAKey.generate_key(2048, {"alg": SIGNING_ALGORITHM, "use": "sig"}, auto_kid=True)

    def build_public_keys(self) -> Mapping[str, object]:
        """Return the JWK set with public parts only (RFC 7517 section 5)."""
        return {**KeySet([self._key]).as_dict(private=False)}

    def read_own(self, token: str) -> Mapping[str, object]:
        """Return the claims of a token that was signed here; its times are not looked at.

        Raises:
            JoseError: Not signed by this key.
            ValueError: Not a token at all.
        """
        return jwt.decode(token, self._key, algorithms=[SIGNING_ALGORITHM]).claims

    def issue_to_person(self, grant: Grant, *, scope: str, nonce: str | None = None) -> dict[str, object]:
        """Return the token response for a grant.

        Args:
            grant: What the person allowed.
            scope: The scope of the access token: that of the grant, or less when a refresh asked for less.
            nonce: The nonce of the authorization request; None at a refresh (OpenID Connect Core 1.0 section 12.2).
        """
        person = grant.signed_in.person
        authentication = {"auth_time": int(grant.signed_in.authenticated_at.timestamp()), **person.build_claims(scope)}
        response = self._respond(grant.client, person.subject, scope, grant, **authentication)
        if "openid" in scope.split():
            # OpenID Connect Core 1.0 sections 2 and 3.1.3.6.
            digest = hashlib.sha256(str(response["access_token"]).encode()).digest()
            claims: dict[str, object] = {
                "sub": person.subject,
                "aud": grant.client.client_id,
                "amr": ["pwd"],
                "at_hash": base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode(),
                **authentication,
            }
            response["id_token"] = self._sign("JWT", claims if nonce is None else {**claims, "nonce": nonce})
        if "offline_access" in grant.scope.split():
            refresh_token = secrets.token_urlsafe()
            self._state.refresh_tokens[refresh_token] = RefreshToken(grant=grant)
            response["refresh_token"] = refresh_token
        return response

    def issue_to_service(self, client: Client) -> dict[str, object]:
        """Return the token response for a service account: an access token and nothing else."""
        return self._respond(client, client.client_id, "", None)

    def _respond(
        self, client: Client, subject: str, scope: str, grant: Grant | None, **claims: object
    ) -> dict[str, object]:
        # RFC 9068 section 2.2.
        scopes = {"scope": scope} if scope else {}
        identifiers = {"client_id": client.client_id, "jti": secrets.token_urlsafe()}
        access_token = self._sign("at+jwt", {"sub": subject, "aud": self.audience, **identifiers, **scopes, **claims})
        self._state.access_tokens[access_token] = AccessToken(grant=grant, scope=scope)
        lifetime = {"expires_in": self._lifetime_seconds}
        return {"token_type": "Bearer", "access_token": access_token, **lifetime, **scopes}

    def _sign(self, token_type: str, claims: dict[str, object]) -> str:
        now = int(self._state.clock.now().timestamp())
        header = {"alg": SIGNING_ALGORITHM, "kid": self._key.kid, "typ": token_type}
        times = {"iat": now, "exp": now + self._lifetime_seconds}
        return jwt.encode(header, {"iss": self.issuer, **times, **claims}, self._key, algorithms=[SIGNING_ALGORITHM])
