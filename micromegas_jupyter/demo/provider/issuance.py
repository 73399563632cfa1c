"""Makes the tokens: what each says, and the answer of the token endpoint.

Whether a request may have them is decided before; signing is the keys', remembering is the state's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from authlib.oauth2 import OAuth2Error
from authlib.oidc.core.util import create_half_hash

from micromegas_jupyter.demo.provider.people import build_person_claims
from micromegas_jupyter.demo.provider.records import AccessToken, Grant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from micromegas_jupyter.demo.provider.keys import SigningAlgorithm, SigningKeys
    from micromegas_jupyter.demo.provider.state import ProviderState
    from micromegas_jupyter.seams import Clock, Randomness

# RFC 6749 section 10.10 asks for 128 bits; these are 256.
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy:
    """What every token of this provider has in common.

    Attributes:
        issuer: The issuer URL.
        lake_audience: The audience of an access token when the request names none.
        extra_audiences: Further audiences that a request may name.
        lifetime_seconds: Life of ID and access tokens.
        algorithm: How they are signed.
    """

    issuer: str
    lake_audience: str
    extra_audiences: tuple[str, ...] = ()
    lifetime_seconds: int
    algorithm: SigningAlgorithm

    def resolve_audience(self, requested: Sequence[str]) -> str:
        """Return the audience that a request gets for what it named as `resource` or `audience`.

        Raises:
            OAuth2Error: `invalid_target`, RFC 8707 section 2: not one that this provider makes tokens for, or two.
        """
        named = set(requested)
        if not named:
            return self.lake_audience
        if len(named) > 1 or not named <= {self.lake_audience, *self.extra_audiences}:
            raise OAuth2Error(error="invalid_target", description="No tokens are made for this resource here.")
        return named.pop()


class TokenIssuer:
    """Makes token responses. Safe to use from several threads; owns nothing that has to be closed."""

    def __init__(
        self, *, policy: TokenPolicy, keys: SigningKeys, state: ProviderState, clock: Clock, randomness: Randomness
    ) -> None:
        self.policy = policy
        self._keys = keys
        self._state = state
        self._clock = clock
        self._randomness = randomness

    def build_secret_text(self) -> str:
        """Return unguessable text: a code or a refresh token."""
        return self._randomness.token_urlsafe(_TOKEN_BYTES)

    def issue_to_person(self, grant: Grant, *, scope: str, nonce: str | None) -> dict[str, object]:
        """Return the token response for a grant.

        Args:
            grant: What the person allowed.
            scope: The scope of the access token: that of the grant, or less when a refresh asked for less.
            nonce: The nonce of the authorization request; None at a refresh (OpenID Connect Core 1.0 section 12.2).
        """
        scopes = frozenset(scope.split())
        access_token = self._sign_access_token(grant.client_id, scope=scope, audience=grant.audience, grant=grant)
        response = self._build_response(access_token, scope)
        if "openid" in scopes:
            response["id_token"] = self._sign_id_token(grant, scopes, nonce=nonce, access_token=access_token)
        if "offline_access" in grant.scope.split():
            refresh_token = self.build_secret_text()
            self._state.save_refresh(refresh_token, grant)
            response["refresh_token"] = refresh_token
        return response

    def issue_to_service(self, client_id: str, *, scope: str, audience: str) -> dict[str, object]:
        """Return the token response for a service account: an access token and nothing else."""
        access_token = self._sign_access_token(client_id, scope=scope, audience=audience, grant=None)
        return self._build_response(access_token, scope)

    def _build_response(self, access_token: str, scope: str) -> dict[str, object]:
        response: dict[str, object] = {
            "token_type": "Bearer",
            "access_token": access_token,
            "expires_in": self.policy.lifetime_seconds,
        }
        return response | ({"scope": scope} if scope else {})

    def _sign_access_token(self, client_id: str, *, scope: str, audience: str, grant: Grant | None) -> str:
        # RFC 9068 section 2.2.
        issued_at, expires_at = self._lifetime()
        claims: dict[str, object] = {
            "iss": self.policy.issuer,
            "sub": client_id,
            "aud": audience,
            "client_id": client_id,
            "iat": _seconds(issued_at),
            "exp": _seconds(expires_at),
            "jti": self._randomness.token_urlsafe(16),
        }
        if scope:
            claims["scope"] = scope
        if grant is not None:
            claims["sub"] = grant.signed_in.person.subject
            claims["auth_time"] = _seconds(grant.signed_in.authenticated_at)
            claims |= build_person_claims(grant.signed_in.person, frozenset(scope.split()))
        text = self._keys.sign(claims, algorithm=self.policy.algorithm, token_type="at+jwt")  # noqa: S106 - a `typ`
        self._state.save_access(text, AccessToken(client_id=client_id, grant=grant, scope=scope, expires_at=expires_at))
        return text

    def _sign_id_token(self, grant: Grant, scopes: frozenset[str], *, nonce: str | None, access_token: str) -> str:
        # OpenID Connect Core 1.0 sections 2 and 3.1.3.6.
        issued_at, expires_at = self._lifetime()
        person = grant.signed_in.person
        claims: dict[str, object] = {
            "iss": self.policy.issuer,
            "sub": person.subject,
            "aud": grant.client_id,
            "iat": _seconds(issued_at),
            "exp": _seconds(expires_at),
            "auth_time": _seconds(grant.signed_in.authenticated_at),
            "amr": ["pwd"],
            "at_hash": create_half_hash(access_token, self.policy.algorithm).decode("ascii"),
            **build_person_claims(person, scopes),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return self._keys.sign(claims, algorithm=self.policy.algorithm, token_type="JWT")  # noqa: S106 - a `typ`

    def _lifetime(self) -> tuple[datetime, datetime]:
        now = self._clock.now().replace(microsecond=0)
        return now, now + timedelta(seconds=self.policy.lifetime_seconds)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
