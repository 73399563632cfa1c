"""Who is signed in, as far as the tokens say."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from micromegas_jupyter.auth.tokens.manager import Session
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.claims import expiry_of, shown_groups
from micromegas_jupyter.oidc.jws import TokenProblem, parse_token

_MAX_SHOWN_CHARACTERS = 256
_UNKNOWN = "The sign-in does not say who you are: the identity provider gave no ID token."
_UNKNOWN_REMEDY = "Ask the identity provider's administrator to allow the scope openid for this application."


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is signed in, from the claims of the ID token that was verified when it came.

    Attributes:
        subject: The issuer's name for the person; unique together with the issuer.
        name: The person's name, for display.
        email: The person's address, for display.
        issuer: The provider.
        expires_at: When the ID token ends (aware UTC).
        renews: Whether it is renewed without the person.
        groups: The person's groups and roles, as far as the token names them; for display.
    """

    subject: str
    name: str | None
    email: str | None
    issuer: str
    expires_at: datetime
    renews: bool
    groups: tuple[str, ...] = ()


def identity_of_session(session: Session, *, issuer: str, bearer: Bearer) -> Identity:
    """Return who is signed in: by the ID token, or without one by an access token that can be read.

    Args:
        session: The sign-in.
        issuer: The provider.
        bearer: The token whose end counts.
    """
    claims, renews = session.claims, session.tokens.refresh_token is not None
    if claims is not None:
        ends_at = session.tokens.expires_at if bearer is Bearer.ACCESS_TOKEN else None
        return Identity(
            subject=claims.subject,
            name=claims.name,
            email=claims.email,
            issuer=claims.issuer,
            expires_at=ends_at or claims.expires_at,
            renews=renews,
            groups=claims.groups,
        )
    try:
        unverified = parse_token(session.tokens.access_token.reveal()).claims
        ends_at = session.tokens.expires_at or expiry_of(unverified)
    except TokenProblem:
        raise LoginRequired(_UNKNOWN, remedy=_UNKNOWN_REMEDY) from None
    subject = _shown(unverified, "sub")
    if subject is None:
        raise LoginRequired(_UNKNOWN, remedy=_UNKNOWN_REMEDY)
    return _identity_of_claims(unverified, subject=subject, issuer=issuer, expires_at=ends_at, renews=renews)


def identity_of_bearer(bearer: Secret, *, user: str, issuer: str, expires_at: datetime) -> Identity:
    """Return who a token from a trusted service is for; `user` when the token does not say."""
    claims: Mapping[str, object] = {}
    with suppress(TokenProblem):  # the token may be opaque to this program
        claims = parse_token(bearer.reveal()).claims
    user = user[:_MAX_SHOWN_CHARACTERS]
    subject = _shown(claims, "sub") or user
    identity = _identity_of_claims(claims, subject=subject, issuer=issuer, expires_at=expires_at, renews=True)
    return identity if identity.name or identity.email else replace(identity, name=user)


def _identity_of_claims(
    claims: Mapping[str, object], *, subject: str, issuer: str, expires_at: datetime, renews: bool
) -> Identity:
    # For display only, so it need not be verified: it came from the provider itself, and the server will verify it.
    return Identity(
        subject=subject,
        name=_shown(claims, "name") or _shown(claims, "preferred_username"),
        email=_shown(claims, "email"),
        issuer=issuer,
        expires_at=expires_at,
        renews=renews,
        groups=shown_groups(claims),
    )


def _shown(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value[:_MAX_SHOWN_CHARACTERS] if isinstance(value, str) and value and value.isprintable() else None
