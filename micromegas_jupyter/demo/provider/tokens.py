"""What the provider issues: its tokens, its keys, and the names that stand in them."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from functools import cached_property

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from werkzeug.datastructures import MultiDict

from micromegas_jupyter.core.system import Clock, Secret
from micromegas_jupyter.demo.provider.state import (
    PAGES,
    SCOPE_MEANINGS,
    Client,
    Grant,
    ProviderState,
    RefreshToken,
    build_clients,
    check_parameters,
)

HOST = "127.0.0.1"
SIGNING_ALGORITHM = "RS256"

Json = dict[str, object]


class TokenIssuer:
    """Signs tokens for the applications and remembers them.

    Attributes:
        port: Where the provider listens, once it does.
    """

    client_id = "micromegas-demo"
    service_client_id = "micromegas-demo-service"
    lake_audience = "micromegas-demo-lake"

    def __init__(self, *, token_lifetime_seconds: int, jupyter_base_url: str | None, clock: Clock) -> None:
        self.service_secret = Secret(secrets.token_urlsafe())
        self.clock = clock
        self.token_lifetime_seconds = token_lifetime_seconds
        self.jupyter_base_url = jupyter_base_url
        self.state = ProviderState(clock, token_lifetime_seconds=token_lifetime_seconds)
        self.port = 0

    @property
    def issuer(self) -> str:
        """The issuer URL; known once started."""
        return f"http://{HOST}:{self.port}"

    @property
    def cookie(self) -> tuple[str, str]:
        """The name and path of the browser's cookie."""
        # Cookies of one host reach all its ports, so the name holds the port. Behind Jupyter, other servers of the same
        # host, as on a Hub, do not get them.
        path = "/" if self.jupyter_base_url is None else f"{self.jupyter_base_url}{PAGES}/"
        return f"micromegas_demo_{self.port}", path

    @cached_property
    def clients(self) -> dict[str, Client]:
        """The registered applications by their client id."""
        return build_clients(
            self.client_id, self.service_client_id, secret=self.service_secret, jupyter_base_url=self.jupyter_base_url
        )

    @cached_property
    def signing_key(self) -> RSAKey:
        """The key of this start."""
        return RSAKey.generate_key(2048, {"alg": SIGNING_ALGORITHM, "use": "sig"}, auto_kid=True)

    def public_keys(self) -> Json:
        """Return the JWK set with public parts only (RFC 7517 section 5)."""
        return {**KeySet([self.signing_key]).as_dict(private=False)}

    def check_request(self, parameters: MultiDict[str, str]) -> None:
        """Check what is common to all requests."""
        check_parameters(parameters, audience=self.lake_audience)

    def select_scope(self, client: Client, scope: str | None) -> str:
        """Return those of the requested scopes that a client may have; the rest is left out."""
        known = SCOPE_MEANINGS if client.secret is None else ()
        return " ".join(name for name in dict.fromkeys((scope or "").split()) if name in known)

    def read_own_token(self, token: str) -> Mapping[str, object]:
        """Return the claims of a token that was signed here, whatever its times (raises `JoseError`, `ValueError`)."""
        return jwt.decode(token, self.signing_key, algorithms=[SIGNING_ALGORITHM]).claims

    def sign(self, token_type: str, claims: Json) -> str:
        """Return a token of these claims, issued now."""
        now = int(self.clock.now().timestamp())
        header = {"alg": SIGNING_ALGORITHM, "kid": self.signing_key.kid, "typ": token_type}
        issued = {"iss": self.issuer, "iat": now, "exp": now + self.token_lifetime_seconds, **claims}
        return jwt.encode(header, issued, self.signing_key, algorithms=[SIGNING_ALGORITHM])

    def issue_access_token(self, client: Client, grant: Grant | None, scope: str) -> Json:
        """Return the token response with an access token (RFC 9068 section 2.2); a service account has no grant."""
        scopes = {"scope": scope} if scope else {}
        claims: Json = {"aud": self.lake_audience, "client_id": client.client_id, "jti": secrets.token_urlsafe()}
        claims |= {"sub": client.client_id} if grant is None else _describe_person(grant, scope)
        access_token = self.sign("at+jwt", claims | scopes)
        self.state.access_tokens[access_token] = grant, scope
        lifetime = {"expires_in": self.token_lifetime_seconds}
        return {"token_type": "Bearer", "access_token": access_token, **lifetime, **scopes}

    def issue_tokens(self, grant: Grant, *, scope: str, nonce: str | None = None) -> Json:
        """Return the token response for a grant.

        Args:
            grant: What the person allowed.
            scope: The scope of the access token: that of the grant, or less when a refresh asked for less.
            nonce: The nonce of the authorization request; None at a refresh (OpenID Connect Core 1.0 section 12.2).
        """
        response = self.issue_access_token(grant.client, grant, scope)
        if "openid" in scope.split():
            response["id_token"] = self.issue_id_token(grant, scope, str(response["access_token"]), nonce)
        if "offline_access" in grant.scope.split():
            response["refresh_token"] = refresh_token = secrets.token_urlsafe()
            self.state.refresh_tokens[refresh_token] = RefreshToken(grant=grant)
        return response

    def issue_id_token(self, grant: Grant, scope: str, access_token: str, nonce: str | None) -> str:
        """Return an ID token (OpenID Connect Core 1.0 sections 2 and 3.1.3.6)."""
        digest = hashlib.sha256(access_token.encode()).digest()[:16]
        claims: Json = {"aud": grant.client.client_id, "amr": ["pwd"], "at_hash": encode_base64url(digest)}
        claims |= _describe_person(grant, scope)
        return self.sign("JWT", claims if nonce is None else {**claims, "nonce": nonce})


def _describe_person(grant: Grant, scope: str) -> Json:
    person, authenticated_at = grant.signed_in.person, grant.signed_in.authenticated_at
    return {"sub": person.subject, "auth_time": int(authenticated_at.timestamp()), **person.build_claims(scope)}


def encode_base64url(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
