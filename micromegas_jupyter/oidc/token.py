"""Token requests and answers: code exchange, refresh, client credentials.

Sending requests is `http`'s job, ID tokens are `id_token`'s.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import (
    AuthenticationError,
    LoginFailed,
    LoginRequired,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from micromegas_jupyter.oidc.authorization import AuthorizationRequest
from micromegas_jupyter.oidc.provider_text import describe_provider_error

MAX_TOKEN_CHARACTERS = 64 * 1024
MAX_LIFETIME_SECONDS = 10 * 365 * 24 * 3600

_DIGITS = re.compile(r"[0-9]{1,10}")
_CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client"})
_PASSING_ERRORS = frozenset({"server_error", "temporarily_unavailable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """The tokens of one sign-in, as the provider gave them.

    Attributes:
        access_token: For APIs.
        token_type: Always a bearer type.
        id_token: Says who signed in.
        refresh_token: Gets the next set.
        obtained_at: When the access token was received (aware UTC).
        expires_at: When the access token ends (aware UTC); None when the provider does not say.
        scope: What was granted; None when unknown.
    """

    access_token: Secret
    token_type: str = "Bearer"  # noqa: S105 - a type's name, not a password
    id_token: Secret | None = None
    refresh_token: Secret | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    scope: str | None = None


def build_code_request(request: AuthorizationRequest, code: Secret) -> dict[str, str | Secret]:
    """Return the fields that exchange a code. Source: RFC 6749 section 4.1.3; RFC 7636 section 4.5."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": request.redirect_uri,
        "code_verifier": request.code_verifier,
    }


def build_refresh_request(refresh_token: Secret, *, granted_scope: str | None) -> dict[str, str | Secret]:
    """Return the fields that get the next tokens, never asking for more than was granted.

    The scope is sent when the grant names `openid`; a grant without it comes from providers that list only the
    API's own scopes (Entra ID), and leaving it out means all that was granted. Source: RFC 6749 section 6.
    """
    fields: dict[str, str | Secret] = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    if granted_scope is not None and "openid" in granted_scope.split():
        fields["scope"] = granted_scope
    return fields


def build_client_credentials_request(*, scope: str | None, audience: str | None) -> dict[str, str | Secret]:
    """Return the fields of a service account's request. Source: RFC 6749 section 4.4.2; `audience` as Auth0 has it."""
    fields: dict[str, str | Secret] = {"grant_type": "client_credentials"}
    if scope:
        fields["scope"] = scope
    if audience:
        fields["audience"] = audience
    return fields


def build_revocation_request(token: Secret, *, kind: str) -> dict[str, str | Secret]:
    """Return the fields that revoke a token; `kind` is its type hint. Source: RFC 7009 section 2.1."""
    return {"token": token, "token_type_hint": kind}


def parse_token_answer(body: object, *, now: datetime, asked_scope: str | None) -> TokenSet:
    """Read a successful answer of the token endpoint.

    Args:
        body: The decoded JSON.
        now: When the answer came.
        asked_scope: What the answer means when it names no scope (RFC 6749 section 5.1).

    Raises:
        ProviderMisbehaved: A member is missing or malformed, or the token is not a bearer token.
    """
    if not isinstance(body, dict):
        raise ProviderMisbehaved("The identity provider's token answer is not a JSON object.")
    access_token = _token(body, "access_token")
    if access_token is None:
        raise ProviderMisbehaved("The identity provider's token answer holds no access token.")
    token_type = body.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise ProviderMisbehaved("The identity provider gave a token that is not a bearer token.")
    scope = body.get("scope")
    if scope is not None and not isinstance(scope, str):
        raise ProviderMisbehaved("The identity provider's token answer has a scope that is not text.")
    lifetime = _lifetime(body.get("expires_in"))
    return TokenSet(
        access_token=access_token,
        token_type=token_type,
        id_token=_token(body, "id_token"),
        refresh_token=_token(body, "refresh_token"),
        obtained_at=now,
        expires_at=None if lifetime is None else now + timedelta(seconds=lifetime),
        scope=scope or asked_scope,
    )


def build_token_error(
    body: object, *, is_refresh: bool, secrets: Collection[Secret] = ()
) -> AuthenticationError | ProviderUnavailable:
    """Return the error that a refused token request (4xx) amounts to.

    A refused refresh means that the person has to sign in again, whatever the code, unless the provider says that
    it is only passing. Source: RFC 6749 section 5.2.
    """
    code = body.get("error") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(code, str):
        return ProviderMisbehaved("The identity provider refused a token request without saying why.")
    described = describe_provider_error(code, body.get("error_description"), secrets=secrets)
    if code in _PASSING_ERRORS:
        return ProviderUnavailable(f"The identity provider cannot give tokens now ({described}).")
    remedy = "Check client id and client secret." if code in _CLIENT_ERRORS else None
    if is_refresh:
        return LoginRequired(f"The sign-in has ended ({described}).", remedy=remedy)
    return LoginFailed(f"The identity provider gave no token ({described}).", remedy=remedy)


def merge_refreshed(old: TokenSet, new: TokenSet) -> TokenSet:
    """Return the new set, keeping the old refresh token and ID token where the answer brought none.

    Source: RFC 6749 section 6; OpenID Connect Core 1.0 section 12.2.
    """
    return replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        id_token=new.id_token or old.id_token,
        scope=new.scope or old.scope,
    )


def _token(body: Mapping[str, object], name: str) -> Secret | None:
    text = body.get(name)
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > MAX_TOKEN_CHARACTERS or not text.isascii() or not text.isprintable():
        raise ProviderMisbehaved(f"The identity provider's token answer has a malformed {name}.")
    return Secret(text)


def _lifetime(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)  # some providers write the number as text
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ProviderMisbehaved("The identity provider's token answer has a malformed expires_in.")
    return min(float(value), MAX_LIFETIME_SECONDS)
