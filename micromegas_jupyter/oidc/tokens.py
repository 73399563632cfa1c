"""Token requests and answers: codes, refresh, client credentials, assertions (RFC 7523), exchange (RFC 8693).

The `build_` functions return the form's fields; they raise `UsageError` when the resource is not an absolute URI. What
a `parse_` or `read_` function refuses shows nothing of itself, not even in a traceback with variables.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from micromegas_jupyter.core.system import Secret, SecretObject, secret_object
from micromegas_jupyter.errors import (
    AuthenticationError,
    LoginFailed,
    LoginRequired,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from micromegas_jupyter.oidc.authorization import AuthorizationRequest, resource_fields
from micromegas_jupyter.oidc.client_auth import ASSERTION_TYPE
from micromegas_jupyter.oidc.discovery import describe_provider_error
from micromegas_jupyter.oidc.private_key import PrivateKey, sign_jwt

MAX_TOKEN_CHARACTERS = 64 * 1024
MAX_LIFETIME_SECONDS = 10 * 365 * 24 * 3600
TOKEN_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a grant's name
JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a type's name
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name

_ANSWER = "token answer"
_DIGITS = re.compile(r"[0-9]{1,10}")
_CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client"})
_PASSING_ERRORS = frozenset({"server_error", "temporarily_unavailable", "slow_down"})
# What can be sent to a server as a bearer token: RFC 8693 section 3.
_BEARER_TYPES = (ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, JWT_TYPE)

Fields: TypeAlias = dict[str, str | Secret]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """The tokens of one sign-in, as the provider gave them.

    Attributes:
        access_token: For APIs.
        token_type: Always a bearer type.
        id_token: Says who signed in.
        refresh_token: Gets the next set.
        obtained_at: When the access token was received (aware UTC, by the provider's clock as far as it is known).
        expires_at: When the access token ends (the same); None when the provider does not say.
        scope: What was granted; None when unknown.
    """

    access_token: Secret
    token_type: str = "Bearer"  # noqa: S105 - a type's name, not a password
    id_token: Secret | None = None
    refresh_token: Secret | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    scope: str | None = None


def build_code_request(request: AuthorizationRequest, code: Secret) -> Fields:
    """Exchange a code. Source: RFC 6749 section 4.1.3; RFC 7636 section 4.5; RFC 8707 section 2.2."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": request.redirect_uri,
        "code_verifier": request.code_verifier,
        **resource_fields(request.resource),
    }


def build_refresh_request(refresh_token: Secret, *, granted_scope: str | None, resource: str | None = None) -> Fields:
    """Get the next tokens, never asking for more than was granted.

    The scope is sent when the grant names `openid`; a grant without it comes from providers that list only the
    API's own scopes (Entra ID), and leaving it out means all that was granted. Source: RFC 6749 section 6; RFC 8707
    section 2.2.
    """
    scope = granted_scope if granted_scope is not None and "openid" in granted_scope.split() else None
    return {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        **resource_fields(resource),
        **_without_empty(scope=scope),
    }


def build_client_credentials_request(*, scope: str | None, audience: str | None, resource: str | None = None) -> Fields:
    """Get a service account's token. Source: RFC 6749 section 4.4.2; RFC 8707 section 2.2; `audience` as Auth0's."""
    return {
        "grant_type": "client_credentials",
        **resource_fields(resource),
        **_without_empty(scope=scope, audience=audience),
    }


def build_client_assertion_request(
    assertion: Secret, *, scope: str | None, audience: str | None, resource: str | None
) -> Fields:
    """Get a service account's token with somebody else's statement about it. Source: RFC 7523 section 2.2."""
    return {
        **build_client_credentials_request(scope=scope, audience=audience, resource=resource),
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }


def build_assertion(key: PrivateKey, claims: Mapping[str, str], *, now: datetime, lifetime_seconds: int) -> Secret:
    """Sign `claims` (who says what to whom), with the times at which the assertion begins and ends added.

    Source: RFC 7523 section 3.
    """
    issued_at = int(now.timestamp())
    return sign_jwt(key, {**claims, "iat": issued_at, "exp": issued_at + lifetime_seconds})


def build_jwt_bearer_request(assertion: Secret) -> Fields:
    """Exchange an assertion for a token. Source: RFC 7523 section 2.1."""
    return {"grant_type": JWT_BEARER_GRANT, "assertion": assertion}


def build_token_exchange_request(
    subject_token: Secret,
    *,
    audience: str | None,
    resource: str | None,
    scope: str | None,
    subject_token_type: str = JWT_TYPE,
) -> Fields:
    """Exchange one issuer's token for another's.

    Args:
        subject_token: The token; it says who asks.
        audience: The name, at the provider, of what the new token is for.
        resource: The same as an address.
        scope: What the new token may do.
        subject_token_type: What `subject_token` is: a platform's JWT when left out.

    Source: RFC 8693 section 2.1.
    """
    return {
        "grant_type": TOKEN_EXCHANGE_GRANT,
        "subject_token": subject_token,
        "subject_token_type": subject_token_type,
        **resource_fields(resource),
        **_without_empty(audience=audience, scope=scope),
    }


def build_revocation_request(token: Secret, *, kind: str) -> Fields:
    """Revoke a token; `kind` is its type hint. Source: RFC 7009 section 2.1."""
    return {"token": token, "token_type_hint": kind}


def _without_empty(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def parse_token_answer(body: object, *, now: datetime, requested_scope: str | None) -> TokenSet:
    """Read a successful answer of the token endpoint.

    Args:
        body: The decoded JSON.
        now: When the answer came.
        requested_scope: What the answer means when it names no scope (RFC 6749 section 5.1).

    Raises:
        ProviderMisbehaved: A member is missing or malformed, or the token is not a bearer token.
    """
    body = secret_object(body)
    if body is None:
        raise ProviderMisbehaved("The identity provider's token answer is not a JSON object.")
    access_token = read_token(body, "access_token")
    if access_token is None:
        raise ProviderMisbehaved("The identity provider's token answer holds no access token.")
    token_type = body.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise ProviderMisbehaved("The identity provider gave a token that is not a bearer token.")
    scope = body.get("scope")
    if scope is not None and not isinstance(scope, str):
        raise ProviderMisbehaved("The identity provider's token answer has a scope that is not text.")
    lifetime = read_lifetime(body.get("expires_in"))
    return TokenSet(
        access_token=access_token,
        token_type=token_type,
        id_token=read_token(body, "id_token"),
        refresh_token=read_token(body, "refresh_token"),
        obtained_at=now,
        expires_at=None if lifetime is None else now + timedelta(seconds=lifetime),
        scope=scope or requested_scope,
    )


def parse_token_exchange_answer(body: object, *, now: datetime, requested_scope: str | None) -> TokenSet:
    """Read a successful answer; whatever the issued token's kind, it becomes the access token.

    `token_type` may be `N_A` for a token that is not an access token; then `issued_token_type` has to say what it is.
    Not every provider names that type, although it is required, so only a wrong one is refused.
    Source: RFC 8693 section 2.2.1.

    Raises:
        ProviderMisbehaved: A member is missing or malformed, or the token cannot be used as a bearer token.
    """
    body = secret_object(body)
    if body is None:
        raise ProviderMisbehaved("The identity provider's token exchange answer is not a JSON object.")
    issued_type, token_type = body.get("issued_token_type"), body.get("token_type")
    is_other_type = isinstance(token_type, str) and token_type.lower() == "n_a"
    if (issued_type is not None or is_other_type) and issued_type not in _BEARER_TYPES:
        raise ProviderMisbehaved(
            "The identity provider exchanged the token for one that cannot be sent to a server.",
            remedy="Set MICROMEGAS_OIDC_AUDIENCE or MICROMEGAS_OIDC_SCOPE to what the server's tokens are for.",
        )
    if is_other_type:
        body["token_type"] = "Bearer"  # noqa: S105 - a type's name, not a password
    return parse_token_answer(body, now=now, requested_scope=requested_scope)


def build_token_error(
    body: object, *, is_refresh: bool, secrets: Collection[Secret] = ()
) -> AuthenticationError | ProviderUnavailable:
    """Return the error that a refused token request (4xx) amounts to.

    A refused refresh means that the person has to sign in again, whatever the code, unless the provider says that
    it is only passing, or that it is about the application. Source: RFC 6749 section 5.2.
    """
    code = body.get("error") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(code, str):
        return ProviderMisbehaved("The identity provider refused a token request without saying why.")
    described = describe_provider_error(code, body.get("error_description"), secrets=secrets)
    if code in _PASSING_ERRORS:
        return ProviderUnavailable(f"The identity provider cannot give tokens now ({described}).")
    remedy = "Check the client id, and the client secret or private key." if code in _CLIENT_ERRORS else None
    # A program that was started without the application's secret must not cost the person the sign-in.
    if is_refresh and code not in _CLIENT_ERRORS:
        return LoginRequired(f"The sign-in has ended ({described}).")
    failed = LoginFailed(f"The identity provider gave no token ({described}).", remedy=remedy)
    failed.provider_code = code
    return failed


def merge_refreshed(old: TokenSet, new: TokenSet) -> TokenSet:
    """Return the new set, with the old refresh token and ID token where the answer brought none.

    Source: RFC 6749 section 6; OpenID Connect Core 1.0 section 12.2.
    """
    return replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        id_token=new.id_token or old.id_token,
        scope=new.scope or old.scope,
    )


def read_token(body: SecretObject, name: str, *, answer: str = _ANSWER) -> Secret | None:
    """Return the token or code that a provider's answer holds under `name`; None when it is absent or empty.

    Raises:
        ProviderMisbehaved: It is not text, too long, or has characters that no request could carry.
    """
    if body.get(name) in (None, ""):
        return None
    token = usable_token(body[name])
    if token is None:
        raise ProviderMisbehaved(f"The identity provider's {answer} has a malformed {name}.")
    return token


def usable_token(value: object) -> Secret | None:
    """Return a token as a secret; None when it is not text, too long, or no request could carry it."""
    if not isinstance(value, str) or len(value) > MAX_TOKEN_CHARACTERS or not value.isascii():
        return None
    return Secret(value) if value.isprintable() else None


def read_lifetime(value: object, *, answer: str = _ANSWER, name: str = "expires_in") -> float | None:
    """Return a number of seconds that a provider's answer holds; None when it is absent.

    Raises:
        ProviderMisbehaved: It is not a finite number of at least zero.
    """
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)  # some providers write the number as text
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ProviderMisbehaved(f"The identity provider's {answer} has a malformed {name}.")
    return min(float(value), MAX_LIFETIME_SECONDS)
